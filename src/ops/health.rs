//! Whether a node can do its work: what is up, what is down, and since when. Must not contain how operators are told.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use jiff::{Timestamp, Unit};
use strum::{EnumIter, IntoStaticStr};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    infra::{
        metrics::NodeMetrics,
        postgres::{self, Answer, Pool},
    },
    queue::{Depths, LinkWatch},
};

/// The pause between two checks of PostgreSQL. Probes of the node do not add checks.
const LOOK_PAUSE_MS: u64 = 1_000;

/// The role of a node, which decides what the node can't do without.
#[derive(Clone, Copy, Debug, EnumIter, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "kebab-case")]
pub enum Duty {
    /// Puts changes into the queue, and reads.
    Serve,
    /// Applies changes from the queue.
    Work,
}

impl Duty {
    /// The name of the role.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Whether a node can do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The node waits for what it needs.
    Starting,
    /// The node can do all of its work.
    Ready,
    /// The node can do part of its work: PostgreSQL is down, or partitions are silent or kept, or queues can't be used.
    Degraded,
    /// The node can't do its work: a server that it can't do without is down.
    Unable,
    /// The node has been told to stop. `serve` still answers for a while; `work` only finishes its work in hand.
    Stopping,
}

impl Condition {
    /// Whether a load balancer should send requests, and a deployment may go on.
    #[must_use]
    pub fn is_ready(self) -> bool {
        match self {
            Self::Ready | Self::Degraded => true,
            Self::Starting | Self::Unable | Self::Stopping => false,
        }
    }

    /// Whether the node works, as far as its servers allow.
    #[must_use]
    pub fn has_started(self) -> bool {
        match self {
            Self::Ready | Self::Degraded | Self::Unable => true,
            Self::Starting | Self::Stopping => false,
        }
    }
}

/// What a node can do with a server that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The node can use it.
    Up,
    /// It does not answer.
    Down,
    /// It accepts only reads, as a standby does.
    ReadOnly,
    /// It accepts writes, but no synchronous standby confirms their commits.
    CommitsWait,
}

impl State {
    /// `Up` or `Down`.
    #[must_use]
    pub fn of(up: bool) -> Self {
        if up { Self::Up } else { Self::Down }
    }
}

impl From<Answer> for State {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Writable => Self::Up,
            Answer::ReadOnly => Self::ReadOnly,
            Answer::CommitsWait => Self::CommitsWait,
            Answer::Nothing => Self::Down,
        }
    }
}

/// The state of a server that a node needs, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its state.
    pub state: State,
    /// When it was first seen in this state, to the second.
    pub since: Timestamp,
}

impl Seen {
    fn now(state: State) -> Self {
        Self { state, since: Timestamp::now().round(Unit::Second).unwrap_or_default() }
    }

    fn see(&mut self, state: State) {
        if self.state != state {
            *self = Self::now(state);
        }
    }

    /// Whether the node can use it.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }
}

/// The health of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The role of the node.
    pub duty: Duty,
    /// Whether the node can do its work.
    pub condition: Condition,
    /// The broker.
    pub rabbitmq: Seen,
    /// The database.
    pub postgresql: Seen,
    /// The partitions where changes wait and no worker takes them, for no known reason.
    pub silent: Vec<u16>,
    /// The partitions whose next message this node does not understand, and no other node has taken.
    pub kept: Vec<u16>,
    /// The names of the queues that the node can't use.
    pub unusable: Vec<String>,
    /// The depths of the queues, up to some seconds old.
    pub depths: Depths,
}

/// Watches what a node needs. A report is read from memory.
pub struct Health {
    duty: Duty,
    /// Empty until the node knows its installation.
    link: OnceLock<LinkWatch>,
    started: CancellationToken,
    stop: CancellationToken,
    seen: Mutex<(Seen, Seen)>,
    silent: Mutex<Vec<u16>>,
    kept: Mutex<Vec<u16>>,
    depths: Mutex<Depths>,
}

impl Health {
    /// Makes the health of a node that has not been checked yet. `stop` is cancelled when the node stops.
    #[must_use]
    pub fn new(duty: Duty, stop: CancellationToken) -> Self {
        let seen = Mutex::new((Seen::now(State::Down), Seen::now(State::Down)));
        let (link, started) = (OnceLock::new(), CancellationToken::new());
        let (silent, kept, depths) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { duty, link, started, stop, seen, silent, kept, depths }
    }

    /// Sets the connection to the broker that the node uses from now on.
    pub fn uses(&self, link: LinkWatch) {
        self.set_depths(Depths::unknown(&link));
        self.link.get_or_init(|| link);
    }

    /// Once a second, checks PostgreSQL through `probe`, and measures `pool`, which the work of the node uses. Never
    /// ends.
    pub async fn watch(&self, probe: Pool, pool: Pool) {
        let metrics = NodeMetrics::new(self.duty.as_str());
        let mut looks = interval(Duration::from_millis(LOOK_PAUSE_MS));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let state = State::from(postgres::ask(&probe).await);
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).1.see(state);
            if state == State::ReadOnly {
                // Close the idle sessions: a session that only reads does not notice that its server is a standby.
                pool.retain(|_, _| false);
            }
            let report = self.report();
            metrics.rabbitmq.set(report.rabbitmq.is_up().into());
            metrics.postgresql.set(report.postgresql.is_up().into());
            metrics.ready.set(report.condition.is_ready().into());
            metrics.unusable_queues.set(i64::try_from(report.unusable.len()).unwrap_or(i64::MAX));
            let status = pool.status();
            let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
            metrics.pool_idle.set(count(status.available));
            metrics.pool_in_use.set(count(status.size.saturating_sub(status.available)));
            metrics.pool_max.set(count(status.max_size));
            metrics.pool_waiting.set(count(status.waiting));
        }
    }

    /// Sets which partitions are silent.
    pub fn set_silent(&self, partitions: Vec<u16>) {
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = partitions;
    }

    /// Sets which partitions are kept.
    pub fn set_kept(&self, partitions: Vec<u16>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = partitions;
    }

    /// Sets the depths of the queues.
    pub fn set_depths(&self, depths: Depths) {
        *self.depths.lock().unwrap_or_else(PoisonError::into_inner) = depths;
    }

    /// Marks the node as started: it begins its work.
    pub fn started(&self) {
        self.started.cancel();
    }

    /// Returns the health of the node. The state of PostgreSQL is up to a second old.
    #[must_use]
    pub fn report(&self) -> Report {
        let (rabbitmq, postgresql) = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0.see(State::of(self.link.get().is_some_and(LinkWatch::is_up)));
            *seen
        };
        let [silent, kept] = [&self.silent, &self.kept]
            .map(|partitions| partitions.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let depths = self.depths.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unusable = self.link.get().map(LinkWatch::unusable).unwrap_or_default();
        let moves = silent.is_empty() && kept.is_empty() && unusable.is_empty();
        let is_whole = rabbitmq.is_up() && postgresql.is_up() && moves;
        let condition = match (self.stop.is_cancelled(), self.started.is_cancelled(), self.duty) {
            (true, _, _) => Condition::Stopping,
            (false, false, _) => Condition::Starting,
            (false, true, _) if is_whole => Condition::Ready,
            (false, true, _) if rabbitmq.is_up() && postgresql.is_up() => Condition::Degraded,
            (false, true, Duty::Serve) if rabbitmq.is_up() => Condition::Degraded,
            (false, true, _) => Condition::Unable,
        };
        Report { duty: self.duty, condition, rabbitmq, postgresql, silent, kept, unusable, depths }
    }
}
