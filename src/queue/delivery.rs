//! A message from the queue of a partition, and what the broker is told about it. Must not contain a subscription.

use amqprs::{
    channel::{BasicAckArguments, BasicRejectArguments, Channel, ConsumerMessage},
    error::Error,
};

use super::wire::{self, Unread};
use crate::domain::{Delta, Partitions};

/// A message from the queue.
#[derive(Debug)]
pub struct Delivery {
    /// Its number in the subscription, in the order of the queue.
    pub tag: u64,
    /// Its deltas, or why it is malformed.
    pub deltas: Result<Vec<Delta>, String>,
}

impl Delivery {
    /// Reads a message of one of the partitions. Returns `None` if it is none. The error says why it is not understood.
    pub(super) fn read(
        message: ConsumerMessage,
        ours: (u16, Partitions),
        understands: u64,
    ) -> Result<Option<Self>, String> {
        let Some(deliver) = message.deliver else { return Ok(None) };
        let deltas = match wire::decode(&message.content.unwrap_or_default(), ours, understands) {
            Ok(deltas) => Ok(deltas),
            Err(Unread::Malformed(why)) => Err(why),
            Err(Unread::NotUnderstood(why)) => return Err(why),
        };
        Ok(Some(Self { tag: deliver.delivery_tag(), deltas }))
    }

    /// The number of its deltas.
    pub(super) fn count(&self) -> usize {
        self.deltas.as_ref().map_or(0, Vec::len)
    }
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Its deltas are in the log.
    Ack,
    /// It can't ever be applied.
    DeadLetter,
}

/// Tells the broker what becomes of deliveries, by their tags: rejects dead messages and acks the others, with one ack
/// for all tags below the lowest open one, and one by one above.
pub(super) async fn tell(
    channel: &Channel,
    settled: &[(u64, Disposition)],
    open: Option<u64>,
) -> Result<(), Error> {
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
