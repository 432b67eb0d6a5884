//! The database's schema: refinery's embedded migrations, one process at a time. No statement on our tables
//! may enter.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use deadpool_postgres::Pool;
use refinery::{Migration, Runner};
use tokio_postgres::Client;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The advisory lock that a migrating process holds: any number that no other application on this database
/// uses; this is "point" in ASCII.
const LOCK_KEY: i64 = 0x70_6f69_6e74;

/// The pause between tries for the lock. It is polled: a session that waits inside `pg_advisory_lock` holds
/// a snapshot, and with `create index concurrently` both would wait for ever.
const LOCK_POLL_MS: u64 = 100;

/// The migrations that this executable has and the database has not, as `V1__name`, oldest first.
///
/// # Errors
/// Where the database can't be reached or read.
pub async fn pending(pool: &Pool) -> anyhow::Result<Vec<String>> {
    let mut client = pool.get().await?;
    let table = "select 1 from pg_catalog.pg_tables \
         where schemaname = current_schema() and tablename = 'refinery_schema_history'";
    let runner = runner();
    // Where nothing was ever applied, asking refinery would create its table.
    let applied = if client.query_opt(table, &[]).await?.is_some() {
        runner.get_applied_migrations_async(&mut **client).await?
    } else {
        Vec::new()
    };
    let is_pending =
        |migration: &&Migration| !applied.iter().any(|done| done.version() == migration.version());
    Ok(runner.get_migrations().iter().filter(is_pending).map(Migration::to_string).collect())
}

/// Applies what is pending and returns its names. Safe when several run at once: each waits for its turn, at
/// most `patience`.
///
/// # Errors
/// Where the database can't be reached, the lock does not come free, or a migration fails. A failed
/// migration changes nothing.
pub async fn run(pool: &Pool, patience: Duration) -> anyhow::Result<Vec<String>> {
    let mut client = pool.get().await?;
    // A migration may take longer than the sessions of the service are allowed to.
    client.batch_execute("reset all").await?;
    lock(&client, patience).await?;
    let report = runner().run_async(&mut **client).await;
    client.execute("select pg_advisory_unlock($1)", &[&LOCK_KEY]).await?;
    Ok(report.context("migrating")?.applied_migrations().iter().map(Migration::to_string).collect())
}

fn runner() -> Runner {
    embedded::migrations::runner().set_abort_divergent(true).set_abort_missing(true)
}

async fn lock(client: &Client, patience: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let row = client.query_one("select pg_try_advisory_lock($1)", &[&LOCK_KEY]).await?;
        if row.try_get(0)? {
            return Ok(());
        }
        if started.elapsed() > patience {
            bail!("another process has been migrating for {} s", patience.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(LOCK_POLL_MS)).await;
    }
}
