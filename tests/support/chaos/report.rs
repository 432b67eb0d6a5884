//! The report of a chaos run, as text.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{Strike, Verdict, clients::Record};
use crate::support::client::Promises;

/// The number of requests by their result.
#[derive(Default)]
pub struct Counts {
    pub requests: AtomicU64,
    pub queued: AtomicU64,
    pub waited: AtomicU64,
    /// The number of 202 answers to batches.
    pub batches: AtomicU64,
    /// Adds that were repeated until their points had expired.
    pub late: AtomicU64,
    pub unavailable: AtomicU64,
    pub unanswered: AtomicU64,
}

/// What the clients saw, by kind of fault.
pub struct Report<F> {
    pub verdict: Verdict,
    /// The number of answers that settled or acknowledged a change: 202, 200, and 409 for a rejected change.
    pub promised: usize,
    /// The number of entries of expired points.
    pub expired: i64,
    /// The servers and the size of the run.
    title: String,
    /// Whose waits the last column has.
    waits: &'static str,
    counts: Counts,
    kinds: BTreeMap<F, Kind>,
}

/// The worst effects of one kind of fault.
#[derive(Default)]
struct Kind {
    strikes: u32,
    longest_gap: Duration,
    until_accepted: Duration,
    until_applied: Duration,
    waited: Option<Duration>,
}

impl<F: Copy + Ord> Report<F> {
    pub fn new(
        (title, waits): (String, &'static str),
        (record, ledger, expired): (Record, &Promises, i64),
        strikes: &[Strike<F>],
    ) -> Self {
        let Record { promises, counts, accepted, .. } = record;
        let mut kinds = BTreeMap::<F, Kind>::new();
        for strike in strikes {
            let kind = kinds.entry(strike.fault).or_default();
            let recovered = strike.healed + strike.accepted_after;
            kind.strikes += 1;
            kind.until_accepted = kind.until_accepted.max(strike.accepted_after);
            kind.until_applied = kind.until_applied.max(strike.applied_after);
            kind.waited = kind.waited.max(strike.waited);
            kind.longest_gap = kind.longest_gap.max(longest_gap(&accepted, strike.struck, recovered));
        }
        let promised = promises.values().map(Vec::len).sum();
        Self { verdict: Verdict::of(&promises, ledger), promised, expired, title, waits, counts, kinds }
    }

    /// How often a fault struck.
    pub fn strikes(&self, fault: F) -> u32 {
        self.kinds.get(&fault).map_or(0, |kind| kind.strikes)
    }
}

/// The longest gap in `times` between two moments. The first gap begins at the last time before `from`.
fn longest_gap(times: &[Instant], from: Instant, to: Instant) -> Duration {
    let first = times.partition_point(|time| *time < from).saturating_sub(1);
    let last = times.partition_point(|time| *time <= to);
    times[first..last].windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

impl<F: fmt::Display> fmt::Display for Report<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, promised, expired, title, waits, counts, kinds } = self;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        writeln!(f, "{title}")?;
        writeln!(
            f,
            "{} requests: {} × 202 ({} of them batches), {} × 200 or 409, {} × 503, {} unanswered; the last two \
             were sent again",
            of(&counts.requests),
            of(&counts.queued),
            of(&counts.batches),
            of(&counts.waited),
            of(&counts.unavailable),
            of(&counts.unanswered),
        )?;
        writeln!(
            f,
            "{promised} promises: lost {}, doubled {}, never sent {}, users out of order {}; audit clean",
            verdict.lost, verdict.doubled, verdict.invented, verdict.disordered,
        )?;
        writeln!(
            f,
            "{expired} times points expired, and no points that were due are left; {} adds had no answer before their \
             points expired\n",
            of(&counts.late),
        )?;
        writeln!(
            f,
            "| fault | strikes | longest without any 202 | until every partition accepts | until that is applied | {waits} |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|")?;
        for (fault, kind) in kinds {
            let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
            let [gap, accepted, applied] =
                [kind.longest_gap, kind.until_accepted, kind.until_applied].map(seconds);
            let waited = kind.waited.map_or_else(|| "all are affected".to_owned(), seconds);
            writeln!(f, "| {fault} | {} | {gap} | {accepted} | {applied} | {waited} |", kind.strikes)?;
        }
        Ok(())
    }
}
