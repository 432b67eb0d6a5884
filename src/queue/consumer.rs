//! Takes the deliveries of one partition and sends acks and rejects. Must not contain what is done with a delta.

use std::time::{Duration, Instant};

use amqprs::{
    FieldTable, FieldValue,
    channel::{
        BasicAckArguments, BasicConsumeArguments, BasicQosArguments, BasicRejectArguments, Channel,
        ConsumerMessage,
    },
};
use tokio::{
    sync::mpsc,
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    link::LinkWatch,
    pauses::Pauses,
    progress::Progress,
    session::{OpenChannel, Session},
    wire::{self, Malformed},
};
use crate::domain::Delta;

/// The most unsettled messages of a partition that the broker sends. Never make it smaller: a quorum queue puts a
/// returned message behind the messages that were returned before. So the order holds only if the next worker takes at
/// once all the messages that the previous one held.
const PREFETCH: u16 = 512;

/// The longest that a subscription or the sending of acks may take.
const RPC_TIMEOUT_MS: u64 = 5_000;

/// The longest pause between attempts to subscribe.
const SUBSCRIBE_PAUSE_MAX_MS: u64 = 10_000;

/// A message from the queue.
#[derive(Debug)]
pub struct Delivery {
    /// Its number in the subscription, in the order of the queue.
    pub tag: u64,
    /// Its deltas, or why it can't be read.
    pub deltas: Result<Vec<Delta>, String>,
}

/// What a consumer reports.
#[derive(Debug)]
pub enum Event {
    /// Messages, in order.
    Messages(Vec<Delivery>),
    /// The requested time has come.
    Due,
    /// The subscription has ended. Its unsettled messages come again.
    Lost,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Its deltas are in the log.
    Ack,
    /// It can't ever be applied.
    DeadLetter,
}

/// The consumer of one partition. Of all consumers that subscribe to the partition, the broker lets one be active.
///
/// It has its own channel, so that the tags are one sequence: an ack of all messages up to a tag covers only finished
/// messages of this partition.
pub struct Consumer {
    partition: u16,
    link: LinkWatch,
    worker: Uuid,
    stop: CancellationToken,
    subscription: Option<Subscription>,
    pauses: Pauses,
    /// When the next subscription may begin.
    not_before: Instant,
    progress: Progress,
}

struct Subscription {
    session: Session,
    channel: OpenChannel,
    messages: mpsc::UnboundedReceiver<ConsumerMessage>,
    began: Instant,
}

impl Consumer {
    /// A consumer that subscribes at the first [`Consumer::next`]. `worker` identifies this process. A broker that
    /// supports priorities prefers the worker that ranks highest for the partition.
    #[must_use]
    pub fn new(partition: u16, link: LinkWatch, worker: Uuid, stop: CancellationToken) -> Self {
        Self {
            partition,
            link,
            worker,
            stop,
            subscription: None,
            pauses: Pauses::new(SUBSCRIBE_PAUSE_MAX_MS),
            not_before: Instant::now(),
            progress: Progress::default(),
        }
    }

    /// The partition it consumes.
    #[must_use]
    pub fn partition(&self) -> u16 {
        self.partition
    }

    /// Its progress.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Sets whether it takes no messages now because its worker is busy.
    pub fn set_busy(&self, is_busy: bool) {
        self.progress.update(|standing| standing.is_busy = is_busy);
    }

    /// Waits for messages, but not longer than until `due`. Takes the messages that are available, in order, until they
    /// have `deltas_max` deltas; it takes none if that is 0. Subscribes again after a failure. Returns `None` once the
    /// stop token is cancelled.
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
        let subscription = self.subscription.as_mut().expect("as was seen");
        let first = tokio::select! {
            biased;
            () = subscription.channel.over.cancelled() => None,
            message = subscription.messages.recv(), if deltas_max > 0 => message,
        };
        let first = first.and_then(|message| self.delivery(message));
        let Some(first) = first else { return self.lost() };
        let mut deliveries = vec![first];
        let mut deltas = count(&deliveries[0]);
        while deltas < deltas_max
            && let Some(Ok(next)) = self.subscription.as_mut().map(|open| open.messages.try_recv())
        {
            let Some(delivery) = self.delivery(next) else { return self.lost() };
            deltas += count(&delivery);
            deliveries.push(delivery);
        }
        let taken = deliveries.iter().filter_map(|delivery| delivery.deltas.as_ref().ok()).flatten();
        if let Some(latest) = taken.map(|delta| delta.requested_at).max() {
            self.progress.update(|standing| standing.taken_until = standing.taken_until.max(Some(latest)));
        }
        Event::Messages(deliveries)
    }

    /// Notes that the subscription has ended. After a short subscription, the next one waits for a while.
    fn lost(&mut self) -> Event {
        if let Some(ended) = self.subscription.take() {
            ended.channel.over.cancel();
            self.progress.update(|standing| standing.subscribed_at = None);
            self.not_before = Instant::now() + self.pauses.after(ended.began);
        }
        Event::Lost
    }

    fn delivery(&self, message: ConsumerMessage) -> Option<Delivery> {
        let tag = message.deliver?.delivery_tag();
        let ours = (self.partition, self.link.partitions());
        let deltas = wire::decode(&message.content.unwrap_or_default(), ours);
        Some(Delivery { tag, deltas: deltas.map_err(|error: Malformed| error.to_string()) })
    }

    async fn subscribe(&mut self) {
        sleep_until(self.not_before.into()).await;
        let session = self.link.session().await;
        match self.subscription(session).await {
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

    async fn subscription(&self, session: Session) -> Result<Subscription, String> {
        let channel = self.link.open_partition(&session, self.partition).await?;
        let mut arguments = FieldTable::new();
        let priority = FieldValue::I(rank(self.worker, self.partition));
        arguments.insert("x-priority".try_into().expect("a short name"), priority);
        let queue = self.link.names.partition(self.partition);
        let consume = BasicConsumeArguments::new(&queue, "").arguments(arguments).finish();
        let subscribing = channel.ask(RPC_TIMEOUT_MS, |channel| async move {
            channel.basic_qos(BasicQosArguments::new(0, PREFETCH, false)).await?;
            channel.basic_consume_rx(consume).await
        });
        let (_, messages) = subscribing.await?;
        Ok(Subscription { session, channel, messages, began: Instant::now() })
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
    }

    /// Ends the subscription. Unsettled messages go back to their places in the queue.
    pub async fn unsubscribe(&mut self) {
        let Some(subscription) = self.subscription.take() else { return };
        self.progress.update(|standing| standing.subscribed_at = None);
        if let Err(error) = subscription.channel.close().await {
            log::warn!("unsubscribing from partition {}: {error}", self.partition);
            subscription.session.check();
        }
    }
}

/// Rejects dead messages and acks the others: with one ack for all tags below the lowest open one, and one by one
/// above.
async fn tell(
    channel: &Channel,
    settled: &[(u64, Disposition)],
    open: Option<u64>,
) -> Result<(), amqprs::error::Error> {
    let mut last_done = None;
    for (tag, disposition) in settled {
        match disposition {
            Disposition::Ack if open.is_none_or(|open| *tag < open) => last_done = last_done.max(Some(*tag)),
            Disposition::Ack => channel.basic_ack(BasicAckArguments::new(*tag, false)).await?,
            Disposition::DeadLetter => {
                channel.basic_reject(BasicRejectArguments::new(*tag, false)).await?;
            }
        }
    }
    match last_done {
        Some(tag) => channel.basic_ack(BasicAckArguments::new(tag, true)).await,
        None => Ok(()),
    }
}

fn count(delivery: &Delivery) -> usize {
    delivery.deltas.as_ref().map_or(0, Vec::len)
}

/// The rank of a worker for a partition, from 0 to 2^31 − 1. Rendezvous hashing (Thaler and Ravishankar, 1998) spreads
/// the partitions evenly, and moves few of them when a worker comes or goes.
fn rank(worker: Uuid, partition: u16) -> i32 {
    let pair = [&worker.as_bytes()[..], &partition.to_le_bytes()].concat();
    i32::try_from(xxh3_64(&pair) >> 33).expect("31 bits")
}
