//! The queues of the partitions and of the dead letters, and their one declaration. Must not contain messages, or how a
//! queue is named.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amqprs::{FieldTable, FieldValue, channel::QueueDeclareArguments};
use tokio::time::sleep;

use super::{
    callbacks::{ChannelEvent, NOT_FOUND},
    dead_letters::HELD_MAX,
    names::QueueNames,
    pauses::Pauses,
    session::{OpenChannel, Session},
};

/// How long a queue must be missing before it is declared. A quorum queue that comes back within 30 ms keeps the
/// consumer of the deleted queue. That consumer then gets no messages and does not yield to another (seen on RabbitMQ
/// 3.10.8; after 200 ms the broker cancels the consumer).
const MISSING_PAUSE_MS: u64 = 1_000;

/// The longest that the broker may take to declare a queue, or to say whether it exists.
const DECLARE_TIMEOUT_MS: u64 = 5_000;

/// The pauses between attempts to use a queue again. The longest leaves time for the attempt, so that there is one at
/// least once a minute.
const REPAIR_PAUSE_MIN_MS: u64 = 5_000;
const REPAIR_PAUSE_MAX_MS: u64 = 50_000;

/// Maximum size of all partition queues together, in equal shares. Beyond its share, the broker refuses a partition's
/// messages.
const PARTITIONS_MAX_BYTES: i64 = 4 << 30;

/// How often a message may return to its queue. By default RabbitMQ 4 drops it after 20 lost connections. RabbitMQ 4
/// reads −1 as "unlimited", but RabbitMQ 3.10 reads it as "once". This number is in effect unlimited on both.
const DELIVERY_LIMIT: i64 = 2_000_000_000;

/// A queue and the arguments that we declare it with.
struct Queue {
    name: String,
    arguments: FieldTable,
}

impl Queue {
    fn new(name: String, more: Vec<(&str, FieldValue)>) -> Self {
        let mut arguments = FieldTable::new();
        let common = [("x-queue-type", "quorum".into()), ("x-delivery-limit", FieldValue::l(DELIVERY_LIMIT))];
        for (key, value) in common.into_iter().chain(more) {
            arguments.insert(key.try_into().expect("a short name"), value);
        }
        Self { name, arguments }
    }

    fn partition(names: &QueueNames, partition: u16) -> Self {
        let max_bytes = PARTITIONS_MAX_BYTES / i64::from(names.partitions().count());
        let arguments = vec![
            ("x-single-active-consumer", true.into()),
            ("x-dead-letter-exchange", "".into()),
            ("x-dead-letter-routing-key", names.dead_letters().into()),
            ("x-dead-letter-strategy", "at-least-once".into()),
            ("x-overflow", "reject-publish".into()),
            ("x-max-length-bytes", FieldValue::l(max_bytes)),
        ];
        Self::new(names.partition(partition), arguments)
    }

    fn dead_letters(names: &QueueNames) -> Self {
        // If this queue is full, the partitions keep their dead messages and offer them again: nothing is lost.
        let arguments =
            vec![("x-max-length", FieldValue::l(HELD_MAX.into())), ("x-overflow", "reject-publish".into())];
        Self::new(names.dead_letters(), arguments)
    }

    /// Returns whether the queue exists. If it does not, the channel is over.
    async fn exists(&self, channel: &mut OpenChannel) -> Result<bool, String> {
        let passive = QueueDeclareArguments::new(&self.name).passive(true).finish();
        match self.declared(channel, passive).await {
            Ok(()) => Ok(true),
            Err((NOT_FOUND, _)) => Ok(false),
            Err((_, why)) => Err(why),
        }
    }

    /// Declares the queue. It is an error if the queue exists with other arguments.
    async fn declare(&self, channel: &mut OpenChannel) -> Result<(), String> {
        let declaration = QueueDeclareArguments::durable_client_named(&self.name)
            .arguments(self.arguments.clone())
            .finish();
        self.declared(channel, declaration).await.map_err(|(_, why)| why)
    }

    /// Sends a declaration. The error has the broker's reply code, or 0 without one, and the reason.
    async fn declared(
        &self,
        channel: &mut OpenChannel,
        declaration: QueueDeclareArguments,
    ) -> Result<(), (u16, String)> {
        let declaring = channel.ask(DECLARE_TIMEOUT_MS, |channel| async move {
            channel.queue_declare(declaration).await.map(drop)
        });
        declaring.await.map_err(|error| match channel.events.try_recv() {
            Ok(ChannelEvent::Closed(code, text)) => (code, text),
            _ => (0, format!("queue {}: {error}", self.name)),
        })
    }
}

/// The queues that this node could not use when it last tried.
#[derive(Clone, Debug, Default)]
pub(super) struct Unusable(Arc<Mutex<BTreeSet<String>>>);

impl Unusable {
    /// The names of the queues.
    pub(super) fn queues(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Notes whether a queue can be used. A connection that is lost says nothing about a queue.
    fn note<T>(&self, session: &Session, queue: &str, opened: &Result<T, String>) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.is_ok() {
            queues.remove(queue);
        } else if !session.over.is_cancelled() {
            queues.insert(queue.to_owned());
        }
    }
}

/// Every queue. The partitions name the dead letters as their target, so these come first.
fn all(names: &QueueNames) -> impl Iterator<Item = Queue> {
    let partitions = names.partitions().all().map(|partition| Queue::partition(names, partition));
    [Queue::dead_letters(names)].into_iter().chain(partitions)
}

/// Declares every queue, one after the other: if another session is declaring a queue, RabbitMQ may offer it before its
/// process runs. Queues that exist with these arguments stay as they are. A queue that can't be declared is logged and
/// noted; the other queues stay usable.
///
/// # Errors
/// The reason, if no partition can be used or the connection is lost.
pub(super) async fn declare(
    session: &Session,
    names: &QueueNames,
    unusable: &Unusable,
) -> Result<(), String> {
    let (mut missing, mut failures) = (Vec::new(), Vec::new());
    for queue in all(names) {
        match found(session, &queue).await {
            Ok(Some(channel)) => channel.close().await?,
            Ok(None) => missing.push(queue),
            Err(why) => failures.push((queue, why)),
        }
    }
    if !missing.is_empty() {
        sleep(Duration::from_millis(MISSING_PAUSE_MS)).await;
    }
    for queue in missing {
        match declared(session, &queue).await {
            Ok(channel) => channel.close().await?,
            Err(why) => failures.push((queue, why)),
        }
    }
    let of_partitions = failures.iter().filter(|(queue, _)| names.partition_of(&queue.name).is_some());
    let is_useless = session.over.is_cancelled() || of_partitions.count() == names.partitions().all().len();
    for (queue, why) in failures {
        let why = format!("declaring the queues: {why}");
        if is_useless {
            return Err(why);
        }
        log::error!("{why}");
        unusable.note::<()>(session, &queue.name, &Err(why));
    }
    Ok(())
}

/// Tries the queues that can't be used again and again, with growing pauses, until the connection ends.
pub(super) async fn repair(session: &Session, names: &QueueNames, unusable: &Unusable) {
    let mut pauses = Pauses::new(REPAIR_PAUSE_MAX_MS);
    while !session.over.is_cancelled() {
        let pause = pauses.after_failure().max(Duration::from_millis(REPAIR_PAUSE_MIN_MS));
        session.over.run_until_cancelled(sleep(pause)).await;
        let failed = unusable.queues();
        for queue in all(names).filter(|queue| failed.contains(&queue.name)) {
            let opened = opened(session, &queue).await;
            unusable.note(session, &queue.name, &opened);
            if let Ok(channel) = opened {
                log::info!("queue {} can be used again", queue.name);
                channel.close().await.ok();
            }
        }
    }
}

/// Opens a channel for a partition's queue, which exists as we declare it. A missing queue is declared after a pause.
pub(super) async fn open_partition(
    session: &Session,
    names: &QueueNames,
    unusable: &Unusable,
    partition: u16,
) -> Result<OpenChannel, String> {
    let queue = Queue::partition(names, partition);
    let opened = opened(session, &queue).await;
    unusable.note(session, &queue.name, &opened);
    opened
}

async fn opened(session: &Session, queue: &Queue) -> Result<OpenChannel, String> {
    if let Some(channel) = found(session, queue).await? {
        return Ok(channel);
    }
    sleep(Duration::from_millis(MISSING_PAUSE_MS)).await;
    declared(session, queue).await
}

/// Opens a channel and checks that the queue exists as we declare it. Returns `None` if the queue is missing.
async fn found(session: &Session, queue: &Queue) -> Result<Option<OpenChannel>, String> {
    let mut channel = session.open_channel().await?;
    if !queue.exists(&mut channel).await? {
        log::info!("queue {} is missing; declaring it in {MISSING_PAUSE_MS} ms", queue.name);
        return Ok(None);
    }
    queue.declare(&mut channel).await?;
    Ok(Some(channel))
}

/// Opens a channel and declares the queue on it.
async fn declared(session: &Session, queue: &Queue) -> Result<OpenChannel, String> {
    let mut channel = session.open_channel().await?;
    queue.declare(&mut channel).await?;
    Ok(channel)
}
