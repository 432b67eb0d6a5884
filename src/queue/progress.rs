//! How far the consumer of a partition has come, for those who watch over it. Must not contain a judgement.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use jiff::Timestamp;

/// Shared by a consumer and its watcher.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Standing>>);

/// Where a consumer stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// When the latest of the deltas that it has ever taken was accepted.
    pub taken_until: Option<Timestamp>,
    /// Since when it is subscribed.
    pub subscribed_at: Option<Instant>,
    /// Whether it takes no more for now, for a reason that its worker knows.
    pub is_busy: bool,
}

impl Progress {
    /// Where the consumer stands now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
