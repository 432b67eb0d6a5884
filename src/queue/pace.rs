//! Measures how fast the broker confirms a partition's deltas. Must not contain a connection.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::domain::{Delta, RequestId, UserId};

/// The length of a window. The measurement looks back over one to two windows.
const WINDOW: Duration = Duration::from_secs(5);

/// The bounds of the time that a client is told to wait.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// The latest delta of a partition that the broker has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// When it was accepted.
    pub at: Timestamp,
    /// Its user.
    pub user_id: UserId,
    /// Its request.
    pub request_id: RequestId,
}

impl From<&Delta> for Accepted {
    fn from(delta: &Delta) -> Self {
        Self { at: delta.requested_at, user_id: delta.user_id.clone(), request_id: delta.request_id }
    }
}

/// The confirms of this window and of the previous one.
pub(super) struct Pace(Mutex<Windows>);

struct Windows {
    began: Instant,
    confirmed: usize,
    before: usize,
    latest: Option<Accepted>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Windows { began: Instant::now(), confirmed: 0, before: 0, latest: None }))
    }

    /// Counts deltas that are confirmed now.
    pub(super) fn confirmed(&self, deltas: &[Delta]) {
        let latest = deltas.iter().max_by_key(|delta| delta.requested_at).map(Accepted::from);
        self.with(Instant::now(), |windows| {
            windows.confirmed += deltas.len();
            windows.latest = windows.latest.take().into_iter().chain(latest).max_by_key(|latest| latest.at);
        });
    }

    /// The latest of all confirmed deltas.
    pub(super) fn latest(&self) -> Option<Accepted> {
        self.with(Instant::now(), |windows| windows.latest.clone())
    }

    /// How long the `waiting` deltas before a client's will take at the recent pace: whole seconds, rounded up, from 1
    /// to 30. It is 30 if nothing was confirmed recently.
    pub(super) fn retry_after(&self, waiting: usize) -> Duration {
        self.retry_after_at(Instant::now(), waiting)
    }

    fn retry_after_at(&self, now: Instant, waiting: usize) -> Duration {
        self.with(now, |windows| {
            let time = WINDOW + now.saturating_duration_since(windows.began);
            let taken = windows.before + windows.confirmed;
            let needed = time.as_millis() * waiting as u128 / (taken.max(1) as u128 * 1_000) + 1;
            let needed = Duration::from_secs(u64::try_from(needed).unwrap_or(u64::MAX));
            if taken == 0 { RETRY_AFTER_MAX } else { needed.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX) }
        })
    }

    fn with<T>(&self, now: Instant, work: impl FnOnce(&mut Windows) -> T) -> T {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(windows.began);
        if age >= WINDOW {
            let before = if age < 2 * WINDOW { windows.confirmed } else { 0 };
            *windows = Windows { began: now, confirmed: 0, before, latest: windows.latest.take() };
        }
        work(&mut windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_when_what_waits_will_have_been_taken() {
        let pace = Pace::new();
        let start = Instant::now();
        let after =
            |seconds, waiting| pace.retry_after_at(start + Duration::from_secs(seconds), waiting).as_secs();
        assert_eq!(after(0, 1), 30, "nothing was ever taken");
        pace.with(start, |windows| windows.confirmed = 500);
        assert_eq!(after(5, 0), 1, "at 100 a second");
        assert_eq!(after(5, 450), 5, "at 100 a second");
        assert_eq!(after(5, 100_000), 30, "the maximum");
        assert_eq!(after(11, 1), 30, "nothing was taken recently");
    }
}
