//! The command line: every command, its flags and its run. Must not contain a rule of what is served or applied.

use anyhow::bail;
use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::infra::{build, logging::LogFormat};

mod args;
mod http;
mod start;
mod operations;
mod serve;
mod work;
mod migrate;
mod audit;
mod keys;
mod dead_letters;
mod dev;
mod manual;

pub use args::{BrokerArgs, DatabaseArgs, MetricsArgs, NodeArgs, PatienceArgs};
pub use audit::AuditArgs;
pub use dead_letters::DeadLettersRole;
pub use dev::DevArgs;
pub use http::{AccessArgs, HttpArgs};
pub use keys::KeyRole;
pub use manual::{CompletionsArgs, ManArgs};
pub use migrate::MigrateArgs;
pub use serve::{ServeArgs, serve};
pub use work::{WorkArgs, work};

/// Users' points: add and subtract through a queue, exactly once and in order; read at once.
///
/// A deployment has one or more `serve` behind a load balancer, one or more `work`, a RabbitMQ and a
/// PostgreSQL, and runs `migrate` before each new version. `dev` runs it all on this machine.
///
/// Log lines go to standard error; `RUST_LOG` sets their level (error, warn, info, debug), "info" by default.
#[derive(Debug, Parser)]
#[command(version = build::FULL, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What this process is.
    #[command(subcommand)]
    pub role: Role,
    /// What a line of the log looks like.
    #[arg(
        long,
        global = true,
        env = "POINT_SYSTEM_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// What a process is.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Serve the HTTP API: queue changes, read balances.
    Serve(ServeArgs),
    /// Take changes from the queue and apply them to the database.
    Work(WorkArgs),
    /// Bring the database's schema up to this version; safe when several run at once.
    Migrate(MigrateArgs),
    /// Prove that every balance is what its log comes to; safe beside the running service and on a replica.
    Audit(AuditArgs),
    /// Look at what could not be applied, and put it back into the queue or remove it.
    DeadLetters {
        /// What to do.
        #[command(subcommand)]
        role: DeadLettersRole,
    },
    /// Create, list and revoke the keys of the API.
    Key {
        /// What to do.
        #[command(subcommand)]
        role: KeyRole,
    },
    /// Run everything on this machine, on a private PostgreSQL and RabbitMQ, until Ctrl-C.
    Dev(DevArgs),
    /// Print a script that completes our roles and flags in a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, of the whole or of a role: `point-system man serve | man -l -`.
    Man(ManArgs),
}

/// Runs a role until it ends or a signal stops it.
///
/// # Errors
/// What kept it from starting, or from going on.
pub async fn run(role: Role) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    tokio::spawn(start::stop_on_signal(stop.clone())?);
    match role {
        Role::Serve(args) => {
            serve(start::listen("--listen", args.listen)?, &args.node, args.http, stop).await
        }
        Role::Work(args) => work(&args.node, stop).await,
        Role::Migrate(args) => migrate::run(&args, stop).await,
        Role::Audit(args) => {
            stop.run_until_cancelled(audit::run(&args)).await.unwrap_or_else(|| bail!("interrupted"))
        }
        Role::DeadLetters { role } => dead_letters::run(role, stop).await,
        Role::Key { role } => {
            stop.run_until_cancelled(keys::run(role)).await.unwrap_or_else(|| bail!("interrupted"))
        }
        Role::Dev(args) => Box::pin(dev::run(args, stop)).await,
        Role::Completions(args) => manual::completions(&args),
        Role::Man(args) => manual::man(&args),
    }
}
