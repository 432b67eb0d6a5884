//! The metrics of a listener's connections. Must not contain sockets.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{counters, gauges};

static OPEN: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Open HTTP connections, by listener: api or metrics";
    gauges("point_system_http_connections", help, &["listener"])
});

static MAX: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Maximum number of HTTP connections that a listener keeps open";
    gauges("point_system_http_connections_max", help, &["listener"])
});

static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "HTTP connections closed immediately because the listener had reached its connection limit";
    counters("point_system_http_connections_refused_total", help, &["listener"])
});

/// The connections of one listener.
pub struct ConnectionMetrics {
    /// Open connections.
    pub open: IntGauge,
    /// Connections that were closed immediately.
    pub refused: IntCounter,
}

impl ConnectionMetrics {
    /// Returns the handles of a listener that keeps up to `limit` connections open.
    #[must_use]
    pub fn new(listener: &str, limit: usize) -> Self {
        MAX.with_label_values(&[listener]).set(i64::try_from(limit).unwrap_or(i64::MAX));
        Self { open: OPEN.with_label_values(&[listener]), refused: REFUSED.with_label_values(&[listener]) }
    }
}
