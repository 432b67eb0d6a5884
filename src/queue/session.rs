//! One connection while it lasts, and its channels, each of which fails alone. Must not contain what travels over them.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use amqprs::{channel::Channel, connection::Connection, error::Error};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::callbacks::{ChannelEvent, ChannelWatch, ConnectionWatch};

/// The longest that opening a channel may take.
const CHANNEL_TIMEOUT_MS: u64 = 5_000;

/// The longest that a connection in doubt may take to open a channel: what waits behind it is refused no later.
const CHECK_TIMEOUT_MS: u64 = 500;

/// The longest that a clean close may take.
const CLOSE_TIMEOUT_MS: u64 = 3_000;

/// One connection, and the token that says it is over: whatever sees it fail cancels the token, and
/// everything that waits for an answer on it waits for the token as well.
#[derive(Clone)]
pub(super) struct Session {
    connection: Connection,
    pub(super) over: CancellationToken,
    /// How many more of its channels the broker may close: amqprs does not use their numbers again, and panics when none
    /// is free.
    closes_left: Arc<AtomicU32>,
}

impl Session {
    /// Watches over an open connection from now on.
    pub(super) async fn new(connection: Connection) -> Result<Self, String> {
        // Half of them stay for use.
        let closes_left = Arc::new(AtomicU32::new(u32::from(connection.channel_max() / 2).max(1)));
        let session = Self { connection, over: CancellationToken::new(), closes_left };
        let (listener, over) = (session.connection.clone(), session.over.clone());
        // Whether it returns true or false, the connection has ended.
        tokio::spawn(async move {
            listener.listen_network_io_failure().await;
            over.cancel();
        });
        let watch = ConnectionWatch { over: session.over.clone() };
        session.connection.register_callback(watch).await.map_err(|error| error.to_string())?;
        Ok(session)
    }

    /// A new channel. A connection that opens none is over.
    pub(super) async fn open_channel(&self) -> Result<OpenChannel, String> {
        self.open_channel_within(CHANNEL_TIMEOUT_MS).await
    }

    async fn open_channel_within(&self, limit_ms: u64) -> Result<OpenChannel, String> {
        let (events, heard) = mpsc::unbounded_channel();
        let over = self.over.child_token();
        let watch = ChannelWatch {
            over: over.clone(),
            events,
            session_over: self.over.clone(),
            closes_left: Arc::clone(&self.closes_left),
        };
        let connection = self.connection.clone();
        let opening = in_own_task(limit_ms, async move {
            let channel = connection.open_channel(None).await?;
            channel.register_callback(watch).await?;
            Ok(channel)
        });
        let channel = opening.await.inspect_err(|_| self.over.cancel())?;
        Ok(OpenChannel { channel, events: heard, over })
    }

    /// Ends the session, by and by, where its connection does not answer any more.
    pub(super) fn check(&self) {
        let session = self.clone();
        tokio::spawn(async move {
            if session.over.is_cancelled() {
                return;
            }
            match session.open_channel_within(CHECK_TIMEOUT_MS).await {
                Ok(channel) => drop(channel.close().await),
                Err(error) => log::warn!("the connection to RabbitMQ does not answer: {error}"),
            }
        });
    }

    /// Ends the session and closes its connection.
    pub(super) fn close(&self) -> impl Future<Output = Result<(), String>> + Send + 'static {
        self.over.cancel();
        in_own_task(CLOSE_TIMEOUT_MS, self.connection.clone().close())
    }
}

/// A channel, what the broker says on it, and the token that says it is over. The channel is closed when the last
/// handle is dropped; nothing is sent on it once the token is cancelled: a frame on a channel that the broker has
/// closed would end the connection.
pub(super) struct OpenChannel {
    pub(super) channel: Channel,
    pub(super) events: mpsc::UnboundedReceiver<ChannelEvent>,
    pub(super) over: CancellationToken,
}

impl OpenChannel {
    /// Asks the broker, and waits at most `limit_ms` for the answer. Without one the channel is over, and what a late
    /// answer has begun, such as a subscription, ends with it.
    pub(super) async fn ask<T: Send + 'static, F>(
        &self,
        limit_ms: u64,
        request: impl FnOnce(Channel) -> F,
    ) -> Result<T, String>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let asking = in_own_task(limit_ms, request(self.channel.clone()));
        asking.await.inspect_err(|_| self.over.cancel())
    }

    /// Whether nothing may be sent on it any more.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Ends the channel after the broker has read everything that was sent on it.
    pub(super) async fn close(self) -> Result<(), String> {
        if self.is_over() {
            return Ok(());
        }
        in_own_task(CLOSE_TIMEOUT_MS, self.channel.close()).await
    }
}

/// Runs a request to the broker to its end, however long we wait for it: amqprs panics where the answer
/// comes to a request that was dropped.
pub(super) async fn in_own_task<T: Send + 'static>(
    limit_ms: u64,
    request: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, String> {
    match timeout(Duration::from_millis(limit_ms), tokio::spawn(request)).await {
        Ok(Ok(done)) => done.map_err(|error| error.to_string()),
        Ok(Err(panic)) => Err(panic.to_string()),
        Err(_) => Err(format!("no answer within {limit_ms} ms")),
    }
}
