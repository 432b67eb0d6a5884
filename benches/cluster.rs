//! A cluster under load for as long as you like: the test suite kills one node of RabbitMQ and one
//! primary of PostgreSQL.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use point_system::domain::Partitions;

use support::{
    chaos::{Chaos, Verdict},
    cluster::{self, ClusterServers, Fault},
};

#[path = "../tests/support/mod.rs"]
mod support;

/// Kills, stops and cuts off nodes of RabbitMQ and PostgreSQL below a running system, and compares the log with the
/// clients' own record of what they were promised.
#[derive(Parser)]
struct Options {
    /// How long faults strike.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Connections that send at once. A machine that is too busy takes long to start a node again.
    #[arg(long, default_value_t = 4)]
    connections: i64,
    /// Users, each of one connection.
    #[arg(long, default_value_t = 64)]
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
    let Options { seconds, connections, users, partitions, .. } = Options::parse();
    let size = Chaos { time: Duration::from_secs(seconds), seed: 0, connections, users, partitions };
    let mut servers = ClusterServers::start().await;
    let report = cluster::run(&mut servers, size, Fault::by_turns()).await;
    servers.stop().await;
    let has_killed = [Fault::KillNode, Fault::KillPrimary].iter().all(|fault| report.strikes(*fault) > 0);
    if has_killed && report.verdict == Verdict::default() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
