//! Start-up and shutdown, shared by all commands: ports, waiting for servers, signals. Must not contain work of a
//! command.

use std::{
    net::{SocketAddr, TcpListener},
    process,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use backon::{ConstantBuilder, Retryable};
use tokio::{
    net::TcpSocket,
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::DatabaseArgs;
use crate::{
    domain::Installation,
    infra::{
        migrate,
        postgres::{self, DatabaseUrl, Pool, Unfit},
    },
    queue::Link,
};

/// The pause between two attempts to reach the database at startup.
const STARTUP_PAUSE_MS: u64 = 1_000;

/// The least time to connect to the broker, however late PostgreSQL was ready.
const CONNECT_MIN_S: u64 = 5;

/// The most connections that wait to be accepted, as actix-web has it. Beyond that, clients try again after a second.
const BACKLOG: u32 = 2_048;

/// Exit status after a second signal: 128 + SIGINT, as shells define it.
const INTERRUPTED: i32 = 130;

/// The limit of a whole startup. Each part gets what the parts before it have left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    began: Instant,
    limit: Duration,
}

impl Deadline {
    /// The startup begins now.
    pub(super) fn after(limit: Duration) -> Self {
        Self { began: Instant::now(), limit }
    }

    fn left(self) -> Duration {
        self.limit.saturating_sub(self.began.elapsed())
    }

    /// The time to connect to the broker, which is only tried once PostgreSQL is ready.
    pub(super) fn left_to_connect(self) -> Duration {
        self.left().max(Duration::from_secs(CONNECT_MIN_S).min(self.limit))
    }

    fn gave_up(self) -> String {
        format!("gave up after {} s (--startup-timeout)", self.limit.as_secs())
    }
}

/// Binds the port. Roles do this first, because a port that is in use is the most likely mistake.
pub(super) fn listen(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    bind().with_context(|| format!("{flag} {address}"))
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
    deadline: Deadline,
) -> anyhow::Result<Installation> {
    let find = || async {
        has_schema(&database.url, pool).await?;
        let installation = Installation::find(pool).await?;
        installation.context("there is no installation yet: run `point-system migrate`")
    };
    patiently(database, deadline, find).await
}

/// Waits until the broker has the queues.
pub(super) async fn connected(link: &Link, deadline: Deadline) -> anyhow::Result<()> {
    let ready = link.watch().ready(deadline.left_to_connect()).await;
    ready.map_err(anyhow::Error::msg).with_context(|| deadline.gave_up())
}

pub(super) async fn has_schema(url: &DatabaseUrl, pool: &Pool) -> anyhow::Result<()> {
    postgres::check(url).await?;
    let pending = migrate::pending(pool).await?;
    if !pending.is_empty() {
        bail!("migrations are pending ({}): run `point-system migrate`", pending.join(", "));
    }
    Ok(())
}

/// Tries once, and again until the deadline, and logs each failure. [`Unfit`] fails at once, because waiting does not
/// change it.
pub(super) async fn patiently<T, F: Future<Output = anyhow::Result<T>>>(
    database: &DatabaseArgs,
    deadline: Deadline,
    attempt: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let pause = Duration::from_millis(STARTUP_PAUSE_MS);
    attempt
        .retry(ConstantBuilder::new().with_delay(pause).without_max_times())
        .sleep(sleep)
        .when(|error| !error.is::<Unfit>() && pause < deadline.left())
        .notify(|error, _| log::warn!("PostgreSQL at {}: {error:#}; trying again", database.url))
        .await
        .map_err(|error| if error.is::<Unfit>() { error } else { error.context(deadline.gave_up()) })
        .with_context(|| format!("PostgreSQL at {}", database.url))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_part_of_a_startup_gets_the_rest_of_one_limit() {
        let seconds = Duration::from_secs;
        let begun = |ago: u64, limit: u64| {
            let began = Instant::now().checked_sub(seconds(ago)).expect("a machine that is up");
            Deadline { began, limit: seconds(limit) }
        };
        assert!((seconds(39)..=seconds(40)).contains(&begun(20, 60).left()));
        assert!((seconds(39)..=seconds(40)).contains(&begun(20, 60).left_to_connect()));
        assert_eq!((begun(61, 60).left(), begun(61, 60).left_to_connect()), (Duration::ZERO, seconds(5)));
        assert_eq!(begun(3, 2).left_to_connect(), seconds(2), "it is no more than the limit");
        let database = DatabaseArgs { url: "postgres://app@127.0.0.1:1/points".parse().expect("a URL") };
        let mut attempts = 0;
        let tried = patiently(&database, begun(61, 60), || {
            attempts += 1;
            async { bail!("it is down") }
        });
        let tried: anyhow::Result<()> = tried.await;
        let why = format!("{:#}", tried.expect_err("an error"));
        assert!(why.contains("gave up after 60 s (--startup-timeout): it is down"), "{why}");
        assert_eq!(attempts, 1);
    }
}
