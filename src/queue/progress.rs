//! The progress of a partition's consumer, for the code that watches it. Must not contain decisions about it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use jiff::Timestamp;

/// Shared by a consumer and its watcher.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Standing>>);

/// The state of a consumer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// When the latest of all deltas that it has taken was accepted.
    pub taken_until: Option<Timestamp>,
    /// When its subscription began, if it has one.
    pub subscribed_at: Option<Instant>,
    /// When the oldest delta that its worker holds was accepted.
    pub oldest: Option<Timestamp>,
    /// Whether it takes no messages now because its worker is busy.
    pub is_busy: bool,
    /// Until when its partition counts as kept, if its previous subscription ended because the next message is not
    /// understood: it looks again by then.
    pub kept_until: Option<Instant>,
}

impl Progress {
    /// The current state of the consumer.
    #[must_use]
    pub fn standing(&self) -> Standing {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
