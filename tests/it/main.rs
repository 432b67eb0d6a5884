//! All tests that need real servers, in one binary, so that the servers start once.

#![expect(unreachable_pub, reason = "a test's `pub` says what other tests may use")]

#[path = "../support/mod.rs"]
mod support;

mod http;
mod input;
mod numbers;
mod connections;
mod loopback;
mod keys;
mod access;
mod roles;
mod rate_limit;
mod balances;
mod history;
mod holds;
mod requests;
mod idempotency;
mod transfer;
mod user_ids;
mod batches;
mod partial;
mod reverse;
mod expiry;
mod import;
mod apply;
mod worker;
mod dead_letters;
mod redrive;
mod newer;
mod set_aside;
mod installation;
mod processes;
mod drain;
mod health;
mod rolling;
mod restore;
mod outages;
mod backpressure;
mod faults;
mod stalls;
mod chaos;
mod cluster;
mod migrate;
mod sessions;
mod hosts;
mod pgbouncer;
mod audit;
mod local;
mod tls;
mod ops;
mod dashboard;
mod logs;
mod manual;
mod deploy;
mod docs;
mod postman;
mod openapi;
mod console;
mod endpoints;
mod tidy;
