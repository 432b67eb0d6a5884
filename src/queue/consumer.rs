//! Deliveries in, acks and rejects out, of one partition. What is done with a delta may not enter.

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
    topology,
    wire::{self, Malformed},
};
use crate::domain::Delta;

/// The most messages of a partition that are under way to us or in our hands. Never make it smaller: a quorum
/// queue puts what a worker returns behind what was returned before it, so the order holds as long as the next
/// worker takes at once all that the last one held.
const PREFETCH: u16 = 512;

/// The longest that subscribing may take, and handing over an ack.
const RPC_TIMEOUT_MS: u64 = 5_000;

/// The longest pause between tries to subscribe.
const SUBSCRIBE_PAUSE_MAX_MS: u64 = 10_000;

/// A message from the queue.
#[derive(Debug)]
pub struct Delivery {
    /// Its number in the subscription, in the order of the queue.
    pub tag: u64,
    /// Its deltas, or why it has none.
    pub deltas: Result<Vec<Delta>, String>,
}

/// What a consumer has to tell.
#[derive(Debug)]
pub enum Event {
    /// Messages, in their order.
    Messages(Vec<Delivery>),
    /// The time that was asked for has come.
    Due,
    /// The subscription has ended: what was taken in it and not settled comes again.
    Lost,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Its deltas are in the log.
    Ack,
    /// It can never be applied.
    DeadLetter,
}

/// The consumer of one partition. Of all that subscribe to it, the broker lets one be active.
///
/// It has a channel of its own, so that the tags are one sequence: an ack of "all up to" a tag covers only
/// messages of this partition that have come to their end.
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
    /// A consumer that subscribes at the first [`Consumer::next`]. `worker` names this process; the worker
    /// that ranks highest for a partition is preferred for it by a broker that knows priorities.
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

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Notes whether it takes no more for now, for a reason that its worker knows.
    pub fn set_busy(&self, is_busy: bool) {
        self.progress.update(|standing| standing.is_busy = is_busy);
    }

    /// Waits for messages and takes those that are there, until they have `deltas_max` deltas, in their order; none where
    /// that is 0. It waits until `due` at the most. Subscribes again after a failure. `None` once the stop token is
    /// cancelled.
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

    /// Waits for something else, without a subscription, or for the stop token.
    pub async fn wait_for(&self, condition: impl Future<Output = ()>) {
        self.stop.run_until_cancelled(condition).await;
    }

    /// Dropped at an await, it has taken no message.
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

    /// Notes that the subscription has ended. After a short one, the next waits for a while.
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
        let deltas = wire::decode(&message.content.unwrap_or_default(), self.partition);
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
        let channel = topology::open_partition(&session, &self.link.names, self.partition).await?;
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

    /// Tells the broker what became of deliveries, by their tags. `open` is the lowest tag that is taken and not
    /// settled; what is below it is acked at once. Where the broker can't be told, the messages come again.
    pub async fn settle(&mut self, settled: &[(u64, Disposition)], open: Option<u64>) {
        let Some(subscription) = &self.subscription else { return };
        if settled.is_empty() || subscription.channel.is_over() {
            return;
        }
        let telling = tell(&subscription.channel.channel, settled, open);
        let told = timeout(Duration::from_millis(RPC_TIMEOUT_MS), telling).await;
        if !matches!(told, Ok(Ok(()))) {
            log::warn!("partition {}: the broker can't be told what is done", self.partition);
            subscription.channel.over.cancel();
            subscription.session.check();
        }
    }

    /// Ends the subscription; what was not settled goes back to its place in the queue.
    pub async fn unsubscribe(&mut self) {
        let Some(subscription) = self.subscription.take() else { return };
        self.progress.update(|standing| standing.subscribed_at = None);
        if let Err(error) = subscription.channel.close().await {
            log::warn!("leaving partition {}: {error}", self.partition);
            subscription.session.check();
        }
    }
}

/// Rejects what is dead and acks what is done: at once where nothing before it is open, else one by one.
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

/// The rank of a worker for a partition, from 0 to 2^31 − 1: rendezvous hashing (Thaler and Ravishankar,
/// 1998) spreads the partitions evenly and moves few of them when a worker comes or goes.
fn rank(worker: Uuid, partition: u16) -> i32 {
    let pair = [&worker.as_bytes()[..], &partition.to_le_bytes()].concat();
    i32::try_from(xxh3_64(&pair) >> 33).expect("31 bits")
}
