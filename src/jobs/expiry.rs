//! Lets points expire of users whom no change touches. Must not contain how that is decided.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::domain::PointService;

/// The pause between two searches for expired points.
const EXPIRY_PAUSE_S: u64 = 5;

/// Lets points expire until `stop` is cancelled. Any number of nodes may do so at once.
pub async fn expire(service: Arc<PointService>, stop: CancellationToken) {
    let searching = async {
        loop {
            if let Err(error) = service.expire_all().await {
                log::warn!("expired points stay in the balances for now: {error}");
            }
            sleep(Duration::from_secs(EXPIRY_PAUSE_S)).await;
        }
    };
    stop.run_until_cancelled(searching).await;
}
