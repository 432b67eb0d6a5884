//! The rules of points, and the one service that applies them. No HTTP, no AMQP and no serde may enter.

use std::{
    fmt,
    time::{Duration, Instant},
};

use deadpool_postgres::Pool;
use jiff::Timestamp;
use tokio::time::sleep;

use crate::infra::{
    lane::{Lane, LaneError},
    metrics::StoreMetrics,
};
use apply::{ApplyTrip, Pace};
use read::Readers;
use store::Store;

mod number;
mod trace;
mod delta;
mod decide;
mod apply;
mod patience;
mod read;
mod store;
mod audit;

pub use audit::{AuditError, AuditLimits, AuditReport, Finding, audit, audit_within};
pub use decide::{Entry, Outcome, Rejection};
pub use delta::{
    Action, Delta, IdempotencyKey, Invalid, KEY_MAX_BYTES, PARTITIONS, POINTS_MAX, Points, REASON_MAX_CHARS,
    Reason, RequestId, UserId,
};
pub use number::whole_number;
pub use patience::Patience;
pub use read::{HistoryQuery, PAGE_MAX, Page, Status};
pub use trace::TraceParent;

/// The most deltas in one transaction, which the last group taken may pass: a worker's group has about as many
/// at the most. Larger ones were no faster.
pub const APPLY_BATCH_MAX: usize = 4_000;

/// The deltas, or the ids of a query, that are worth a transaction of their own: what it costs however small it
/// is, is then a small part.
const WORTHY_BATCH: usize = 100;

/// The most calls that may wait for one lane.
const LANE_CAPACITY: usize = 16_384;

/// How long, and at first how often, a caller who waits for the answer waits for a row that is locked elsewhere.
const LOCK_PATIENCE_MS: u64 = 1_500;
const LOCK_PAUSE_MIN_MS: u64 = 2;

/// The pause between looks for a database that has been away.
const RETURN_PAUSE_MS: u64 = 500;

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
    /// The database is well, but not for this user now. A try before may have ended without an answer: send the delta
    /// again with its id.
    #[error("{0}")]
    Blocked(Obstacle),
}

impl From<LaneError> for ServiceError {
    fn from(error: LaneError) -> Self {
        match error {
            LaneError::Full => Self::Overloaded,
            LaneError::Ended => Self::Unavailable(error.to_string()),
        }
    }
}

/// Why nothing can be done for a user, while others are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Another session has the user's row locked.
    Locked,
    /// A row of the user breaks the rules of its table, and which.
    Unreadable(String),
    /// PostgreSQL takes longer than it may, for this one delta alone.
    Slow,
}

impl Obstacle {
    /// The name in the metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Unreadable(_) => "unreadable",
            Self::Slow => "slow",
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("the user's row is locked by another session"),
            Self::Unreadable(why) => f.write_str(why),
            Self::Slow => f.write_str("PostgreSQL takes too long for this change alone"),
        }
    }
}

/// Applies deltas and reads the ledger, batched; cheap to share behind an `Arc`.
pub struct PointService {
    apply: Lane<ApplyTrip>,
    apart: ApplyTrip,
    store: Store,
    pace: Pace,
    readers: Readers,
}

impl PointService {
    /// For up to `concurrency` transactions at once, and as many reads of balances, over `pool`, which should have
    /// a connection for each that is made use of: see [`PointService::connections`].
    #[must_use]
    pub fn start(pool: Pool, concurrency: usize, patience: &Patience) -> Self {
        let (store, metrics, pace) = (Store::new(pool), StoreMetrics::default(), Pace::default());
        let readers = Readers::start(&store, concurrency, &metrics);
        let trip = |_| ApplyTrip::new(store.clone(), pace.clone(), patience.clone(), metrics.clone());
        let apply = Lane::start((0..concurrency).map(trip), LANE_CAPACITY);
        Self { apply, apart: trip(0), store, pace, readers }
    }

    /// Applies one delta, once for its request id however often it is called. Waits a moment for a row that is
    /// locked elsewhere, and holds up nobody else by it.
    ///
    /// # Errors
    /// [`ServiceError`]; after `Unavailable` the delta may be applied, and may be sent again.
    pub async fn apply_delta(&self, delta: Delta) -> Result<Outcome, ServiceError> {
        let (started, mut pause) = (Instant::now(), Duration::from_millis(LOCK_PAUSE_MIN_MS));
        loop {
            let results = self.apply_deltas(vec![delta.clone()]).await?;
            let result = results.into_iter().next().expect("one result per delta");
            let waits = matches!(result, Err(ServiceError::Blocked(Obstacle::Locked)));
            if !waits || started.elapsed() + pause > Duration::from_millis(LOCK_PATIENCE_MS) {
                return result;
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// The same for many in their order, with a result for each, and without a wait for locked rows. A user's deltas
    /// behind one that has an obstacle have the same, so their order holds. Calls that overlap have no order among
    /// them: callers that want one wait for the first answer.
    ///
    /// # Errors
    /// [`ServiceError`] where the group as a whole got no answer.
    pub async fn apply_deltas(
        &self,
        deltas: Vec<Delta>,
    ) -> Result<Vec<Result<Outcome, ServiceError>>, ServiceError> {
        Ok(self.apply.call(deltas).await?)
    }

    /// The same for deltas of users who have an obstacle: in transactions of their own, which may take long and hold up
    /// nobody else's.
    pub async fn apply_apart(&self, deltas: &[Delta]) -> Vec<Result<Outcome, ServiceError>> {
        self.apart.apply(deltas).await
    }

    /// How many deltas are worth handing in together, at the pace that the database has.
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
