//! The rules of points, and the one service that applies them. No HTTP, no AMQP and no serde may enter.

use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use deadpool_postgres::Pool;
use futures_util::future::FutureExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Lane, LaneError, Trip},
    metrics::StoreMetrics,
};
use read::Readers;
use store::{Store, StoreError};

mod trace;
mod delta;
mod settle;
mod read;
mod store;
mod audit;

pub use audit::{AuditError, AuditReport, Finding, audit};
pub use delta::{
    Action, Delta, IdempotencyKey, Invalid, KEY_MAX_BYTES, PARTITIONS, POINTS_MAX, Points, REASON_MAX_CHARS,
    Reason, RequestId, UserId,
};
pub use read::{HistoryQuery, PAGE_MAX, Page, Status};
pub use settle::{Entry, Outcome, Rejection};
pub use trace::TraceParent;

/// The most deltas in one transaction, which the last group taken may pass: a worker's group has about as many
/// at the most. Larger ones were no faster.
pub const APPLY_BATCH_MAX: usize = 4_000;

/// The deltas, or the ids of a query, that are worth a transaction of their own: what it costs however small it
/// is, is then a small part.
const WORTHY_BATCH: usize = 100;

/// The most calls that may wait for one lane.
const LANE_CAPACITY: usize = 16_384;

/// The pauses between tries while PostgreSQL can't be used.
const RETRY_PAUSE_MIN_MS: u64 = 20;
const RETRY_PAUSE_MAX_MS: u64 = 1_000;

/// How long we go on trying for a caller who waits for the answer.
const CALLER_PATIENCE_MS: u64 = 1_500;

/// A user's points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Whose.
    pub user_id: UserId,
    /// How many, from 0 to [`POINTS_MAX`].
    pub point: i64,
    /// The number of the user's log entries.
    pub seq: i64,
    /// When the last entry was written, by the database's clock.
    pub updated_at: Timestamp,
}

/// Why the service has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// PostgreSQL can't be used now. The delta may or may not be applied: send it again with its id.
    #[error("{0}")]
    Unavailable(String),
    /// More requests are waiting than the service holds; nothing was done.
    #[error("too many requests are waiting")]
    Overloaded,
    /// PostgreSQL refuses this delta, and always will; nothing was done.
    #[error("{0}")]
    Refused(String),
}

impl From<LaneError> for ServiceError {
    fn from(error: LaneError) -> Self {
        match error {
            LaneError::Full => Self::Overloaded,
            LaneError::Ended => Self::Unavailable(error.to_string()),
        }
    }
}

/// What to do about an outage of PostgreSQL.
#[derive(Clone)]
pub enum Patience {
    /// Somebody waits for the answer: try again for a moment, then say so.
    Caller,
    /// The queue holds the deltas: try until the database is back or the token is cancelled.
    Queue(CancellationToken),
}

/// Applies deltas and reads the ledger, batched; cheap to share behind an `Arc`.
pub struct PointService {
    apply: Lane<ApplyTrip>,
    readers: Readers,
}

impl PointService {
    /// For up to `concurrency` transactions at once, and as many reads of balances, over `pool`, which should have
    /// a connection for each that is made use of: see [`PointService::connections`].
    #[must_use]
    pub fn start(pool: Pool, concurrency: usize, patience: &Patience) -> Self {
        let (store, metrics) = (Store::new(pool), StoreMetrics::default());
        let readers = Readers::start(&store, concurrency, &metrics);
        let trip =
            |_| ApplyTrip { store: store.clone(), patience: patience.clone(), metrics: metrics.clone() };
        Self { apply: Lane::start((0..concurrency).map(trip), LANE_CAPACITY), readers }
    }

    /// Applies one delta, once for its request id however often it is called.
    ///
    /// # Errors
    /// [`ServiceError`]; after `Unavailable` the delta may be applied, and may be sent again.
    pub async fn apply_delta(&self, delta: Delta) -> Result<Outcome, ServiceError> {
        let results = self.apply_deltas(vec![delta]).await?;
        results.into_iter().next().expect("one result per delta")
    }

    /// The same for many in their order, with a result for each. Calls that overlap have no order among them:
    /// whoever wants one waits for the first answer.
    ///
    /// # Errors
    /// [`ServiceError`] where the group as a whole got no answer.
    pub async fn apply_deltas(
        &self,
        deltas: Vec<Delta>,
    ) -> Result<Vec<Result<Outcome, ServiceError>>, ServiceError> {
        Ok(self.apply.call(deltas).await?)
    }
}

/// Its batches are transactions.
struct ApplyTrip {
    store: Store,
    patience: Patience,
    metrics: StoreMetrics,
}

impl Trip for ApplyTrip {
    type Item = Vec<Delta>;
    type Reply = Vec<Result<Outcome, ServiceError>>;
    const NAME: &'static str = "apply";
    const MAX_WEIGHT: usize = APPLY_BATCH_MAX;
    const WORTHY_WEIGHT: usize = WORTHY_BATCH;

    fn weight(group: &Vec<Delta>) -> usize {
        group.len()
    }

    fn size(group: &Vec<Delta>) -> usize {
        group.len()
    }

    async fn carry(&mut self, groups: Vec<Vec<Delta>>) -> Vec<Self::Reply> {
        let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
        let deltas: Vec<Delta> = groups.into_iter().flatten().collect();
        let mut results = self.apply(&deltas).await.into_iter();
        sizes.into_iter().map(|size| results.by_ref().take(size).collect()).collect()
    }
}

impl ApplyTrip {
    /// Applies the batch; where the database refuses it, one by one, so that only the guilty is refused.
    async fn apply(&self, deltas: &[Delta]) -> Vec<Result<Outcome, ServiceError>> {
        let mut results = self.apply_together(deltas).await;
        if deltas.len() > 1 && matches!(results[0], Err(ServiceError::Refused(_))) {
            results.clear();
            for delta in deltas.chunks(1) {
                results.extend(self.apply_together(delta).await);
            }
        }
        results
    }

    async fn apply_together(&self, deltas: &[Delta]) -> Vec<Result<Outcome, ServiceError>> {
        match retried(|| self.store.apply(deltas), &self.patience, &self.metrics).await {
            Ok(outcomes) => {
                self.count(&outcomes);
                outcomes.into_iter().map(Ok).collect()
            }
            Err(error) => vec![Err(error); deltas.len()],
        }
    }

    fn count(&self, outcomes: &[Outcome]) {
        let (mut applied, mut rejected, mut duplicate) = (0, 0, 0);
        for outcome in outcomes {
            match (outcome.replayed, outcome.entry.rejection) {
                (true, _) => duplicate += 1,
                (false, Some(_)) => rejected += 1,
                (false, None) => applied += 1,
            }
        }
        self.metrics.applied.inc_by(applied);
        self.metrics.rejected.inc_by(rejected);
        self.metrics.duplicate.inc_by(duplicate);
    }
}

/// Tries again what may succeed later, with growing pauses, for as long as `patience` lasts.
async fn retried<T, F: Future<Output = Result<T, StoreError>>>(
    attempt: impl FnMut() -> F,
    patience: &Patience,
    metrics: &StoreMetrics,
) -> Result<T, ServiceError> {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(RETRY_PAUSE_MIN_MS))
        .with_max_delay(Duration::from_millis(RETRY_PAUSE_MAX_MS))
        .with_jitter()
        .without_max_times();
    let started = Instant::now();
    let (limit, stop) = match patience {
        Patience::Caller => (Duration::from_millis(CALLER_PATIENCE_MS), CancellationToken::new()),
        Patience::Queue(stop) => (Duration::MAX, stop.clone()),
    };
    let sleeper = stop.clone();
    let outcome = attempt
        .retry(pauses)
        .sleep(move |pause| {
            let stop = sleeper.clone();
            async move { stop.run_until_cancelled(tokio::time::sleep(pause)).map(drop).await }
        })
        .when(|error| match error {
            StoreError::Unavailable(_) | StoreError::Conflict(_) => {
                !stop.is_cancelled() && started.elapsed() < limit
            }
            StoreError::Refused(_) => false,
        })
        .notify(|error, pause| {
            match error {
                StoreError::Conflict(_) => metrics.retries_conflict.inc(),
                StoreError::Unavailable(_) | StoreError::Refused(_) => metrics.retries_unavailable.inc(),
            }
            log::warn!("{error}; trying again in {} ms", pause.as_millis());
        })
        .await;
    outcome.map_err(|error| match error {
        StoreError::Unavailable(_) | StoreError::Conflict(_) => ServiceError::Unavailable(error.to_string()),
        StoreError::Refused(_) => ServiceError::Refused(error.to_string()),
    })
}
