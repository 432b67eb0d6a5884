//! Handles what RabbitMQ sends unasked: closes, cancels, confirms and returns. Must not contain code that waits for an
//! answer: it runs on the tasks that read the answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use amqprs::{
    Ack, BasicProperties, Cancel, Close, CloseChannel, Nack, Return,
    callbacks::{ChannelCallback, ConnectionCallback},
    channel::Channel,
    connection::Connection,
    error::Error,
};
use async_trait::async_trait;
use log::Level;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

/// The reply code on a channel that asked for a missing queue (AMQP 0-9-1 §1.2).
pub(super) const NOT_FOUND: u16 = 404;

/// The pause before a close by the broker is answered. It is much longer than a request takes from its last check to
/// the connection, even on a busy machine.
const CLOSE_OK_PAUSE_MS: u64 = 500;

/// What the broker sends on a channel besides deliveries.
#[derive(Debug)]
pub(super) enum ChannelEvent {
    /// The broker has closed the channel, with this reply code (AMQP 0-9-1 §1.2) and text.
    Closed(u16, String),
    /// Every message up to this tag is safe.
    Acked(u64),
    /// The broker refuses messages up to this tag.
    Nacked(u64),
    /// No queue exists for a message. Its ack follows.
    Returned(String),
}

/// Ends the session when the broker ends the connection.
pub(super) struct ConnectionWatch {
    pub(super) over: CancellationToken,
}

#[async_trait]
impl ConnectionCallback for ConnectionWatch {
    async fn close(&mut self, _: &Connection, close: Close) -> Result<(), Error> {
        log::warn!("RabbitMQ closes the connection: {close}");
        self.over.cancel();
        Ok(())
    }

    async fn blocked(&mut self, _: &Connection, reason: String) {
        log::warn!("RabbitMQ accepts no messages now: {reason}");
    }

    async fn unblocked(&mut self, _: &Connection) {
        log::info!("RabbitMQ accepts messages again");
    }

    async fn secret_updated(&mut self, _: &Connection) {}
}

/// Passes on a channel's events, and ends the channel when the broker does.
pub(super) struct ChannelWatch {
    pub(super) over: CancellationToken,
    pub(super) events: mpsc::UnboundedSender<ChannelEvent>,
    pub(super) session_over: CancellationToken,
    /// How many more channels of the session the broker may close.
    pub(super) closes_left: Arc<AtomicU32>,
}

impl ChannelWatch {
    fn tell(&self, event: ChannelEvent) {
        // Consumers do not need this event.
        self.events.send(event).ok();
    }
}

#[async_trait]
impl ChannelCallback for ChannelWatch {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), Error> {
        // The caller that asked for a missing queue reports it.
        let level = if close.reply_code() == NOT_FOUND { Level::Debug } else { Level::Warn };
        log::log!(level, "RabbitMQ closes a channel: {close}");
        self.tell(ChannelEvent::Closed(close.reply_code(), close.reply_text().clone()));
        self.over.cancel();
        if self.closes_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            log::warn!("RabbitMQ has closed half of the connection's channels; replacing the connection");
            self.session_over.cancel();
        }
        // The answer follows this. Somebody may be about to send a request on the channel. RabbitMQ ignores what comes
        // before the answer, and closes the connection if anything comes after it.
        let pause = sleep(Duration::from_millis(CLOSE_OK_PAUSE_MS));
        match self.session_over.run_until_cancelled(pause).await {
            Some(()) => Ok(()),
            None => Err(Error::ChannelUseError("the connection is over".to_owned())),
        }
    }

    /// The queue is deleted, or has lost its leader. The next subscription finds out which.
    async fn cancel(&mut self, _: &Channel, cancel: Cancel) -> Result<(), Error> {
        log::warn!(
            "RabbitMQ cancels the consumer {}: its queue may have been deleted",
            cancel.consumer_tag()
        );
        self.over.cancel();
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.tell(ChannelEvent::Acked(ack.delivery_tag()));
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        self.tell(ChannelEvent::Nacked(nack.delivery_tag()));
    }

    async fn publish_return(&mut self, _: &Channel, ret: Return, _: BasicProperties, _: Vec<u8>) {
        self.tell(ChannelEvent::Returned(ret.reply_text().clone()));
    }
}
