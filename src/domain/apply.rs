//! Turns groups of deltas into transactions, as large as the database can take. Must not contain SQL or a rule of the
//! ledger.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use log::{Level, kv::Value};

use super::{
    Delta, Entry, Obstacle, Outcome, Patience, ServiceError, UserId,
    patience::retried,
    service::{APPLY_BATCH_MAX, WORTHY_BATCH},
    store::{Applied, Decision, Store, StoreError},
};
use crate::infra::{lane::Trip, logging, metrics::StoreMetrics};

/// After a transaction that took no longer than this, the next may be twice as large.
const QUICK_MS: u64 = 500;

/// The most consecutive users that are each considered slow. If there are more, the database is slow.
const SLOW_USERS_MAX: usize = 8;

/// The most deltas in one transaction, at the current pace of the database. All trips share it.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<AtomicUsize>);

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(Self::MAX)))
    }
}

impl Pace {
    /// The last group of a trip may exceed [`APPLY_BATCH_MAX`].
    const MAX: usize = 4 * APPLY_BATCH_MAX;

    pub(super) fn batch_max(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes that a transaction of `size` deltas was too slow.
    fn too_slow(&self, size: usize) {
        self.0.fetch_min((size / 2).max(1), Ordering::Relaxed);
    }

    /// Notes that a transaction of `size` deltas took `time`. A transaction smaller than the maximum says nothing.
    fn took(&self, size: usize, time: Duration) {
        let max = self.batch_max();
        if max < Self::MAX && size >= max && time <= Duration::from_millis(QUICK_MS) {
            self.0.fetch_max((2 * size).min(Self::MAX), Ordering::Relaxed);
        }
    }
}

/// A trip whose batches are transactions.
pub(super) struct ApplyTrip {
    store: Store,
    pace: Pace,
    patience: Patience,
    metrics: StoreMetrics,
}

impl Trip for ApplyTrip {
    type Item = Vec<Delta>;
    /// [`Change::Expire`](super::Change::Expire) has no outcome.
    type Reply = Vec<Result<Option<Outcome>, ServiceError>>;
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
    pub(super) fn new(store: Store, pace: Pace, patience: Patience, metrics: StoreMetrics) -> Self {
        Self { store, pace, patience, metrics }
    }

    /// Applies the deltas in order, all at once. If that takes the database too long, or it refuses or fails, or a row is
    /// damaged, halves the part until it has found the offending delta: only that one is refused, or only its user waits.
    /// After that, the parts grow again. The first result that is neither final nor an obstacle of one user ends the
    /// group: a later delta may belong to the same user.
    pub(super) async fn apply(&self, deltas: &[Delta]) -> Vec<Result<Option<Outcome>, ServiceError>> {
        let mut results = Vec::with_capacity(deltas.len());
        let mut obstacles = HashMap::new();
        let mut slow_users = 0;
        // Narrows the search for the offending delta. Unlike the pace, it concerns this group only.
        let mut bound = usize::MAX;
        let began = Instant::now();
        while results.len() < deltas.len() {
            let rest = &deltas[results.len()..];
            let part = &rest[..self.pace.batch_max().min(bound).min(rest.len())];
            match self.transact(part, &mut obstacles).await {
                Ok(decided) => {
                    slow_users = 0;
                    bound = bound.saturating_mul(2);
                    results.extend(decided);
                }
                Err(error) if part.len() > 1 && error.may_be_of_one_delta() => {
                    bound = part.len() / 2;
                    if matches!(error, StoreError::TooSlow { obstacle: Obstacle::Slow, .. }) {
                        self.pace.too_slow(part.len());
                    }
                }
                Err(StoreError::TooSlow { obstacle, .. }) if slow_users < SLOW_USERS_MAX => {
                    slow_users += 1;
                    obstacles.insert(part[0].user_id.clone(), obstacle.clone());
                    results.push(Err(obstacle.into()));
                }
                Err(
                    error @ (StoreError::Unreadable(_) | StoreError::Failing(_) | StoreError::Refused(_)),
                ) => {
                    let error = ServiceError::from(error);
                    if let ServiceError::Blocked(obstacle) = &error {
                        obstacles.insert(part[0].user_id.clone(), obstacle.clone());
                    }
                    results.push(Err(error));
                }
                Err(other) => results.resize(deltas.len(), Err(other.into())),
            }
            if results.len() < deltas.len() && self.patience.has_ended(began) {
                let ended =
                    ServiceError::Unavailable("PostgreSQL was too slow to apply the whole batch".to_owned());
                results.resize(deltas.len(), Err(ended));
            }
        }
        results
    }

    /// Runs one transaction for the deltas of `part` whose users have no obstacle, and adds the obstacles it finds.
    async fn transact(
        &self,
        part: &[Delta],
        obstacles: &mut HashMap<UserId, Obstacle>,
    ) -> Result<Vec<Result<Option<Outcome>, ServiceError>>, StoreError> {
        let free: Vec<Delta>;
        let asked = if obstacles.is_empty() {
            part
        } else {
            free = part.iter().filter(|delta| !obstacles.contains_key(&delta.user_id)).cloned().collect();
            &free
        };
        let mut decided = Vec::new();
        if !asked.is_empty() {
            let began = Instant::now();
            let applied = retried(|| self.store.apply(asked), &self.patience, &self.metrics).await;
            let Applied { decisions, expired, ended_holds } =
                applied.inspect_err(|error| self.tell(error, asked.len()))?;
            decided = decisions;
            self.metrics.expired.inc_by(expired as u64);
            self.metrics.ended_holds.inc_by(ended_holds as u64);
            self.pace.took(part.len(), began.elapsed());
        }
        self.count(asked, &decided);
        for (delta, decision) in asked.iter().zip(&decided) {
            if let Err(obstacle) = decision {
                obstacles.insert(delta.user_id.clone(), obstacle.clone());
            }
        }
        let mut decided = decided.into_iter().flatten();
        let result = |delta: &Delta| match obstacles.get(&delta.user_id) {
            Some(obstacle) => Err(obstacle.clone().into()),
            None => Ok(decided.next().expect("an outcome for each")),
        };
        Ok(part.iter().map(result).collect())
    }

    fn tell(&self, error: &StoreError, size: usize) {
        if matches!(error, StoreError::TooSlow { .. }) {
            self.metrics.retries_slow.inc();
            log::warn!("{error}; it was a transaction of {size} deltas");
        }
    }

    fn count(&self, deltas: &[Delta], decided: &[Decision]) {
        let (mut applied, mut rejected, mut duplicate, mut conflict) = (0, 0, 0, 0);
        for (delta, decision) in deltas.iter().zip(decided) {
            let Ok(Some(outcome)) = decision else { continue };
            if let Some(first) = &outcome.first {
                conflict += 1;
                warn_of_conflict(delta, &outcome.entry, first);
                continue;
            }
            match (outcome.replayed, &outcome.entry.rejection) {
                (true, _) => duplicate += 1,
                (false, Some(_)) => rejected += 1,
                (false, None) => applied += 1,
            }
        }
        self.metrics.applied.inc_by(applied);
        self.metrics.rejected.inc_by(rejected);
        self.metrics.duplicate.inc_by(duplicate);
        self.metrics.conflict.inc_by(conflict);
    }
}

/// Warns that a request id was used before for another change: this delta is not applied, and its sender may not know.
fn warn_of_conflict(delta: &Delta, entry: &Entry, first: &Entry) {
    let pairs = [
        ("request_id", Value::from_display(&delta.request_id)),
        ("user_id", Value::from_display(&delta.user_id)),
        ("action", Value::from(&*entry.action)),
        ("point", entry.point.into()),
        ("seq", entry.seq.into()),
        ("first_action", Value::from(&*first.action)),
        ("first_point", first.point.into()),
        ("first_seq", first.seq.into()),
    ];
    let what = format_args!("rejected: its request id was used before for another change");
    logging::write(Level::Warn, module_path!(), what, &pairs);
}
