//! The queues: partitions and dead letters, declared here once, for both sides. No message may enter.

use amqprs::{
    FieldTable, FieldValue,
    channel::{Channel, QueueDeclareArguments},
    error::Error,
};

use crate::domain::PARTITIONS;

/// The most bytes that wait in a partition's queue; beyond, publishes are refused.
const PARTITION_MAX_BYTES: i64 = 1 << 30;

/// How often a message may be returned to its queue. RabbitMQ 4 would drop it after 20 lost connections;
/// "unlimited" is spelled −1 there, which RabbitMQ 3.10 takes for "once". This is in effect unlimited on both.
const DELIVERY_LIMIT: i64 = 2_000_000_000;

/// The names of our queues, which begin with a common prefix.
#[derive(Clone, Debug)]
pub struct QueueNames {
    prefix: String,
}

impl QueueNames {
    /// Refuses a prefix that is empty, longer than 100 characters, or has anything but ASCII letters, digits,
    /// `.`, `-` and `_`: a queue's name has 255 bytes at the most (AMQP 0-9-1 §3.1).
    ///
    /// # Errors
    /// The rule, readable after the setting's name.
    pub fn new(prefix: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if prefix.is_empty() || prefix.len() > 100 || !prefix.chars().all(plain) {
            return Err("must be 1 to 100 letters, digits, '.', '-' and '_'".to_owned());
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    /// The queue of a partition.
    #[must_use]
    pub fn partition(&self, partition: u16) -> String {
        format!("{}.deltas.{partition}", self.prefix)
    }

    /// The queue of what can't be applied.
    #[must_use]
    pub fn dead_letters(&self) -> String {
        format!("{}.dead-letters", self.prefix)
    }

    /// The partition of a queue's name, if it is one.
    pub(super) fn partition_of(&self, queue: &str) -> Option<u16> {
        (0..PARTITIONS).find(|partition| self.partition(*partition) == queue)
    }

    /// The queue that the one who looks at the dead letters holds.
    pub(super) fn dead_letters_lock(&self) -> String {
        format!("{}.dead-letters.lock", self.prefix)
    }
}

/// Declares every queue; where they exist with these arguments, nothing changes.
pub(super) async fn declare(channel: &Channel, names: &QueueNames) -> Result<(), Error> {
    let delivery_limit = ("x-delivery-limit", FieldValue::l(DELIVERY_LIMIT));
    // Whoever looks at a dead letter returns it.
    declare_queue(channel, &names.dead_letters(), std::slice::from_ref(&delivery_limit)).await?;
    for partition in 0..PARTITIONS {
        let arguments = [
            ("x-single-active-consumer", true.into()),
            ("x-dead-letter-exchange", "".into()),
            ("x-dead-letter-routing-key", names.dead_letters().into()),
            ("x-dead-letter-strategy", "at-least-once".into()),
            ("x-overflow", "reject-publish".into()),
            ("x-max-length-bytes", FieldValue::l(PARTITION_MAX_BYTES)),
            delivery_limit.clone(),
        ];
        declare_queue(channel, &names.partition(partition), &arguments).await?;
    }
    Ok(())
}

async fn declare_queue(channel: &Channel, name: &str, more: &[(&str, FieldValue)]) -> Result<(), Error> {
    let mut arguments = FieldTable::new();
    for (key, value) in [("x-queue-type", "quorum".into())].iter().chain(more) {
        arguments.insert((*key).try_into().expect("a short name"), value.clone());
    }
    let declaration = QueueDeclareArguments::durable_client_named(name).arguments(arguments).finish();
    channel.queue_declare(declaration).await.map(drop)
}
