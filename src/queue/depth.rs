//! Asks the broker how many messages wait in the queues. Must not contain what is done with the numbers.

use std::collections::HashMap;

use amqprs::channel::{Channel, QueueDeclareArguments};
use futures_util::future::join_all;

use super::{link::LinkWatch, session::OpenChannel};

/// The longest that the broker may take to answer for one queue.
const ANSWER_TIMEOUT_MS: u64 = 5_000;

/// The current depths of the queues. A depth is `None` if the broker does not answer for the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// For each partition, the number of waiting messages, not counting messages that a worker holds, and the number of
    /// subscribed workers.
    pub partitions: Vec<Option<(u32, u32)>>,
    /// The number of waiting dead letters.
    pub dead_letters: Option<u32>,
}

impl Depths {
    /// No depth is known yet.
    #[must_use]
    pub fn unknown(link: &LinkWatch) -> Self {
        Self { partitions: link.names.partitions().all().map(|_| None).collect(), dead_letters: None }
    }

    /// For each partition, the number of waiting messages.
    pub fn waiting(&self) -> impl Iterator<Item = Option<u32>> {
        self.partitions.iter().map(|depth| depth.map(|(messages, _)| messages))
    }
}

/// Asks the broker on one channel per queue, so that a queue that does not answer delays no other.
pub struct DepthProbe {
    link: LinkWatch,
    channels: HashMap<String, OpenChannel>,
}

impl DepthProbe {
    /// A probe that opens its channels on first use.
    #[must_use]
    pub fn new(link: LinkWatch) -> Self {
        Self { link, channels: HashMap::new() }
    }

    /// Waits until the connection to the broker has changed.
    pub async fn changed(&mut self) {
        self.link.changed().await;
    }

    /// Returns the current depths.
    pub async fn look(&mut self) -> Depths {
        let names = &self.link.names;
        let mut queues: Vec<String> =
            names.partitions().all().map(|partition| names.partition(partition)).collect();
        queues.push(names.dead_letters());
        let asked = queues.into_iter().map(|queue| {
            let channel = self.channels.remove(&queue).filter(|channel| !channel.is_over());
            ask(&self.link, queue, channel)
        });
        let mut partitions = Vec::new();
        for (queue, answer) in join_all(asked).await {
            partitions.push(match answer {
                Ok((channel, depth)) => {
                    self.channels.insert(queue, channel);
                    Some(depth)
                }
                Err(error) => {
                    log::debug!("the depth of queue {queue} is unknown: {error}");
                    None
                }
            });
        }
        let dead_letters = partitions.pop().flatten().map(|(messages, _)| messages);
        Depths { partitions, dead_letters }
    }
}

/// Sends a passive declaration, which changes nothing. Its answer has the numbers (AMQP 0-9-1, queue.declare-ok).
pub(super) async fn ask(
    link: &LinkWatch,
    queue: String,
    channel: Option<OpenChannel>,
) -> (String, Result<(OpenChannel, (u32, u32)), String>) {
    let passive = QueueDeclareArguments::new(&queue).passive(true).finish();
    let asking = async {
        let channel = match channel {
            Some(channel) => channel,
            None => link.current()?.open_channel().await?,
        };
        let declare = |channel: Channel| async move { channel.queue_declare(passive).await };
        let answer = channel.ask(ANSWER_TIMEOUT_MS, declare).await?;
        Ok((channel, answer.map_or((0, 0), |(_, messages, consumers)| (messages, consumers))))
    };
    let answer = asking.await;
    (queue, answer)
}
