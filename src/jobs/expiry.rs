//! Expires the points of users who have no changes. Must not contain how that is decided.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::domain::PointService;

/// The pause between two searches for expired points.
const EXPIRY_PAUSE_S: u64 = 5;

/// Removes expired points from balances until `stop` is cancelled. Any number of nodes may do this at the same time.
pub async fn expire(service: Arc<PointService>, stop: CancellationToken) {
    let searching = async {
        loop {
            if let Err(error) = service.expire_all().await {
                log::warn!(
                    "expired points stay in the balances: {error}; trying again in {EXPIRY_PAUSE_S} s"
                );
            }
            sleep(Duration::from_secs(EXPIRY_PAUSE_S)).await;
        }
    };
    stop.run_until_cancelled(searching).await;
}
