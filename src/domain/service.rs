//! The one service of the domain: applies deltas and reads the ledger, in batches. Must not contain SQL or a rule.

use std::time::{Duration, Instant};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::sleep,
};

use super::{
    Delta, Obstacle, Outcome, Patience, ServiceError,
    apply::{ApplyTrip, Pace},
    read::Readers,
    recall::Recall,
    store::Store,
    user_id::UserId,
};
use crate::infra::{lane::Lane, metrics::StoreMetrics, postgres::Pool};

/// The most deltas in one transaction; the last group may exceed it. Larger batches were no faster.
pub const APPLY_BATCH_MAX: usize = 4_000;

/// A batch this large gets its own transaction, or its own query: the fixed cost is then negligible.
pub(super) const WORTHY_BATCH: usize = 100;

/// The most calls that wait for one lane.
pub(super) const LANE_CAPACITY: usize = 16_384;

/// The most transactions at once for users who have an obstacle.
pub const APART_MAX: usize = 4;

/// How long a caller waits for a row that another session has locked, and the pauses between two attempts. The row of a
/// busy user is locked again and again, so the last pauses must not be much longer than a transaction.
const LOCK_PATIENCE_MS: u64 = 1_500;
const LOCK_PAUSE_MIN_MS: u64 = 2;
const LOCK_PAUSE_MAX_MS: u64 = 100;

/// The pause between two checks whether the database is back.
const RETURN_PAUSE_MS: u64 = 500;

/// Applies deltas and reads the ledger, in batches. Share it behind an `Arc`.
pub struct PointService {
    apply: Lane<ApplyTrip>,
    apart: ApplyTrip,
    turns: Semaphore,
    pub(super) store: Store,
    pace: Pace,
    pub(super) readers: Readers,
    pub(super) recall: Recall,
    pub(super) metrics: StoreMetrics,
}

impl PointService {
    /// Runs up to `concurrency` transactions at once, and as many reads of balances. `pool` should have
    /// [`PointService::connections`] connections, or `concurrency` and [`APART_MAX`] if nothing is read.
    #[must_use]
    pub fn start(pool: Pool, concurrency: usize, patience: &Patience) -> Self {
        let (store, metrics, pace) = (Store::new(pool), StoreMetrics::default(), Pace::default());
        let readers = Readers::start(&store, concurrency, &metrics);
        let trip = |_| ApplyTrip::new(store.clone(), pace.clone(), patience.clone(), metrics.clone());
        let apply = Lane::start((0..concurrency).map(trip), LANE_CAPACITY);
        let turns = Semaphore::new(APART_MAX);
        Self { apply, apart: trip(0), turns, store, pace, readers, recall: Recall::default(), metrics }
    }

    /// Applies one delta, once per request id. If another session has locked the user's row, it waits for a moment,
    /// without delaying other users.
    ///
    /// # Errors
    /// [`ServiceError`]. After `Unavailable` the delta may be applied; it is safe to send it again.
    pub async fn apply_delta(&self, delta: Delta) -> Result<Outcome, ServiceError> {
        let (started, mut pause) = (Instant::now(), Duration::from_millis(LOCK_PAUSE_MIN_MS));
        let mut blocked = None;
        loop {
            let results = match (self.apply_deltas(vec![delta.clone()]).await, blocked) {
                // An earlier attempt may have been applied without an answer.
                (Err(ServiceError::Overloaded), Some(blocked)) => return blocked,
                (results, _) => results?,
            };
            let result = results.into_iter().next().expect("one result per delta");
            let waits = matches!(result, Err(ServiceError::Blocked(Obstacle::Locked)));
            if !waits || started.elapsed() + pause > Duration::from_millis(LOCK_PATIENCE_MS) {
                return result;
            }
            blocked = Some(result);
            sleep(pause).await;
            pause = (2 * pause).min(Duration::from_millis(LOCK_PAUSE_MAX_MS));
        }
    }

    /// Applies many deltas in their order, and returns a result for each. It does not wait for locked rows. Once a delta
    /// meets an obstacle, the later deltas of its user get the same result, so a user's order holds. Overlapping calls
    /// have no order: callers that need one wait for the first answer.
    ///
    /// # Errors
    /// [`ServiceError`] if the whole group got no answer.
    pub async fn apply_deltas(
        &self,
        deltas: Vec<Delta>,
    ) -> Result<Vec<Result<Outcome, ServiceError>>, ServiceError> {
        Ok(self.apply.call(deltas).await?.into_iter().map(requested).collect())
    }

    /// Removes expired points from the balances of users, as any change of these users would. Returns a result for each
    /// user.
    pub(super) async fn expire(
        &self,
        users: Vec<UserId>,
    ) -> Result<Vec<Result<(), ServiceError>>, ServiceError> {
        let deltas = users.into_iter().map(Delta::expiry).collect();
        let results = self.apply.call(deltas).await?;
        Ok(results.into_iter().map(|result| result.map(drop)).collect())
    }

    /// A turn to apply deltas of users who have an obstacle, or `None` if [`APART_MAX`] callers have one: such a
    /// transaction may take long, and the caller's other users should not wait for a turn.
    pub fn apart(&self) -> Option<ApartTurn<'_>> {
        let permit = self.turns.try_acquire().ok()?;
        Some(ApartTurn { trip: &self.apart, _permit: permit })
    }

    /// How many deltas it has applied, and how many it has rejected.
    #[must_use]
    pub fn settled(&self) -> (u64, u64) {
        let StoreMetrics { applied, rejected, conflict, .. } = &self.metrics;
        (applied.own(), rejected.own() + conflict.own())
    }

    /// How many deltas to pass to one call, at the current pace of the database.
    #[must_use]
    pub fn group_max(&self) -> usize {
        self.pace.batch_max().min(APPLY_BATCH_MAX)
    }

    /// Waits until changes can be applied.
    pub async fn can_apply(&self) {
        while !self.store.can_apply().await {
            sleep(Duration::from_millis(RETURN_PAUSE_MS)).await;
        }
    }
}

/// A turn to apply deltas in transactions that are shared with no other call.
pub struct ApartTurn<'a> {
    trip: &'a ApplyTrip,
    _permit: SemaphorePermit<'a>,
}

impl ApartTurn<'_> {
    /// As [`PointService::apply_deltas`].
    pub async fn apply(&self, deltas: &[Delta]) -> Vec<Result<Outcome, ServiceError>> {
        self.trip.apply(deltas).await.into_iter().map(requested).collect()
    }
}

/// The result of a delta that a request asked for.
fn requested(result: Result<Option<Outcome>, ServiceError>) -> Result<Outcome, ServiceError> {
    result.map(|outcome| outcome.expect("a requested delta has an outcome"))
}
