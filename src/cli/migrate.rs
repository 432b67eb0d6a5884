//! The command `migrate`: brings the schema up to date and makes the installation, or lists what is pending. Must not
//! contain SQL.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{
    DatabaseArgs, PartitionsArgs,
    args::parse_time,
    start::{Deadline, patiently},
};
use crate::{
    domain::{Installation, Partitions},
    infra::{
        migrate,
        postgres::{self, Pool},
    },
};

/// Flags of `migrate`.
#[derive(Args, Debug)]
pub struct MigrateArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The number of partitions of a new installation.
    #[command(flatten)]
    pub partitions: PartitionsArgs,
    /// Change nothing; list the pending steps, and exit with 1 if there are any.
    #[arg(long)]
    pub check: bool,
    /// How long to wait for PostgreSQL, for another process that is migrating, and for locked tables.
    #[arg(long, env = "POINT_SYSTEM_STARTUP_TIMEOUT", default_value = "60s", value_name = "TIME",
          value_parser = parse_time)]
    pub startup_timeout: Duration,
}

/// Brings the schema up to date and makes the installation, or lists what is pending.
pub(super) async fn run(args: &MigrateArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let url = &args.database.url;
    let pool = if args.check { postgres::reading_pool(url, 1)? } else { postgres::pool(url, 1)? };
    let migrating = async {
        let reach = || async {
            postgres::check(url).await?;
            Ok(pool.get().await.map(drop)?)
        };
        patiently(&args.database, Deadline::after(args.startup_timeout), reach).await?;
        if args.check {
            return check(&pool, args.partitions.count).await;
        }
        let done = migrated(&pool, args.partitions.count, args.startup_timeout).await?;
        for line in &done {
            println!("{line}");
        }
        if done.is_empty() {
            println!("nothing to apply");
        }
        Ok(())
    };
    stop.run_until_cancelled(migrating).await.unwrap_or_else(|| bail!("interrupted"))
}

async fn check(pool: &Pool, partitions: Option<Partitions>) -> anyhow::Result<()> {
    let mut pending = migrate::pending(pool).await?;
    if !Installation::exists(pool, partitions).await? {
        pending.push("the installation".to_owned());
    }
    if !pending.is_empty() {
        bail!("pending: {}", pending.join(", "));
    }
    println!("nothing is pending");
    Ok(())
}

/// Brings the schema up to date, and makes the installation unless there is one. Several processes may run this at
/// once. Returns what it did, in lines for people.
///
/// # Errors
/// A migration failed; or the installation has another number of partitions, in which case nothing is changed.
pub(super) async fn migrated(
    pool: &Pool,
    partitions: Option<Partitions>,
    patience: Duration,
) -> anyhow::Result<Vec<String>> {
    Installation::exists(pool, partitions).await.context("nothing was changed")?;
    let applied = migrate::run(pool, patience).await?;
    let mut done: Vec<String> = applied.iter().map(|name| format!("applied {name}")).collect();
    let (installation, is_new) = Installation::make(pool, partitions.unwrap_or(Partitions::DEFAULT)).await?;
    // Another process may have made it a moment ago.
    installation.agrees(partitions)?;
    if is_new {
        let Installation { id, partitions, .. } = installation;
        done.push(format!("made installation {id}; its number of partitions is {partitions}, for good"));
    }
    Ok(done)
}
