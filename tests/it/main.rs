//! Everything that needs real servers, in one test binary, so that they are started once.

#![expect(unreachable_pub, reason = "the harness's `pub` says what the tests may use")]

mod servers;
mod system;
mod client;
mod queues;
mod process;
mod leaks;
mod load;
mod frames;
mod proxy;

mod http;
mod input;
mod numbers;
mod connections;
mod loopback;
mod keys;
mod access;
mod rate_limit;
mod history;
mod requests;
mod batches;
mod apply;
mod worker;
mod dead_letters;
mod redrive;
mod processes;
mod outages;
mod backpressure;
mod faults;
mod stalls;
mod chaos;
mod migrate;
mod sessions;
mod pgbouncer;
mod audit;
mod local;
mod tls;
mod ops;
mod logs;
mod manual;
mod postman;
mod openapi;
mod endpoints;
mod tidy;
