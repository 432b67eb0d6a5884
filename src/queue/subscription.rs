//! A subscription to the queue of one partition. Must not contain what is done with a delivery.

use std::time::Instant;

use amqprs::{
    FieldTable, FieldValue,
    channel::{BasicConsumeArguments, BasicQosArguments, ConsumerMessage},
};
use tokio::sync::mpsc;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    link::LinkWatch,
    session::{OpenChannel, Session},
};

/// The most unsettled messages of a partition that the broker sends. Never make it smaller: a quorum queue puts a
/// returned message behind the messages that were returned before. So the order holds only if the next subscriber takes
/// at once all the messages that the previous one held.
const PREFETCH: u16 = 512;

/// The name of the consumer on its channel, which has no other.
const TAG: &str = "worker";

/// The longest that a subscription or the sending of acks may take.
pub(super) const RPC_TIMEOUT_MS: u64 = 5_000;

/// The priority of a subscriber that yields to every worker: it is below every [`rank`].
pub(super) const LOWEST_PRIORITY: i32 = -1;

/// A subscription, and the deliveries that have arrived. Of all subscribers to a partition, the broker lets one be
/// active.
pub(super) struct Subscription {
    pub(super) session: Session,
    pub(super) channel: OpenChannel,
    pub(super) messages: mpsc::UnboundedReceiver<ConsumerMessage>,
    pub(super) began: Instant,
}

impl Subscription {
    /// Subscribes to the queue of `partition`. A broker that supports priorities prefers the subscriber with the highest.
    pub(super) async fn open(
        link: &LinkWatch,
        session: Session,
        partition: u16,
        priority: i32,
    ) -> Result<Self, String> {
        let channel = link.open_partition(&session, partition).await?;
        let mut arguments = FieldTable::new();
        arguments.insert("x-priority".try_into().expect("a short name"), FieldValue::I(priority));
        let queue = link.names.partition(partition);
        // RabbitMQ may send `consume-ok` twice while the leader of a queue stops, and amqprs panics at the second. So we
        // ask for none. The broker answers in order: the answer to the second `qos` follows the subscription.
        let consume = BasicConsumeArguments::new(&queue, TAG).arguments(arguments).no_wait(true).finish();
        let qos = || BasicQosArguments::new(0, PREFETCH, false);
        let subscribing = channel.ask(RPC_TIMEOUT_MS, |channel| async move {
            channel.basic_qos(qos()).await?;
            let subscribed = channel.basic_consume_rx(consume).await?;
            channel.basic_qos(qos()).await?;
            Ok(subscribed)
        });
        let (_, messages) = subscribing.await?;
        Ok(Self { session, channel, messages, began: Instant::now() })
    }

    /// Ends the subscription, after the broker has read what was sent before. Unsettled messages go back to their
    /// places in the queue.
    pub(super) async fn close(self) -> Result<(), String> {
        self.channel.close().await.inspect_err(|_| self.session.check())
    }
}

/// The rank of a worker for a partition, from 0 to 2^31 − 1. Rendezvous hashing (Thaler and Ravishankar, 1998) spreads
/// the partitions evenly, and moves few of them when a worker starts or stops.
pub(super) fn rank(worker: Uuid, partition: u16) -> i32 {
    let pair = [&worker.as_bytes()[..], &partition.to_le_bytes()].concat();
    i32::try_from(xxh3_64(&pair) >> 33).expect("31 bits")
}
