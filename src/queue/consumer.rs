//! Deliveries in, acks and rejects out, of one partition. What is done with a delta may not enter.

use std::time::Duration;

use amqprs::{
    FieldTable, FieldValue,
    channel::{
        BasicAckArguments, BasicConsumeArguments, BasicQosArguments, BasicRejectArguments, Channel,
        ConsumerMessage,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    link::{LinkWatch, Session, in_own_task},
    message::{self, Malformed},
};
use crate::domain::{APPLY_BATCH_MAX, Delta};

/// The most messages of a partition that are under way to us or in our hands. Never make it smaller: a quorum
/// queue puts what a worker returns behind what was returned before it, so the order holds as long as the next
/// worker takes at once all that the last one held.
const PREFETCH: u16 = 512;

/// The longest that subscribing may take, and handing over an ack.
const RPC_TIMEOUT_MS: u64 = 5_000;

/// A message from the queue.
pub struct Delivery {
    tag: u64,
    /// Its deltas, or why it has none.
    pub deltas: Result<Vec<Delta>, String>,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Its deltas are in the log.
    Ack,
    /// It can never be applied.
    DeadLetter,
    /// Not now: it, and all that follow it, come again.
    Hold,
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
}

struct Subscription {
    session: Session,
    channel: Channel,
    messages: mpsc::UnboundedReceiver<ConsumerMessage>,
}

impl Consumer {
    /// A consumer that subscribes at the first [`Consumer::next`]. `worker` names this process; the worker
    /// that ranks highest for a partition is preferred for it by a broker that knows priorities.
    #[must_use]
    pub fn new(partition: u16, link: LinkWatch, worker: Uuid, stop: CancellationToken) -> Self {
        Self { partition, link, worker, stop, subscription: None }
    }

    /// The partition it consumes.
    #[must_use]
    pub fn partition(&self) -> u16 {
        self.partition
    }

    /// Waits for messages and takes all that are there, up to about the size of one transaction, in their
    /// order. Subscribes again after a failure. `None` once the stop token is cancelled.
    pub async fn next(&mut self) -> Option<Vec<Delivery>> {
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            loop {
                if let Some(deliveries) = self.receive().await {
                    return deliveries;
                }
            }
        })
        .await
    }

    async fn receive(&mut self) -> Option<Vec<Delivery>> {
        if self.subscription.is_none() {
            let session = self.link.session().await;
            match self.subscribe(session.clone()).await {
                Ok(subscription) => self.subscription = Some(subscription),
                Err(error) => {
                    log::warn!("subscribing to partition {}: {error}", self.partition);
                    session.over.cancel();
                    return None;
                }
            }
        }
        let subscription = self.subscription.as_mut()?;
        let first = tokio::select! {
            message = subscription.messages.recv() => message,
            () = subscription.session.over.cancelled() => None,
        };
        let Some(first) = first else {
            subscription.session.over.cancel();
            self.subscription = None;
            return None;
        };
        let mut deliveries = vec![self.delivery(first)?];
        let mut deltas = count(&deliveries[0]);
        while deltas < APPLY_BATCH_MAX
            && let Ok(next) = self.subscription.as_mut()?.messages.try_recv()
        {
            let delivery = self.delivery(next)?;
            deltas += count(&delivery);
            deliveries.push(delivery);
        }
        Some(deliveries)
    }

    fn delivery(&self, message: ConsumerMessage) -> Option<Delivery> {
        let tag = message.deliver?.delivery_tag();
        let deltas = message::decode(&message.content.unwrap_or_default(), self.partition);
        Some(Delivery { tag, deltas: deltas.map_err(|error: Malformed| error.to_string()) })
    }

    async fn subscribe(&self, session: Session) -> Result<Subscription, String> {
        let (channel, _) = session.open_channel().await?;
        let mut arguments = FieldTable::new();
        let priority = FieldValue::I(rank(self.worker, self.partition));
        arguments.insert("x-priority".try_into().expect("a short name"), priority);
        let queue = self.link.names.partition(self.partition);
        let consume = BasicConsumeArguments::new(&queue, "").arguments(arguments).finish();
        let subscribing = channel.clone();
        let (_, messages) = in_own_task(RPC_TIMEOUT_MS, async move {
            subscribing.basic_qos(BasicQosArguments::new(0, PREFETCH, false)).await?;
            subscribing.basic_consume_rx(consume).await
        })
        .await?;
        Ok(Subscription { session, channel, messages })
    }

    /// Tells the broker what became of `deliveries`, one disposition each. Where it can't be told, the
    /// messages come again.
    pub async fn settle(&mut self, deliveries: &[Delivery], dispositions: &[Disposition]) {
        let Some(subscription) = &self.subscription else { return };
        let telling = tell(&subscription.channel, deliveries, dispositions);
        let told = timeout(Duration::from_millis(RPC_TIMEOUT_MS), telling).await;
        if !matches!(told, Ok(Ok(()))) {
            subscription.session.over.cancel();
        }
        if dispositions.contains(&Disposition::Hold) {
            self.unsubscribe().await;
        }
    }

    /// Ends the subscription; what was not settled goes back to its place in the queue.
    pub async fn unsubscribe(&mut self) {
        let Some(subscription) = self.subscription.take() else { return };
        if !subscription.session.over.is_cancelled()
            && let Err(error) = Session::close_channel(subscription.channel).await
        {
            log::warn!("leaving partition {}: {error}", self.partition);
            subscription.session.over.cancel();
        }
    }
}

/// Rejects what is dead and acks what is done, up to the first that is held.
async fn tell(
    channel: &Channel,
    deliveries: &[Delivery],
    dispositions: &[Disposition],
) -> Result<(), amqprs::error::Error> {
    let mut last_done = None;
    for (delivery, disposition) in deliveries.iter().zip(dispositions) {
        match disposition {
            Disposition::Ack => last_done = Some(delivery.tag),
            Disposition::DeadLetter => {
                channel.basic_reject(BasicRejectArguments::new(delivery.tag, false)).await?;
            }
            Disposition::Hold => break,
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
