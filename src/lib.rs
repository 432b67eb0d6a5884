//! Keeps users' points: changes go through a queue, exactly once and in order; balances are read directly.
//!
//! ```text
//! client ── POST /v1/point/{action} ──────► serve ── validate ── publish, await the confirm ──► 202
//!                                                      │
//!                                    RabbitMQ: N partition queues (quorum, single active consumer)
//!                                                      │
//!                                              work ── apply_delta ── one transaction ──► PostgreSQL
//!                                                      │                                  user_point + log
//!                                                  ack after commit
//! client ── GET /v1/point?id=1 ──────────► serve ── read ───────────────────────────────► PostgreSQL
//! ```
//!
//! The rooms, in the order of the flow:
//!
//! - [`cli`] parses a command and runs its role;
//! - [`http`] validates a request, publishes or reads, and answers;
//! - [`queue`] carries messages through RabbitMQ;
//! - [`worker`] takes messages from the queue, applies their changes, and acks them;
//! - [`jobs`] has what the clock starts: points expire;
//! - [`domain`] has the rules of points, and applies and reads changes in PostgreSQL;
//! - [`access`] knows who may call, and how often;
//! - [`ops`] knows whether a node can do its work, and whether every partition moves;
//! - [`infra`] has what the other rooms build on: lanes, PostgreSQL connections, migrations, metrics, logging;
//! - [`local`] starts a private PostgreSQL and a private RabbitMQ.
//!
//! Imports go one way: `cli` → `http`, `worker`, `jobs` → `queue`, `domain`, `access` → `infra`. `http` and `worker` never
//! import each other. `queue` and `access` know only the types of the domain. SQL on the ledger stays in the private
//! store of `domain`, and SQL on the API keys in the private store of `access`.

pub mod cli;
pub mod http;
pub mod queue;
pub mod worker;
pub mod jobs;
pub mod domain;
pub mod access;
pub mod ops;
pub mod infra;
pub mod local;
