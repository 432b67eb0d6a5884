//! Moves the first message of a partition to the dead letters, for an operator. Must not contain printed text.

use std::time::{Duration, Instant};

use amqprs::channel::{BasicRejectArguments, ConsumerMessage};
use tokio::time::{sleep, timeout};

use super::{
    death::Death,
    depth,
    link::LinkWatch,
    subscription::{LOWEST_PRIORITY, RPC_TIMEOUT_MS, Subscription},
    wire::{self, MESSAGE_VERSION},
};
use crate::domain::{Delta, Partitions};

/// How long to wait for the first message. A worker that keeps the partition holds it for a moment only.
const FIRST_TIMEOUT_MS: u64 = 10_000;

/// How long the broker may count a subscriber that has gone, and the pause between two questions.
const GONE_TIMEOUT_MS: u64 = 3_000;
const GONE_PAUSE_MS: u64 = 100;

/// A message that was moved to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The id it was published with. For our own messages, this is the id of the first delta.
    pub message_id: Option<String>,
    /// Its size.
    pub bytes: usize,
    /// Why a worker would not apply it, unless it would.
    pub death: Option<Death>,
    /// Its deltas, if it can be read.
    pub deltas: Vec<Delta>,
}

/// Why no message is known to be moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetAsideError {
    /// There is no connection, or it failed. The first message may be moved.
    #[error("RabbitMQ: {0}")]
    Unavailable(String),
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
/// messages.
///
/// It subscribes as a worker does: RabbitMQ refuses `basic.get` on a queue with a single active consumer, and messages
/// that are returned keep their order only if one subscriber held all of them.
///
/// # Errors
/// [`SetAsideError`] if no message is known to be moved.
pub async fn set_aside(link: &mut LinkWatch, partition: u16) -> Result<SetAside, SetAsideError> {
    let partitions = link.partitions();
    if !partitions.all().contains(&partition) {
        return Err(SetAsideError::Unknown(partition, partitions.count() - 1));
    }
    let opening = Subscription::open(link, partition, LOWEST_PRIORITY);
    let mut subscription = opening.await.map_err(SetAsideError::Unavailable)?;
    let limit = Duration::from_millis(FIRST_TIMEOUT_MS);
    let moved = match timeout(limit, subscription.messages.recv()).await {
        Ok(Some(message)) => Some(reject(&subscription, message, (partition, partitions)).await),
        Ok(None) => Some(Err(lost())),
        Err(_) => None,
    };
    // The broker has read the reject by then, and may let another subscriber be active.
    subscription.close().await.map_err(SetAsideError::Unavailable)?;
    match moved {
        Some(moved) => moved,
        None => Err(obstacle(link, partition).await),
    }
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
        Ok(Err(error)) => Err(SetAsideError::Unavailable(error.to_string())),
        Err(_) => Err(SetAsideError::Unavailable(format!("no reject within {RPC_TIMEOUT_MS} ms"))),
    }
}

fn lost() -> SetAsideError {
    SetAsideError::Unavailable("the subscription has ended".to_owned())
}

/// Why no message came. A busy broker counts a subscriber for a moment after it has gone, ours as well.
async fn obstacle(link: &LinkWatch, partition: u16) -> SetAsideError {
    let (asked, mut channel) = (Instant::now(), None);
    loop {
        match depth::ask(link, link.names.partition(partition), channel).await.1 {
            Ok((open, (_, 1..))) if asked.elapsed() < Duration::from_millis(GONE_TIMEOUT_MS) => {
                channel = Some(open);
                sleep(Duration::from_millis(GONE_PAUSE_MS)).await;
            }
            Ok((_, (_, 1..))) => return SetAsideError::Taken(partition),
            Ok((_, (0, 0))) => return SetAsideError::Empty(partition),
            Ok(_) => return SetAsideError::Unavailable("the queue does not deliver its messages".to_owned()),
            Err(error) => return SetAsideError::Unavailable(error),
        }
    }
}
