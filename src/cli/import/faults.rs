//! The faults of a file, each with its line: the first ones, and how many there are. Must not contain the rules.

use std::fmt;

/// The most lines that are named.
pub(super) const NAMED_MAX: usize = 100;

/// Sentences about lines, of which the first lines are kept.
#[derive(Debug, Default)]
pub(super) struct Faults {
    count: u64,
    named: Vec<(u64, String)>,
}

impl Faults {
    pub(super) fn add(&mut self, line: u64, fault: String) {
        self.count += 1;
        self.keep(line, fault);
    }

    fn keep(&mut self, line: u64, fault: String) {
        let place = self.named.partition_point(|(other, _)| *other <= line);
        if place < NAMED_MAX {
            self.named.truncate(NAMED_MAX - 1);
            self.named.insert(place, (line, fault));
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Adds all of `other`.
    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        for (line, fault) in other.named {
            self.keep(line, fault);
        }
    }
}

impl fmt::Display for Faults {
    /// A line for each, in the order of the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, fault) in &self.named {
            writeln!(f, "line {line}: {fault}")?;
        }
        let rest = self.count - self.named.len() as u64;
        if rest > 0 { writeln!(f, "and {rest} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_are_named_and_all_are_counted() {
        let (mut faults, mut others) = (Faults::default(), Faults::default());
        for line in (1..=NAMED_MAX as u64).rev() {
            faults.add(2 * line, "even".to_owned());
            others.add(2 * line - 1, "odd".to_owned());
        }
        faults.merge(others);
        let told = faults.to_string();
        assert!(told.starts_with("line 1: odd\nline 2: even\nline 3: odd\n"), "{told}");
        assert!(told.ends_with("line 100: even\nand 100 more\n"), "{told}");
    }
}
