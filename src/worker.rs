//! The worker of the queue: consumer → `apply_deltas` → ack. Must not contain HTTP, AMQP frames or SQL.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::{
    domain::{Delta, Outcome, PointService, ServiceError},
    infra::metrics::WorkerMetrics,
    queue::{Consumer, Delivery, Disposition, Event},
};
use hand::{Hand, Taken};
use lines::log_result;

mod hand;
mod lines;

/// The most held messages that have deltas of users with an obstacle. Once there are more, the partition waits. Until
/// then, half of the messages that the broker sends ahead are left for the other users.
const WAITING_MESSAGES_MAX: usize = 256;

/// The pause before a partition asks again for a turn for its waiting users, after all turns were taken.
const TURN_PAUSE_MS: u64 = 50;

/// How long a user has an obstacle before the log and the metrics name the user.
const REPORT_AFTER_MS: u64 = 1_000;

/// The most users with an obstacle that the metrics of a partition name.
const NAMED_USERS_MAX: usize = 10;

/// Works on the partitions of `consumers` until each consumer has stopped and its last messages are settled or
/// returned. If a message is held for longer than `ack_timeout`, those of its partition go back to the queue and come
/// again.
pub async fn work(
    consumers: impl IntoIterator<Item = Consumer>,
    service: Arc<PointService>,
    ack_timeout: Duration,
) {
    let tasks = TaskTracker::new();
    for consumer in consumers {
        let metrics = WorkerMetrics::new(consumer.partition());
        let partition = Partition {
            consumer,
            service: Arc::clone(&service),
            hand: Hand::default(),
            not_understood: None,
            no_turn_before: Instant::now(),
            ack_timeout,
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

/// The state of one partition in this worker.
struct Partition {
    consumer: Consumer,
    service: Arc<PointService>,
    hand: Hand,
    /// The first message behind those in hand is not understood, for this reason.
    not_understood: Option<String>,
    /// When the waiting users may have a turn.
    no_turn_before: Instant,
    /// The longest that a message is held: well below the broker's `consumer_timeout` (RabbitMQ, Delivery
    /// Acknowledgement Timeout).
    ack_timeout: Duration,
    metrics: WorkerMetrics,
}

impl Partition {
    /// Applies one group at a time. The next group is not applied before this one is settled, so a user's order holds.
    async fn work(mut self) {
        loop {
            if self.hand.len() == 0
                && let Some(why) = self.not_understood.take()
            {
                self.keep(&why).await;
            }
            let room = self.not_understood.is_none() && self.hand.len() < WAITING_MESSAGES_MAX;
            self.consumer.set_busy(!room);
            let deltas_max = if room { self.service.group_max() } else { 0 };
            let Some(event) = self.consumer.next(deltas_max, self.due()).await else { break };
            let deliveries = match event {
                Event::Messages(deliveries) => deliveries,
                Event::Due => Vec::new(),
                Event::NotUnderstood(why) => {
                    self.meet(why);
                    continue;
                }
                Event::Lost => {
                    self.clear();
                    continue;
                }
            };
            let malformed = self.count_malformed(&deliveries);
            let taken = self.hand.take(deliveries, Instant::now());
            self.tell_oldest();
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
            if self.held_until().is_some_and(|until| until <= Instant::now()) {
                let (partition, limit) = (self.consumer.partition(), self.ack_timeout);
                log::warn!("partition {partition}: messages held for {limit:?} go back to the queue");
                match self.not_understood.take() {
                    Some(why) => self.keep(&why).await,
                    None => self.give_back().await,
                }
            }
        }
        self.give_back().await;
    }

    /// When to try the waiting users again, or to give the messages back.
    fn due(&self) -> Option<Instant> {
        let turn = self.hand.due().map(|due| due.max(self.no_turn_before));
        turn.into_iter().chain(self.held_until()).min()
    }

    /// Until when the messages may be held.
    fn held_until(&self) -> Option<Instant> {
        self.hand.since().map(|since| since + self.ack_timeout)
    }

    /// Applies the deltas of users that are due, apart from others. If other partitions hold all turns, only these users
    /// wait longer.
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

    /// Settles the finished messages. After a failure that is not an obstacle of one user, all other messages go back. If
    /// a delta is not understood, its message and all behind it go back, once the messages before it are settled.
    async fn settle(&mut self, taken: Vec<Taken>, results: Results, malformed: u64) {
        let (results, mut failure) = match results {
            Ok(results) => (results, None),
            Err(failure) => (Vec::new(), Some(failure)),
        };
        let mut not_understood = None;
        for result in &results {
            match result {
                Err(ServiceError::NotUnderstood(why)) => not_understood = Some(why.clone()),
                Err(error @ (ServiceError::Unavailable(_) | ServiceError::Overloaded)) => {
                    failure = Some(error.clone());
                }
                Ok(_) | Err(ServiceError::Refused(_) | ServiceError::Blocked(_)) => {}
            }
        }
        for (taken, result) in taken.iter().zip(&results) {
            log_result(&taken.delta, result);
        }
        // A redelivered message is not counted again in the lag.
        let is_new = |result: &Result<Outcome, _>| result.as_ref().is_ok_and(|outcome| !outcome.replayed);
        let decided = taken.iter().zip(&results).filter(|(_, result)| is_new(result));
        self.metrics.settled(decided.map(|(taken, _)| taken.delta.requested_at));
        let held = self.hand.len();
        for (user, waited) in self.hand.note(taken, &results, Instant::now()) {
            if waited.is_reported {
                let waited_s = waited.since.elapsed().as_secs();
                log::info!(user_id:% = user; "the user's changes continue after a wait of {waited_s} s");
            }
        }
        self.metrics.held.inc_by((held - self.hand.len()) as u64);
        let settled = self.hand.settled();
        let dead = settled.iter().filter(|(_, disposition)| *disposition == Disposition::DeadLetter).count();
        self.metrics.refused.inc_by((dead as u64).saturating_sub(malformed));
        self.consumer.settle(&settled, self.hand.first_open()).await;
        if let Some(why) = not_understood {
            self.meet(why);
        }
        if let Some(failure) = failure {
            log::warn!("partition {}: {failure}; its messages go back", self.consumer.partition());
            self.give_back().await;
            // Until our database answers, leave the partition to another worker: its database may answer.
            self.consumer.wait_for(self.service.can_apply()).await;
        }
    }

    /// Notes that the first message behind those in hand is not understood. The messages in hand come first.
    fn meet(&mut self, why: String) {
        if self.hand.len() > 0 && self.not_understood.is_none() {
            let partition = self.consumer.partition();
            log::warn!(
                "partition {partition}: the next message needs a newer worker: {why}; those before it come first"
            );
        }
        self.not_understood.get_or_insert(why);
    }

    /// Leaves the partition to a worker that understands the next message. `why` says what this worker does not know.
    /// This worker looks again later.
    async fn keep(&mut self, why: &str) {
        self.forget();
        let (pause_s, partition) = (self.consumer.keep().await.as_secs(), self.consumer.partition());
        log::warn!("partition {partition} waits for a newer worker: {why}; looking again in {pause_s} s");
    }

    /// Ends the subscription. The unsettled messages return to their places in the queue, and come again.
    async fn give_back(&mut self) {
        self.forget();
        self.consumer.unsubscribe().await;
    }

    /// Forgets the unsettled messages; they return to the queue.
    fn forget(&mut self) {
        self.metrics.held.inc_by(self.hand.len() as u64);
        self.clear();
    }

    /// Forgets everything about a subscription that has ended.
    fn clear(&mut self) {
        (self.hand, self.not_understood) = (Hand::default(), None);
        self.report();
    }

    fn tell_oldest(&self) {
        let oldest = self.hand.oldest();
        self.metrics.taken(oldest);
        self.consumer.set_oldest(oldest);
    }

    /// Names the users that have had an obstacle for a while, in the log and the metrics.
    fn report(&mut self) {
        self.tell_oldest();
        let mut named = Vec::new();
        for (user, waiting) in self.hand.waiting() {
            if waiting.since.elapsed() < Duration::from_millis(REPORT_AFTER_MS) {
                continue;
            }
            if !waiting.is_reported {
                waiting.is_reported = true;
                log::warn!(user_id:% = user; "only this user's changes wait: {}", waiting.obstacle);
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
