//! The harness: private servers, an installation on them, clients, and faults. Tests and benches share it.

#![allow(unreachable_pub, dead_code, reason = "each binary uses a part of it")]

pub mod servers;
pub mod system;
pub mod client;
pub mod browser;
pub mod queues;
pub mod process;
pub mod plans;
pub mod leaks;
pub mod changes;
pub mod clock;
pub mod load;
pub mod frames;
pub mod proxy;
pub mod chaos;
pub mod cluster;
pub mod tools;
pub mod sizing;
pub mod archive;
pub mod balancer;
pub mod rolling;
