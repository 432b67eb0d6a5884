//! The rules of points that expire or are held: each end of a lot is looked at separately.

use std::collections::BTreeSet;

use point_system::domain::POINTS_MAX;

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
    // One pair of braces: the service can't read an array of arrays.
    let numbers = text.strip_prefix('{')?.strip_suffix('}')?.split(',');
    let numbers: Vec<i128> = numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let lots: Lots = numbers.chunks(2).map(|pair| Some((pair[0], *pair.get(1)?))).collect::<Option<_>>()?;
    let ends: BTreeSet<i128> = lots.iter().map(|(end, _)| *end).collect();
    let in_order = ends.into_iter().eq(lots.iter().map(|(end, _)| *end));
    let sound = in_order && lots.iter().all(|(end, point)| is_time(*end) && *point > 0);
    sound.then_some(lots).filter(|lots| total(lots) <= i128::from(i64::MAX))
}

fn total(lots: &Lots) -> i128 {
    lots.iter().map(|(_, point)| point).sum()
}

/// The columns at fault of an entry by itself and, if it ends a hold, by that hold.
pub fn of_entry(entry: &Entry, ended: Option<&Hold>) -> Vec<&'static str> {
    let mut columns = Vec::new();
    let end = entry.expires_at;
    let has_expired = end.zip(entry.created_at).map(|(end, now)| end <= now);
    let is_rejected = entry.reject_reason.is_some();
    let is_in_time = is_rejected || has_expired != Some(true);
    let fits = if is_one_of(entry, &["add"]) {
        end.is_none_or(|end| is_time(end) && is_in_time)
    } else if is_one_of(entry, &["hold"]) {
        end.map_or(is_rejected, |end| is_time(end) && is_in_time)
    } else if is_one_of(entry, &["expire"]) {
        end.is_some_and(is_time) && has_expired != Some(false)
    } else {
        end.is_none() || !is_one_of(entry, &["subtract", "reverse", "transfer", "capture", "release"])
    };
    if !fits {
        columns.push("expires_at");
    }
    let lots = of_text(entry.lots.as_deref());
    let is_at_most = |most: Option<i128>| {
        lots.as_ref().is_some_and(|lots| most.is_none_or(|most| total(lots) <= most.abs()))
    };
    let fits = match (entry.action.as_deref(), ended) {
        (Some("add" | "expire"), _) => entry.lots.is_none(),
        (Some("subtract" | "reverse" | "transfer" | "hold" | "capture" | "release"), _) if is_rejected => {
            entry.lots.is_none()
        }
        (Some("capture"), Some(hold)) => entry.point.is_none_or(|point| lots == Some(first_of(hold, point))),
        (Some("release"), Some(hold)) => lots.as_ref() == Some(&hold.lots),
        (Some("capture"), None) => is_at_most(entry.point),
        (Some("subtract" | "reverse" | "transfer" | "hold" | "release"), _) => is_at_most(entry.change),
        _ => true,
    };
    if !fits {
        columns.push("lots");
    }
    columns
}

/// Those of a hold's lots that a capture of this many points takes.
fn first_of(hold: &Hold, point: i128) -> Lots {
    let mut left = point.clamp(0, hold.point);
    let mut lots = Vec::new();
    for (end, point) in &hold.lots {
        let some = left.min(*point);
        left -= some;
        if some > 0 {
            lots.push((*end, some));
        }
    }
    lots
}

/// An open hold: its request, its points, its end and its lots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    end: i128,
    request: String,
    pub point: i128,
    lots: Lots,
}

/// The hold that an entry opens.
fn opened(entry: &Entry) -> Option<Hold> {
    let is_hold = is_one_of(entry, &["hold"]) && entry.reject_reason.is_none();
    let lots = of_text(entry.lots.as_deref()).filter(|_| is_hold)?;
    let point = entry.point.filter(|point| (1..=i128::from(POINTS_MAX)).contains(point))?;
    let end = entry.expires_at.filter(|end| is_time(*end))?;
    (total(&lots) <= point).then(|| Hold { end, request: entry.request.clone(), point, lots })
}

/// The hold that an entry ends: the last one of that request that is open.
pub fn ended(before: &[Entry], entry: &Entry) -> Option<Hold> {
    let ends = is_one_of(entry, &["capture", "release"]) && entry.reject_reason.is_none();
    let holds = open(before);
    holds.into_iter().rfind(|hold| ends && Some(&hold.request) == entry.reference.as_ref())
}

/// The open holds after all entries, in the order of the entries.
pub fn open(log: &[Entry]) -> Vec<Hold> {
    let mut open: Vec<Hold> = Vec::new();
    for entry in log {
        open.extend(opened(entry));
        let ends = is_one_of(entry, &["capture", "release"]) && entry.reject_reason.is_none();
        let place = open.iter().rposition(|hold| Some(&hold.request) == entry.reference.as_ref());
        if let Some(place) = place.filter(|_| ends) {
            open.remove(place);
        }
    }
    open
}

/// The holds that a column has, or `None` if they are none.
pub fn holds_of_text(text: Option<&str>) -> Option<Vec<Hold>> {
    let Some(text) = text else { return Some(Vec::new()) };
    let rows: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(text).ok()?;
    let hold = |row: serde_json::Map<String, serde_json::Value>| {
        let known = ["request", "point", "expires_at", "lots"];
        let lots = row.get("lots").filter(|lots| !lots.is_null()).map(ToString::to_string);
        let lots = of_text(lots.map(|lots| lots.replace('[', "{").replace(']', "}")).as_deref())?;
        let number = |name: &str| row.get(name)?.as_i64().map(i128::from);
        let (point, end) = (number("point")?, number("expires_at")?);
        let request = row.get("request")?.as_str()?.parse::<uuid::Uuid>().ok()?.to_string();
        let sound = row.keys().all(|name| known.contains(&name.as_str()))
            && (1..=i128::from(POINTS_MAX)).contains(&point)
            && total(&lots) <= point
            && is_time(end);
        sound.then_some(Hold { end, request, point, lots })
    };
    let holds: Vec<Hold> = rows.into_iter().map(hold).collect::<Option<_>>()?;
    let requests: BTreeSet<&String> = holds.iter().map(|hold| &hold.request).collect();
    let sound = (1..=100).contains(&holds.len()) && holds.is_sorted() && requests.len() == holds.len();
    sound.then_some(holds)
}

/// When the first points expire or the first hold ends.
pub fn due(log: &[Entry]) -> Option<i128> {
    let ends = open(log).into_iter().map(|hold| hold.end);
    after(log).into_iter().map(|(end, _)| end).chain(ends).min()
}

/// What is left of the lots after all entries.
pub fn after(log: &[Entry]) -> Lots {
    let each = (0..log.len()).flat_map(|index| moves(&log[index], ended(&log[..index], &log[index])));
    let moves: Lots = each.collect();
    let ends: BTreeSet<i128> = moves.iter().map(|(end, _)| *end).collect();
    let left = |end| moves.iter().filter(|(other, _)| *other == end).map(|(_, point)| point).sum();
    ends.into_iter().map(|end| (end, left(end))).filter(|(_, point)| *point != 0).collect()
}

fn moves(entry: &Entry, ended: Option<Hold>) -> Lots {
    let Some(change) = entry.change else { return Vec::new() };
    let lots = of_text(entry.lots.as_deref()).unwrap_or_default();
    let signed = |lots: Lots, sign: i128| {
        lots.into_iter().map(move |(end, point)| (end, point * sign)).collect::<Lots>()
    };
    if is_one_of(entry, &["add", "expire"]) {
        entry.expires_at.filter(|end| is_time(*end)).map(|end| (end, change)).into_iter().collect()
    } else if is_one_of(entry, &["subtract", "reverse", "transfer", "hold", "release"]) {
        signed(lots, change.signum())
    } else if is_one_of(entry, &["capture"]) {
        ended.map(|hold| [signed(hold.lots, 1), signed(lots, -1)].concat()).unwrap_or_default()
    } else {
        Vec::new()
    }
}
