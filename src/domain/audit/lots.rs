//! The points that expire or are held according to the entries, and a sum that shows whether a user's row agrees. Must
//! not contain I/O or SQL.

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::moment::Moment;
use crate::domain::{
    change::Action,
    delta::Points,
    holds::{Hold, Holds},
    lots::Lots,
};

/// The columns of an entry about points that expire or are held. A value that can't be read is `None`.
pub(super) struct Expiring<'a> {
    pub(super) action: Option<Action>,
    pub(super) request: Option<Uuid>,
    pub(super) point: Option<i64>,
    pub(super) change: Option<i64>,
    pub(super) is_rejected: bool,
    pub(super) created_at: Option<Moment>,
    pub(super) expires_at: Option<Moment>,
    pub(super) lots: Option<&'a str>,
    /// The hold that an applied capture or release has ended.
    pub(super) ended: Option<Hold>,
}

/// A hold as the columns of its entry have it. `None` if they can't be so.
pub(super) fn hold(
    request: Option<Uuid>,
    point: Option<i64>,
    expires_at: Option<Moment>,
    lots: Option<&str>,
) -> Option<Hold> {
    let lots = lots.map_or_else(|| Some(Lots::default()), parsed)?;
    let point = point.filter(|point| Points::new(*point).is_ok() && total(&lots) <= *point)?;
    Some(Hold { at: expires_at?.readable()?, request: request?.into(), point, lots })
}

impl Expiring<'_> {
    /// What `point` should be, if the hold that ends says so and it is not so.
    pub(super) fn wrong_point(&self) -> Option<i128> {
        let hold = i128::from(self.ended.as_ref()?.point);
        let returned = self.change.map(i128::from).filter(|_| self.action == Some(Action::Capture));
        let expected = if self.action == Some(Action::Release) { hold } else { hold - returned? };
        (self.point.map(i128::from) != Some(expected)).then_some(expected)
    }

    /// What `expires_at` should be, if it is not so. Nothing is said about an unknown action.
    pub(super) fn wrong_time(&self) -> Option<&'static str> {
        let is_readable = self.expires_at.and_then(Moment::readable).is_some();
        let is_due =
            self.expires_at.zip(self.created_at).map(|(expires_at, created_at)| expires_at <= created_at);
        let is_in_time = self.is_rejected || is_due != Some(true);
        let (holds, rule) = match self.action? {
            Action::Add => {
                (self.expires_at.is_none() || is_readable && is_in_time, "a time after created_at, or none")
            }
            Action::Hold => {
                let may_be_none = self.expires_at.is_none() && self.is_rejected;
                (may_be_none || is_readable && is_in_time, "a time after created_at")
            }
            Action::Expire => (is_readable && is_due != Some(false), "a time up to created_at"),
            Action::Subtract | Action::Reverse | Action::Transfer | Action::Capture | Action::Release => {
                (self.expires_at.is_none(), "none")
            }
        };
        (!holds).then_some(rule)
    }

    /// What `lots` should be, if they are not so. Nothing is said about an unknown action.
    pub(super) fn wrong_lots(&self) -> Option<&'static str> {
        let lots = self.lots.map(parsed);
        let is_part = |all: Option<i64>| match &lots {
            None => true,
            Some(None) => false,
            Some(Some(lots)) => all.is_none_or(|all| total(lots).unsigned_abs() <= all.unsigned_abs()),
        };
        let own = || lots.clone().unwrap_or_else(|| Some(Lots::default()));
        let (holds, rule) = match (self.action?, &self.ended) {
            (Action::Add | Action::Expire, _) => (lots.is_none(), "none"),
            _ if self.is_rejected => (lots.is_none(), "none"),
            (Action::Capture, Some(hold)) => {
                let captured =
                    self.point.map(|point| hold.lots.taken(point.clamp(0, hold.point), &Lots::default()));
                (captured.is_none() || own() == captured, "what expires first of the lots of the hold")
            }
            (Action::Release, Some(hold)) => (own().as_ref() == Some(&hold.lots), "the lots of the hold"),
            (Action::Capture, None) => (is_part(self.point), "lots of points in point"),
            (Action::Subtract | Action::Reverse | Action::Transfer | Action::Hold | Action::Release, _) => {
                (is_part(self.change), "lots of points in change")
            }
        };
        (!holds).then_some(rule)
    }

    /// When which points expire that it has given or, if negative, taken. The times are in microseconds since 1970.
    pub(super) fn moves(&self) -> Vec<(i64, i64)> {
        let Some((action, change)) = self.action.zip(self.change) else { return Vec::new() };
        let lots = self.lots.and_then(parsed).unwrap_or_default();
        let signed = |lots: &Lots, sign: i64| {
            let lots = lots.as_slice().iter();
            lots.map(|lot| (lot.at.as_microsecond(), sign * lot.point)).collect::<Vec<_>>()
        };
        match action {
            Action::Add | Action::Expire => {
                let time = self.expires_at.and_then(Moment::readable);
                time.map(|time| (time.as_microsecond(), change)).into_iter().collect()
            }
            Action::Subtract | Action::Reverse | Action::Transfer | Action::Hold | Action::Release => {
                signed(&lots, change.signum())
            }
            Action::Capture => {
                let rest = |hold: &Hold| [signed(&hold.lots, 1), signed(&lots, -1)].concat();
                self.ended.as_ref().map(rest).unwrap_or_default()
            }
        }
    }

    /// The hold that it opens.
    pub(super) fn opened(&self) -> Option<Hold> {
        let is_hold = self.action == Some(Action::Hold) && !self.is_rejected;
        hold(self.request, self.point, self.expires_at, self.lots).filter(|_| is_hold)
    }

    /// What it adds to the sum of its user.
    pub(super) fn sum(&self) -> LotSum {
        let mut sum = LotSum::NONE;
        for lot in self.moves() {
            sum.add(lot);
        }
        if let Some(hold) = self.opened() {
            sum.0 = sum.0.wrapping_add(number(&hold));
        }
        if let Some(hold) = &self.ended {
            sum.0 = sum.0.wrapping_sub(number(hold));
        }
        sum
    }
}

/// A number that stands for a hold.
fn number(hold: &Hold) -> u64 {
    let mut bytes = hold.request.get().as_bytes().to_vec();
    let numbers = [hold.point, hold.at.as_microsecond()].into_iter().chain(hold.lots.to_numbers());
    bytes.extend(numbers.flat_map(i64::to_be_bytes));
    xxh3_64(&bytes)
}

fn total(lots: &Lots) -> i64 {
    lots.as_slice().iter().map(|lot| lot.point).sum()
}

/// Reads the text of an array. `None` if its numbers are no lots.
pub(super) fn parsed(text: &str) -> Option<Lots> {
    let numbers = text.strip_prefix('{')?.strip_suffix('}')?.split(',').map(str::parse);
    Lots::from_numbers(&numbers.collect::<Result<Vec<i64>, _>>().ok()?)
}

/// A sum over points that expire, in any order. Two sums are equal if as many points expire at each time. If that is so
/// but for one time, the sums differ: a weight is odd, and the difference is smaller than 2^64. If it is so but for
/// several times, they are equal by chance alone, once in some 10^19 cases. So it is with holds: the sum has a number
/// for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LotSum(u64);

impl LotSum {
    /// The sum if nothing expires.
    pub(super) const NONE: Self = Self(0);

    /// Adds points that expire at a time, in microseconds since 1970.
    pub(super) fn add(&mut self, (time, point): (i64, i64)) {
        self.0 = self.0.wrapping_add(weight(time).wrapping_mul(point.cast_unsigned()));
    }

    /// Adds another sum.
    pub(super) fn join(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// The sum of a row's lots and holds. `None` if the columns of the row contradict each other.
    pub(super) fn of_row(
        format: Option<i16>,
        due_at: Option<Moment>,
        lots: Option<&str>,
        holds: Option<&str>,
    ) -> Option<Self> {
        let least = if holds.is_some() { 2 } else { i16::from(lots.is_some()) };
        let lots = lots.map_or_else(|| Some(Lots::default()), parsed)?;
        let holds = holds.map_or_else(|| Some(Holds::default()), Holds::from_text)?;
        let first = lots.first().into_iter().chain(holds.first()).min();
        let agrees = due_at.is_some() == first.is_some() && due_at.and_then(Moment::readable) == first;
        let mut sum = Self::NONE;
        for lot in lots.as_slice() {
            sum.add((lot.at.as_microsecond(), lot.point));
        }
        for hold in holds.as_slice() {
            sum.0 = sum.0.wrapping_add(number(hold));
        }
        (agrees && (least == 0 || format.is_some_and(|format| format >= least))).then_some(sum)
    }
}

/// Any odd number, which looks random (the finalizer of `SplitMix64`).
fn weight(time: i64) -> u64 {
    let mut weight = time.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15);
    weight = (weight ^ (weight >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    weight = (weight ^ (weight >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (weight ^ (weight >> 31)) | 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_are_equal_if_as_many_points_expire_at_each_time(
            lots in prop::collection::vec((0..9i64, -1_000..1_000i64), 1..20), by in 1..1i64 << 53, at in 0..9i64
        ) {
            let sum = |lots: &[(i64, i64)]| {
                let mut sum = LotSum::NONE;
                for lot in lots {
                    sum.add(*lot);
                }
                sum
            };
            let mut other: Vec<(i64, i64)> = lots.iter().rev().copied().collect();
            other.extend([(at, by), (at, -by)]);
            prop_assert_eq!(sum(&lots), sum(&other));
            other.push((at, by));
            prop_assert_ne!(sum(&lots), sum(&other));
        }
    }

    #[test]
    fn a_rows_columns_agree() {
        let time = |seconds: i64| Some(Moment((seconds - 946_684_800) * 1_000_000));
        let lots = Some("{5000000,7,6000000,1}");
        let hold =
            Some(r#"[{"request":"00000000-0000-0000-0000-000000000003","point":1,"expires_at":4000000}]"#);
        for (format, first, lots, holds) in [
            (0, None, None, None),
            (1, time(5), lots, None),
            (2, time(4), None, hold),
            (2, time(4), lots, hold),
            (2, time(3), Some("{3000000,1}"), hold),
        ] {
            assert!(
                LotSum::of_row(Some(format), first, lots, holds).is_some(),
                "{format} {first:?} {lots:?}"
            );
        }
        for (format, first, lots, holds) in [
            (0, time(5), lots, None),
            (1, time(6), lots, None),
            (1, None, lots, None),
            (1, time(5), None, None),
            (1, time(5), Some("{5000000,7,6000000}"), None),
            (1, time(5), Some("{5000000,NULL}"), None),
            (1, time(5), Some("{{5000000,7}}"), None),
            (1, None, Some("{}"), None),
            (1, time(4), None, hold),
            (2, time(5), lots, hold),
            (2, None, None, hold),
            (2, time(4), None, Some("[]")),
            (2, time(4), None, Some("{")),
        ] {
            let sum = LotSum::of_row(Some(format), first, lots, holds);
            assert_eq!(sum, None, "{format} {first:?} {lots:?} {holds:?}");
        }
    }
}
