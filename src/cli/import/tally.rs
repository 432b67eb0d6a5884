//! What became of the rows: counts that add up. Must not contain how a row is applied.

use std::{collections::BTreeMap, fmt};

use super::faults::Faults;
use crate::domain::{Delta, Entry, Outcome, ServiceError};

/// Rows and the sum of their points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) rows: u64,
    pub(super) points: u128,
}

impl Count {
    fn add(&mut self, delta: &Delta) {
        self.rows += 1;
        self.points += delta.change.point().map_or(0, |point| u128::from(point.get().unsigned_abs()));
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {} points", self.rows, self.points)
    }
}

/// What became of rows.
#[derive(Debug, Default)]
pub(super) struct Tally {
    applied: Count,
    /// The log had them already.
    known: Count,
    /// The ledger refuses them, by reason.
    rejected: BTreeMap<String, Count>,
    /// The log has other points or another time for the same row.
    changed: Count,
    /// Nothing was decided.
    failed: Count,
    /// The rows that were not applied.
    pub(super) lines: Faults,
}

impl Tally {
    /// Notes a row that the log has.
    pub(super) fn note_entry(&mut self, line: u64, delta: &Delta, entry: &Entry) {
        if !delta.is_of(entry) {
            self.change(line, delta, entry);
        } else if !self.reject(line, delta, entry) {
            self.known.add(delta);
        }
    }

    /// Notes a row that was decided.
    pub(super) fn note_outcome(&mut self, line: u64, delta: &Delta, outcome: &Outcome) {
        match &outcome.first {
            Some(first) => self.change(line, delta, first),
            None if self.reject(line, delta, &outcome.entry) => {}
            None if outcome.replayed => self.known.add(delta),
            None => self.applied.add(delta),
        }
    }

    /// Notes a row that can't be decided.
    pub(super) fn note_failure(&mut self, line: u64, delta: &Delta, why: &ServiceError) {
        self.failed.add(delta);
        self.lines.add(line, format!("not applied, user {}: {why}", delta.user_id));
    }

    fn change(&mut self, line: u64, delta: &Delta, first: &Entry) {
        self.changed.add(delta);
        let expiry = first.expires_at.map(|at| format!(" that expire at {at}")).unwrap_or_default();
        self.lines.add(
            line,
            format!("changed, user {}: the log has {} points{expiry} for it", delta.user_id, first.point),
        );
    }

    fn reject(&mut self, line: u64, delta: &Delta, entry: &Entry) -> bool {
        let Some(why) = &entry.rejection else { return false };
        self.rejected.entry(why.as_str().to_owned()).or_default().add(delta);
        self.lines.add(line, format!("rejected, user {}: {}", delta.user_id, why.as_str()));
        true
    }

    fn lines(&self) -> impl Iterator<Item = (String, Count)> {
        let rejected = self.rejected.iter().map(|(why, count)| (format!("rejected, {why}"), *count));
        let first = [("applied", self.applied), ("in the log already", self.known)];
        let last = [("changed since they were imported", self.changed), ("not applied", self.failed)];
        let named = |(name, count): (&str, Count)| (name.to_owned(), count);
        first.into_iter().map(named).chain(rejected).chain(last.into_iter().map(named))
    }

    /// The sum of all counts.
    pub(super) fn total(&self) -> Count {
        self.lines().fold(Count::default(), |sum, (_, count)| Count {
            rows: sum.rows + count.rows,
            points: sum.points + count.points,
        })
    }
}

impl fmt::Display for Tally {
    /// The rows that were not applied, then the counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.lines)?;
        for (name, count) in self.lines().filter(|(name, count)| name == "applied" || count.rows > 0) {
            writeln!(f, "{name}: {count}")?;
        }
        Ok(())
    }
}
