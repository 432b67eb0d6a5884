//! Points that are held: the open holds of a user. Must not contain I/O or a decision.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{delta::POINTS_MAX, lots::Lots, request_id::RequestId};

/// The most open holds of a user.
pub const HOLDS_MAX: usize = 100;

/// When a hold ends by itself if its request does not say so: this long after its decision.
pub const HOLD_DEFAULT_MINUTES: i64 = 15;

/// Points that are out of the balance until they are captured or return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When they return by themselves.
    pub at: Timestamp,
    /// The request that holds them.
    pub request: RequestId,
    /// How many they are, at least 1.
    pub point: i64,
    /// Those of them that expire.
    pub lots: Lots,
}

/// Holds in the order in which they end. Those that end at one moment are in the order of their requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds(Vec<Hold>);

/// A hold as the user's row has it. Times are in microseconds since 1970.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldRow {
    request: Uuid,
    point: i64,
    expires_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lots: Option<Vec<i64>>,
}

impl Holds {
    /// The holds, in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[Hold] {
        &self.0
    }

    /// How many points are held.
    #[must_use]
    pub fn point(&self) -> i64 {
        self.0.iter().map(|hold| hold.point).sum()
    }

    /// When the first hold ends.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.0.first().map(|hold| hold.at)
    }

    /// The hold of a request.
    pub(super) fn get(&self, request: RequestId) -> Option<&Hold> {
        self.0.iter().find(|hold| hold.request == request)
    }

    /// Removes the first hold if its time has come.
    pub(super) fn pop_due(&mut self, by: Timestamp) -> Option<Hold> {
        self.first().filter(|first| *first <= by).map(|_| self.0.remove(0))
    }

    pub(super) fn open(&mut self, hold: Hold) {
        let place = self.0.partition_point(|own| (own.at, own.request) < (hold.at, hold.request));
        self.0.insert(place, hold);
    }

    pub(super) fn close(&mut self, request: RequestId) {
        self.0.retain(|hold| hold.request != request);
    }

    /// The holds as text, if there are any.
    pub(super) fn to_text(&self) -> Option<String> {
        let row = |hold: &Hold| HoldRow {
            request: hold.request.get(),
            point: hold.point,
            expires_at: hold.at.as_microsecond(),
            lots: Some(hold.lots.to_numbers()).filter(|lots| !lots.is_empty()),
        };
        let rows: Vec<HoldRow> = self.0.iter().map(row).collect();
        (!rows.is_empty()).then(|| serde_json::to_string(&rows).expect("numbers and texts are always JSON"))
    }

    /// Reads the text of holds. `None` if they are no holds.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let rows: Vec<HoldRow> = serde_json::from_str(text).ok()?;
        let hold = |row: HoldRow| {
            let lots = row.lots.map_or_else(|| Some(Lots::default()), |lots| Lots::from_numbers(&lots))?;
            let is_sound = (1..=POINTS_MAX).contains(&row.point) && lots.due(Timestamp::MAX) <= row.point;
            let at = Timestamp::from_microsecond(row.expires_at).ok().filter(|_| is_sound)?;
            Some(Hold { at, request: row.request.into(), point: row.point, lots })
        };
        let holds: Vec<Hold> = rows.into_iter().map(hold).collect::<Option<_>>()?;
        let mut requests: Vec<RequestId> = holds.iter().map(|hold| hold.request).collect();
        requests.sort_unstable();
        let sound = (1..=HOLDS_MAX).contains(&holds.len())
            && holds.is_sorted_by_key(|hold| (hold.at, hold.request))
            && requests.windows(2).all(|pair| pair[0] != pair[1]);
        sound.then_some(Self(holds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lots::Lot;

    fn hold(second: i64, request: u128, point: i64, lot: i64) -> Hold {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let mut lots = Lots::default();
        if lot > 0 {
            lots.add(Lot { at: at(9), point: lot });
        }
        Hold { at: at(second), request: Uuid::from_u128(request).into(), point, lots }
    }

    #[test]
    fn holds_are_read_as_they_are_written_and_what_is_no_holds_is_refused() {
        let mut holds = Holds::default();
        assert_eq!(holds.to_text(), None);
        for hold in [hold(5, 2, 7, 7), hold(3, 3, 1, 0), hold(5, 1, 4, 2)] {
            holds.open(hold);
        }
        assert_eq!(holds.as_slice(), [hold(3, 3, 1, 0), hold(5, 1, 4, 2), hold(5, 2, 7, 7)]);
        let text = holds.to_text().expect("holds");
        assert_eq!(Holds::from_text(&text), Some(holds));
        let first = r#"{"request":"00000000-0000-0000-0000-000000000003","point":1,"expires_at":3000000}"#;
        assert!(text.starts_with(&format!("[{first},")), "it is written in rows for ever: {text}");
        for (from, to) in [
            ("3000000", "6000000"),
            (r#""point":1"#, r#""point":0"#),
            (r#""point":1"#, r#""point":9007199254740992"#),
            (r#""point":1"#, r#""point":1,"until":1"#),
            (r#""point":7"#, r#""point":6"#),
            ("000000000002", "000000000001"),
            ("[9000000,7]", "[9000000]"),
            ("3000000", "9223372036854775807"),
            (first, "7"),
        ] {
            assert_eq!(Holds::from_text(&text.replace(from, to)), None, "{to}");
        }
        assert_eq!(Holds::from_text("[]"), None);
    }
}
