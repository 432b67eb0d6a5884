//! Brings the database schema up to date with refinery's embedded migrations, one process at a time. Must not contain
//! statements on our tables.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::bail;
use refinery::{Migration, Report, Runner, error::Kind};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_postgres::error::SqlState;

use super::postgres::{Client, Pool, Session};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The key of the advisory lock that a migrating process holds: "point" in ASCII. No other application on this database
/// may use it.
const LOCK_KEY: i64 = 0x70_6f69_6e74;

/// The pause between two attempts to take the lock. We poll, because a session that waits inside `pg_advisory_lock`
/// holds a snapshot: it and a `create index concurrently` would wait for each other for ever.
const LOCK_POLL_MS: u64 = 100;

/// The pause after a table was locked. Statements that waited behind ours can finish in it.
const TABLE_PAUSE_MS: u64 = 2_000;

/// The pause between two checks of what locks a table. It is shorter than the `lock_timeout`.
const BLOCKERS_PAUSE_MS: u64 = 100;

/// The settings of a migrating session. A migration may run longer than the statements of the service, with the
/// planner's defaults. It never waits long for a table, because every later statement on that table waits behind it.
const SESSION: &str = "set statement_timeout = 0; set lock_timeout = '500ms'; reset plan_cache_mode; \
     reset enable_seqscan; reset enable_bitmapscan; reset enable_hashjoin; reset enable_mergejoin; reset jit";

/// Returns the migrations that the database lacks, as `V1__name`, oldest first. Only reads, so it works on a replica.
///
/// # Errors
/// The database can't be reached or read.
pub async fn pending(pool: &Pool) -> anyhow::Result<Vec<String>> {
    let mut client = pool.get().await?;
    let table = "select 1 from pg_catalog.pg_tables \
         where schemaname = current_schema() and tablename = 'refinery_schema_history'";
    let runner = runner(&migrations());
    // Before the first migration, refinery has no table.
    let applied = if client.query_opt(table, &[]).await?.is_some() {
        runner.get_applied_migrations_async(&mut ***client).await?
    } else {
        Vec::new()
    };
    let is_pending =
        |migration: &&Migration| !applied.iter().any(|done| done.version() == migration.version());
    Ok(runner.get_migrations().iter().filter(is_pending).map(Migration::to_string).collect())
}

/// The migrations of this executable.
#[must_use]
pub fn migrations() -> Vec<Migration> {
    embedded::migrations::runner().get_migrations().clone()
}

/// Applies the pending migrations and returns their names. Several processes may run this at once: each waits for its
/// turn, for at most `patience`.
///
/// # Errors
/// As [`apply`].
pub async fn run(pool: &Pool, patience: Duration) -> anyhow::Result<Vec<String>> {
    apply(pool, &migrations(), patience).await
}

/// Applies any migrations; `migrations` must begin with those that were applied before. If a table is locked, the
/// migration is rolled back after half a second and retried, for at most `patience`.
///
/// # Errors
/// The database can't be reached, the lock or a table stays locked, or a migration fails. A failed migration changes
/// nothing.
pub async fn apply(pool: &Pool, migrations: &[Migration], patience: Duration) -> anyhow::Result<Vec<String>> {
    // The connection never returns to the pool. The lock ends with the connection in every case.
    let mut client = Client::take(pool.get().await?);
    client.batch_execute(SESSION).await?;
    let started = Instant::now();
    lock(&client, patience).await?;
    let applied = applied_patiently(pool, &mut client, &runner(migrations), (started, patience)).await;
    // Unlock at once, so that the next process does not wait until the server notices the closed connection.
    let unlocked = client.execute("select pg_advisory_unlock($1)", &[&LOCK_KEY]).await;
    if let Err(error) = unlocked {
        log::warn!("the lock could not be released; it ends with its connection: {error}");
    }
    applied
}

/// Returns whether migrating failed because the database has a migration that this executable lacks or has otherwise.
#[must_use]
pub fn is_of_another_version(error: &anyhow::Error) -> bool {
    let refusal = error.chain().find_map(|cause| cause.downcast_ref::<refinery::Error>());
    let kind = refusal.map(refinery::Error::kind);
    matches!(kind, Some(Kind::DivergentVersion(..) | Kind::MissingVersion(_)))
}

fn runner(migrations: &[Migration]) -> Runner {
    Runner::new(migrations).set_abort_divergent(true).set_abort_missing(true)
}

async fn lock(client: &Session, patience: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let row = client.query_one("select pg_try_advisory_lock($1) as is_ours", &[&LOCK_KEY]).await?;
        if row.try_get("is_ours")? {
            return Ok(());
        }
        if started.elapsed() > patience {
            bail!("another process has been migrating for {} s", patience.as_secs());
        }
        sleep(Duration::from_millis(LOCK_POLL_MS)).await;
    }
}

/// Retries while a table is locked. Each migration is a transaction, so one that waited too long has changed nothing.
async fn applied_patiently(
    pool: &Pool,
    client: &mut Session,
    runner: &Runner,
    (started, patience): (Instant, Duration),
) -> anyhow::Result<Vec<String>> {
    let session: i32 = client.query_one("select pg_backend_pid() as pid", &[]).await?.try_get("pid")?;
    let pause = Duration::from_millis(TABLE_PAUSE_MS);
    let mut names = Vec::new();
    let mut note =
        |report: &Report| names.extend(report.applied_migrations().iter().map(Migration::to_string));
    loop {
        let blockers = Mutex::default();
        let attempt = tokio::select! {
            attempt = runner.run_async(&mut ***client) => attempt,
            never = watch_blockers(pool, session, &blockers) => match never {},
        };
        let error = match attempt {
            Ok(report) => {
                note(&report);
                return Ok(names);
            }
            Err(error) => error,
        };
        error.report().into_iter().for_each(&mut note);
        let error = anyhow::Error::from(error);
        if !waited_for_a_lock(&error) {
            return Err(error.context("migrating"));
        }
        let locked = locked_by(&blockers.into_inner().unwrap_or_else(PoisonError::into_inner));
        if started.elapsed() + pause > patience {
            let waited = format!("gave up after {} s (--startup-timeout): {locked}", patience.as_secs());
            return Err(error.context(waited));
        }
        log::warn!("{locked}; trying again in {} s", pause.as_secs());
        sleep(pause).await;
    }
}

fn waited_for_a_lock(error: &anyhow::Error) -> bool {
    let refusal = error.chain().find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>());
    refusal.and_then(tokio_postgres::Error::code) == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

fn locked_by(blockers: &[String]) -> String {
    if blockers.is_empty() {
        return "a table is locked by another session".to_owned();
    }
    format!("a table is locked by {}", blockers.join(", "))
}

/// A prepared transaction has no session, so its `pid` is 0.
const BLOCKERS: &str = "select distinct pid, coalesce(application_name, '') as application, \
         coalesce(extract(epoch from clock_timestamp() - xact_start)::bigint, 0) as seconds \
     from unnest(pg_blocking_pids($1)) as blocker (pid) left join pg_stat_activity using (pid) order by pid";

/// Keeps in `blockers` the sessions that were last seen to block `session`. If it can't read them, `blockers` stays as
/// it is. Never ends.
async fn watch_blockers(pool: &Pool, session: i32, blockers: &Mutex<Vec<String>>) -> Infallible {
    let mut looks = interval(Duration::from_millis(BLOCKERS_PAUSE_MS));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match look_for_blockers(pool, session).await {
            Ok(found) if !found.is_empty() => {
                *blockers.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
            Ok(_) => {}
            Err(error) => log::debug!("the sessions that lock a table can't be read: {error:#}"),
        }
    }
}

async fn look_for_blockers(pool: &Pool, session: i32) -> anyhow::Result<Vec<String>> {
    let rows = pool.get().await?.query(BLOCKERS, &[&session]).await?;
    let named = rows.iter().map(|row| {
        let (pid, application, seconds): (i32, &str, i64) =
            (row.try_get("pid")?, row.try_get("application")?, row.try_get("seconds")?);
        let application = application.escape_debug();
        Ok(format!("session {pid} ({application}, in its transaction for {seconds} s)"))
    });
    named.collect()
}
