//! How long and how often a failed operation on PostgreSQL is retried. Must not contain the operations.

use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use futures_util::future::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{ServiceError, store::StoreError};
use crate::infra::metrics::StoreMetrics;

/// The bounds of the pause between two attempts while PostgreSQL is unavailable.
const RETRY_PAUSE_MIN_MS: u64 = 20;
const RETRY_PAUSE_MAX_MS: u64 = 1_000;

/// How long attempts go on for a caller that waits for the answer.
const CALLER_PATIENCE_MS: u64 = 1_500;

/// How long a worker keeps trying. Afterwards, other workers get its messages: their database may answer.
const QUEUE_PATIENCE_MS: u64 = 10_000;

/// How long to keep trying during an outage of PostgreSQL.
#[derive(Clone)]
pub enum Patience {
    /// A caller waits for the answer: try for a moment, then report the failure.
    Caller,
    /// The queue holds the deltas: try for about ten seconds, or until the token is cancelled.
    Queue(CancellationToken),
}

impl Patience {
    /// Returns whether work that began at `began` should start nothing more.
    pub(super) fn has_ended(&self, began: Instant) -> bool {
        match self {
            Self::Caller => began.elapsed() > Duration::from_millis(CALLER_PATIENCE_MS),
            Self::Queue(stop) => stop.is_cancelled(),
        }
    }

    fn parts(&self) -> (Duration, CancellationToken) {
        match self {
            Self::Caller => (Duration::from_millis(CALLER_PATIENCE_MS), CancellationToken::new()),
            Self::Queue(stop) => (Duration::from_millis(QUEUE_PATIENCE_MS), stop.clone()),
        }
    }
}

/// Retries an attempt that may succeed later, with growing pauses, for as long as `patience` lasts.
pub(super) async fn retried<T, F: Future<Output = Result<T, StoreError>>>(
    attempt: impl FnMut() -> F,
    patience: &Patience,
    metrics: &StoreMetrics,
) -> Result<T, StoreError> {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(RETRY_PAUSE_MIN_MS))
        .with_max_delay(Duration::from_millis(RETRY_PAUSE_MAX_MS))
        .with_jitter()
        .without_max_times();
    let started = Instant::now();
    let (limit, stop) = patience.parts();
    let sleeper = stop.clone();
    attempt
        .retry(pauses)
        .sleep(move |pause| {
            let stop = sleeper.clone();
            async move { stop.run_until_cancelled(tokio::time::sleep(pause)).map(drop).await }
        })
        .when(|error| match error {
            StoreError::Unavailable(_) | StoreError::Conflict(_) => {
                !stop.is_cancelled() && started.elapsed() < limit
            }
            StoreError::TooSlow { .. }
            | StoreError::Unreadable(_)
            | StoreError::Failing(_)
            | StoreError::Refused(_) => false,
        })
        .notify(|error, pause| {
            match error {
                StoreError::Conflict(_) => metrics.retries_conflict.inc(),
                _ => metrics.retries_unavailable.inc(),
            }
            log::warn!("{error}; trying again in {} ms", pause.as_millis());
        })
        .await
}

/// What a failure means to the caller, once there are no more attempts.
impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Conflict(_) | StoreError::TooSlow { .. } => {
                Self::Unavailable(error.to_string())
            }
            StoreError::Unreadable(why) => Self::Blocked(super::Obstacle::Unreadable(why)),
            StoreError::Failing(state) => Self::Blocked(super::Obstacle::Failing(state)),
            StoreError::Refused(_) => Self::Refused(error.to_string()),
        }
    }
}
