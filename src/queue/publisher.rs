//! Publishes deltas in a batch per partition, and returns once the broker confirms them. Must not contain HTTP.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{
    confirm::{CONFIRM_TIMEOUT_MS, Confirm, ConfirmChannel, lost},
    link::LinkWatch,
    pace::{Accepted, Pace},
    pauses::Pauses,
    session::Session,
    wire,
};
use crate::{
    domain::{Delta, Partitions},
    infra::{
        lane::{Lane, LaneError, Trip, call_all},
        metrics::PublisherMetrics,
    },
};

/// A message takes waiting deltas until it has about this many bytes. This allows hundreds of deltas.
const MESSAGE_MAX_BYTES: usize = 128 * 1024;

/// The most bytes that messages have together, one of each partition. A worker that has every partition holds at most
/// 512 times as much, the number of messages that the broker sends ahead: 256 MiB.
const MESSAGES_MAX_BYTES: usize = 512 * 1024;

/// The longest pause between attempts to use a partition's queue.
const OPEN_PAUSE_MAX_MS: u64 = 1_000;

/// The longest pause between moves to another host because of one partition.
const MOVE_PAUSE_MAX_MS: u64 = 60_000;

/// The most deltas that may wait in a node, divided among the partitions: a partition that is stuck takes no room from
/// the others.
const CAPACITY: usize = 16_384;

/// The least room of a partition, so that a batch of one user fits an idle node. With more than 16 partitions, up to
/// 65,536 deltas may therefore wait in all.
pub const PARTITION_CAPACITY_MIN: usize = 1_024;

/// Why a delta is not known to be in the queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection, or it failed before the confirm came. The delta may or may not be queued: send it again
    /// with its id.
    #[error("{0}")]
    Unavailable(String),
    /// The partition is full, here or at the broker. The delta is not queued.
    #[error("the queue is full")]
    Full {
        /// When there should be room, at the recent pace.
        retry_after: Duration,
    },
}

/// Puts deltas on the queue. Share it behind an `Arc`.
///
/// Each partition has its own channel with one message in flight. So deltas reach the broker in their order of arrival,
/// each confirm belongs to that message, and deltas that arrive meanwhile share the next message.
pub struct Publisher {
    lanes: Vec<Lane<PublishTrip>>,
    paces: Vec<Arc<Pace>>,
    partitions: Partitions,
    metrics: PublisherMetrics,
}

/// The most deltas that may wait for one of the partitions.
fn capacity(partitions: Partitions) -> usize {
    (CAPACITY / usize::from(partitions.count())).max(PARTITION_CAPACITY_MIN)
}

/// The largest message of one of the partitions.
fn message_max_bytes(partitions: Partitions) -> usize {
    (MESSAGES_MAX_BYTES / usize::from(partitions.count())).min(MESSAGE_MAX_BYTES)
}

impl Publisher {
    /// Starts a lane for each partition.
    #[must_use]
    pub fn start(link: &LinkWatch) -> Self {
        let partitions = link.partitions();
        let paces: Vec<_> = partitions.all().map(|_| Arc::new(Pace::new())).collect();
        let metrics = PublisherMetrics::default();
        let trip = |(partition, pace): (u16, &Arc<Pace>)| PublishTrip {
            partition,
            message_max_bytes: message_max_bytes(partitions),
            metrics: metrics.clone(),
            link: link.clone(),
            channel: None,
            pace: Arc::clone(pace),
            pauses: Pauses::new(OPEN_PAUSE_MAX_MS),
            not_before: Instant::now(),
            published_at: None,
            moves: Pauses::new(MOVE_PAUSE_MAX_MS),
            no_move_before: Instant::now(),
        };
        let lane = |partition| Lane::start([trip(partition)], capacity(partitions));
        Self { lanes: (0..).zip(&paces).map(lane).collect(), paces, partitions, metrics }
    }

    /// How many deltas the broker has confirmed.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.metrics.confirmed.own()
    }

    /// Returns once the broker has the delta on disk. Deltas of one user are queued in the order of the calls.
    ///
    /// # Errors
    /// [`PublishError`] if the delta is not known to be queued, at the latest after twice the confirm timeout of 5 s.
    pub async fn publish(&self, delta: Delta) -> Result<(), PublishError> {
        let partition = self.partition(&delta);
        let published = self.lanes[partition].call(delta).await;
        published.unwrap_or_else(|error| Err(self.refused(partition, error)))
    }

    /// As [`Publisher::publish`], for many deltas in order, with a result for each.
    ///
    /// # Errors
    /// [`PublishError`] if there is no room for all of them. Then none is queued.
    pub async fn publish_all(
        &self,
        deltas: Vec<Delta>,
    ) -> Result<Vec<Result<(), PublishError>>, PublishError> {
        let deltas = deltas.into_iter().map(|delta| (self.partition(&delta), delta)).collect();
        let published = call_all(&self.lanes, deltas).await;
        let published = published.map_err(|(partition, error)| self.refused(partition, error))?;
        let ended = |error: LaneError| Err(PublishError::Unavailable(error.to_string()));
        Ok(published.into_iter().map(|one| one.unwrap_or_else(ended)).collect())
    }

    /// For each partition, the latest of its confirmed deltas.
    #[must_use]
    pub fn latest(&self) -> Vec<Option<Accepted>> {
        self.paces.iter().map(|pace| pace.latest()).collect()
    }

    fn partition(&self, delta: &Delta) -> usize {
        delta.user_id.partition(self.partitions).into()
    }

    fn refused(&self, partition: usize, error: LaneError) -> PublishError {
        match error {
            LaneError::Full => {
                let waiting = capacity(self.partitions);
                PublishError::Full { retry_after: self.paces[partition].retry_after(waiting) }
            }
            LaneError::Ended => PublishError::Unavailable(error.to_string()),
        }
    }
}

struct PublishTrip {
    partition: u16,
    message_max_bytes: usize,
    link: LinkWatch,
    channel: Option<ConfirmChannel>,
    pace: Arc<Pace>,
    metrics: PublisherMetrics,
    pauses: Pauses,
    /// When a channel may be opened again.
    not_before: Instant,
    /// When the last message was published.
    published_at: Option<Instant>,
    /// The pauses between moves to another host because this partition gets no confirm. If the next host confirms nothing
    /// either, the partition is at fault, and the others should not suffer from more moves.
    moves: Pauses,
    no_move_before: Instant,
}

impl Trip for PublishTrip {
    type Item = Delta;
    type Reply = Result<(), PublishError>;
    const NAME: &'static str = "publish";
    const MAX_WEIGHT: usize = MESSAGE_MAX_BYTES;

    fn weight(delta: &Delta) -> usize {
        wire::max_bytes(delta)
    }

    fn max_weight(&self) -> usize {
        self.message_max_bytes
    }

    async fn carry(&mut self, deltas: Vec<Delta>) -> Vec<Self::Reply> {
        vec![self.publish(&deltas).await; deltas.len()]
    }
}

impl PublishTrip {
    async fn publish(&mut self, deltas: &[Delta]) -> Result<(), PublishError> {
        let session = self.link.current().map_err(PublishError::Unavailable)?;
        let limit = Duration::from_millis(CONFIRM_TIMEOUT_MS);
        self.published_at = None;
        let confirmed = tokio::select! {
            confirmed = timeout(limit, self.confirmed(&session, deltas)) => confirmed,
            () = session.over.cancelled() => Ok(Err(lost("the connection was lost before the confirm"))),
        };
        if let Ok(Ok(_)) = confirmed {
            (self.moves, self.no_move_before) = (Pauses::new(MOVE_PAUSE_MAX_MS), Instant::now());
        }
        let result = match confirmed {
            Ok(Ok(Confirm::Ack)) => {
                self.pace.confirmed(deltas);
                Ok(())
            }
            Ok(Ok(Confirm::Nack)) => {
                Err(PublishError::Full { retry_after: self.pace.retry_after(deltas.len()) })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                // The messages that wait meanwhile fail at once, instead of waiting one after the other.
                self.not_before = Instant::now() + self.pauses.after_failure();
                self.lacks_confirm(&session);
                Err(lost(&format!("no confirm within {CONFIRM_TIMEOUT_MS} ms")))
            }
        };
        let count = deltas.len() as u64;
        match &result {
            Ok(()) => self.metrics.confirmed.inc_by(count),
            Err(PublishError::Full { .. }) => self.metrics.refused.inc_by(count),
            Err(PublishError::Unavailable(_)) => self.metrics.unconfirmed.inc_by(count),
        }
        if let Err(error) = &result {
            let (count, partition) = (deltas.len(), self.partition);
            log::warn!(
                "{count} deltas for partition {partition} are not confirmed by {}: {error}",
                session.place
            );
        }
        if matches!(result, Err(PublishError::Unavailable(_))) {
            // The fate of the message is unknown. A new channel keeps its late confirm from being taken for another's.
            self.channel = None;
        }
        result
    }

    fn lacks_confirm(&mut self, session: &Session) {
        match self.published_at {
            Some(then) if self.no_move_before <= Instant::now() => {
                self.no_move_before = Instant::now() + self.moves.after_failure();
                self.link.lacks_confirm(session, then);
            }
            _ => session.check(),
        }
    }

    async fn confirmed(&mut self, session: &Session, deltas: &[Delta]) -> Result<Confirm, PublishError> {
        let usable = self.channel.take().filter(|open| !open.is_over());
        let channel = if let Some(channel) = usable { channel } else { self.open(session).await? };
        let queue = self.link.names.partition(self.partition);
        let id = deltas[0].request_id.to_string();
        self.published_at = Some(Instant::now());
        self.channel.insert(channel).publish(&queue, Some(&id), wire::encode(deltas)).await
    }

    /// Opens a channel, but not at each publish while the queue can't be used: each refusal costs the connection a
    /// channel.
    async fn open(&mut self, session: &Session) -> Result<ConfirmChannel, PublishError> {
        if Instant::now() < self.not_before {
            return Err(lost(&format!("partition {} could not be used a moment ago", self.partition)));
        }
        let opening = async {
            let channel = self.link.open_partition(session, self.partition).await?;
            ConfirmChannel::on(channel, session).await
        };
        let opened = opening.await.map_err(PublishError::Unavailable);
        match &opened {
            Ok(_) => self.pauses = Pauses::new(OPEN_PAUSE_MAX_MS),
            Err(_) => self.not_before = Instant::now() + self.pauses.after_failure(),
        }
        opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_whatever_the_number_of_partitions() {
        let bounds = [1, 2, 4, 16, 32, 64].map(|count| {
            let partitions = Partitions::new(count).expect("valid");
            (capacity(partitions), message_max_bytes(partitions) / 1_024)
        });
        assert_eq!(bounds, [(16_384, 128), (8_192, 128), (4_096, 128), (1_024, 32), (1_024, 16), (1_024, 8)]);
    }
}
