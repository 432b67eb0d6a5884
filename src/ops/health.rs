//! Whether a node can do its work: what is up, what is down, since when. How that is told may not enter.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use deadpool_postgres::Pool;
use jiff::{Timestamp, Unit};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    infra::{
        metrics::NodeMetrics,
        postgres::{self, Answer},
    },
    queue::LinkWatch,
};

/// The pause between two looks at PostgreSQL, however often somebody asks.
const LOOK_PAUSE_MS: u64 = 1_000;

/// What a node is for, which decides what it can't do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Takes changes for the queue, and reads.
    Serve,
    /// Takes changes from the queue to the database.
    Work,
}

impl Duty {
    /// The name of its role.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Work => "work",
        }
    }
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It waits for what it needs.
    Starting,
    /// It does all of its work.
    Ready,
    /// It does a part of its work: PostgreSQL is down, or partitions are silent.
    Degraded,
    /// It can't do its work: what it can't do without is down.
    Unable,
    /// It finishes what is in hand, and takes no more.
    Stopping,
}

impl Condition {
    /// Whether a load balancer should send requests, and an orchestrator go on.
    #[must_use]
    pub fn is_ready(self) -> bool {
        match self {
            Self::Ready | Self::Degraded => true,
            Self::Starting | Self::Unable | Self::Stopping => false,
        }
    }
}

/// Whether something that a node needs can be used, and since when it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it can be used.
    pub up: bool,
    /// Whether it can be reached but not written to, as a standby.
    pub read_only: bool,
    /// When it was first seen so, to the second.
    pub since: Timestamp,
}

impl Seen {
    fn now(up: bool, read_only: bool) -> Self {
        Self { up, read_only, since: Timestamp::now().round(Unit::Second).unwrap_or_default() }
    }

    fn see(&mut self, up: bool, read_only: bool) {
        if (self.up, self.read_only) != (up, read_only) {
            *self = Self::now(up, read_only);
        }
    }
}

/// What a node says when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose it is.
    pub duty: Duty,
    /// The sum.
    pub condition: Condition,
    /// The broker.
    pub rabbitmq: Seen,
    /// The database.
    pub postgresql: Seen,
    /// The partitions where changes were accepted and none is taken, though nothing that is known keeps them.
    pub silent: Vec<u16>,
}

/// A node's view of what it needs. To ask it costs nothing.
pub struct Health {
    duty: Duty,
    link: LinkWatch,
    started: CancellationToken,
    stop: CancellationToken,
    seen: Mutex<(Seen, Seen)>,
    silent: Mutex<Vec<u16>>,
}

impl Health {
    /// The view of a node that nobody has looked at yet. `stop` says that it is to end.
    #[must_use]
    pub fn new(duty: Duty, link: LinkWatch, stop: CancellationToken) -> Self {
        let seen = Mutex::new((Seen::now(false, false), Seen::now(false, false)));
        Self { duty, link, started: CancellationToken::new(), stop, seen, silent: Mutex::default() }
    }

    /// Looks once a second, at PostgreSQL through `probe`, and at `pool`, which is what the node's work has. It
    /// never ends.
    pub async fn watch(&self, probe: Pool, pool: Pool) {
        let metrics = NodeMetrics::new(self.duty.as_str());
        let mut looks = interval(Duration::from_millis(LOOK_PAUSE_MS));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let answer = postgres::ask(&probe).await;
            let (up, read_only) = (answer == Answer::Writable, answer == Answer::ReadOnly);
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).1.see(up, read_only);
            if read_only {
                // A session that only reads would never notice.
                pool.retain(|_, _| false);
            }
            let report = self.report();
            metrics.rabbitmq.set(report.rabbitmq.up.into());
            metrics.postgresql.set(report.postgresql.up.into());
            metrics.ready.set(report.condition.is_ready().into());
            let status = pool.status();
            let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
            metrics.pool_idle.set(count(status.available));
            metrics.pool_in_use.set(count(status.size.saturating_sub(status.available)));
            metrics.pool_max.set(count(status.max_size));
            metrics.pool_waiting.set(count(status.waiting));
        }
    }

    /// Notes which partitions have fallen silent.
    pub fn set_silent(&self, partitions: Vec<u16>) {
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = partitions;
    }

    /// Notes that the node has all that it needed to begin.
    pub fn started(&self) {
        self.started.cancel();
    }

    /// How the node is now; PostgreSQL as it was a second ago.
    #[must_use]
    pub fn report(&self) -> Report {
        let (rabbitmq, postgresql) = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0.see(self.link.is_up(), false);
            *seen
        };
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let condition = match (self.stop.is_cancelled(), self.started.is_cancelled(), self.duty) {
            (true, _, _) => Condition::Stopping,
            (false, false, _) => Condition::Starting,
            (false, true, _) if rabbitmq.up && postgresql.up && silent.is_empty() => Condition::Ready,
            (false, true, _) if rabbitmq.up && postgresql.up => Condition::Degraded,
            (false, true, Duty::Serve) if rabbitmq.up => Condition::Degraded,
            (false, true, _) => Condition::Unable,
        };
        Report { duty: self.duty, condition, rabbitmq, postgresql, silent }
    }
}
