//! The metrics of the store of the ledger. Must not contain the parts that count.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec};

use super::{NO_LABELS, counters};

static SETTLED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Changes decided: applied, rejected, duplicate (in the log already) or conflict (rejected as \
                `key_reused`: another change in the log has their request id)";
    counters("point_system_settled_deltas_total", help, &["outcome"])
});

static EXPIRED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Log entries of what was due: one for each expired lot that had points left, and one for each hold whose time \
                had come";
    counters("point_system_expired_lots_total", help, &[])
});

static RETRIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Transactions and reads retried because PostgreSQL was unavailable or too slow, or because two \
                transactions were in conflict";
    counters("point_system_database_retries_total", help, &["reason"])
});

/// The metrics of the store, in deltas and in retries.
#[derive(Clone)]
pub struct StoreMetrics {
    /// Deltas that changed a balance.
    pub applied: IntCounter,
    /// Deltas that were rejected because of the balance.
    pub rejected: IntCounter,
    /// Deltas that were in the log already.
    pub duplicate: IntCounter,
    /// Deltas whose request id belongs to another change in the log.
    pub conflict: IntCounter,
    /// Entries of expired points and of holds whose time has come.
    pub expired: IntCounter,
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
        let expired = EXPIRED.with_label_values(NO_LABELS);
        Self {
            applied,
            rejected,
            duplicate,
            conflict,
            expired,
            retries_slow,
            retries_unavailable,
            retries_conflict,
        }
    }
}
