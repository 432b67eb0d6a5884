//! The rules of points that expire: each end of a lot is looked at separately.

use std::collections::BTreeSet;

use super::{Entry, TIME_MAX_US, is_one_of};

/// The first second that the service can read, in microseconds since 1970.
const TIME_MIN_US: i128 = -377_705_023_201_000_000;

/// The ends of lots, in microseconds since 1970, and their points.
type Lots = Vec<(i128, i128)>;

fn is_time(time: i128) -> bool {
    (TIME_MIN_US..=TIME_MAX_US).contains(&time)
}

/// The lots that a column has, or `None` if they are none.
pub fn of_text(text: Option<&str>) -> Option<Lots> {
    let Some(text) = text else { return Some(Vec::new()) };
    let numbers: Vec<i128> =
        text.trim_matches(['{', '}']).split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let lots: Lots = numbers.chunks(2).map(|pair| Some((pair[0], *pair.get(1)?))).collect::<Option<_>>()?;
    let ends: BTreeSet<i128> = lots.iter().map(|(end, _)| *end).collect();
    let in_order = ends.into_iter().eq(lots.iter().map(|(end, _)| *end));
    let sound = in_order && lots.iter().all(|(end, point)| is_time(*end) && *point > 0);
    sound.then_some(lots).filter(|lots| total(lots) <= i128::from(i64::MAX))
}

fn total(lots: &Lots) -> i128 {
    lots.iter().map(|(_, point)| point).sum()
}

/// The columns at fault of an entry by itself.
pub fn of_entry(entry: &Entry) -> Vec<&'static str> {
    let mut columns = Vec::new();
    let end = entry.expires_at;
    let has_expired = end.zip(entry.created_at).map(|(end, now)| end <= now);
    let is_rejected = entry.reject_reason.is_some();
    let fits = if is_one_of(entry, &["add"]) {
        end.is_none_or(|end| is_time(end) && (is_rejected || has_expired != Some(true)))
    } else if is_one_of(entry, &["expire"]) {
        end.is_some_and(is_time) && has_expired != Some(false)
    } else {
        end.is_none() || !is_one_of(entry, &["subtract", "reverse"])
    };
    if !fits {
        columns.push("expires_at");
    }
    let fits = if is_one_of(entry, &["subtract", "reverse"]) && !is_rejected {
        of_text(entry.lots.as_deref())
            .is_some_and(|lots| entry.change.is_none_or(|change| total(&lots) <= change.abs()))
    } else {
        entry.lots.is_none() || !is_one_of(entry, &["add", "subtract", "reverse", "expire"])
    };
    if !fits {
        columns.push("lots");
    }
    columns
}

/// What is left of the lots after all entries.
pub fn after(log: &[Entry]) -> Lots {
    let moves: Lots = log.iter().flat_map(moves).collect();
    let ends: BTreeSet<i128> = moves.iter().map(|(end, _)| *end).collect();
    let left = |end| moves.iter().filter(|(other, _)| *other == end).map(|(_, point)| point).sum();
    ends.into_iter().map(|end| (end, left(end))).filter(|(_, point)| *point != 0).collect()
}

fn moves(entry: &Entry) -> Lots {
    let Some(change) = entry.change else { return Vec::new() };
    if is_one_of(entry, &["add", "expire"]) {
        entry.expires_at.filter(|end| is_time(*end)).map(|end| (end, change)).into_iter().collect()
    } else if is_one_of(entry, &["subtract", "reverse"]) {
        let lots = of_text(entry.lots.as_deref()).unwrap_or_default();
        lots.into_iter().map(|(end, point)| (end, point * change.signum())).collect()
    } else {
        Vec::new()
    }
}
