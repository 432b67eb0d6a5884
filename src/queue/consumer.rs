//! Takes the deliveries of one partition and sends acks and rejects. Must not contain what is done with a delta.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    delivery::{Delivery, Disposition, tell},
    link::LinkWatch,
    pauses::Pauses,
    progress::Progress,
    subscription::{LOWEST_PRIORITY, RPC_TIMEOUT_MS, Subscription, rank},
};

/// The longest pause between attempts to subscribe.
const SUBSCRIBE_PAUSE_MAX_MS: u64 = 10_000;

/// The pauses between looks at a partition whose next message is not understood. The longest leaves time to subscribe, so
/// that there is a look at least once a minute.
const KEEP_PAUSE_MIN_MS: u64 = 5_000;
const KEEP_PAUSE_MAX_MS: u64 = 50_000;

/// How much later than planned a look may be. After that, the partition no longer counts as kept: this worker can't look.
const LOOK_DELAY_MAX_MS: u64 = 10_000;

/// What a consumer reports.
#[derive(Debug)]
pub enum Event {
    /// Messages, in order.
    Messages(Vec<Delivery>),
    /// The next message is not understood, for this reason.
    NotUnderstood(String),
    /// The time `due` was reached.
    Due,
    /// The subscription has ended. Its unsettled messages come again.
    Lost,
}

/// The consumer of one partition. Of all consumers that subscribe to the partition, the broker lets one be active.
///
/// It has its own channel, so that the tags are one sequence: an ack of all messages up to a tag covers only finished
/// messages of this partition.
pub struct Consumer {
    partition: u16,
    link: LinkWatch,
    worker: Uuid,
    understands: u64,
    stop: CancellationToken,
    subscription: Option<Subscription>,
    /// The next message is not understood, for this reason.
    not_understood: Option<String>,
    pauses: Pauses,
    /// The pauses between looks, while the worker keeps the partition.
    keeping: Option<Pauses>,
    /// When the next subscription may begin.
    not_before: Instant,
    progress: Progress,
}

impl Consumer {
    /// A consumer that subscribes at the first [`Consumer::next`], and understands messages up to the version
    /// `understands`. `worker` identifies this process. A broker that supports priorities prefers the worker that ranks
    /// highest for the partition.
    #[must_use]
    pub fn new(
        partition: u16,
        link: LinkWatch,
        worker: Uuid,
        understands: u64,
        stop: CancellationToken,
    ) -> Self {
        Self {
            partition,
            link,
            worker,
            understands,
            stop,
            subscription: None,
            not_understood: None,
            pauses: Pauses::new(SUBSCRIBE_PAUSE_MAX_MS),
            keeping: None,
            not_before: Instant::now(),
            progress: Progress::default(),
        }
    }

    /// The partition it consumes.
    #[must_use]
    pub fn partition(&self) -> u16 {
        self.partition
    }

    /// The progress of this consumer.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Sets whether it takes no messages now because its worker is busy.
    pub fn set_busy(&self, is_busy: bool) {
        self.progress.update(|standing| standing.is_busy = is_busy);
    }

    /// Sets when the oldest delta that its worker holds was accepted.
    pub fn set_oldest(&self, oldest: Option<Timestamp>) {
        self.progress.update(|standing| standing.oldest = oldest);
    }

    /// Waits for messages, but not longer than until `due`. Takes the messages that are available, in order, until they
    /// have `deltas_max` deltas or the next one is not understood; it takes none if `deltas_max` is 0. Subscribes again
    /// after a failure. Returns `None` once the stop token is cancelled.
    pub async fn next(&mut self, deltas_max: usize, due: Option<Instant>) -> Option<Event> {
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            tokio::select! {
                event = self.receive(deltas_max) => event,
                () = async { sleep_until(due.expect("only then").into()).await }, if due.is_some() => Event::Due,
            }
        })
        .await
    }

    /// Waits for a condition or the stop token. The caller has unsubscribed before.
    pub async fn wait_for(&self, condition: impl Future<Output = ()>) {
        self.stop.run_until_cancelled(condition).await;
    }

    /// Cancel safe: a call that is dropped has taken no message.
    async fn receive(&mut self, deltas_max: usize) -> Event {
        while self.subscription.is_none() {
            self.subscribe().await;
        }
        if let Some(why) = self.not_understood.take() {
            return Event::NotUnderstood(why);
        }
        let subscription = self.subscription.as_mut().expect("as was seen");
        let mut next = tokio::select! {
            biased;
            () = subscription.channel.over.cancelled() => None,
            message = subscription.messages.recv(), if deltas_max > 0 => message,
        };
        if next.is_none() {
            if !subscription.channel.is_over() {
                // The task of amqprs that reads the channel has ended. Only the end of the connection closes the channel.
                subscription.session.over.cancel();
            }
            return self.lost();
        }
        let ours = (self.partition, self.link.partitions());
        let (mut deliveries, mut deltas) = (Vec::new(), 0);
        while let Some(message) = next {
            match Delivery::read(message, ours, self.understands) {
                Ok(Some(delivery)) => deliveries.push(delivery),
                Ok(None) => return self.lost(),
                Err(why) if deliveries.is_empty() => return Event::NotUnderstood(why),
                Err(why) => {
                    self.not_understood = Some(why);
                    break;
                }
            }
            deltas += deliveries.last().map_or(0, Delivery::count);
            let available = self.subscription.as_mut().filter(|_| deltas < deltas_max);
            next = available.and_then(|open| open.messages.try_recv().ok());
        }
        let taken =
            deliveries.iter().filter_map(|delivery: &Delivery| delivery.deltas.as_ref().ok()).flatten();
        if let Some(latest) = taken.map(|delta| delta.requested_at).max() {
            self.progress.update(|standing| standing.taken_until = standing.taken_until.max(Some(latest)));
        }
        Event::Messages(deliveries)
    }

    /// Notes that the subscription has ended. After a short subscription, the next one waits for a while.
    fn lost(&mut self) -> Event {
        if let Some(ended) = self.ended(None) {
            ended.channel.over.cancel();
            self.not_before = Instant::now() + self.pauses.after(ended.began);
        }
        Event::Lost
    }

    fn ended(&mut self, kept_until: Option<Instant>) -> Option<Subscription> {
        let ended = self.subscription.take()?;
        self.not_understood = None;
        self.progress.update(|standing| (standing.subscribed_at, standing.kept_until) = (None, kept_until));
        Some(ended)
    }

    async fn subscribe(&mut self) {
        sleep_until(self.not_before.into()).await;
        // While it keeps the partition, it yields to any worker that may understand the next message.
        let priority =
            if self.keeping.is_some() { LOWEST_PRIORITY } else { rank(self.worker, self.partition) };
        let session = self.link.session().await;
        match Subscription::open(&self.link, session, self.partition, priority).await {
            Ok(subscription) => {
                self.progress.update(|standing| standing.subscribed_at = Some(subscription.began));
                self.subscription = Some(subscription);
            }
            Err(error) => {
                let pause = self.pauses.after_failure();
                let (partition, pause_ms) = (self.partition, pause.as_millis());
                log::warn!("subscribing to partition {partition}: {error}; trying again in {pause_ms} ms");
                self.not_before = Instant::now() + pause;
            }
        }
    }

    /// Tells the broker what becomes of deliveries, by their tags. `open` is the lowest unsettled tag: one ack covers
    /// all tags below it. If the broker can't be told, the messages come again.
    pub async fn settle(&mut self, settled: &[(u64, Disposition)], open: Option<u64>) {
        let Some(subscription) = &self.subscription else { return };
        if settled.is_empty() || subscription.channel.is_over() {
            return;
        }
        let telling = tell(&subscription.channel.channel, settled, open);
        let told = timeout(Duration::from_millis(RPC_TIMEOUT_MS), telling).await;
        if !matches!(told, Ok(Ok(()))) {
            log::warn!("partition {}: the broker does not accept the acks", self.partition);
            subscription.channel.over.cancel();
            subscription.session.check();
        }
        if self.keeping.take().is_some() {
            log::info!("partition {}: the next message is understood again", self.partition);
            self.progress.update(|standing| standing.kept_until = None);
        }
    }

    /// Ends the subscription. Unsettled messages go back to their places in the queue.
    pub async fn unsubscribe(&mut self) {
        let ended = self.ended(None);
        self.close(ended).await;
    }

    /// As [`Consumer::unsubscribe`]. The next subscription begins later and at the lowest priority: another worker may
    /// understand the next message. Returns the pause, which grows until a message is settled.
    pub async fn keep(&mut self) -> Duration {
        let pauses = self.keeping.get_or_insert_with(|| Pauses::new(KEEP_PAUSE_MAX_MS));
        let pause = pauses.after_failure().max(Duration::from_millis(KEEP_PAUSE_MIN_MS));
        self.not_before = Instant::now() + pause;
        let ended = self.ended(Some(self.not_before + Duration::from_millis(LOOK_DELAY_MAX_MS)));
        self.close(ended).await;
        pause
    }

    async fn close(&self, ended: Option<Subscription>) {
        if let Some(subscription) = ended
            && let Err(error) = subscription.close().await
        {
            log::warn!("unsubscribing from partition {}: {error}", self.partition);
        }
    }
}
