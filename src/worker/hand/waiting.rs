//! A user with an obstacle: the deltas that wait, and when to try again. Must not contain I/O or a clock.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::Taken;
use crate::domain::Obstacle;

/// The bounds of the pause between attempts for a user with an obstacle.
const RETRY_PAUSE_MIN_MS: u64 = 50;
const RETRY_PAUSE_MAX_MS: u64 = 1_000;

/// The same for a slow user: longer, since each attempt delays the partition for as long as a statement may take.
const SLOW_PAUSE_MIN_MS: u64 = 5_000;
const SLOW_PAUSE_MAX_MS: u64 = 60_000;

/// A user with an obstacle.
pub(in crate::worker) struct Waiting {
    /// The user's deltas in the order of the queue. The first is tried again, and the others follow it.
    pub(super) deltas: VecDeque<Taken>,
    pub(in crate::worker) obstacle: Obstacle,
    /// When the wait began.
    pub(in crate::worker) since: Instant,
    pause: Duration,
    pub(super) due: Instant,
    /// Whether the log has named the user.
    pub(in crate::worker) is_reported: bool,
}

impl Waiting {
    /// A user without deltas, who is due.
    pub(super) fn new(obstacle: &Obstacle, now: Instant) -> Self {
        Self {
            deltas: VecDeque::new(),
            obstacle: obstacle.clone(),
            since: now,
            pause: Duration::ZERO,
            due: now,
            is_reported: false,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    pub(super) fn is_slow(&self) -> bool {
        self.obstacle == Obstacle::Slow
    }

    /// Notes that an attempt has met an obstacle: the next is made after a longer pause.
    pub(super) fn meet(&mut self, obstacle: &Obstacle, now: Instant) {
        let (min_ms, max_ms) = match obstacle {
            Obstacle::Locked | Obstacle::Unreadable(_) | Obstacle::Failing(_) | Obstacle::Newer(_) => {
                (RETRY_PAUSE_MIN_MS, RETRY_PAUSE_MAX_MS)
            }
            Obstacle::Slow => (SLOW_PAUSE_MIN_MS, SLOW_PAUSE_MAX_MS),
        };
        let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
        if self.is_due(now) {
            self.pause = (2 * self.pause).clamp(min, max);
            self.due = now + self.pause;
            self.obstacle = obstacle.clone();
        }
    }

    /// Notes that an attempt has succeeded: the user is no longer slow, so the later deltas may be applied together.
    pub(super) fn go_on(&mut self, now: Instant) {
        (self.obstacle, self.due, self.pause) = (Obstacle::Locked, now, Duration::ZERO);
    }

    /// Puts a delta in its place.
    pub(super) fn insert(&mut self, taken: Taken) {
        let place = self.deltas.partition_point(|other| other.place < taken.place);
        self.deltas.insert(place, taken);
    }
}
