//! A channel in confirm mode: publishes one message at a time and waits for its confirm. Must not contain deltas.

use std::time::Duration;

use amqprs::{
    BasicProperties, DELIVERY_MODE_PERSISTENT,
    channel::{BasicPublishArguments, Channel, ConfirmSelectArguments},
};
use tokio::time::sleep;

use super::{
    callbacks::ChannelEvent,
    publisher::PublishError,
    session::{OpenChannel, Session},
    wire::CONTENT_TYPE,
};

/// The longest wait for a confirm, including the time to open a channel.
pub(super) const CONFIRM_TIMEOUT_MS: u64 = 5_000;

/// The pauses before a channel's refused first message to a queue is sent again: 1.5 s in all.
const FIRST_PAUSES_MS: [u64; 4] = [0, 100, 400, 1_000];

/// The broker's answer to a message.
pub(super) enum Confirm {
    /// The message is safe.
    Ack,
    /// The broker refuses the message.
    Nack,
}

/// A channel in confirm mode with at most one message in flight.
pub(super) struct ConfirmChannel {
    channel: OpenChannel,
    session: Session,
    /// The broker numbers the messages of a channel from 1.
    last_tag: u64,
}

impl ConfirmChannel {
    pub(super) async fn open(session: &Session) -> Result<Self, String> {
        Self::on(session.open_channel().await?, session).await
    }

    pub(super) async fn on(channel: OpenChannel, session: &Session) -> Result<Self, String> {
        let select =
            |channel: Channel| async move { channel.confirm_select(ConfirmSelectArguments::default()).await };
        channel.ask(CONFIRM_TIMEOUT_MS, select).await?;
        Ok(Self { channel, session: session.clone(), last_tag: 0 })
    }

    /// Returns whether nothing more may be sent on the channel.
    pub(super) fn is_over(&self) -> bool {
        self.channel.is_over()
    }

    /// Returns once the broker has the message on disk or refuses it. `id` has at most 255 bytes.
    ///
    /// For a channel's first message to a queue, the broker looks up the queue's leader. It also refuses the message if
    /// the leader does not answer in time, as during an election (RabbitMQ's `rabbit_fifo_client`). So a refused first
    /// message is sent a few more times. A queue that is full refuses each of them.
    pub(super) async fn publish(
        &mut self,
        queue: &str,
        id: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Confirm, PublishError> {
        if self.last_tag > 0 {
            return self.publish_once(queue, id, body).await;
        }
        for pause_ms in FIRST_PAUSES_MS {
            if let Confirm::Ack = self.publish_once(queue, id, body.clone()).await? {
                return Ok(Confirm::Ack);
            }
            sleep(Duration::from_millis(pause_ms)).await;
            if self.is_over() {
                return Err(lost("the channel was closed before the confirm"));
            }
        }
        self.publish_once(queue, id, body).await
    }

    async fn publish_once(
        &mut self,
        queue: &str,
        id: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Confirm, PublishError> {
        self.last_tag += 1;
        let mut properties = BasicProperties::default();
        properties.with_content_type(CONTENT_TYPE).with_delivery_mode(DELIVERY_MODE_PERSISTENT);
        if let Some(id) = id {
            properties.with_message_id(id);
        }
        let arguments = BasicPublishArguments::new("", queue).mandatory(true).finish();
        let published = self.channel.channel.basic_publish(properties, body, arguments).await;
        published.map_err(|error| lost(&error.to_string()))?;
        let mut returned = None;
        while let Some(event) = self.channel.events.recv().await {
            match event {
                ChannelEvent::Returned(why) => returned = Some(why),
                ChannelEvent::Acked(tag) if tag >= self.last_tag => {
                    self.session.answered();
                    return returned
                        .map_or(Ok(Confirm::Ack), |why| Err(lost(&format!("queue {queue}: {why}"))));
                }
                ChannelEvent::Nacked(tag) if tag >= self.last_tag => {
                    self.session.answered();
                    return Ok(Confirm::Nack);
                }
                ChannelEvent::Closed(_, why) => return Err(lost(&why)),
                ChannelEvent::Acked(_) | ChannelEvent::Nacked(_) => {}
            }
        }
        Err(lost("the channel was closed before the confirm"))
    }
}

/// The error for a message whose fate is unknown.
pub(super) fn lost(why: &str) -> PublishError {
    PublishError::Unavailable(format!("RabbitMQ: {why}"))
}
