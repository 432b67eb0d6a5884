//! Reads past balances, the log and the outcomes of requests, and has the lanes of all reads. Must not contain writes or
//! SQL.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use super::{
    Action, Balance, CourseQuery, Delta, Entry, Patience, PointService, ServiceError, Status,
    balances::BalancesQuery,
    patience::retried,
    request_id::RequestId,
    service::{LANE_CAPACITY, WORTHY_BATCH},
    store::{Store, StoreError},
    user_id::UserId,
};
use crate::infra::{
    lane::{Lane, Trip},
    metrics::StoreMetrics,
};

/// The most entries in a page.
pub const PAGE_MAX: u16 = 1_000;

/// The most ids in one query, and the most balances in a trip. The last request for balances may exceed it.
pub(super) const IDS_MAX: usize = 1_000;

/// The most queries that travel together on one connection.
pub(super) const PIPELINE_MAX: usize = 16;

/// The number of connections that read the log at once.
const PAGES_AT_ONCE: usize = 2;

/// The most callers that wait for an outcome.
const WAITERS_MAX: usize = 1_000;

/// The time between two looks for outcomes. All waiting callers look at the same moments, so one query serves them all.
const ROUND_MS: u64 = 50;

/// Selects entries of a user's log.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Whose.
    pub user_id: UserId,
    /// The most entries to return, from 1 to [`PAGE_MAX`].
    pub limit: u16,
    /// Only entries with a smaller `seq`.
    pub before: Option<i64>,
    /// Only entries written at this time or later.
    pub from: Option<Timestamp>,
    /// Only entries written before this time.
    pub to: Option<Timestamp>,
    /// Only entries with this status.
    pub status: Option<Status>,
    /// Only entries of this action.
    pub action: Option<Action>,
}

/// A part of a user's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, newest first.
    pub entries: Vec<Entry>,
    /// The `before` of the next page, if there is one. A page of one status or action searches a bounded part of the log:
    /// it may have fewer entries than its limit, or none, and still have a next page.
    pub next: Option<i64>,
}

/// A query that is looked up together with others of its kind.
pub(super) trait LookUp: Clone + Send + Sync + 'static {
    type Answer: Clone + Send + 'static;
    const NAME: &'static str;
    /// Queries travel together until their total weight reaches this.
    const TOGETHER_MAX: usize;

    /// More than 1 if it asks for more than one thing.
    fn weight(&self) -> usize {
        1
    }

    /// Returns an answer for each of `asked`, in order.
    fn look_up(
        store: &Store,
        asked: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

impl LookUp for (UserId, RequestId) {
    /// A damaged entry is an error for those who ask for it.
    type Answer = Result<Option<Arc<Entry>>, ServiceError>;
    const NAME: &'static str = "read_outcome";
    const TOGETHER_MAX: usize = IDS_MAX;

    async fn look_up(store: &Store, asked: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        let found = store.logged(asked).await?;
        Ok(asked.iter().map(|request| found.get(request).cloned().transpose().map_err(Into::into)).collect())
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

/// A trip whose batches are queries.
pub(super) struct ReadTrip<Q> {
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

    fn weight(query: &Q) -> usize {
        query.weight()
    }

    fn size(query: &Q) -> usize {
        query.weight()
    }

    async fn carry(&mut self, asked: Vec<Q>) -> Vec<Self::Reply> {
        match self.look_up(&asked).await {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            // One by one, so that only callers that ask for the damaged row get its error.
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

/// The lanes of reads, and the callers that wait for outcomes.
pub(super) struct Readers {
    pub(super) balances: Lane<ReadTrip<Vec<UserId>>>,
    pub(super) balance_pages: Lane<ReadTrip<BalancesQuery>>,
    outcomes: Lane<ReadTrip<(UserId, RequestId)>>,
    past_balances: Lane<ReadTrip<(UserId, Timestamp)>>,
    pages: Lane<ReadTrip<HistoryQuery>>,
    pub(super) courses: Lane<ReadTrip<CourseQuery>>,
    pub(super) previews: Lane<ReadTrip<Delta>>,
    waiters: Semaphore,
    first_round: Instant,
}

impl Readers {
    /// Runs up to `concurrency` reads of balances at once, and fewer of the other reads.
    pub(super) fn start(store: &Store, concurrency: usize, metrics: &StoreMetrics) -> Self {
        Self {
            balances: start(store, concurrency, metrics),
            balance_pages: start(store, 1, metrics),
            outcomes: start(store, 1, metrics),
            past_balances: start(store, 1, metrics),
            pages: start(store, PAGES_AT_ONCE, metrics),
            courses: start(store, 1, metrics),
            previews: start(store, 1, metrics),
            waiters: Semaphore::new(WAITERS_MAX),
            first_round: Instant::now(),
        }
    }

    /// The next moment at which all waiting callers look.
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
    /// The number of connections that a service uses at once, reads included.
    #[must_use]
    pub const fn connections(concurrency: usize) -> usize {
        // Transactions and reads of balances, pages of balances, outcomes, past balances, pages of the log, the courses of
        // balances, and previews.
        2 * concurrency + 5 + PAGES_AT_ONCE
    }

    /// Returns a user's balance at a time: the balance after the last entry written at that time or earlier. The times
    /// of a user's entries never go back, whatever the clock does. The answer is final once the time lies further back
    /// than a transaction may take, which is some seconds.
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn balance_at(&self, user_id: UserId, at: Timestamp) -> Result<Option<Balance>, ServiceError> {
        self.readers.past_balances.call((user_id, at)).await?
    }

    /// Returns a page of a user's log. It is empty for an unknown user.
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn history(&self, query: HistoryQuery) -> Result<Page, ServiceError> {
        self.readers.pages.call(query).await?
    }

    /// Returns the log entry of a request, or `None` while there is none.
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn outcome(
        &self,
        user_id: UserId,
        request_id: RequestId,
    ) -> Result<Option<Arc<Entry>>, ServiceError> {
        self.readers.outcomes.call((user_id, request_id)).await??
    }

    /// As [`PointService::outcome`], but waits up to `limit` for the entry. It does not wait if too many callers wait
    /// already.
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn outcome_within(
        &self,
        user_id: UserId,
        request_id: RequestId,
        limit: Duration,
    ) -> Result<Option<Arc<Entry>>, ServiceError> {
        let waiting = self.readers.waiters.try_acquire();
        let deadline = Instant::now() + limit;
        loop {
            let found = self.outcome(user_id.clone(), request_id).await?;
            if found.is_some() || waiting.is_err() || Instant::now() >= deadline {
                return Ok(found);
            }
            sleep_until(self.readers.next_round().min(deadline)).await;
        }
    }
}
