//! The command `migrate`: the schema brought up to this version, or what is pending. Must not contain SQL.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{DatabaseArgs, args::parse_time, start::patiently};
use crate::infra::{migrate, postgres};

/// Flags of `migrate`.
#[derive(Args, Debug)]
pub struct MigrateArgs {
    /// Where the database is.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Change nothing: name what is pending, and exit with 1 where something is.
    #[arg(long)]
    pub check: bool,
    /// How long to wait for the database, for another process that is migrating, and for tables that are locked.
    #[arg(long, env = "POINT_SYSTEM_STARTUP_TIMEOUT", default_value = "60s", value_name = "TIME",
          value_parser = parse_time)]
    pub startup_timeout: Duration,
}

/// Brings the schema up to date, or tells what is pending.
pub(super) async fn run(args: &MigrateArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let url = &args.database.url;
    let pool = if args.check { postgres::reading_pool(url, 1)? } else { postgres::pool(url, 1)? };
    let migrating = async {
        let reach = || async {
            postgres::check(url).await?;
            Ok(pool.get().await.map(drop)?)
        };
        patiently(&args.database, args.startup_timeout, reach).await?;
        if args.check {
            let pending = migrate::pending(&pool).await?;
            if !pending.is_empty() {
                bail!("pending: {}", pending.join(", "));
            }
            println!("nothing is pending");
            return Ok(());
        }
        let applied = migrate::run(&pool, args.startup_timeout).await?;
        for name in &applied {
            println!("applied {name}");
        }
        if applied.is_empty() {
            println!("nothing to apply");
        }
        Ok(())
    };
    stop.run_until_cancelled(migrating).await.unwrap_or_else(|| bail!("interrupted"))
}
