//! Users' points, added and subtracted through a queue.
//!
//! ```text
//! client ── POST /v1/point/add|subtract ──► serve ── validate ── publish, await the confirm ──► 202
//!                                                      │
//!                                    RabbitMQ: 4 partition queues (quorum, single active consumer)
//!                                                      │
//!                                              work ── apply_delta ── one transaction ──► PostgreSQL
//!                                                      │                                  user_point + log
//!                                                  ack after commit
//! client ── GET /v1/point?id=1 ──────────► serve ── read ───────────────────────────────► PostgreSQL
//! ```
//!
//! The modules follow the flow. Imports go one way: [`http`] and [`worker`] use [`queue`] and [`domain`],
//! never each other; [`queue`] knows the domain's types only; SQL stays in the domain's private store, and that
//! on the keys of the API in the one of [`access`].

pub mod cli;
pub mod http;
pub mod worker;
pub mod queue;
pub mod domain;
pub mod access;
pub mod ops;
pub mod infra;
pub mod local;
