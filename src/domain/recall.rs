//! Recognizes changes that are in the log already, before they are queued again. Must not contain SQL or a decision.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Delta, Entry, PointService, ServiceError};

/// How long a change waits for the look-up. After that it is queued unchecked; the worker recognizes known ids too.
const LOOK_UP_TIMEOUT_MS: u64 = 50;

/// How long nothing is looked up after a failure: an outage of PostgreSQL delays no `202`.
const FAILURE_PAUSE_MS: u64 = 1_000;

/// When the next look-up may begin.
pub(super) struct Recall {
    started: Instant,
    not_before_ms: AtomicU64,
}

impl Default for Recall {
    fn default() -> Self {
        Self { started: Instant::now(), not_before_ms: AtomicU64::new(0) }
    }
}

impl Recall {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn pause(&self) {
        self.not_before_ms.store(self.now_ms() + FAILURE_PAUSE_MS, Ordering::Relaxed);
    }
}

impl PointService {
    /// Returns the log entry of each delta whose request id is known. The entry may be of another change: see
    /// [`Delta::is_of`]. An unknown id may still be in the queue. If PostgreSQL does not answer in time, all are unknown.
    pub async fn recall(&self, deltas: &[&Delta]) -> Vec<Option<Arc<Entry>>> {
        let recall = &self.recall;
        let unknown = vec![None; deltas.len()];
        if deltas.is_empty() || recall.now_ms() < recall.not_before_ms.load(Ordering::Relaxed) {
            return unknown;
        }
        let each = deltas.iter().map(|delta| self.outcome(delta.user_id.clone(), delta.request_id));
        let Ok(found) = timeout(Duration::from_millis(LOOK_UP_TIMEOUT_MS), join_all(each)).await else {
            recall.pause();
            return unknown;
        };
        // A damaged row does not affect the look-up of other rows.
        let has_failed = |found: &Result<_, _>| !matches!(found, Ok(_) | Err(ServiceError::Blocked(_)));
        if found.iter().any(has_failed) {
            recall.pause();
        }
        found.into_iter().map(|found| found.ok().flatten()).collect()
    }
}
