//! One connection and its channels, each of which fails alone. Must not contain messages.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
    time::{Duration, Instant},
};

use amqprs::{channel::Channel, connection::Connection, error::Error};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::callbacks::{ChannelEvent, ChannelWatch, ConnectionWatch};
use crate::infra::hosts::Place;

/// The longest that opening a channel may take.
const CHANNEL_TIMEOUT_MS: u64 = 5_000;

/// The longest that a connection may take to open a channel when it is checked. Requests that wait for the connection
/// are refused by then.
const CHECK_TIMEOUT_MS: u64 = 500;

/// The longest that a clean close may take.
const CLOSE_TIMEOUT_MS: u64 = 3_000;

/// One connection, and the token that is cancelled when it is over. Any code that sees the connection fail cancels the
/// token. Any code that waits for an answer also waits for the token.
#[derive(Clone)]
pub(super) struct Session {
    connection: Connection,
    pub(super) over: CancellationToken,
    /// Where the broker is.
    pub(super) place: Place,
    /// When the broker last answered a publish.
    answered: Arc<Mutex<Option<Instant>>>,
    /// How many more of its channels the broker may close. amqprs does not reuse their numbers, and panics when none is
    /// free.
    closes_left: Arc<AtomicU32>,
}

impl Session {
    /// A session of an open connection, which it watches from now on.
    pub(super) async fn new(connection: Connection, place: Place) -> Result<Self, String> {
        // The other half of the channels stays usable.
        let closes_left = Arc::new(AtomicU32::new(closes_max(connection.channel_max())));
        let (over, answered) = (CancellationToken::new(), Arc::default());
        let session = Self { connection, over, place, answered, closes_left };
        let (listener, over) = (session.connection.clone(), session.over.clone());
        // Whether it returns true or false, the connection has ended. It holds the connection, so it ends with the session.
        tokio::spawn(async move {
            tokio::select! {
                _ = listener.listen_network_io_failure() => over.cancel(),
                () = over.cancelled() => {}
            }
        });
        let watch = ConnectionWatch { over: session.over.clone() };
        session.connection.register_callback(watch).await.map_err(|error| error.to_string())?;
        Ok(session)
    }

    /// Opens a channel. If that fails, the session is over.
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

    /// Notes that the broker has answered a publish.
    pub(super) fn answered(&self) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns whether the broker has answered any publish after `then`.
    pub(super) fn has_answered_since(&self, then: Instant) -> bool {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at > then)
    }

    /// Checks the connection in the background, and ends the session if it no longer answers.
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

/// A channel, its events, and the token that is cancelled when it is over. The channel closes when the last handle is
/// dropped. Once the token is cancelled, nothing is sent on the channel: a frame on a channel that the broker has
/// closed would end the connection.
pub(super) struct OpenChannel {
    pub(super) channel: Channel,
    pub(super) events: mpsc::UnboundedReceiver<ChannelEvent>,
    pub(super) over: CancellationToken,
}

impl OpenChannel {
    /// Sends a request and waits at most `limit_ms` for the answer. Without an answer the channel is over. Whatever a
    /// late answer starts, such as a subscription, ends with the channel.
    pub(super) async fn ask<T: Send + 'static, F>(
        &self,
        limit_ms: u64,
        request: impl FnOnce(Channel) -> F,
    ) -> Result<T, String>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        if self.is_over() {
            return Err("the channel is closed".to_owned());
        }
        let asking = in_own_task(limit_ms, request(self.channel.clone()));
        let asked = self.over.run_until_cancelled(asking).await;
        asked.unwrap_or_else(|| Err("the channel is closed".to_owned())).inspect_err(|_| self.over.cancel())
    }

    /// Returns whether nothing more may be sent on the channel.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Closes the channel after the broker has read everything that was sent on it.
    pub(super) async fn close(self) -> Result<(), String> {
        if self.is_over() {
            return Ok(());
        }
        in_own_task(CLOSE_TIMEOUT_MS, self.channel.close()).await
    }
}

/// Runs a request to its end, even if the caller stops waiting for it after `limit_ms`: amqprs panics if the answer
/// comes after the request was dropped.
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

/// Half of the channels of a connection with this `channel_max`, where 0 means no limit (AMQP 0-9-1, connection.tune).
fn closes_max(channel_max: u16) -> u32 {
    let channels = if channel_max == 0 { u16::MAX } else { channel_max };
    u32::from(channels / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_channels_may_be_closed() {
        assert_eq!([0, 1, 2, 128, 2_047].map(closes_max), [32_767, 1, 1, 64, 1_023]);
    }
}
