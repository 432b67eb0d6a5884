//! The worker of the queue: consumer → `apply_deltas` → ack. Must not contain HTTP, AMQP frames or SQL.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use log::{Level, kv::Value};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::{
    domain::{Delta, Outcome, PointService, ServiceError, TraceParent},
    infra::{logging, metrics::WorkerMetrics},
    queue::{Consumer, Delivery, Disposition, Event},
};
use hand::{Hand, Taken};

mod hand;

/// The most held messages that have deltas of users with an obstacle. Once there are more, the partition waits. Until
/// then, half of the messages that the broker sends ahead are left for the other users.
const WAITING_MESSAGES_MAX: usize = 256;

/// The longest that a worker holds a message. Afterwards its messages go back to the queue and come again, well before
/// the broker's `consumer_timeout` of 30 minutes (RabbitMQ, Delivery Acknowledgement Timeout).
const HOLD_TIME_MAX_S: u64 = 600;

/// The pause before a partition asks again for a turn for its waiting users, after all turns were taken.
const TURN_PAUSE_MS: u64 = 50;

/// How long a user has an obstacle before the log and the metrics name the user.
const REPORT_AFTER_MS: u64 = 1_000;

/// The most users with an obstacle that the metrics of a partition name.
const NAMED_USERS_MAX: usize = 10;

/// Works on the partitions of `consumers` until each consumer has stopped and its last messages are settled or
/// returned.
pub async fn work(consumers: impl IntoIterator<Item = Consumer>, service: Arc<PointService>) {
    let tasks = TaskTracker::new();
    for consumer in consumers {
        let metrics = WorkerMetrics::new(consumer.partition());
        let partition = Partition {
            consumer,
            service: Arc::clone(&service),
            hand: Hand::default(),
            no_turn_before: Instant::now(),
            metrics,
        };
        tasks.spawn(outlive(tokio::spawn(partition.work())));
    }
    tasks.close();
    tasks.wait().await;
}

/// Ends the process if a partition's task panics. Otherwise the defect would silently leave the partition without a
/// worker. The unsettled messages come again, to another worker.
async fn outlive(partition: JoinHandle<()>) {
    if partition.await.is_err_and(|error| error.is_panic()) {
        log::error!("a partition's task has panicked; ending the process");
        std::process::abort();
    }
}

/// The results of a group of deltas, or why none of them has an answer.
type Results = Result<Vec<Result<Outcome, ServiceError>>, ServiceError>;

fn deltas(taken: &[Taken]) -> Vec<Delta> {
    taken.iter().map(|taken| taken.delta.clone()).collect()
}

/// One partition, as this worker sees it.
struct Partition {
    consumer: Consumer,
    service: Arc<PointService>,
    hand: Hand,
    /// When the waiting users may have a turn.
    no_turn_before: Instant,
    metrics: WorkerMetrics,
}

impl Partition {
    /// Applies one group at a time. The next group is not applied before this one is settled, so a user's order holds.
    async fn work(mut self) {
        loop {
            let room = self.hand.len() < WAITING_MESSAGES_MAX;
            self.consumer.set_busy(!room);
            let deltas_max = if room { self.service.group_max() } else { 0 };
            let Some(event) = self.consumer.next(deltas_max, self.due()).await else { break };
            let deliveries = match event {
                Event::Messages(deliveries) => deliveries,
                Event::Due => Vec::new(),
                Event::NotUnderstood(why) => {
                    self.keep(&why).await;
                    continue;
                }
                Event::Lost => {
                    self.hand.clear();
                    self.report();
                    continue;
                }
            };
            let malformed = self.count_malformed(&deliveries);
            let taken = self.hand.take(deliveries, Instant::now());
            self.metrics.taken(self.hand.oldest());
            self.consumer.set_busy(true);
            let results = if taken.is_empty() {
                Ok(Vec::new())
            } else {
                self.service.apply_deltas(deltas(&taken)).await
            };
            self.settle(taken, results, malformed).await;
            if self.due().is_some_and(|due| due <= Instant::now()) {
                self.apply_waiting().await;
            }
            self.report();
            let is_old = |since: Instant| since.elapsed() > Duration::from_secs(HOLD_TIME_MAX_S);
            if self.hand.since().is_some_and(is_old) {
                let partition = self.consumer.partition();
                log::warn!(
                    "partition {partition}: messages held for {HOLD_TIME_MAX_S} s go back to the queue"
                );
                self.give_back().await;
            }
        }
        self.give_back().await;
    }

    /// When to try the waiting users again.
    fn due(&self) -> Option<Instant> {
        self.hand.due().map(|due| due.max(self.no_turn_before))
    }

    /// Applies the deltas of users that are due, apart from others. If the other partitions have all the turns, the
    /// users wait a little longer, and nobody else does.
    async fn apply_waiting(&mut self) {
        let service = Arc::clone(&self.service);
        let Some(turn) = service.apart() else {
            self.no_turn_before = Instant::now() + Duration::from_millis(TURN_PAUSE_MS);
            return;
        };
        for take in [Hand::take_due, Hand::take_slow] {
            let taken = take(&mut self.hand, Instant::now());
            if !taken.is_empty() {
                let results = turn.apply(&deltas(&taken)).await;
                self.settle(taken, Ok(results), 0).await;
            }
        }
    }

    /// Settles the finished messages. After a failure that is not an obstacle of one user, all other messages go back.
    async fn settle(&mut self, taken: Vec<Taken>, results: Results, malformed: u64) {
        let (results, failure) = match results {
            Ok(results) => {
                let failed = |result: &&Result<_, _>| {
                    matches!(
                        result,
                        Err(ServiceError::Unavailable(_)
                            | ServiceError::Overloaded
                            | ServiceError::NotUnderstood(_))
                    )
                };
                let failure = results.iter().find(failed).and_then(|result| result.as_ref().err().cloned());
                (results, failure)
            }
            Err(failure) => (Vec::new(), Some(failure)),
        };
        for (taken, result) in taken.iter().zip(&results) {
            log_result(&taken.delta, result);
        }
        let decided = taken.iter().zip(&results).filter(|(_, result)| result.is_ok());
        self.metrics.settled(decided.map(|(taken, _)| taken.delta.requested_at));
        for (user, waited) in self.hand.note(taken, &results, Instant::now()) {
            if waited.is_reported {
                log::info!(user_id:% = user; "the user's changes no longer wait, after {} s", waited.since.elapsed().as_secs());
            }
        }
        let settled = self.hand.settled();
        let dead = settled.iter().filter(|(_, disposition)| *disposition == Disposition::DeadLetter).count();
        self.metrics.refused.inc_by((dead as u64).saturating_sub(malformed));
        self.consumer.settle(&settled, self.hand.first_open()).await;
        match failure {
            None => {}
            Some(ServiceError::NotUnderstood(why)) => self.keep(&why).await,
            Some(failure) => {
                log::warn!("partition {}: {failure}; its messages go back", self.consumer.partition());
                self.give_back().await;
                // Until our database answers, leave the partition to another worker: its database may answer.
                self.consumer.wait_for(self.service.can_apply()).await;
            }
        }
    }

    /// Leaves the partition, whose next message is not understood for this reason, to a worker that understands it.
    /// This worker looks again later.
    async fn keep(&mut self, why: &str) {
        self.forget();
        let (pause_s, partition) = (self.consumer.keep().await.as_secs(), self.consumer.partition());
        log::warn!("partition {partition} waits for a newer worker: {why}; looking again in {pause_s} s");
    }

    /// Ends the subscription. The unsettled messages go back to their places in the queue, and come again.
    async fn give_back(&mut self) {
        self.forget();
        self.consumer.unsubscribe().await;
    }

    /// Forgets the unsettled messages, which go back.
    fn forget(&mut self) {
        self.metrics.held.inc_by(self.hand.len() as u64);
        self.hand.clear();
        self.report();
    }

    /// Names the users that have had an obstacle for a while, in the log and the metrics.
    fn report(&mut self) {
        self.metrics.taken(self.hand.oldest());
        let mut named = Vec::new();
        for (user, waiting) in self.hand.waiting() {
            if waiting.since.elapsed() < Duration::from_millis(REPORT_AFTER_MS) {
                continue;
            }
            if !waiting.is_reported {
                waiting.is_reported = true;
                log::warn!(user_id:% = user; "the user's changes wait, and only they: {}", waiting.obstacle);
            }
            named.push((waiting.since, user.to_string(), waiting.obstacle.as_str()));
        }
        let count = named.len();
        named.sort_unstable();
        named.truncate(NAMED_USERS_MAX);
        self.metrics.users_wait(count, named);
    }

    fn count_malformed(&self, deliveries: &[Delivery]) -> u64 {
        let mut count = 0;
        for why in deliveries.iter().filter_map(|delivery| delivery.deltas.as_ref().err()) {
            log::error!("a message goes to the dead letters: {why}");
            count += 1;
        }
        self.metrics.malformed.inc_by(count);
        count
    }
}

fn log_result(delta: &Delta, result: &Result<Outcome, ServiceError>) {
    match result {
        Ok(outcome) => log_outcome(delta, outcome),
        Err(ServiceError::Refused(why)) => {
            log_delta(Level::Error, delta, None, format_args!("its message goes to the dead letters: {why}"));
        }
        Err(
            ServiceError::Blocked(_)
            | ServiceError::Unavailable(_)
            | ServiceError::Overloaded
            | ServiceError::NotUnderstood(_),
        ) => {}
    }
}

/// Logs rejections, which customers are likely to ask about, and sampled traces at level info; other outcomes at debug.
fn log_outcome(delta: &Delta, outcome: &Outcome) {
    let rejection = outcome.entry.rejection.as_ref().filter(|_| !outcome.replayed);
    let is_traced = delta.traceparent.as_ref().is_some_and(TraceParent::is_sampled);
    let level = if rejection.is_some() || is_traced { Level::Info } else { Level::Debug };
    if log::log_enabled!(level) {
        let seq = Some(outcome.entry.seq);
        match rejection {
            Some(why) => log_delta(level, delta, seq, format_args!("rejected: {}", why.as_str())),
            None if outcome.replayed => log_delta(level, delta, seq, format_args!("already in the log")),
            None => log_delta(level, delta, seq, format_args!("applied")),
        }
    }
}

fn log_delta(level: Level, delta: &Delta, seq: Option<i64>, what: fmt::Arguments) {
    let mut pairs = vec![
        ("request_id", Value::from_display(&delta.request_id)),
        ("user_id", Value::from_display(&delta.user_id)),
    ];
    pairs.extend(seq.map(|seq| ("seq", seq.into())));
    pairs.extend(delta.traceparent.iter().map(|trace| ("traceparent", trace.as_str().into())));
    logging::write(level, module_path!(), what, &pairs);
}
