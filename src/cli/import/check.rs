//! Reads a whole file before anything is written. Must not contain the rules of single values.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::File,
    io,
    ops::ControlFlow,
};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    faults::Faults,
    rows::{Read, read},
};
use crate::domain::{Delta, Import, Row};

/// The most rows of a file. The check takes up to 70 bytes of memory for each.
const ROWS_MAX: u64 = 10_000_000;

/// What the check found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// The number of rows, without the header.
    pub(super) rows: u64,
    /// The sum of their points.
    pub(super) points: u128,
    /// How many of the rows have points that expire.
    pub(super) expiring: u64,
    /// The first row and its line.
    pub(super) first: Option<(u64, Delta)>,
    /// What is wrong.
    pub(super) faults: Faults,
    /// The rows whose points have expired. That is wrong only if the import has not begun.
    pub(super) past: Faults,
}

/// Checks each row by itself, and that no two are the same to the import.
pub(super) fn check(file: &File, import: &Import, now: Timestamp) -> io::Result<Checked> {
    let (mut checked, mut lines) = (Checked::default(), HashMap::new());
    read(file, |line, row| checked.note(line, row, import, now, &mut lines))?;
    Ok(checked)
}

impl Checked {
    fn note(
        &mut self,
        line: u64,
        row: Read<'_>,
        import: &Import,
        now: Timestamp,
        lines: &mut HashMap<Uuid, u32>,
    ) -> ControlFlow<()> {
        let row = match row {
            Ok(row) => row,
            Err(faults) => {
                for fault in faults {
                    self.faults.add(line, fault);
                }
                return ControlFlow::Continue(());
            }
        };
        if self.rows == ROWS_MAX {
            let rule = format!("is row {}: split the file, and give each part its own --name", ROWS_MAX + 1);
            self.faults.add(line, rule);
            return ControlFlow::Break(());
        }
        self.rows += 1;
        self.points += u128::from(row.point.get().unsigned_abs());
        if let Some(at) = row.expires_at {
            self.expiring += 1;
            if at <= now {
                self.past.add(line, format!("expires_at must be later than now, which is {now}"));
            }
        }
        match lines.entry(import.request_id(&row).get()) {
            Entry::Vacant(place) => drop(place.insert(u32::try_from(line).unwrap_or(u32::MAX))),
            Entry::Occupied(first) => self.faults.add(line, repeats(&row, *first.get())),
        }
        if self.first.is_none() {
            self.first = Some((line, import.delta(row)));
        }
        ControlFlow::Continue(())
    }
}

fn repeats(row: &Row, line: u32) -> String {
    if row.key.is_some() {
        format!("has the user_id and the key of line {line}")
    } else {
        format!("has the user_id and the expires_at of line {line}: give both a key, or make them one row")
    }
}
