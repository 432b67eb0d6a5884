//! Rolls from any earlier version to this one and back, under load: the test suite does it with this version alone.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

use support::rolling::{Rolling, run};

#[path = "../tests/support/mod.rs"]
mod support;

/// Replaces two `serve` and two `work` of an old version by this one and back, under load. Fails if a request fails, if
/// anything is lost, doubled or out of order, or if a partition is without an applied change for 30 s.
#[derive(Parser)]
struct Options {
    /// The executable of the old version.
    #[arg(long)]
    old: PathBuf,
    /// How long all nodes are of one version, before, between and after the two deploys.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Clients that queue changes, and as many that wait for their outcomes.
    #[arg(long, default_value_t = 8)]
    clients: i64,
    /// How long a `serve` keeps serving when it is told to stop. With "0s", requests fail.
    #[arg(long, default_value = "1s")]
    drain_delay: String,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let Options { old, seconds, clients, drain_delay, .. } = Options::parse();
    let pause = Duration::from_secs(seconds);
    let report = run(Rolling { old, pause, clients, drain_delay }).await;
    println!("{report}");
    report.assert_unnoticed();
}
