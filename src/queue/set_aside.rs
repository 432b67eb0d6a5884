//! Moves the first message of a partition to the dead letters, for an operator. Must not contain printed text.

use std::time::{Duration, Instant};

use amqprs::channel::{BasicRejectArguments, ConsumerMessage};
use tokio::time::{sleep, timeout};

use super::{
    dead_letters::{self, DeadLettersError},
    death::Death,
    depth,
    link::LinkWatch,
    subscription::{LOWEST_PRIORITY, RPC_TIMEOUT_MS, Subscription},
    wire::{self, MESSAGE_VERSION},
};
use crate::domain::{Delta, Partitions};

/// How long to wait for the first message. A worker that keeps the partition holds it for a moment only.
const FIRST_TIMEOUT_MS: u64 = 10_000;

/// How long the broker may still count a subscriber that has left, and the pause between two checks.
const GONE_TIMEOUT_MS: u64 = 3_000;
const GONE_PAUSE_MS: u64 = 100;

/// Why nothing more is known of a subscription.
const LOST: &str = "the subscription has ended";

/// A message that was moved to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The id it was published with. For our own messages, this is the id of the first delta.
    pub message_id: Option<String>,
    /// Its size.
    pub bytes: usize,
    /// Why a worker would refuse it; `None` if a worker would apply it.
    pub death: Option<Death>,
    /// Its deltas, if it can be read.
    pub deltas: Vec<Delta>,
}

/// Why it is not known that a message was moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetAsideError {
    /// Another command is running, or the broker does not answer.
    #[error("{0}; nothing was set aside")]
    NotBegun(#[from] DeadLettersError),
    /// There is no connection, or it failed before a message was moved.
    #[error("RabbitMQ: {0}; nothing was set aside")]
    Unavailable(String),
    /// The connection failed while a message was moved.
    #[error(
        "RabbitMQ: {0}; the first message may have been moved; run `dead-letters list` before you run this again"
    )]
    Unsure(String),
    /// The installation has no such partition.
    #[error("there is no partition {0}: the partitions are 0 to {1}; nothing was set aside")]
    Unknown(u16, u16),
    /// Another subscriber is active: its messages are not ours to move.
    #[error("a worker takes the messages of partition {0}; nothing was set aside")]
    Taken(u16),
    /// There is no message.
    #[error("partition {0} has no messages; nothing was set aside")]
    Empty(u16),
}

/// Moves the first message of a partition to the dead letters, whatever it is, unless a worker takes the partition's
/// messages. Only one caller can do so at a time: a second would move the message behind the first.
///
/// It subscribes as a worker does: RabbitMQ refuses `basic.get` on a queue with a single active consumer, and messages
/// that are returned keep their order only if one subscriber held all of them.
///
/// # Errors
/// [`SetAsideError`] if it is not known that a message was moved.
pub async fn set_aside(link: &LinkWatch, partition: u16) -> Result<SetAside, SetAsideError> {
    let partitions = link.partitions();
    if !partitions.all().contains(&partition) {
        return Err(SetAsideError::Unknown(partition, partitions.count() - 1));
    }
    let session = link.current().map_err(SetAsideError::Unavailable)?;
    dead_letters::lock(&session, &link.names).await?;
    let opening = Subscription::open(link, session, partition, LOWEST_PRIORITY);
    let mut subscription = opening.await.map_err(SetAsideError::Unavailable)?;
    let limit = Duration::from_millis(FIRST_TIMEOUT_MS);
    let moved = match timeout(limit, subscription.messages.recv()).await {
        Ok(Some(message)) => Some(reject(&subscription, message, (partition, partitions)).await),
        Ok(None) => Some(Err(lost())),
        Err(_) => None,
    };
    // The broker has read the reject by then, and may let another subscriber be active.
    let is_lost = subscription.channel.is_over();
    let closed = subscription.close().await.and(if is_lost { Err(LOST.to_owned()) } else { Ok(()) });
    match (moved, closed) {
        (Some(moved), closed) => {
            if let (Ok(_), Err(why)) = (&moved, closed) {
                log::warn!(
                    "RabbitMQ has not confirmed that it moved the message: {why}; check with `dead-letters list`"
                );
            }
            moved
        }
        (None, Ok(())) => Err(obstacle(link, partition).await),
        (None, Err(why)) => Err(SetAsideError::Unavailable(why)),
    }
}

/// Whether a partition has no messages, apart from those that a worker holds.
///
/// # Errors
/// The broker does not answer.
pub async fn is_empty(link: &LinkWatch, partition: u16) -> Result<bool, String> {
    left(link, partition).await.map(|(messages, _)| messages == 0)
}

async fn reject(
    subscription: &Subscription,
    message: ConsumerMessage,
    ours: (u16, Partitions),
) -> Result<SetAside, SetAsideError> {
    let tag = message.deliver.ok_or_else(lost)?.delivery_tag();
    let body = message.content.unwrap_or_default();
    let (death, deltas) = match wire::decode_any(&body, MESSAGE_VERSION) {
        Err(unread) => (Some(unread.into()), Vec::new()),
        Ok(deltas) => {
            let stranger = wire::stranger(&deltas, ours);
            (stranger.map(|(user, partition)| Death::Misplaced(user, partition)), deltas)
        }
    };
    let message_id = message.basic_properties.and_then(|properties| properties.message_id().cloned());
    let rejecting = subscription.channel.channel.basic_reject(BasicRejectArguments::new(tag, false));
    match timeout(Duration::from_millis(RPC_TIMEOUT_MS), rejecting).await {
        Ok(Ok(())) => Ok(SetAside { message_id, bytes: body.len(), death, deltas }),
        Ok(Err(error)) => Err(SetAsideError::Unsure(error.to_string())),
        Err(_) => Err(SetAsideError::Unsure(format!("the reject was not sent within {RPC_TIMEOUT_MS} ms"))),
    }
}

fn lost() -> SetAsideError {
    SetAsideError::Unavailable(LOST.to_owned())
}

/// Says why no message arrived.
async fn obstacle(link: &LinkWatch, partition: u16) -> SetAsideError {
    match left(link, partition).await {
        Ok((_, 1..)) => SetAsideError::Taken(partition),
        Ok((0, 0)) => SetAsideError::Empty(partition),
        Ok((1.., 0)) => SetAsideError::Unavailable("the queue does not deliver its messages".to_owned()),
        Err(error) => SetAsideError::Unavailable(error),
    }
}

/// The numbers of messages and of subscribers that are left in a partition. A busy broker counts a departed subscriber
/// for a moment, including our own.
async fn left(link: &LinkWatch, partition: u16) -> Result<(u32, u32), String> {
    let (asked, mut channel) = (Instant::now(), None);
    loop {
        let (open, depth) = depth::ask(link, link.names.partition(partition), channel).await.1?;
        if depth.1 == 0 || asked.elapsed() >= Duration::from_millis(GONE_TIMEOUT_MS) {
            return Ok(depth);
        }
        channel = Some(open);
        sleep(Duration::from_millis(GONE_PAUSE_MS)).await;
    }
}
