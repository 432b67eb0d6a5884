//! The drain of a server: it keeps serving for a while, and asks its clients to reconnect elsewhere. Must not contain
//! routes.

use std::time::Duration;

use actix_web::{dev::ServiceResponse, http::ConnectionType};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The end of a server, in three steps: it is told to stop, it closes, and it ends once its requests are answered.
pub struct Drain {
    /// Cancelled when the server is told to stop.
    pub(super) told: CancellationToken,
    /// Cancelled when the server accepts no more connections.
    pub(super) closing: CancellationToken,
    /// The longest that the requests then in progress may take.
    pub(super) limit: Duration,
}

impl Drain {
    /// When `stop` is cancelled, the server serves as before for `delay` and then closes. `limit` includes the delay.
    #[must_use]
    pub fn new(stop: CancellationToken, delay: Duration, limit: Duration) -> Self {
        let closing = CancellationToken::new();
        let (told, close) = (stop.clone(), closing.clone());
        tokio::spawn(async move {
            stop.cancelled().await;
            if !delay.is_zero() {
                log::info!("no longer ready; still serving for {} ms (--drain-delay)", delay.as_millis());
                sleep(delay).await;
            }
            close.cancel();
        });
        Self { told, closing, limit: limit.saturating_sub(delay) }
    }
}

/// Asks the client to close its connection if the server has been told to stop. The client's next connection goes
/// through its load balancer, which no longer chooses this server.
pub(super) fn see_off<B>(told: &CancellationToken, answer: &mut ServiceResponse<B>) {
    if told.is_cancelled() {
        answer.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
}
