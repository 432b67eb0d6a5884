//! Reports the state of a node to a supervisor such as systemd, by its protocol `sd_notify`. Must not contain the
//! checks behind that state, or anything for a supervisor that did not ask.

use std::{env, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    http,
    ops::health::{Condition, Health},
};

/// The pause between two checks of the health of the node.
const LOOK_PAUSE_MS: u64 = 100;

/// Whether a supervisor listens.
pub(super) fn is_there() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// Tells the supervisor once that the node has started, once that it is stopping, and every change of its state, until
/// it is stopping or has `ended`.
///
/// There is no watchdog: a message from here would prove only that this task runs, not that requests are answered.
pub(super) async fn tell(health: &Health, stop: CancellationToken, ended: CancellationToken) {
    let mut looks = interval(Duration::from_millis(LOOK_PAUSE_MS));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut is_started) = (None, false);
    loop {
        // A node may end before the next check, and even before this task runs again.
        let is_over = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            () = ended.cancelled() => true,
            _ = looks.tick() => false,
        };
        let report = health.report();
        let status = http::described(&report);
        if told.as_ref() != Some(&status) {
            let mut news = vec![NotifyState::Status(&status)];
            if report.condition.has_started() && !is_started {
                is_started = true;
                news.push(NotifyState::Ready);
            }
            if report.condition == Condition::Stopping {
                news.push(NotifyState::Stopping);
            }
            if let Err(error) = sd_notify::notify(&news) {
                log::warn!("the supervisor can't be told (NOTIFY_SOCKET): {error}");
            }
        }
        if is_over {
            return;
        }
        told = Some(status);
    }
}
