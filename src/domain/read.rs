//! Reading: balances, the log, what became of a request, looked up together. Must not contain writes or SQL.

use std::{marker::PhantomData, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use super::{
    Balance, Entry, Patience, PointService, ServiceError, Status,
    delta::{RequestId, UserId},
    patience::retried,
    service::{LANE_CAPACITY, WORTHY_BATCH},
    store::{Store, StoreError},
};
use crate::infra::{
    lane::{Lane, Trip},
    metrics::StoreMetrics,
};

/// The most entries of a page.
pub const PAGE_MAX: u16 = 1_000;

/// The most ids in one query.
const IDS_MAX: usize = 1_000;

/// The most queries that travel together on one connection.
const PIPELINE_MAX: usize = 16;

/// Connections that read the log at once.
const PAGES_AT_ONCE: usize = 2;

/// The most callers that wait for an outcome to come.
const WAITERS_MAX: usize = 1_000;
/// All who wait for an outcome look at the same moments, this far apart: one query for all of them.
const ROUND_MS: u64 = 50;

/// Which entries of a user's log.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Whose.
    pub user_id: UserId,
    /// The most entries to return, from 1 to [`PAGE_MAX`].
    pub limit: u16,
    /// Only those with a smaller `seq`.
    pub before: Option<i64>,
    /// Only those that were written at this time or later.
    pub from: Option<Timestamp>,
    /// Only those that were written before this time.
    pub to: Option<Timestamp>,
    /// Only those of this status.
    pub status: Option<Status>,
}

/// A part of a user's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The newest first.
    pub entries: Vec<Entry>,
    /// The `before` of the next page, if there is one. A page of one status may have fewer entries than
    /// its limit, or none, and a next one all the same: it looks through a bounded part of the log.
    pub next: Option<i64>,
}

/// Something to look up, many at a time.
trait LookUp: Clone + Send + Sync + 'static {
    type Answer: Clone + Send + 'static;
    const NAME: &'static str;
    const TOGETHER_MAX: usize;

    /// An answer for each of `asked`, in their order.
    fn look_up(
        store: &Store,
        asked: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

impl LookUp for UserId {
    type Answer = Option<Balance>;
    const NAME: &'static str = "read";
    const TOGETHER_MAX: usize = IDS_MAX;

    async fn look_up(store: &Store, users: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        let found = store.balances(users).await?;
        Ok(users.iter().map(|user| found.get(user).cloned()).collect())
    }
}

impl LookUp for (UserId, RequestId) {
    type Answer = Option<Entry>;
    const NAME: &'static str = "read_outcome";
    const TOGETHER_MAX: usize = IDS_MAX;

    async fn look_up(store: &Store, asked: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        let found = store.logged(asked).await?;
        Ok(asked.iter().map(|request| found.get(request).cloned()).collect())
    }
}

impl LookUp for (UserId, Timestamp) {
    type Answer = Option<Balance>;
    const NAME: &'static str = "read_past";
    const TOGETHER_MAX: usize = PIPELINE_MAX;

    async fn look_up(store: &Store, asked: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        store.past_balances(asked).await
    }
}

impl LookUp for HistoryQuery {
    type Answer = Page;
    const NAME: &'static str = "read_log";
    const TOGETHER_MAX: usize = PIPELINE_MAX;

    async fn look_up(store: &Store, asked: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        store.pages(asked).await
    }
}

/// Its batches are queries.
struct ReadTrip<Q> {
    store: Store,
    metrics: StoreMetrics,
    of: PhantomData<Q>,
}

impl<Q: LookUp> Trip for ReadTrip<Q> {
    type Item = Q;
    type Reply = Result<Q::Answer, ServiceError>;
    const NAME: &'static str = Q::NAME;
    const MAX_WEIGHT: usize = Q::TOGETHER_MAX;
    const WORTHY_WEIGHT: usize = if Q::TOGETHER_MAX < WORTHY_BATCH { Q::TOGETHER_MAX } else { WORTHY_BATCH };

    fn weight(_: &Q) -> usize {
        1
    }

    async fn carry(&mut self, asked: Vec<Q>) -> Vec<Self::Reply> {
        match self.look_up(&asked).await {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            // One by one, so that only those who ask for the damaged row are told of it.
            Err(StoreError::Unreadable(_)) if asked.len() > 1 => {
                let mut answers = Vec::new();
                for one in asked.chunks(1) {
                    let found = self.look_up(one).await;
                    answers.push(found.map(|mut found| found.remove(0)).map_err(Into::into));
                }
                answers
            }
            Err(error) => vec![Err(error.into()); asked.len()],
        }
    }
}

impl<Q: LookUp> ReadTrip<Q> {
    async fn look_up(&self, asked: &[Q]) -> Result<Vec<Q::Answer>, StoreError> {
        retried(|| Q::look_up(&self.store, asked), &Patience::Caller, &self.metrics).await
    }
}

/// What is read, and who waits for it.
pub(super) struct Readers {
    balances: Lane<ReadTrip<UserId>>,
    outcomes: Lane<ReadTrip<(UserId, RequestId)>>,
    past_balances: Lane<ReadTrip<(UserId, Timestamp)>>,
    pages: Lane<ReadTrip<HistoryQuery>>,
    waiters: Semaphore,
    first_round: Instant,
}

impl Readers {
    /// Up to `concurrency` reads of balances at once, and a few of what is rarer.
    pub(super) fn start(store: &Store, concurrency: usize, metrics: &StoreMetrics) -> Self {
        Self {
            balances: start(store, concurrency, metrics),
            outcomes: start(store, 1, metrics),
            past_balances: start(store, 1, metrics),
            pages: start(store, PAGES_AT_ONCE, metrics),
            waiters: Semaphore::new(WAITERS_MAX),
            first_round: Instant::now(),
        }
    }

    /// The next moment at which everybody who waits looks.
    fn next_round(&self) -> Instant {
        let since = self.first_round.elapsed().as_millis();
        let rounds = u64::try_from(since).unwrap_or(u64::MAX) / ROUND_MS + 1;
        self.first_round + Duration::from_millis(rounds * ROUND_MS)
    }
}

fn start<Q: LookUp>(store: &Store, at_once: usize, metrics: &StoreMetrics) -> Lane<ReadTrip<Q>> {
    let trip = |_| ReadTrip { store: store.clone(), metrics: metrics.clone(), of: PhantomData };
    Lane::start((0..at_once).map(trip), LANE_CAPACITY)
}

impl PointService {
    /// The connections that a service makes use of at once, where it serves reads as well.
    #[must_use]
    pub const fn connections(concurrency: usize) -> usize {
        // Transactions and reads of balances, outcomes, past balances, and pages.
        2 * concurrency + 2 + PAGES_AT_ONCE
    }

    /// The balance of a user, or `None` for one that was never seen.
    ///
    /// # Errors
    /// [`ServiceError`] within a few seconds where PostgreSQL does not answer.
    pub async fn balance(&self, user_id: UserId) -> Result<Option<Balance>, ServiceError> {
        self.readers.balances.call(user_id).await?
    }

    /// What [`PointService::balance`] was at a time, by the log: the balance after the last entry that was
    /// written then or before. A user's entries are in the order of their times, whatever the clock did. It is
    /// final for a time that is past by more than a transaction may take, some seconds.
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn balance_at(&self, user_id: UserId, at: Timestamp) -> Result<Option<Balance>, ServiceError> {
        self.readers.past_balances.call((user_id, at)).await?
    }

    /// A page of a user's log; an empty one for a user that was never seen.
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn history(&self, query: HistoryQuery) -> Result<Page, ServiceError> {
        self.readers.pages.call(query).await?
    }

    /// The log's entry of a request, or `None` while there is none.
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn outcome(
        &self,
        user_id: UserId,
        request_id: RequestId,
    ) -> Result<Option<Entry>, ServiceError> {
        self.readers.outcomes.call((user_id, request_id)).await?
    }

    /// The same, as soon as there is an entry, or `None` after `limit`. Where too many wait already it does
    /// not: the answer is that of [`PointService::outcome`].
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn outcome_within(
        &self,
        user_id: UserId,
        request_id: RequestId,
        limit: Duration,
    ) -> Result<Option<Entry>, ServiceError> {
        let waiting = self.readers.waiters.try_acquire();
        let deadline = Instant::now() + limit;
        loop {
            let found = self.outcome(user_id, request_id).await?;
            if found.is_some() || waiting.is_err() || Instant::now() >= deadline {
                return Ok(found);
            }
            sleep_until(self.readers.next_round().min(deadline)).await;
        }
    }
}
