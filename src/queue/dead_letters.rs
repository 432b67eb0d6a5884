//! The dead letters: looked at one by one, put back into the queue, or removed. Nothing that is printed
//! may enter.

use std::{collections::BTreeMap, time::Duration};

use amqprs::{
    BasicProperties,
    channel::{BasicAckArguments, BasicGetArguments, BasicNackArguments, QueueDeclareArguments},
    error::Error,
};
use jiff::Timestamp;
use tokio::time::timeout;

use super::{
    QueueNames,
    death::{self, Death},
    link::LinkWatch,
    publisher::{CONFIRM_TIMEOUT_MS, Confirm, ConfirmChannel, PublishError},
    session::{OpenChannel, Session},
    wire,
};
use crate::domain::Delta;

/// The longest that the broker may take to answer, and to take an ack.
const REQUEST_TIMEOUT_MS: u64 = 10_000;

/// The tag that stands for every message not yet settled (AMQP 0-9-1, basic.nack).
const ALL_TAGS: u64 = 0;

/// The most dead letters that are taken from the queue at a time and neither redriven nor removed, and the most
/// that the queue holds.
pub const KEPT_MAX: u32 = 10_000;

/// Why the dead letters can't be looked at, or one of them not be settled. It stays where it is, or is there
/// twice, which its request ids make harmless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadLettersError {
    /// No connection, or it failed.
    #[error("RabbitMQ: {0}")]
    Unavailable(String),
    /// Another command holds them.
    #[error("another `point-system dead-letters` is at work, or has just ended: {0}")]
    Locked(String),
    /// It would come back at once.
    #[error("it can't be redriven: {0}")]
    Unredrivable(Death),
    /// Its partition is full.
    #[error("queue {0} takes no more now")]
    Full(String),
    /// It is not known to be in its partition.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A message in the dead letters.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    tag: u64,
    /// Its place in the queue of now, from 1.
    pub position: u32,
    /// The id it was published with: that of its first delta, where it is ours.
    pub message_id: Option<String>,
    /// Where it came from, which need not be a partition of today.
    pub partition: Option<u16>,
    /// When it came here, by the broker's clock, to the second.
    pub died_at: Option<Timestamp>,
    /// Why it came here.
    pub death: Death,
    /// Its deltas, where it can be read.
    pub deltas: Vec<Delta>,
    /// The message itself.
    pub body: Vec<u8>,
}

/// The dead letters, oldest first, held until [`DeadLetters::close`] or the end of the connection returns
/// those that were not settled.
///
/// Of all that open them, one succeeds: a second would see a queue without those that the first holds, and
/// count the positions otherwise.
pub struct DeadLetters {
    session: Session,
    channel: OpenChannel,
    names: QueueNames,
    publisher: Option<ConfirmChannel>,
    /// How many there were at the first look: what comes later, be it redriven in vain, is not looked at.
    there: Option<u32>,
    taken: u32,
    settled: u32,
}

impl DeadLetters {
    /// Opens them, for us alone.
    ///
    /// # Errors
    /// [`DeadLettersError`]: no connection, or another command has them open.
    pub async fn open(link: &LinkWatch) -> Result<Self, DeadLettersError> {
        let session = link.current().map_err(DeadLettersError::Unavailable)?;
        let channel = session.open_channel().await.map_err(DeadLettersError::Unavailable)?;
        // Another connection's exclusive queue can't be declared; it goes with its connection.
        let lock = QueueDeclareArguments::new(&link.names.dead_letters_lock()).exclusive(true).finish();
        let locked =
            channel.ask(REQUEST_TIMEOUT_MS, |channel| async move { channel.queue_declare(lock).await });
        locked.await.map_err(DeadLettersError::Locked)?;
        let names = link.names.clone();
        Ok(Self { session, channel, names, publisher: None, there: None, taken: 0, settled: 0 })
    }

    /// The next one, or `None` after the last of those that were there at the first look, or where
    /// [`KEPT_MAX`] are held.
    ///
    /// # Errors
    /// [`DeadLettersError::Unavailable`].
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, DeadLettersError> {
        if self.there.is_some_and(|there| self.taken >= there) || self.is_full() {
            return Ok(None);
        }
        let get = BasicGetArguments::new(&self.names.dead_letters());
        let got = self.channel.ask(REQUEST_TIMEOUT_MS, |channel| async move { channel.basic_get(get).await });
        let Some((found, properties, body)) = got.await.map_err(DeadLettersError::Unavailable)? else {
            self.there = Some(self.taken);
            return Ok(None);
        };
        self.there.get_or_insert(1 + found.message_count());
        self.taken += 1;
        Ok(Some(self.read(found.delivery_tag(), &properties, body)))
    }

    fn is_full(&self) -> bool {
        self.taken - self.settled >= KEPT_MAX
    }

    /// How many can't be looked at because [`KEPT_MAX`] before them are held.
    #[must_use]
    pub fn out_of_reach(&self) -> u32 {
        if self.is_full() { self.there.unwrap_or_default().saturating_sub(self.taken) } else { 0 }
    }

    fn read(&self, tag: u64, properties: &BasicProperties, body: Vec<u8>) -> DeadLetter {
        let partition =
            death::header(properties, "x-first-death-queue").and_then(|queue| self.names.partition_of(queue));
        let (death, deltas) = match wire::decode_any(&body) {
            Err(error) => (Death::Malformed(error.to_string()), Vec::new()),
            Ok(deltas) => (death::of(properties, partition, &deltas), deltas),
        };
        let message_id = properties.message_id().cloned();
        let died_at = death::died_at(properties);
        DeadLetter { tag, position: self.taken, message_id, partition, died_at, death, deltas, body }
    }

    /// Puts each delta back into the queue of its user's partition, wherever the message came from, and takes the
    /// message from here once all are safe there.
    ///
    /// # Errors
    /// [`DeadLettersError`]; it is still here then, and all or a part of it may be there as well.
    pub async fn redrive(&mut self, letter: DeadLetter) -> Result<(), DeadLettersError> {
        if !letter.death.is_redrivable() {
            return Err(DeadLettersError::Unredrivable(letter.death));
        }
        let mut partitions: BTreeMap<u16, Vec<Delta>> = BTreeMap::new();
        for delta in letter.deltas {
            partitions.entry(delta.user_id.partition()).or_default().push(delta);
        }
        for (partition, deltas) in partitions {
            self.publish(&self.names.partition(partition), &deltas).await?;
        }
        self.settle(letter.tag).await
    }

    /// Returns once the broker has the deltas on disk.
    async fn publish(&mut self, queue: &str, deltas: &[Delta]) -> Result<(), DeadLettersError> {
        let session = self.session.clone();
        let publishing = async {
            let publisher = match self.publisher.take() {
                Some(publisher) => publisher,
                // Not the channel that gets: there a returned message could come between a get and its answer.
                None => ConfirmChannel::open(&session).await.map_err(PublishError::Unavailable)?,
            };
            let publisher = self.publisher.insert(publisher);
            let id = deltas[0].request_id.to_string();
            publisher.publish(queue, Some(&id), wire::encode(deltas)).await
        };
        let confirmed = tokio::select! {
            confirmed = timeout(Duration::from_millis(CONFIRM_TIMEOUT_MS), publishing) => confirmed
                .map_err(|_| lost(format!("no confirm within {CONFIRM_TIMEOUT_MS} ms")))?,
            () = session.over.cancelled() => return Err(lost("the connection was lost".to_owned())),
        };
        match confirmed? {
            Confirm::Ack => Ok(()),
            Confirm::Nack => Err(DeadLettersError::Full(queue.to_owned())),
        }
    }

    /// Removes it for good.
    ///
    /// # Errors
    /// [`DeadLettersError::Unavailable`]; it may still be here then.
    pub async fn remove(&mut self, letter: DeadLetter) -> Result<(), DeadLettersError> {
        self.settle(letter.tag).await
    }

    async fn settle(&mut self, tag: u64) -> Result<(), DeadLettersError> {
        sent("an ack", self.channel.channel.basic_ack(BasicAckArguments::new(tag, false))).await?;
        self.settled += 1;
        Ok(())
    }

    /// Returns what was not settled, once the broker has read what was.
    ///
    /// # Errors
    /// [`DeadLettersError::Unavailable`]: what was settled last may still be here.
    pub async fn close(mut self) -> Result<(), DeadLettersError> {
        // All are taken before any is returned: the broker puts what comes back behind what came back before,
        // and so they keep their order.
        while self.next().await?.is_some() {}
        // Closing the channel would return them as well, but later, and not in their order.
        if self.settled < self.taken {
            let all = BasicNackArguments::new(ALL_TAGS, true, true);
            sent("what is returned", self.channel.channel.basic_nack(all)).await?;
        }
        self.channel.close().await.map_err(DeadLettersError::Unavailable)
    }
}

/// Waits until a frame without an answer is on its way.
async fn sent(what: &str, sending: impl Future<Output = Result<(), Error>>) -> Result<(), DeadLettersError> {
    match timeout(Duration::from_millis(REQUEST_TIMEOUT_MS), sending).await {
        Ok(done) => done.map_err(|error| lost(error.to_string())),
        Err(_) => Err(lost(format!("{what} did not leave within {REQUEST_TIMEOUT_MS} ms"))),
    }
}

fn lost(why: String) -> DeadLettersError {
    DeadLettersError::Unavailable(why)
}
