//! The dead letters that a command names, and which of them were found. Must not contain I/O.

use anyhow::bail;

use super::{WhichArgs, letter::label};
use crate::queue::DeadLetter;

/// The messages that the user named, and which of them were found.
pub(super) struct Wanted<'a> {
    which: &'a WhichArgs,
    seen: Vec<bool>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(which: &'a WhichArgs) -> Self {
        Self { which, seen: vec![false; which.names.len()] }
    }

    pub(super) fn has(&mut self, letter: &DeadLetter) -> bool {
        let mut has = self.which.all;
        for (name, seen) in self.which.names.iter().zip(&mut self.seen) {
            let named = name.is_of(letter);
            *seen |= named;
            has |= named;
        }
        has
    }

    pub(super) fn all_found(&self) -> anyhow::Result<()> {
        let names = self.which.names.iter().zip(&self.seen);
        let missing: Vec<String> = names.filter(|(_, seen)| !**seen).map(|(name, _)| label(name)).collect();
        if !missing.is_empty() {
            bail!("not found: {}", missing.join(", "));
        }
        Ok(())
    }
}
