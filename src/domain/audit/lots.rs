//! The points that expire according to the entries, and a sum that shows whether a user's row agrees. Must not contain
//! I/O or SQL.

use super::moment::Moment;
use crate::domain::{change::Action, lots::Lots};

/// The columns of an entry about points that expire. A value that can't be read is `None`.
pub(super) struct Expiring<'a> {
    pub(super) action: Option<Action>,
    pub(super) change: Option<i64>,
    pub(super) is_rejected: bool,
    pub(super) created_at: Option<Moment>,
    pub(super) expires_at: Option<Moment>,
    pub(super) lots: Option<&'a str>,
}

impl Expiring<'_> {
    /// What `expires_at` should be, if it is not so. Nothing is said about an unknown action.
    pub(super) fn wrong_time(&self) -> Option<&'static str> {
        let is_readable = self.expires_at.and_then(Moment::readable).is_some();
        let is_due =
            self.expires_at.zip(self.created_at).map(|(expires_at, created_at)| expires_at <= created_at);
        let (holds, rule) = match self.action? {
            Action::Add => {
                let is_in_time = self.is_rejected || is_due != Some(true);
                (self.expires_at.is_none() || is_readable && is_in_time, "a time after created_at, or none")
            }
            Action::Expire => (is_readable && is_due != Some(false), "a time up to created_at"),
            Action::Subtract | Action::Reverse | Action::Transfer => (self.expires_at.is_none(), "none"),
        };
        (!holds).then_some(rule)
    }

    /// What `lots` should be, if they are not so. Nothing is said about an unknown action.
    pub(super) fn wrong_lots(&self) -> Option<&'static str> {
        let (lots, action) = (self.lots?, self.action?);
        match action {
            Action::Subtract | Action::Reverse | Action::Transfer if !self.is_rejected => {
                let point = parsed(lots).and_then(|lots| u64::try_from(total(&lots)).ok());
                let is_part = |point| self.change.is_none_or(|change| point <= change.unsigned_abs());
                (!point.is_some_and(is_part)).then_some("lots of points in change")
            }
            Action::Add | Action::Expire | Action::Subtract | Action::Reverse | Action::Transfer => {
                Some("none")
            }
        }
    }

    /// When which points expire that it has given or, if negative, taken. The times are in microseconds since 1970.
    pub(super) fn moves(&self) -> Vec<(i64, i64)> {
        let Some((action, change)) = self.action.zip(self.change) else { return Vec::new() };
        match action {
            Action::Add | Action::Expire => {
                let time = self.expires_at.and_then(Moment::readable);
                time.map(|time| (time.as_microsecond(), change)).into_iter().collect()
            }
            Action::Subtract | Action::Reverse | Action::Transfer => {
                let lots = self.lots.and_then(parsed).unwrap_or_default();
                let lots = lots.as_slice().iter();
                lots.map(|lot| (lot.at.as_microsecond(), change.signum() * lot.point)).collect()
            }
        }
    }
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
/// but for one time, the sums differ: a weight is odd, and the difference is smaller than 2^64. If it is so but for several
/// times, they are equal by chance alone, once in some 10^19 cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LotSum(u64);

impl LotSum {
    /// The sum if nothing expires.
    pub(super) const NONE: Self = Self(0);

    /// Adds points that expire at a time, in microseconds since 1970.
    pub(super) fn add(&mut self, (time, point): (i64, i64)) {
        self.0 = self.0.wrapping_add(weight(time).wrapping_mul(point.cast_unsigned()));
    }

    /// The sum of a row's lots. `None` if the columns of the row contradict each other.
    pub(super) fn of_row(
        format: Option<i16>,
        expires_at: Option<Moment>,
        lots: Option<&str>,
    ) -> Option<Self> {
        let first = expires_at.and_then(Moment::readable);
        let Some(lots) = lots else { return expires_at.is_none().then_some(Self::NONE) };
        let lots =
            parsed(lots).filter(|lots| lots.first() == first && format.is_some_and(|format| format > 0))?;
        let mut sum = Self::NONE;
        for lot in lots.as_slice() {
            sum.add((lot.at.as_microsecond(), lot.point));
        }
        Some(sum)
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
        assert!(LotSum::of_row(Some(1), time(5), lots).is_some());
        assert_eq!(LotSum::of_row(Some(0), None, None), Some(LotSum::NONE));
        for (format, first, lots) in [
            (0, time(5), lots),
            (1, time(6), lots),
            (1, None, lots),
            (1, time(5), None),
            (1, time(5), Some("{5000000,7,6000000}")),
            (1, time(5), Some("{5000000,NULL}")),
            (1, time(5), Some("{{5000000,7}}")),
            (1, None, Some("{}")),
        ] {
            assert_eq!(LotSum::of_row(Some(format), first, lots), None, "{format} {first:?} {lots:?}");
        }
    }
}
