//! What RabbitMQ says of itself: closes, cancels, confirms, returns. Called on the task that reads the
//! connection: nothing here may wait.

use amqprs::{
    Ack, BasicProperties, Cancel, Close, CloseChannel, Nack, Return,
    callbacks::{ChannelCallback, ConnectionCallback},
    channel::Channel,
    connection::Connection,
    error::Error,
};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What the broker says on a channel besides deliveries.
#[derive(Debug)]
pub(super) enum ChannelEvent {
    /// Every message up to this tag is safe.
    Acked(u64),
    /// Messages up to this tag were refused.
    Nacked(u64),
    /// A message found no queue; its ack follows.
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
        log::warn!("RabbitMQ takes no messages now: {reason}");
    }

    async fn unblocked(&mut self, _: &Connection) {
        log::info!("RabbitMQ takes messages again");
    }

    async fn secret_updated(&mut self, _: &Connection) {}
}

/// Tells a channel's events, and ends the session when the broker ends the channel.
pub(super) struct ChannelWatch {
    pub(super) over: CancellationToken,
    pub(super) events: mpsc::UnboundedSender<ChannelEvent>,
}

impl ChannelWatch {
    fn tell(&self, event: ChannelEvent) {
        // Consumers don't listen.
        self.events.send(event).ok();
    }
}

#[async_trait]
impl ChannelCallback for ChannelWatch {
    /// One more publish on a closed channel would take the whole connection down, at a time of its
    /// choosing: rather now.
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), Error> {
        log::warn!("RabbitMQ closes a channel: {close}");
        self.over.cancel();
        Ok(())
    }

    /// A queue is gone: the next session declares it again.
    async fn cancel(&mut self, _: &Channel, cancel: Cancel) -> Result<(), Error> {
        log::warn!("RabbitMQ cancels the consumer {}: is its queue deleted?", cancel.consumer_tag());
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
