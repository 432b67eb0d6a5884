//! Reads the dead letters one by one, and redrives or removes them. Must not contain printed text.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    time::Duration,
};

use amqprs::{
    BasicProperties,
    channel::{BasicAckArguments, BasicGetArguments, BasicNackArguments, Channel, QueueDeclareArguments},
    error::Error,
};
use jiff::Timestamp;
use tokio::time::timeout;

use super::{
    confirm::{CONFIRM_TIMEOUT_MS, Confirm, ConfirmChannel},
    death::{self, Death},
    link::LinkWatch,
    names::QueueNames,
    publisher::PublishError,
    session::{OpenChannel, Session},
    wire::{self, MESSAGE_VERSION},
};
use crate::domain::Delta;

/// The longest that the broker may take to answer, or to take an ack.
const REQUEST_TIMEOUT_MS: u64 = 10_000;

/// The tag that stands for all unsettled messages (AMQP 0-9-1, basic.nack).
const ALL_TAGS: u64 = 0;

/// The most dead letters that a command holds unsettled, and the most that the queue holds.
pub const HELD_MAX: u32 = 10_000;

/// Why the dead letters can't be read, or one of them can't be settled. Its message stays among the dead letters. It
/// may also be in its partition, which its request ids make harmless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadLettersError {
    /// There is no connection, or it failed.
    #[error("RabbitMQ: {0}")]
    Unavailable(String),
    /// Another command holds the dead letters.
    #[error("the dead letters are open elsewhere, in the console or in `point-system dead-letters`: {0}")]
    Locked(String),
    /// This version can't put the message back: the message would return, or lose the parts that this version does not
    /// understand.
    #[error("it can't be redriven: {0}")]
    Unredrivable(Death),
    /// The partition is full.
    #[error("queue {0} is full")]
    Full(String),
    /// The message is not known to be in its partition.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A message in the dead letters.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    tag: u64,
    /// Its current position in the queue, from 1.
    pub position: u32,
    /// The id it was published with. For our own messages, this is the id of the first delta.
    pub message_id: Option<String>,
    /// The partition it came from, which may no longer exist.
    pub partition: Option<u16>,
    /// When it became a dead letter, by the broker's clock, to the second.
    pub died_at: Option<Timestamp>,
    /// Why it became a dead letter.
    pub death: Death,
    /// Its deltas, if it can be read.
    pub deltas: Vec<Delta>,
    /// The message itself.
    pub body: Vec<u8>,
}

/// The dead letters, oldest first. They are held until [`DeadLetters::close`], or the end of the connection, returns
/// the unsettled ones.
///
/// Only one caller can open them at a time: a second would not see the messages that the first holds, and would count
/// other positions.
pub struct DeadLetters {
    session: Session,
    channel: OpenChannel,
    names: QueueNames,
    /// A channel for each queue. The broker may refuse the first message to a queue while it looks for the leader, and
    /// only the first message of a channel is sent again.
    publishers: HashMap<String, ConfirmChannel>,
    /// How many messages there were at first. Later ones are not read. A redriven message may be among them.
    count: Option<u32>,
    taken: u32,
    settled: u32,
}

impl DeadLetters {
    /// Opens the dead letters, for this caller alone.
    ///
    /// # Errors
    /// [`DeadLettersError`] if there is no connection, or if another command has them open.
    pub async fn open(link: &LinkWatch) -> Result<Self, DeadLettersError> {
        let session = link.current().map_err(DeadLettersError::Unavailable)?;
        let (channel, names) = (lock(&session, &link.names).await?, link.names.clone());
        Ok(Self { session, channel, names, publishers: HashMap::new(), count: None, taken: 0, settled: 0 })
    }

    /// Returns the next dead letter. Returns `None` after the last one that was there at first, or if [`HELD_MAX`] are
    /// held.
    ///
    /// # Errors
    /// [`DeadLettersError::Unavailable`] if the broker does not answer.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, DeadLettersError> {
        if self.count.is_some_and(|count| self.taken >= count) || self.is_full() {
            return Ok(None);
        }
        let get = BasicGetArguments::new(&self.names.dead_letters());
        let got = self.channel.ask(REQUEST_TIMEOUT_MS, |channel| async move { channel.basic_get(get).await });
        let Some((found, properties, body)) = got.await.map_err(DeadLettersError::Unavailable)? else {
            self.count = Some(self.taken);
            return Ok(None);
        };
        self.count.get_or_insert(1 + found.message_count());
        self.taken += 1;
        Ok(Some(self.read(found.delivery_tag(), &properties, body)))
    }

    fn is_full(&self) -> bool {
        self.taken - self.settled >= HELD_MAX
    }

    /// How many dead letters can't be read because [`HELD_MAX`] before them are held.
    #[must_use]
    pub fn out_of_reach(&self) -> u32 {
        if self.is_full() { self.count.unwrap_or_default().saturating_sub(self.taken) } else { 0 }
    }

    fn read(&self, tag: u64, properties: &BasicProperties, body: Vec<u8>) -> DeadLetter {
        let partition =
            death::header(properties, "x-first-death-queue").and_then(|queue| self.names.partition_of(queue));
        let (death, deltas) = match wire::decode_any(&body, MESSAGE_VERSION) {
            Err(unread) => (unread.into(), Vec::new()),
            Ok(deltas) => (death::of(properties, (partition, self.names.partitions()), &deltas), deltas),
        };
        let message_id = properties.message_id().cloned();
        let died_at = death::died_at(properties);
        DeadLetter { tag, position: self.taken, message_id, partition, died_at, death, deltas, body }
    }

    /// Puts each delta into the queue of its user's partition, wherever the message came from. Removes the message from
    /// the dead letters once all its deltas are safe.
    ///
    /// # Errors
    /// [`DeadLettersError`] if that fails. The message is then still a dead letter, and some or all of its deltas may
    /// be in their partitions as well.
    pub async fn redrive(&mut self, letter: DeadLetter) -> Result<(), DeadLettersError> {
        if !letter.death.is_redrivable() {
            return Err(DeadLettersError::Unredrivable(letter.death));
        }
        let mut partitions: BTreeMap<u16, Vec<Delta>> = BTreeMap::new();
        for delta in letter.deltas {
            partitions.entry(delta.user_id.partition(self.names.partitions())).or_default().push(delta);
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
            let publisher = match self.publishers.entry(queue.to_owned()) {
                Entry::Occupied(open) => open.into_mut(),
                // Not the channel that gets messages: a returned message could come between a get and its answer.
                Entry::Vacant(none) => {
                    let opened = ConfirmChannel::open(&session).await;
                    none.insert(opened.map_err(PublishError::Unavailable)?)
                }
            };
            let id = deltas[0].request_id.to_string();
            publisher.publish(queue, Some(&id), wire::encode(deltas)).await
        };
        let confirmed = tokio::select! {
            confirmed = timeout(Duration::from_millis(CONFIRM_TIMEOUT_MS), publishing) => confirmed,
            () = session.over.cancelled() => return Err(lost("the connection was lost".to_owned())),
        };
        if !matches!(confirmed, Ok(Ok(_))) {
            // A new channel keeps a late confirm from being taken for another's.
            self.publishers.remove(queue);
        }
        match confirmed.map_err(|_| lost(format!("no confirm within {CONFIRM_TIMEOUT_MS} ms")))?? {
            Confirm::Ack => Ok(()),
            Confirm::Nack => Err(DeadLettersError::Full(queue.to_owned())),
        }
    }

    /// Removes a dead letter for good.
    ///
    /// # Errors
    /// [`DeadLettersError::Unavailable`] if the broker does not take the ack. The message may then still be a dead
    /// letter.
    pub async fn remove(&mut self, letter: DeadLetter) -> Result<(), DeadLettersError> {
        self.settle(letter.tag).await
    }

    /// Waits until a frame that gets no answer is sent.
    async fn send(
        &self,
        what: &str,
        sending: impl AsyncFnOnce(&Channel) -> Result<(), Error>,
    ) -> Result<(), DeadLettersError> {
        if self.channel.is_over() {
            return Err(lost(format!("{what} can't be sent: the channel is closed")));
        }
        match timeout(Duration::from_millis(REQUEST_TIMEOUT_MS), sending(&self.channel.channel)).await {
            Ok(done) => done.map_err(|error| lost(error.to_string())),
            Err(_) => Err(lost(format!("{what} was not sent within {REQUEST_TIMEOUT_MS} ms"))),
        }
    }

    async fn settle(&mut self, tag: u64) -> Result<(), DeadLettersError> {
        self.send("an ack", async |channel| channel.basic_ack(BasicAckArguments::new(tag, false)).await)
            .await?;
        self.settled += 1;
        Ok(())
    }

    /// Returns the unsettled messages to the queue, once the broker has read the acks.
    ///
    /// # Errors
    /// [`DeadLettersError::Unavailable`] if the broker does not answer. The last settled messages may then still be
    /// dead letters.
    pub async fn close(mut self) -> Result<(), DeadLettersError> {
        // Take all messages before returning any, so that they keep their order: the broker puts a returned message
        // behind the messages that were returned before.
        while self.next().await?.is_some() {}
        // Closing the channel would return them as well, but later, and not in order.
        if self.settled < self.taken {
            let all = BasicNackArguments::new(ALL_TAGS, true, true);
            self.send("a nack", async |channel| channel.basic_nack(all).await).await?;
        }
        self.channel.close().await.map_err(DeadLettersError::Unavailable)
    }
}

/// Takes the lock that lets one command run at a time, until the session is over. Returns the channel that took it.
pub(super) async fn lock(session: &Session, names: &QueueNames) -> Result<OpenChannel, DeadLettersError> {
    let channel = session.open_channel().await.map_err(DeadLettersError::Unavailable)?;
    // An exclusive queue can't be declared on another connection. It is deleted with its own connection.
    let lock = QueueDeclareArguments::new(&names.dead_letters_lock()).exclusive(true).finish();
    let locked = channel.ask(REQUEST_TIMEOUT_MS, |channel| async move { channel.queue_declare(lock).await });
    locked.await.map_err(DeadLettersError::Locked)?;
    Ok(channel)
}

fn lost(why: String) -> DeadLettersError {
    DeadLettersError::Unavailable(why)
}
