//! How much waits in the queues, asked of the broker. What is done with the numbers may not enter.

use amqprs::channel::{Channel, QueueDeclareArguments};

use super::link::{LinkWatch, Session, in_own_task};
use crate::domain::PARTITIONS;

/// The longest that the broker may take to answer for all queues.
const ANSWER_TIMEOUT_MS: u64 = 5_000;

/// What is in the queues now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depths {
    /// For each partition: the messages that wait, without those in a worker's hands, and the workers that
    /// subscribe.
    pub partitions: Vec<(u32, u32)>,
    /// The messages that wait in the dead letters.
    pub dead_letters: u32,
}

/// Asks the broker, on a channel of its own that it keeps.
pub struct DepthProbe {
    link: LinkWatch,
    channel: Option<(Session, Channel)>,
}

impl DepthProbe {
    /// A probe that opens its channel at the first look.
    #[must_use]
    pub fn new(link: LinkWatch) -> Self {
        Self { link, channel: None }
    }

    /// What is in the queues.
    ///
    /// # Errors
    /// Why the broker does not say.
    pub async fn look(&mut self) -> Result<Depths, String> {
        let usable = self.channel.take().filter(|(session, _)| !session.over.is_cancelled());
        let (session, channel) = if let Some(open) = usable {
            open
        } else {
            let session = self.link.current()?;
            let (channel, _) = session.open_channel().await?;
            (session, channel)
        };
        let (asking, names) = (channel.clone(), self.link.names.clone());
        let asked = in_own_task(ANSWER_TIMEOUT_MS, async move {
            let mut partitions = Vec::new();
            for partition in 0..PARTITIONS {
                partitions.push(look(&asking, &names.partition(partition)).await?);
            }
            let (dead_letters, _) = look(&asking, &names.dead_letters()).await?;
            Ok(Depths { partitions, dead_letters })
        });
        match asked.await {
            Ok(depths) => {
                self.channel = Some((session, channel));
                Ok(depths)
            }
            Err(error) => {
                // An answer that comes late must not be taken for another's. Closing has an end of its own.
                tokio::spawn(Session::close_channel(channel));
                Err(error)
            }
        }
    }
}

/// A declaration that changes nothing; its answer has the numbers (AMQP 0-9-1, queue.declare-ok).
async fn look(channel: &Channel, queue: &str) -> Result<(u32, u32), amqprs::error::Error> {
    let passive = QueueDeclareArguments::new(queue).passive(true).finish();
    let answer = channel.queue_declare(passive).await?;
    Ok(answer.map_or((0, 0), |(_, messages, consumers)| (messages, consumers)))
}
