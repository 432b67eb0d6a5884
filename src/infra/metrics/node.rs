//! The metrics of a node: its dependencies, its connections, the queues, its build. Must not contain the probes that
//! set them.

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
    gauges("point_system_build_info", "Always 1; the labels name the build", &["version", "commit"])
});

static STARTED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "When this process started, in seconds since 1970";
    gauges("point_system_start_time_seconds", help, &[])
});

static DEPENDENCY_UP: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Whether the node can use this dependency: 1 or 0";
    gauges("point_system_dependency_up", help, &["role", "dependency"])
});

static READY: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauges("point_system_ready", "Whether /readyz answers 200: 1 or 0", &["role"]));

static UNUSABLE_QUEUES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Queues that the node can't use, as one that is declared with other arguments";
    gauges("point_system_unusable_queues", help, &["role"])
});

static POOL: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "PostgreSQL connections in the pool, in use or idle";
    gauges("point_system_pool_connections", help, &["role", "state"])
});

static POOL_MAX: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Maximum number of PostgreSQL connections in the pool";
    gauges("point_system_pool_connections_max", help, &["role"])
});

static POOL_WAITING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Batches that wait for a PostgreSQL connection";
    gauges("point_system_pool_waiting", help, &["role"])
});

static CONNECTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Connections to RabbitMQ opened: the first one, and one per reconnect";
    counters("point_system_rabbitmq_connections_total", help, &["role"])
});

static CONNECTION_FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Failed attempts to connect to RabbitMQ";
    counters("point_system_rabbitmq_connection_failures_total", help, &["role"])
});

static QUEUE_MESSAGES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Messages in a partition's queue, not counting those that a worker holds";
    gauges("point_system_queue_messages", help, &["partition"])
});

static QUEUE_CONSUMERS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Workers subscribed to a partition's queue; one of them is active";
    gauges("point_system_queue_consumers", help, &["partition"])
});

static SILENCE: LazyLock<GaugeVec> = LazyLock::new(|| {
    let name = "point_system_partition_silence_seconds";
    let help = "Time since a worker last took a change from a partition where accepted changes wait, as reported \
                by all nodes; 0 if none wait";
    registered(GaugeVec::new(Opts::new(name, help), &["partition"]))
});

static KEPT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Whether the next message of a partition waits for a newer worker, because this one does not understand \
                it: 1 or 0";
    gauges("point_system_kept_partitions", help, &["partition"])
});

static WENT_BACK: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Whether PostgreSQL has lost committed changes while this process ran, as after a restore to an earlier \
                time: 1 or 0";
    gauges("point_system_database_went_back", help, &[])
});

static DEAD_LETTERS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauges("point_system_dead_letter_messages", "Messages in the dead letters", &[]));

static OLDEST_AGE: LazyLock<GaugeVec> = LazyLock::new(|| {
    let name = "point_system_oldest_delta_age_seconds";
    let help = "Age of the oldest change that this worker holds, which is the oldest of its partition; 0 if it holds \
                none";
    registered(GaugeVec::new(Opts::new(name, help), &["partition"]))
});

/// When the oldest delta in hand was accepted, per partition that a worker of this process subscribes to.
static OLDEST: Mutex<BTreeMap<u16, Option<Timestamp>>> = Mutex::new(BTreeMap::new());

static WAITING_USER_AGE: LazyLock<GaugeVec> = LazyLock::new(|| {
    let name = "point_system_waiting_user_seconds";
    let help =
        "How long a user's changes have waited in a worker, and why; the ten longest waits of a partition";
    registered(GaugeVec::new(Opts::new(name, help), &["partition", "user_id", "obstacle"]))
});

type WaitingUser = (Instant, String, &'static str);

/// The users who have waited longest, per partition that a worker of this process subscribes to.
static WAITING: Mutex<BTreeMap<u16, Vec<WaitingUser>>> = Mutex::new(BTreeMap::new());

pub(super) fn users_wait(partition: u16, longest: Vec<WaitingUser>) {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, longest);
}

pub(super) fn taken(partition: u16, oldest: Option<Timestamp>) {
    OLDEST.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, oldest);
}

/// Updates the ages, which change with time alone.
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

/// The metrics of a node's connection to RabbitMQ.
pub struct LinkMetrics {
    /// Connections opened.
    pub connections: IntCounter,
    /// Failed attempts to connect.
    pub failures: IntCounter,
}

impl LinkMetrics {
    /// Returns the handles of a role.
    #[must_use]
    pub fn new(role: &str) -> Self {
        let connections = CONNECTIONS.with_label_values(&[role]);
        Self { connections, failures: CONNECTION_FAILURES.with_label_values(&[role]) }
    }
}

/// The metrics of a node's health.
pub struct NodeMetrics {
    /// Whether RabbitMQ can be used.
    pub rabbitmq: IntGauge,
    /// Whether PostgreSQL can be used.
    pub postgresql: IntGauge,
    /// Whether the node is ready.
    pub ready: IntGauge,
    /// Queues that it can't use.
    pub unusable_queues: IntGauge,
    /// Connections in the pool, in use.
    pub pool_in_use: IntGauge,
    /// Connections in the pool, idle.
    pub pool_idle: IntGauge,
    /// Maximum number of connections in the pool.
    pub pool_max: IntGauge,
    /// Callers that wait for a connection.
    pub pool_waiting: IntGauge,
}

impl NodeMetrics {
    /// Returns the handles of a role.
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
            unusable_queues: UNUSABLE_QUEUES.with_label_values(&[role]),
            pool_in_use: POOL.with_label_values(&[role, "in_use"]),
            pool_idle: POOL.with_label_values(&[role, "idle"]),
            pool_max: POOL_MAX.with_label_values(&[role]),
            pool_waiting: POOL_WAITING.with_label_values(&[role]),
        }
    }
}

/// Sets the number of messages and consumers of a partition's queue. If the broker did not answer, removes both
/// numbers: no number is better than an old one.
pub fn queue_has(partition: u16, depth: Option<(u32, u32)>) {
    let label = [partition.to_string()];
    if let Some((messages, consumers)) = depth {
        QUEUE_MESSAGES.with_label_values(&label).set(messages.into());
        QUEUE_CONSUMERS.with_label_values(&label).set(consumers.into());
    } else {
        // Fails if the number was never set.
        QUEUE_MESSAGES.remove_label_values(&label).ok();
        QUEUE_CONSUMERS.remove_label_values(&label).ok();
    }
}

/// Sets for how many seconds no worker has taken a change from a partition where changes wait.
pub fn partition_is_silent(partition: u16, seconds: f64) {
    SILENCE.with_label_values(&[partition.to_string()]).set(seconds);
}

/// Removes the silence of all partitions: no number is better than an old one.
pub fn silence_is_unknown() {
    SILENCE.reset();
}

/// Sets whether this worker keeps a partition for a newer one.
pub fn partition_is_kept(partition: u16, is_kept: bool) {
    KEPT.with_label_values(&[partition.to_string()]).set(is_kept.into());
}

/// Sets whether the database has gone back to an earlier state.
pub fn database_went_back(it_has: bool) {
    let gauge = WENT_BACK.with_label_values(NO_LABELS);
    // The roles of one process share it, and the second one to start must not reset it.
    gauge.set(gauge.get().max(it_has.into()));
}

/// Sets the number of dead letters, or removes it if the broker did not answer.
pub fn dead_letters_have(messages: Option<u32>) {
    match messages {
        Some(messages) => DEAD_LETTERS.with_label_values(NO_LABELS).set(messages.into()),
        None => DEAD_LETTERS.reset(),
    }
}
