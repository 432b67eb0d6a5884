//! Start-up and shutdown, shared by all commands: ports, waiting for servers, signals. Must not contain work of a
//! command.

use std::{
    net::{SocketAddr, TcpListener},
    process,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use backon::{ConstantBuilder, Retryable};
use deadpool_postgres::Pool;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::DatabaseArgs;
use crate::{
    domain::Installation,
    infra::{
        migrate,
        postgres::{self, DatabaseUrl, Unfit},
    },
    queue::Link,
};

/// The pause between two attempts to reach the database at startup.
const STARTUP_PAUSE_MS: u64 = 1_000;

/// Exit status after a second signal: 128 + SIGINT, as shells define it.
const INTERRUPTED: i32 = 130;

/// Binds the port. Roles do this first, because a port that is in use is the most likely mistake.
pub(super) fn listen(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("{flag} {address}"))
}

/// Runs a role until it ends, or until `limit` has passed since `stop` was cancelled.
pub(super) async fn ending_within(
    limit: Duration,
    stop: CancellationToken,
    role: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let late = async {
        stop.cancelled().await;
        sleep(limit).await;
    };
    tokio::select! {
        ended = role => ended?,
        () = late => {
            log::warn!("not done within {} ms (--shutdown-timeout); exiting anyway", limit.as_millis());
        }
    }
    log::info!("stopped");
    Ok(())
}

/// Waits until the database has the current schema and an installation. Returns the installation.
pub(super) async fn installed(
    pool: &Pool,
    database: &DatabaseArgs,
    limit: Duration,
) -> anyhow::Result<Installation> {
    let find = || async {
        has_schema(&database.url, pool).await?;
        let installation = Installation::find(pool).await?;
        installation.context("there is no installation yet: run `point-system migrate`")
    };
    patiently(database, limit, find).await
}

/// Waits until the broker has the queues, until `limit` has passed since `began`.
pub(super) async fn connected(link: &Link, limit: Duration, began: Instant) -> anyhow::Result<()> {
    let left = limit.saturating_sub(began.elapsed());
    link.watch().ready(left).await.map_err(anyhow::Error::msg).with_context(|| gave_up(limit))
}

pub(super) async fn has_schema(url: &DatabaseUrl, pool: &Pool) -> anyhow::Result<()> {
    postgres::check(url).await?;
    let pending = migrate::pending(pool).await?;
    if !pending.is_empty() {
        bail!("migrations are pending ({}): run `point-system migrate`", pending.join(", "));
    }
    Ok(())
}

/// Retries `attempt` until `limit` has passed, and logs each failure. [`Unfit`] fails at once, because waiting does not
/// change it.
pub(super) async fn patiently<T, F: Future<Output = anyhow::Result<T>>>(
    database: &DatabaseArgs,
    limit: Duration,
    attempt: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let pause = Duration::from_millis(STARTUP_PAUSE_MS);
    attempt
        .retry(ConstantBuilder::new().with_delay(pause).without_max_times())
        .sleep(sleep)
        .when(|error| !error.is::<Unfit>() && started.elapsed() + pause < limit)
        .notify(|error, _| log::warn!("PostgreSQL at {}: {error:#}; trying again", database.url))
        .await
        .map_err(|error| if error.is::<Unfit>() { error } else { error.context(gave_up(limit)) })
        .with_context(|| format!("PostgreSQL at {}", database.url))
}

fn gave_up(limit: Duration) -> String {
    format!("gave up after {} s (--startup-timeout)", limit.as_secs())
}

/// The first SIGTERM or Ctrl-C cancels the token; the second ends the process.
pub(super) fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                log::warn!("ended by a second signal");
                process::exit(INTERRUPTED);
            }
            log::info!("stopping");
            stop.cancel();
        }
    })
}
