//! Deltas out: batched per partition, published, and safe once the broker confirms. No HTTP may enter.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amqprs::{
    BasicProperties, DELIVERY_MODE_PERSISTENT,
    channel::{BasicPublishArguments, Channel, ConfirmSelectArguments},
};
use jiff::Timestamp;
use tokio::time::timeout;

use super::{
    callbacks::ChannelEvent,
    link::LinkWatch,
    pace::Pace,
    pauses::Pauses,
    session::{OpenChannel, Session},
    topology, wire,
};
use crate::{
    domain::{Delta, PARTITIONS},
    infra::{
        lane::{Lane, LaneError, Trip, call_all},
        metrics::PublisherMetrics,
    },
};

/// A message takes waiting deltas until it has about this many bytes: hundreds of deltas, while all that a worker
/// has in its hands still fits its memory.
const MESSAGE_MAX_BYTES: usize = 128 * 1024;

/// The longest wait for a confirm, opening a channel included.
pub(super) const CONFIRM_TIMEOUT_MS: u64 = 5_000;

/// The longest pause between tries to use a partition's queue.
const OPEN_PAUSE_MAX_MS: u64 = 1_000;

/// The most deltas that may wait for one partition.
pub const PARTITION_CAPACITY: usize = 4_096;

/// Why a delta is not known to be in the queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No connection, or it failed before the confirm came. The delta may or may not be queued: send it
    /// again with its id.
    #[error("{0}")]
    Unavailable(String),
    /// The partition is full, here or at the broker; the delta is not queued.
    #[error("the queue takes no more now")]
    Full {
        /// When there should be room, at the pace of late.
        retry_after: Duration,
    },
}

/// Puts deltas on the queue; cheap to share behind an `Arc`.
///
/// Each partition has a channel of its own with one message in flight: its deltas get to the broker in the
/// order they came in, a confirm can only be that message's, and what comes meanwhile shares the next one.
pub struct Publisher {
    partitions: Vec<Lane<PublishTrip>>,
    paces: Vec<Arc<Pace>>,
}

impl Publisher {
    /// Starts a lane for each partition.
    #[must_use]
    pub fn start(link: &LinkWatch) -> Self {
        let paces: Vec<_> = (0..PARTITIONS).map(|_| Arc::new(Pace::new())).collect();
        let metrics = PublisherMetrics::default();
        let trip = |(partition, pace): (u16, &Arc<Pace>)| PublishTrip {
            partition,
            metrics: metrics.clone(),
            link: link.clone(),
            channel: None,
            pace: Arc::clone(pace),
            pauses: Pauses::new(OPEN_PAUSE_MAX_MS),
            not_before: Instant::now(),
        };
        let lane = |partition| Lane::start([trip(partition)], PARTITION_CAPACITY);
        Self { partitions: (0..).zip(&paces).map(lane).collect(), paces }
    }

    /// Returns once the broker has the delta on disk. Deltas of one user that are handed in one after
    /// the other are queued in that order.
    ///
    /// # Errors
    /// [`PublishError`], at the latest after twice the confirm timeout of 5 s.
    pub async fn publish(&self, delta: Delta) -> Result<(), PublishError> {
        let partition = usize::from(delta.user_id.partition());
        let published = self.partitions[partition].call(delta).await;
        published.unwrap_or_else(|error| Err(self.refused(partition, error)))
    }

    /// The same for many at once, with a result for each: they are queued in their order.
    ///
    /// # Errors
    /// [`PublishError`] where none of them is queued, as there is not room for all.
    pub async fn publish_all(
        &self,
        deltas: Vec<Delta>,
    ) -> Result<Vec<Result<(), PublishError>>, PublishError> {
        let deltas = deltas.into_iter().map(|delta| (delta.user_id.partition().into(), delta)).collect();
        let published = call_all(&self.partitions, deltas).await;
        let published = published.map_err(|(partition, error)| self.refused(partition, error))?;
        let ended = |error: LaneError| Err(PublishError::Unavailable(error.to_string()));
        Ok(published.into_iter().map(|one| one.unwrap_or_else(ended)).collect())
    }

    /// For each partition, when the latest of the deltas that are safe in it was accepted.
    #[must_use]
    pub fn accepted_until(&self) -> Vec<Option<Timestamp>> {
        self.paces.iter().map(|pace| pace.until()).collect()
    }

    fn refused(&self, partition: usize, error: LaneError) -> PublishError {
        match error {
            LaneError::Full => {
                PublishError::Full { retry_after: self.paces[partition].retry_after(PARTITION_CAPACITY) }
            }
            LaneError::Ended => PublishError::Unavailable(error.to_string()),
        }
    }
}

struct PublishTrip {
    partition: u16,
    link: LinkWatch,
    channel: Option<ConfirmChannel>,
    pace: Arc<Pace>,
    metrics: PublisherMetrics,
    pauses: Pauses,
    /// When a channel may be opened again.
    not_before: Instant,
}

impl Trip for PublishTrip {
    type Item = Delta;
    type Reply = Result<(), PublishError>;
    const NAME: &'static str = "publish";
    const MAX_WEIGHT: usize = MESSAGE_MAX_BYTES;

    fn weight(delta: &Delta) -> usize {
        wire::max_bytes(delta)
    }

    async fn carry(&mut self, deltas: Vec<Delta>) -> Vec<Self::Reply> {
        vec![self.publish(&deltas).await; deltas.len()]
    }
}

impl PublishTrip {
    async fn publish(&mut self, deltas: &[Delta]) -> Result<(), PublishError> {
        let session = self.link.current().map_err(PublishError::Unavailable)?;
        let limit = Duration::from_millis(CONFIRM_TIMEOUT_MS);
        let confirmed = tokio::select! {
            confirmed = timeout(limit, self.confirmed(&session, deltas)) => confirmed,
            () = session.over.cancelled() => Ok(Err(lost("the connection was lost before the confirm"))),
        };
        let result = match confirmed {
            Ok(Ok(Confirm::Ack)) => {
                self.pace.confirmed(deltas.len(), deltas.iter().map(|delta| delta.requested_at).max());
                Ok(())
            }
            Ok(Ok(Confirm::Nack)) => {
                Err(PublishError::Full { retry_after: self.pace.retry_after(deltas.len()) })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                // The other partitions go on, unless it is the connection that does not answer.
                session.check();
                Err(lost(&format!("no confirm within {CONFIRM_TIMEOUT_MS} ms")))
            }
        };
        let counter = match &result {
            Ok(()) => &self.metrics.confirmed,
            Err(PublishError::Full { .. }) => &self.metrics.refused,
            Err(PublishError::Unavailable(_)) => &self.metrics.unconfirmed,
        };
        counter.inc_by(deltas.len() as u64);
        if let Err(error) = &result {
            let (count, partition) = (deltas.len(), self.partition);
            log::warn!("{count} deltas for partition {partition} are not confirmed: {error}");
        }
        if matches!(result, Err(PublishError::Unavailable(_))) {
            // What is in flight is unknown: begin anew, so that no late confirm is taken for another's.
            self.channel = None;
        }
        result
    }

    async fn confirmed(&mut self, session: &Session, deltas: &[Delta]) -> Result<Confirm, PublishError> {
        let usable = self.channel.take().filter(|open| !open.channel.is_over());
        let channel = if let Some(channel) = usable { channel } else { self.open(session).await? };
        let queue = self.link.names.partition(self.partition);
        let id = deltas[0].request_id.to_string();
        self.channel.insert(channel).publish(&queue, Some(&id), wire::encode(deltas)).await
    }

    /// A queue that can't be used is not asked for at each publish: each refusal costs the connection a channel.
    async fn open(&mut self, session: &Session) -> Result<ConfirmChannel, PublishError> {
        if Instant::now() < self.not_before {
            return Err(lost(&format!("partition {} could not be used a moment ago", self.partition)));
        }
        let opening = async {
            let channel = topology::open_partition(session, &self.link.names, self.partition).await?;
            ConfirmChannel::on(channel).await
        };
        let opened = opening.await.map_err(PublishError::Unavailable);
        match &opened {
            Ok(_) => self.pauses = Pauses::new(OPEN_PAUSE_MAX_MS),
            Err(_) => self.not_before = Instant::now() + self.pauses.after_failure(),
        }
        opened
    }
}

/// What the broker says to a message: it is safe, or it is refused.
pub(super) enum Confirm {
    Ack,
    Nack,
}

/// A channel in confirm mode with at most one message in flight.
pub(super) struct ConfirmChannel {
    channel: OpenChannel,
    /// The broker numbers the messages of a channel from 1.
    last_tag: u64,
}

impl ConfirmChannel {
    pub(super) async fn open(session: &Session) -> Result<Self, String> {
        Self::on(session.open_channel().await?).await
    }

    async fn on(channel: OpenChannel) -> Result<Self, String> {
        let select =
            |channel: Channel| async move { channel.confirm_select(ConfirmSelectArguments::default()).await };
        channel.ask(CONFIRM_TIMEOUT_MS, select).await?;
        Ok(Self { channel, last_tag: 0 })
    }

    /// Returns once the broker has the message on disk or refuses it. `id` is of 255 bytes at the most.
    ///
    /// The first message of a channel has the broker look for the queue's leader, and is refused as well where
    /// that does not answer in time, as in an election (RabbitMQ's `rabbit_fifo_client`): it is sent once more.
    pub(super) async fn publish(
        &mut self,
        queue: &str,
        id: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Confirm, PublishError> {
        if self.last_tag > 0 {
            return self.publish_once(queue, id, body).await;
        }
        match self.publish_once(queue, id, body.clone()).await? {
            Confirm::Ack => Ok(Confirm::Ack),
            Confirm::Nack => self.publish_once(queue, id, body).await,
        }
    }

    async fn publish_once(
        &mut self,
        queue: &str,
        id: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Confirm, PublishError> {
        self.last_tag += 1;
        let mut properties = BasicProperties::default();
        properties.with_content_type(wire::CONTENT_TYPE).with_delivery_mode(DELIVERY_MODE_PERSISTENT);
        if let Some(id) = id {
            properties.with_message_id(id);
        }
        let arguments = BasicPublishArguments::new("", queue).mandatory(true).finish();
        let published = self.channel.channel.basic_publish(properties, body, arguments).await;
        published.map_err(|error| lost(&error.to_string()))?;
        let mut returned = None;
        while let Some(event) = self.channel.events.recv().await {
            match event {
                ChannelEvent::Returned(why) => returned = Some(why),
                ChannelEvent::Acked(tag) if tag >= self.last_tag => {
                    return returned
                        .map_or(Ok(Confirm::Ack), |why| Err(lost(&format!("queue {queue}: {why}"))));
                }
                ChannelEvent::Nacked(tag) if tag >= self.last_tag => {
                    return Ok(Confirm::Nack);
                }
                ChannelEvent::Closed(_, why) => return Err(lost(&why)),
                ChannelEvent::Acked(_) | ChannelEvent::Nacked(_) => {}
            }
        }
        Err(lost("the channel was closed before the confirm"))
    }
}

fn lost(why: &str) -> PublishError {
    PublishError::Unavailable(format!("RabbitMQ: {why}"))
}
