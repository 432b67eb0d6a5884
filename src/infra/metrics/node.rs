//! What a node has and sees: its dependencies, its connections, the queues, its build. Who looks may not enter.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::{NO_LABELS, counters, gauges, registered};
use crate::infra::build;

static BUILD_INFO: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauges("point_system_build_info", "Always 1: which build this is", &["version", "commit"])
});

static STARTED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "When this process began to measure, in seconds since 1970";
    gauges("point_system_start_time_seconds", help, &[])
});

static DEPENDENCY_UP: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Whether a node can use what it needs: 1 or 0";
    gauges("point_system_dependency_up", help, &["role", "dependency"])
});

static READY: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauges("point_system_ready", "Whether /readyz says yes: 1 or 0", &["role"]));

static POOL: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "PostgreSQL connections of the pool, in use or idle";
    gauges("point_system_pool_connections", help, &["role", "state"])
});

static POOL_MAX: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "The most PostgreSQL connections that the pool opens";
    gauges("point_system_pool_connections_max", help, &["role"])
});

static POOL_WAITING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Batches that wait for a PostgreSQL connection";
    gauges("point_system_pool_waiting", help, &["role"])
});

static CONNECTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Connections to RabbitMQ that were opened: the first, and one for each reconnect";
    counters("point_system_rabbitmq_connections_total", help, &["role"])
});

static CONNECTION_FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Tries to connect to RabbitMQ that failed";
    counters("point_system_rabbitmq_connection_failures_total", help, &["role"])
});

static QUEUE_MESSAGES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Messages that wait in a partition's queue, without those in a worker's hands";
    gauges("point_system_queue_messages", help, &["partition"])
});

static QUEUE_CONSUMERS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Workers that subscribe to a partition's queue, one of which is active";
    gauges("point_system_queue_consumers", help, &["partition"])
});

static SILENCE: LazyLock<GaugeVec> = LazyLock::new(|| {
    let name = "point_system_partition_silence_seconds";
    let help = "For how long nothing was taken from a partition where changes wait, by what all nodes tell PostgreSQL; \
                0 where none waits";
    registered(GaugeVec::new(Opts::new(name, help), &["partition"]))
});

static DEAD_LETTERS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauges("point_system_dead_letter_messages", "Messages that wait in the dead letters", &[])
});

static OLDEST_AGE: LazyLock<GaugeVec> = LazyLock::new(|| {
    let name = "point_system_oldest_delta_age_seconds";
    let help =
        "Age of the oldest delta in this worker's hands, which is its partition's oldest; 0 without one";
    registered(GaugeVec::new(Opts::new(name, help), &["partition"]))
});

/// When the oldest delta in hand was accepted, for each partition that a worker of this process subscribes to.
static OLDEST: Mutex<BTreeMap<u16, Option<Timestamp>>> = Mutex::new(BTreeMap::new());

static WAITING_USER_AGE: LazyLock<GaugeVec> = LazyLock::new(|| {
    let name = "point_system_waiting_user_seconds";
    let help = "For how long a user's changes have been waiting in a worker, and why; the ten longest of a partition";
    registered(GaugeVec::new(Opts::new(name, help), &["partition", "user_id", "obstacle"]))
});

type WaitingUser = (Instant, String, &'static str);

/// The users who have waited for the longest, for each partition that a worker of this process subscribes to.
static WAITING: Mutex<BTreeMap<u16, Vec<WaitingUser>>> = Mutex::new(BTreeMap::new());

pub(super) fn users_wait(partition: u16, longest: Vec<WaitingUser>) {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, longest);
}

pub(super) fn taken(partition: u16, oldest: Option<Timestamp>) {
    OLDEST.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, oldest);
}

/// Brings up to date what is a matter of the moment.
pub(super) fn refresh() {
    let now = Timestamp::now();
    WAITING_USER_AGE.reset();
    for (partition, users) in &*WAITING.lock().unwrap_or_else(PoisonError::into_inner) {
        let partition = partition.to_string();
        for (since, user, obstacle) in users {
            let labels = [partition.as_str(), user.as_str(), *obstacle];
            WAITING_USER_AGE.with_label_values(&labels).set(since.elapsed().as_secs_f64());
        }
    }
    for (partition, oldest) in &*OLDEST.lock().unwrap_or_else(PoisonError::into_inner) {
        let age = oldest.map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64().max(0.0));
        OLDEST_AGE.with_label_values(&[partition.to_string()]).set(age);
    }
}

/// A node's connection to RabbitMQ.
pub struct LinkMetrics {
    /// Connections that were opened.
    pub connections: IntCounter,
    /// Tries that failed.
    pub failures: IntCounter,
}

impl LinkMetrics {
    /// The handles of a role.
    #[must_use]
    pub fn new(role: &str) -> Self {
        let connections = CONNECTIONS.with_label_values(&[role]);
        Self { connections, failures: CONNECTION_FAILURES.with_label_values(&[role]) }
    }
}

/// How a node is.
pub struct NodeMetrics {
    /// Whether RabbitMQ can be used.
    pub rabbitmq: IntGauge,
    /// Whether PostgreSQL can be used.
    pub postgresql: IntGauge,
    /// Whether the node is ready.
    pub ready: IntGauge,
    /// Connections of the pool that are in use.
    pub pool_in_use: IntGauge,
    /// Connections of the pool that are open and free.
    pub pool_idle: IntGauge,
    /// The most connections of the pool.
    pub pool_max: IntGauge,
    /// Who waits for a connection.
    pub pool_waiting: IntGauge,
}

impl NodeMetrics {
    /// The handles of a role.
    #[must_use]
    pub fn new(role: &str) -> Self {
        BUILD_INFO.with_label_values(&[build::VERSION, build::COMMIT.unwrap_or_default()]).set(1);
        let started = STARTED.with_label_values(NO_LABELS);
        if started.get() == 0 {
            started.set(Timestamp::now().as_second());
        }
        Self {
            rabbitmq: DEPENDENCY_UP.with_label_values(&[role, "rabbitmq"]),
            postgresql: DEPENDENCY_UP.with_label_values(&[role, "postgresql"]),
            ready: READY.with_label_values(&[role]),
            pool_in_use: POOL.with_label_values(&[role, "in_use"]),
            pool_idle: POOL.with_label_values(&[role, "idle"]),
            pool_max: POOL_MAX.with_label_values(&[role]),
            pool_waiting: POOL_WAITING.with_label_values(&[role]),
        }
    }
}

/// Notes what a partition's queue has, messages and consumers, as the broker counts; where it does not say, no number
/// is better than an old one.
pub fn queue_has(partition: u16, depth: Option<(u32, u32)>) {
    let label = [partition.to_string()];
    if let Some((messages, consumers)) = depth {
        QUEUE_MESSAGES.with_label_values(&label).set(messages.into());
        QUEUE_CONSUMERS.with_label_values(&label).set(consumers.into());
    } else {
        // Where it was never there, there is nothing to remove.
        QUEUE_MESSAGES.remove_label_values(&label).ok();
        QUEUE_CONSUMERS.remove_label_values(&label).ok();
    }
}

/// Notes for how many seconds nothing was taken from a partition where changes wait.
pub fn partition_is_silent(partition: u16, seconds: f64) {
    SILENCE.with_label_values(&[partition.to_string()]).set(seconds);
}

/// Forgets all silence: no number is better than an old one.
pub fn silence_is_unknown() {
    SILENCE.reset();
}

/// Notes what the queue of the dead letters has.
pub fn dead_letters_have(messages: Option<u32>) {
    match messages {
        Some(messages) => DEAD_LETTERS.with_label_values(NO_LABELS).set(messages.into()),
        None => DEAD_LETTERS.reset(),
    }
}
