//! Runs the chaos of `tests/it/chaos` for a chosen time. The test suite runs it for half a minute.

#![expect(unreachable_pub, dead_code, reason = "the harness has more than this needs")]

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use chaos::{Chaos, Verdict};

#[path = "../tests/it/chaos/mod.rs"]
mod chaos;
#[path = "../tests/it/client.rs"]
mod client;
#[path = "../tests/it/frames.rs"]
mod frames;
#[path = "../tests/it/leaks.rs"]
mod leaks;
#[path = "../tests/it/process.rs"]
mod process;
#[path = "../tests/it/proxy.rs"]
mod proxy;
#[path = "../tests/it/queues.rs"]
mod queues;
#[path = "../tests/it/servers.rs"]
mod servers;
#[path = "../tests/it/system.rs"]
mod system;

/// Injects faults of every kind into a running system, and compares the log with the clients' own record of the answers
/// that they got.
#[derive(Parser)]
struct Options {
    /// How long faults are injected, in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The seed of the faults. The same seed gives the same faults in the same order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of connections that send at once.
    #[arg(long, default_value_t = 128)]
    connections: i64,
    /// The number of users. Each user belongs to one connection.
    #[arg(long, default_value_t = 1_600)]
    users: i64,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { seconds, seed, connections, users, .. } = Options::parse();
    let report = chaos::run(Chaos { time: Duration::from_secs(seconds), seed, connections, users }).await;
    println!("{report}");
    if report.verdict == Verdict::default() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
