//! The metrics of the store of the ledger. Must not contain the parts that count.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::Instant,
};

use prometheus::{GaugeVec, IntCounter, IntCounterVec, Opts};

use super::{NO_LABELS, SharedCounter, counters, registered};

static SETTLED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Changes decided: applied, rejected, duplicate (in the log already) or conflict (rejected as \
                `key_reused`: another change in the log has their request id)";
    counters("point_system_settled_deltas_total", help, &["outcome"])
});

static EXPIRED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Log entries of expired points, one for each lot that had points left";
    counters("point_system_expired_lots_total", help, &[])
});

static ENDED_HOLDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Holds that were released because their time ran out";
    counters("point_system_ended_holds_total", help, &[])
});

static OVERDUE: LazyLock<GaugeVec> = LazyLock::new(|| {
    let name = "point_system_expired_lots_overdue_seconds";
    let help = "How long the oldest expired points, or the hold that ended first, have been waiting for the job; 0 if \
                there are none";
    registered(GaugeVec::new(Opts::new(name, help), NO_LABELS))
});

/// How long the first user with due points or holds had been waiting at the last search, and the time of that search.
static OLDEST_EXPIRED: Mutex<Option<(f64, Instant)>> = Mutex::new(None);

static RETRIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Transactions and reads retried because PostgreSQL was unavailable or too slow, or because two \
                transactions were in conflict";
    counters("point_system_database_retries_total", help, &["reason"])
});

/// Sets for how many seconds expired points or an ended hold have been waiting, or that a search has found none. The time
/// grows until the next call.
pub fn expired_lots_are_overdue(seconds: Option<f64>) {
    let mut oldest = OLDEST_EXPIRED.lock().unwrap_or_else(PoisonError::into_inner);
    *oldest = seconds.map(|seconds| (seconds, Instant::now()));
    OVERDUE.with_label_values(NO_LABELS).set(seconds.unwrap_or_default());
}

/// Updates the age, which changes with time alone.
pub(super) fn refresh() {
    if let Some((seconds, then)) = *OLDEST_EXPIRED.lock().unwrap_or_else(PoisonError::into_inner) {
        OVERDUE.with_label_values(NO_LABELS).set(seconds + then.elapsed().as_secs_f64());
    }
}

/// The metrics of the store, in deltas and in retries.
#[derive(Clone)]
pub struct StoreMetrics {
    /// Deltas that changed a balance.
    pub applied: SharedCounter,
    /// Deltas that were rejected because of the balance.
    pub rejected: SharedCounter,
    /// Deltas that were in the log already.
    pub duplicate: IntCounter,
    /// Deltas whose request id belongs to another change in the log.
    pub conflict: SharedCounter,
    /// Entries of expired points.
    pub expired: IntCounter,
    /// Holds that were released because their time ran out.
    pub ended_holds: IntCounter,
    /// Retries in smaller parts because a transaction took too long.
    pub retries_slow: IntCounter,
    /// Retries because the database was unavailable.
    pub retries_unavailable: IntCounter,
    /// Retries because two transactions were in conflict.
    pub retries_conflict: IntCounter,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        let [applied, rejected, duplicate, conflict] = ["applied", "rejected", "duplicate", "conflict"]
            .map(|outcome| SETTLED.with_label_values(&[outcome]));
        let [retries_slow, retries_unavailable, retries_conflict] =
            ["slow", "unavailable", "conflict"].map(|reason| RETRIES.with_label_values(&[reason]));
        let [expired, ended_holds] =
            [&EXPIRED, &ENDED_HOLDS].map(|counters| counters.with_label_values(NO_LABELS));
        let [applied, rejected, conflict] = [applied, rejected, conflict].map(SharedCounter::new);
        Self {
            applied,
            rejected,
            duplicate,
            conflict,
            expired,
            ended_holds,
            retries_slow,
            retries_unavailable,
            retries_conflict,
        }
    }
}
