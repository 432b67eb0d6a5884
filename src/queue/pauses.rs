//! The pauses between attempts, which grow until an attempt lasts. Must not contain the attempts.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The first pause.
const MIN_MS: u64 = 100;

/// An attempt that lasts this long has succeeded. The pauses then start over.
const STEADY_MS: u64 = 5_000;

/// Growing pauses, each with some jitter.
pub(super) struct Pauses {
    max: Duration,
    builder: ExponentialBuilder,
    current: ExponentialBackoff,
}

impl Pauses {
    /// Pauses that start at 100 ms and double each time, up to `max_ms`.
    pub(super) fn new(max_ms: u64) -> Self {
        let max = Duration::from_millis(max_ms);
        let builder = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(MIN_MS))
            .with_max_delay(max)
            .with_jitter()
            .without_max_times();
        Self { max, builder, current: builder.build() }
    }

    /// The pause after a failed attempt.
    pub(super) fn after_failure(&mut self) -> Duration {
        // The builder adds the jitter to its longest pause too.
        self.current.next().expect("the pauses have no end").min(self.max)
    }

    /// The pause after the end of an attempt that began at `began`: none if it lasted.
    pub(super) fn after(&mut self, began: Instant) -> Duration {
        if began.elapsed() < Duration::from_millis(STEADY_MS) {
            return self.after_failure();
        }
        self.current = self.builder.build();
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_last_is_tried_again_later_each_time() {
        let mut pauses = Pauses::new(1_000);
        let now = Instant::now();
        let waits: Vec<Duration> = (0..6).map(|_| pauses.after(now)).collect();
        assert!(waits.iter().all(|wait| *wait >= Duration::from_millis(MIN_MS)), "{waits:?}");
        assert_eq!(waits[5], Duration::from_secs(1), "the longest pause, jitter and all");
        let long_ago = now.checked_sub(Duration::from_millis(STEADY_MS)).expect("a machine that is up");
        assert_eq!(pauses.after(long_ago), Duration::ZERO);
        assert!(pauses.after(now) < Duration::from_millis(3 * MIN_MS));
    }
}
