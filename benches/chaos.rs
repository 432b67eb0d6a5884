//! Chaos for as long as you like: the test suite runs half a minute of it.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use point_system::domain::Partitions;

use support::chaos::{self, Chaos, Verdict};

#[path = "../tests/support/mod.rs"]
mod support;

/// Lets faults of every kind strike a running system, and compares the log with the clients' own record of
/// what they were promised.
#[derive(Parser)]
struct Options {
    /// How long faults strike.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The same seed gives the same faults in the same order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections that send at once.
    #[arg(long, default_value_t = 128)]
    connections: i64,
    /// Users, each of one connection.
    #[arg(long, default_value_t = 1_600)]
    users: i64,
    /// The number of partitions.
    #[arg(long, default_value_t = Partitions::DEFAULT)]
    partitions: Partitions,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { seconds, seed, connections, users, partitions, .. } = Options::parse();
    let time = Duration::from_secs(seconds);
    let report = chaos::run(Chaos { time, seed, connections, users, partitions }).await;
    println!("{report}");
    if report.verdict == Verdict::default() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
