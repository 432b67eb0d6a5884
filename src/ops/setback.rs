//! Detects that PostgreSQL has lost committed changes, as far as this node can remember. Must not contain SQL.

use std::collections::HashMap;

use crate::infra::metrics;

/// Two times of a partition that never go back unless the database does: the times up to which its changes were
/// accepted, and taken. In seconds since 1970; minus infinity if there is none.
pub(super) type Times = [f64; 2];

/// The latest times that this node has seen committed, per partition.
pub(super) struct Memory(HashMap<u16, Times>);

impl Memory {
    pub(super) fn new() -> Self {
        metrics::database_went_back(false);
        Self(HashMap::new())
    }

    /// Compares the committed times with the previous ones, remembers them, and tells operators if a time went back.
    /// The service continues: the remaining data is consistent, and only people can restore the rest.
    pub(super) fn compare(&mut self, now: &[(u16, Times)]) {
        if let Some((partition, before, after)) = self.setback(now) {
            metrics::database_went_back(true);
            log::error!(
                "PostgreSQL has lost committed changes: partition {partition} went back by {:.1} s; it was restored to an \
                 earlier time, or failed over to a standby that was behind",
                before - after
            );
        }
    }

    /// Returns the partition whose times went back, and the times before and after.
    fn setback(&mut self, now: &[(u16, Times)]) -> Option<(u16, f64, f64)> {
        let now: HashMap<u16, Times> = now.iter().copied().collect();
        let nothing = [f64::NEG_INFINITY; 2];
        let mut setbacks: Vec<(u16, f64, f64)> = Vec::new();
        for (partition, before) in &self.0 {
            let after = now.get(partition).unwrap_or(&nothing);
            let pairs = before.iter().zip(after).filter(|(before, after)| after < before);
            setbacks.extend(pairs.map(|(before, after)| (*partition, *before, *after)));
        }
        self.0 = now;
        // Of several, the one that goes back furthest says most.
        setbacks.into_iter().min_by(|(.., one), (.., other)| one.total_cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: f64 = f64::NEG_INFINITY;

    #[test]
    fn a_database_that_forgets_a_time_has_gone_back_and_no_other_has() {
        let mut memory = Memory(HashMap::new());
        let mut seen = |now: &[(u16, Times)]| memory.setback(now);
        assert_eq!(seen(&[(0, [7.0, NEVER])]), None, "the first look has nothing to compare with");
        assert_eq!(seen(&[(0, [7.0, 6.0]), (1, [NEVER, 3.0])]), None);
        assert_eq!(seen(&[(0, [9.0, 6.0]), (1, [NEVER, 3.0])]), None);
        assert_eq!(seen(&[(0, [8.0, 6.0]), (1, [NEVER, 3.0])]), Some((0, 9.0, 8.0)));
        assert_eq!(seen(&[(0, [8.0, 6.0]), (1, [NEVER, 3.0])]), None, "it is reported once");
        assert_eq!(seen(&[(0, [10.0, 5.0])]), Some((1, 3.0, NEVER)), "a row that is gone");
        assert_eq!(seen(&[]).map(|(partition, _, after)| (partition, after)), Some((0, NEVER)));
    }
}
