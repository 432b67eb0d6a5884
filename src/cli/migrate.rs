//! The command `migrate`: brings the schema up to date, or lists the pending migrations. Must not contain SQL.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{DatabaseArgs, args::parse_time, start::patiently};
use crate::infra::{migrate, postgres};

/// Flags of `migrate`.
#[derive(Args, Debug)]
pub struct MigrateArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Change nothing; list the pending migrations, and exit with 1 if there are any.
    #[arg(long)]
    pub check: bool,
    /// How long to wait for PostgreSQL, for another process that is migrating, and for locked tables.
    #[arg(long, env = "POINT_SYSTEM_STARTUP_TIMEOUT", default_value = "60s", value_name = "TIME",
          value_parser = parse_time)]
    pub startup_timeout: Duration,
}

/// Brings the schema up to date, or lists the pending migrations.
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
