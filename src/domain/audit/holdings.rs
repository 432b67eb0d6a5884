//! The points that expire and the open holds of a user, from the entries in their order. Must not contain I/O or
//! SQL.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::lots::Expiring;
use crate::domain::holds::{Hold, Holds};

/// The state after an entry.
#[derive(Default)]
pub(super) struct Holdings {
    /// How many points expire at each time, in microseconds since 1970.
    lots: BTreeMap<i64, i128>,
    /// The open holds, in the order of their entries.
    holds: Vec<Hold>,
}

impl Holdings {
    /// The open hold of a request.
    pub(super) fn hold(&self, request: Option<Uuid>) -> Option<Hold> {
        let is_asked = |hold: &&Hold| Some(hold.request.get()) == request;
        self.holds.iter().rev().find(is_asked).cloned()
    }

    /// How many points are held.
    pub(super) fn held(&self) -> i128 {
        self.holds.iter().map(|hold| i128::from(hold.point)).sum()
    }

    /// Adds the next entry.
    pub(super) fn follow(&mut self, entry: &Expiring) {
        for (time, point) in entry.moves() {
            *self.lots.entry(time).or_default() += i128::from(point);
        }
        self.holds.extend(entry.opened());
        if let Some(place) = self.holds.iter().rposition(|hold| Some(hold) == entry.ended.as_ref()) {
            self.holds.remove(place);
        }
    }

    /// The least format of the user's row.
    pub(super) fn format_min(&self) -> i16 {
        if self.holds.is_empty() { i16::from(self.lots().next().is_some()) } else { 2 }
    }

    fn lots(&self) -> impl Iterator<Item = (&i64, &i128)> {
        self.lots.iter().filter(|(_, point)| **point != 0)
    }

    /// The points that expire, as the text of an array, if there are any.
    pub(super) fn lots_text(&self) -> Option<String> {
        let numbers: Vec<String> =
            self.lots().flat_map(|(time, point)| [time.to_string(), point.to_string()]).collect();
        (!numbers.is_empty()).then(|| format!("{{{}}}", numbers.join(",")))
    }

    /// The open holds, as the user's row has them.
    pub(super) fn open(&self) -> Holds {
        let mut open = Holds::default();
        self.holds.iter().for_each(|hold| open.open(hold.clone()));
        open
    }

    /// When the first points expire or the first hold ends.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let lot = self.lots().next().and_then(|(time, _)| Timestamp::from_microsecond(*time).ok());
        lot.into_iter().chain(self.open().first()).min()
    }
}
