//! What is counted and measured: every metric is named here, once, in Prometheus' naming. Who counts, and what
//! for, may not enter.
//!
//! Each part of a process has its handles, resolved when it starts: to count is an atomic addition, and what a
//! process never does, it does not export.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    TextEncoder, core::Collector, default_registry,
};

mod connections;
mod node;

pub use connections::ConnectionMetrics;
pub use node::{
    LinkMetrics, NodeMetrics, dead_letters_have, partition_is_silent, queue_has, silence_is_unknown,
};

/// The media type of [`render`] (Prometheus, Exposition Formats).
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Upper bounds of times that somebody waits for, in seconds.
const WAITS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the time from a 202 to its change, in seconds: an outage may last.
const LAGS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3_600.0];

/// Upper bounds of the sizes of batches.
const SIZES: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];

static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help =
        "HTTP requests that were answered, by the route's pattern; those to no route are \"unmatched\"";
    counters("point_system_http_requests_total", help, &["route", "status"])
});

static REQUEST_DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "From the head of a request until its answer is ready";
    histograms("point_system_http_request_duration_seconds", help, &["route"], &WAITS)
});

static BATCH_SIZE: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help =
        "What travelled together: deltas in a message (publish) or a transaction (apply), ids in a query";
    histograms("point_system_batch_size", help, &["lane"], &SIZES)
});

static BATCH_DURATION: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "A batch on its way: until the broker's confirm, the commit or the answer, with every new try";
    histograms("point_system_batch_duration_seconds", help, &["lane"], &WAITS)
});

static LANE_REFUSALS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Calls rejected because the lane was full";
    counters("point_system_lane_refusals_total", help, &["lane"])
});

static PUBLISHED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Deltas that were published: confirmed by the broker, refused by it, or of an unknown fate";
    counters("point_system_published_deltas_total", help, &["result"])
});

static SETTLED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Deltas that were decided: applied, rejected for the balance, duplicates of the log's, or in conflict \
                with it: the request id is there for another change, and this one is not applied";
    counters("point_system_settled_deltas_total", help, &["outcome"])
});

static RETRIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Transactions and reads that were tried again: PostgreSQL was unavailable, too slow for all of it at \
                once, or two were in conflict";
    counters("point_system_database_retries_total", help, &["reason"])
});

static DEAD_LETTERED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Messages that went to the dead letters: malformed, or refused by the database";
    counters("point_system_dead_lettered_messages_total", help, &["reason"])
});

static HELD: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Messages that were given back to the queue, and come again";
    counters("point_system_held_messages_total", help, &[])
});

static WAITING_USERS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help =
        "Users whose changes wait in a worker, and only theirs: their row is locked, unreadable or slow";
    gauges("point_system_waiting_users", help, &["partition"])
});

static LAG: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "From a delta's acceptance until it is settled and committed, by the clocks of the two nodes";
    histograms("point_system_apply_lag_seconds", help, &[], &LAGS)
});

/// Everything there is, as Prometheus reads it.
///
/// # Errors
/// Where it can't be written; the metrics go on.
pub fn render() -> Result<String, String> {
    node::refresh();
    TextEncoder::new().encode_to_string(&default_registry().gather()).map_err(|error| error.to_string())
}

/// One route of the API.
pub struct RouteMetrics {
    route: String,
    duration: Histogram,
    /// A handful: each status that this route has answered with.
    statuses: Vec<(u16, IntCounter)>,
}

impl RouteMetrics {
    /// `route` is a pattern: one that has a client's words in it would never end.
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

    /// Counts an answer.
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

/// The lanes of one slow resource.
#[derive(Clone)]
pub struct LaneMetrics {
    size: Histogram,
    duration: Histogram,
    /// Calls that found their lane full.
    pub refusals: IntCounter,
}

impl LaneMetrics {
    /// `lane` says what they carry.
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

/// What became of deltas on their way to the broker.
#[derive(Clone)]
pub struct PublisherMetrics {
    /// Those that the broker has on disk.
    pub confirmed: IntCounter,
    /// Those that the broker takes no more of.
    pub refused: IntCounter,
    /// Those whose confirm did not come.
    pub unconfirmed: IntCounter,
}

impl Default for PublisherMetrics {
    fn default() -> Self {
        let [confirmed, refused, unconfirmed] =
            ["confirmed", "refused", "unconfirmed"].map(|result| PUBLISHED.with_label_values(&[result]));
        Self { confirmed, refused, unconfirmed }
    }
}

/// What became of deltas in the database.
#[derive(Clone)]
pub struct StoreMetrics {
    /// Those that changed a balance.
    pub applied: IntCounter,
    /// Those that were refused for the balance.
    pub rejected: IntCounter,
    /// Those that were in the log already.
    pub duplicate: IntCounter,
    /// Those whose request id is in the log for another change.
    pub conflict: IntCounter,
    /// Transactions that took too long, and were tried again in parts.
    pub retries_slow: IntCounter,
    /// New tries since the database could not be used.
    pub retries_unavailable: IntCounter,
    /// New tries since two transactions met.
    pub retries_conflict: IntCounter,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        let [applied, rejected, duplicate, conflict] = ["applied", "rejected", "duplicate", "conflict"]
            .map(|outcome| SETTLED.with_label_values(&[outcome]));
        let [retries_slow, retries_unavailable, retries_conflict] =
            ["slow", "unavailable", "conflict"].map(|reason| RETRIES.with_label_values(&[reason]));
        Self { applied, rejected, duplicate, conflict, retries_slow, retries_unavailable, retries_conflict }
    }
}

/// What a worker does with messages.
#[derive(Clone)]
pub struct WorkerMetrics {
    /// Those that can't be read.
    pub malformed: IntCounter,
    /// Those with a delta that the database refuses.
    pub refused: IntCounter,
    /// Those that were given back.
    pub held: IntCounter,
    /// The way of each delta.
    lag: Histogram,
    waiting_users: IntGauge,
    partition: u16,
}

impl WorkerMetrics {
    /// The handles for one partition.
    #[must_use]
    pub fn new(partition: u16) -> Self {
        let [malformed, refused] =
            ["malformed", "refused"].map(|reason| DEAD_LETTERED.with_label_values(&[reason]));
        let (held, lag) = (HELD.with_label_values(NO_LABELS), LAG.with_label_values(NO_LABELS));
        node::taken(partition, None);
        let waiting_users = WAITING_USERS.with_label_values(&[partition.to_string()]);
        Self { malformed, refused, held, lag, waiting_users, partition }
    }

    /// Notes when the oldest of the deltas in hand was accepted, or that there are none.
    pub fn taken(&self, oldest: Option<Timestamp>) {
        node::taken(self.partition, oldest);
    }

    /// Notes the users who have an obstacle: those who have waited for the longest by their ids, with their obstacles.
    pub fn users_wait(&self, count: usize, longest: Vec<(Instant, String, &'static str)>) {
        self.waiting_users.set(i64::try_from(count).unwrap_or(i64::MAX));
        node::users_wait(self.partition, longest);
    }

    /// Measures the ways of deltas that were accepted at these times, and are settled now.
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
    let metric = made.expect("a valid name");
    default_registry().register(Box::new(metric.clone())).expect("named once");
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
