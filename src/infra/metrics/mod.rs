//! Every metric, named once as Prometheus recommends. Must not contain the parts that count, or their reasons.
//!
//! Each part of a process resolves its handles when it starts, so counting is one atomic addition. A process does not
//! export what it never counts.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    TextEncoder, core::Collector, default_registry,
};

mod connections;
mod node;
mod store;

pub use connections::ConnectionMetrics;
pub use node::{
    LinkMetrics, NodeMetrics, database_went_back, dead_letters_have, partition_is_kept, partition_is_silent,
    queue_has, silence_is_unknown,
};
pub use store::{StoreMetrics, expired_lots_are_overdue};

/// The media type of [`render`] (Prometheus, Exposition Formats).
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Upper bounds of waits, in seconds.
const WAITS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the time from a `202` to the commit of its change, in seconds. An outage may last.
const LAGS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3_600.0];

/// Upper bounds of the sizes of batches.
const SIZES: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];

static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "HTTP requests answered, by route pattern; requests to no route are \"unmatched\"";
    counters("point_system_http_requests_total", help, &["route", "status"])
});

static REQUEST_DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Time from the head of a request until its response is ready";
    histograms("point_system_http_request_duration_seconds", help, &["route"], &WAITS)
});

static BATCH_SIZE: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Items in a batch: changes in a message (publish) or a transaction (apply), lookups in a query \
                (read lanes)";
    histograms("point_system_batch_size", help, &["lane"], &SIZES)
});

static BATCH_DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Time that a batch takes, retries included: until the broker's confirm (publish), the commit (apply) or \
                the result (read lanes)";
    histograms("point_system_batch_duration_seconds", help, &["lane"], &WAITS)
});

static LANE_REFUSALS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Calls rejected because the lane was full";
    counters("point_system_lane_refusals_total", help, &["lane"])
});

static PUBLISHED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Changes published to RabbitMQ: confirmed, refused because the queue is full, or unconfirmed, which may \
                be queued";
    counters("point_system_published_deltas_total", help, &["result"])
});

static DEAD_LETTERED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Messages moved to the dead letters: malformed, or refused by the database";
    counters("point_system_dead_lettered_messages_total", help, &["reason"])
});

static HELD: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Messages returned to the queue, which delivers them again";
    counters("point_system_held_messages_total", help, &[])
});

static WAITING_USERS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Users whose changes have waited in a worker for a second or longer because the user's row is locked or \
                unreadable, or PostgreSQL fails to write it, or the change is slow; other users do not wait for them";
    gauges("point_system_waiting_users", help, &["partition"])
});

static LAG: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Time from accepting a queued change to its commit, measured by the clocks of two nodes";
    histograms("point_system_apply_lag_seconds", help, &[], &LAGS)
});

/// Returns all metrics in the text format of Prometheus.
///
/// # Errors
/// The text can't be encoded; the metrics stay as they are.
pub fn render() -> Result<String, String> {
    node::refresh();
    store::refresh();
    TextEncoder::new().encode_to_string(&default_registry().gather()).map_err(|error| error.to_string())
}

/// The metrics of one route.
pub struct RouteMetrics {
    route: String,
    duration: Histogram,
    /// The few statuses that this route has answered with.
    statuses: Vec<(u16, IntCounter)>,
}

impl RouteMetrics {
    /// Returns the handles of a route. `route` is a pattern: clients could create any number of paths.
    #[must_use]
    pub fn new(route: &str) -> Self {
        let duration = REQUEST_DURATION.with_label_values(&[route]);
        Self { route: route.to_owned(), duration, statuses: Vec::new() }
    }

    /// The pattern.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.route
    }

    /// Counts a response.
    pub fn answered(&mut self, status: u16, after: Duration) {
        self.duration.observe(after.as_secs_f64());
        let known = self.statuses.iter().position(|(known, _)| *known == status);
        let place = known.unwrap_or_else(|| {
            let counter = REQUESTS.with_label_values(&[self.route.as_str(), &status.to_string()]);
            self.statuses.push((status, counter));
            self.statuses.len() - 1
        });
        self.statuses[place].1.inc();
    }
}

/// The metrics of the lanes that have one name.
#[derive(Clone)]
pub struct LaneMetrics {
    size: Histogram,
    duration: Histogram,
    /// Calls rejected because the lane was full.
    pub refusals: IntCounter,
}

impl LaneMetrics {
    /// Returns the handles of the lanes that are named `lane`.
    #[must_use]
    pub fn new(lane: &'static str) -> Self {
        Self {
            size: BATCH_SIZE.with_label_values(&[lane]),
            duration: BATCH_DURATION.with_label_values(&[lane]),
            refusals: LANE_REFUSALS.with_label_values(&[lane]),
        }
    }

    /// Counts a trip.
    pub fn carried(&self, size: usize, took: Duration) {
        self.size.observe(f64::from(u32::try_from(size).unwrap_or(u32::MAX)));
        self.duration.observe(took.as_secs_f64());
    }
}

/// A counter of the process that also knows the share of one role: `dev` runs two in one process.
#[derive(Clone)]
pub struct SharedCounter {
    all: IntCounter,
    own: Arc<AtomicU64>,
}

impl SharedCounter {
    fn new(all: IntCounter) -> Self {
        Self { all, own: Arc::default() }
    }

    /// Adds `count`.
    pub fn inc_by(&self, count: u64) {
        self.all.inc_by(count);
        self.own.fetch_add(count, Ordering::Relaxed);
    }

    /// The count of this handle and its clones.
    #[must_use]
    pub fn own(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }
}

/// The metrics of a publisher, in deltas.
#[derive(Clone)]
pub struct PublisherMetrics {
    /// Deltas that the broker has confirmed.
    pub confirmed: SharedCounter,
    /// Deltas that the broker refused because the queue is full.
    pub refused: IntCounter,
    /// Deltas whose confirm did not arrive.
    pub unconfirmed: IntCounter,
}

impl Default for PublisherMetrics {
    fn default() -> Self {
        let [confirmed, refused, unconfirmed] =
            ["confirmed", "refused", "unconfirmed"].map(|result| PUBLISHED.with_label_values(&[result]));
        Self { confirmed: SharedCounter::new(confirmed), refused, unconfirmed }
    }
}

/// The metrics of a worker, in messages.
#[derive(Clone)]
pub struct WorkerMetrics {
    /// Messages that can't be read.
    pub malformed: IntCounter,
    /// Messages with a delta that the database refuses.
    pub refused: IntCounter,
    /// Messages that were returned to the queue.
    pub held: IntCounter,
    /// The time from accepting each delta to its commit.
    lag: Histogram,
    waiting_users: IntGauge,
    partition: u16,
}

impl WorkerMetrics {
    /// Returns the handles of one partition.
    #[must_use]
    pub fn new(partition: u16) -> Self {
        let [malformed, refused] =
            ["malformed", "refused"].map(|reason| DEAD_LETTERED.with_label_values(&[reason]));
        let (held, lag) = (HELD.with_label_values(NO_LABELS), LAG.with_label_values(NO_LABELS));
        node::taken(partition, None);
        let waiting_users = WAITING_USERS.with_label_values(&[partition.to_string()]);
        Self { malformed, refused, held, lag, waiting_users, partition }
    }

    /// Sets when the oldest delta in hand was accepted, or that no delta is in hand.
    pub fn taken(&self, oldest: Option<Timestamp>) {
        node::taken(self.partition, oldest);
    }

    /// Sets the number of users who have an obstacle, and the ids and obstacles of those who have waited longest.
    pub fn users_wait(&self, count: usize, longest: Vec<(Instant, String, &'static str)>) {
        self.waiting_users.set(i64::try_from(count).unwrap_or(i64::MAX));
        node::users_wait(self.partition, longest);
    }

    /// Measures the lag of deltas that were accepted at these times and are settled now.
    pub fn settled(&self, accepted: impl Iterator<Item = Timestamp>) {
        let now = Timestamp::now();
        let lag = self.lag.local();
        for accepted in accepted {
            lag.observe(now.duration_since(accepted).as_secs_f64().max(0.0));
        }
        lag.flush();
    }
}

const NO_LABELS: &[&str] = &[];

fn registered<C: Collector + Clone + 'static>(made: prometheus::Result<C>) -> C {
    let metric = made.expect("the name is valid");
    default_registry().register(Box::new(metric.clone())).expect("each name is registered once");
    metric
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(IntGaugeVec::new(Opts::new(name, help), labels))
}

fn histograms(name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
    registered(HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels))
}
