//! The command line: one file per command, with its flags and its run. Must not contain rules of the API or of the
//! ledger.

use anyhow::bail;
use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::infra::{build, logging::LogFormat};

mod args;
mod http;
mod start;
mod telemetry;
mod serve;
mod work;
mod migrate;
mod audit;
mod progress;
mod import;
mod export;
mod keys;
mod dead_letters;
mod topology;
mod dev;
mod health;
mod supervisor;
mod manual;

pub use args::{BrokerArgs, DatabaseArgs, MetricsArgs, NodeArgs, PartitionsArgs, PatienceArgs};
pub use audit::AuditArgs;
pub use dead_letters::DeadLettersRole;
pub use dev::DevArgs;
pub use export::ExportArgs;
pub use health::HealthArgs;
pub use http::{AccessArgs, HttpArgs};
pub use import::ImportArgs;
pub use keys::KeyRole;
pub use manual::{CompletionsArgs, ManArgs};
pub use migrate::MigrateArgs;
pub use serve::{ServeArgs, serve};
pub use topology::TopologyArgs;
pub use work::{MessageArgs, WorkArgs, work};

/// Keeps users' points: changes go through a queue, exactly once and in order; balances are read directly.
///
/// A deployment runs any number of `serve` processes behind a load balancer, any number of `work` processes, one
/// RabbitMQ and one PostgreSQL. It runs `migrate` before each new version. `dev` runs everything on this machine.
///
/// Log lines go to standard error. `RUST_LOG` sets the level (error, warn, info or debug); the default is "info".
#[derive(Debug, Parser)]
#[command(version = build::FULL, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// The role of this process.
    #[command(subcommand)]
    pub role: Role,
    /// Format of log lines: "text" for people, or "json" for one JSON object per line.
    #[arg(
        long,
        global = true,
        env = "POINT_SYSTEM_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// The roles of a process.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Serve the HTTP API and the console: put changes into the queue, and read balances.
    Serve(ServeArgs),
    /// Take changes from the queue and apply them to the database.
    Work(WorkArgs),
    /// Bring the database schema up to this version; the first run also makes the installation. Several processes may
    /// run it at the same time.
    Migrate(MigrateArgs),
    /// Prove that every balance equals its log; safe to run alongside the service and on a replica.
    Audit(AuditArgs),
    /// Add the points of another system from a CSV file, each row once; safe to stop and to run again.
    ///
    /// The whole file is checked first. If anything is wrong, every fault is named by its line, and nothing is written.
    Import(ImportArgs),
    /// Write the balances or the log as CSV, from one snapshot; safe to run alongside the service and on a replica.
    Export(ExportArgs),
    /// List the messages that could not be applied; put them back into the queue, or remove them.
    DeadLetters {
        /// What to do with them.
        #[command(subcommand)]
        role: DeadLettersRole,
    },
    /// Print the policies that the queues need on a RabbitMQ cluster, or check how many members the queues have.
    ///
    /// Neither connects to RabbitMQ, because AMQP does not show the members of a queue. `--check` reads the output of
    /// `rabbitmqctl` or of the management API.
    Topology(TopologyArgs),
    /// Create, rotate, list and revoke API keys.
    Key {
        /// What to do with them.
        #[command(subcommand)]
        role: KeyRole,
    },
    /// Ask the node on this machine whether it is ready, for the probes of containers.
    Health(HealthArgs),
    /// Run everything on this machine, on a private PostgreSQL and RabbitMQ, until Ctrl-C.
    Dev(DevArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page of point-system or of a role: `point-system man serve | man -l -`.
    Man(ManArgs),
}

/// Runs a role until it ends or a signal stops it.
///
/// # Errors
/// The role could not start, or it failed.
pub async fn run(role: Role) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    tokio::spawn(start::stop_on_signal(stop.clone())?);
    match role {
        Role::Serve(args) => {
            let drained = (args.http, args.drain_delay);
            serve(start::listen("--listen", args.listen)?, &args.node, drained, stop).await
        }
        Role::Work(args) => work(&args.node, args.messages, stop).await,
        Role::Migrate(args) => migrate::run(&args, stop).await,
        Role::Audit(args) => {
            stop.run_until_cancelled(audit::run(&args)).await.unwrap_or_else(|| bail!("interrupted"))
        }
        Role::Import(args) => import::run(&args, stop).await,
        Role::Export(args) => {
            stop.run_until_cancelled(export::run(&args)).await.unwrap_or_else(|| bail!("interrupted"))
        }
        Role::DeadLetters { role } => dead_letters::run(role, stop).await,
        Role::Topology(args) => {
            stop.run_until_cancelled(topology::run(&args)).await.unwrap_or_else(|| bail!("interrupted"))
        }
        Role::Key { role } => {
            stop.run_until_cancelled(keys::run(role)).await.unwrap_or_else(|| bail!("interrupted"))
        }
        Role::Health(args) => {
            stop.run_until_cancelled(health::run(&args)).await.unwrap_or_else(|| bail!("interrupted"))
        }
        Role::Dev(args) => Box::pin(dev::run(args, stop)).await,
        Role::Completions(args) => manual::completions(&args),
        Role::Man(args) => manual::man(&args),
    }
}
