//! The values of a change of points, valid by construction. Must not contain I/O or a wire format.

use jiff::Timestamp;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Invalid, actor::Actor, change::Change, entry::Entry, metadata::Metadata, request_id::RequestId,
    trace::TraceParent, user_id::UserId,
};

/// The largest number of points in a delta or a balance: 2^53 − 1, the largest whole number that every JSON client reads
/// exactly (RFC 8259 §6).
pub const POINTS_MAX: i64 = (1 << 53) - 1;

/// The longest reason, in characters.
pub const REASON_MAX_CHARS: usize = 200;

/// The points of one delta: a whole number from 1 to [`POINTS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Points(i64);

impl Points {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = "must be a whole number from 1 to 9007199254740991";

    /// This many points.
    ///
    /// # Errors
    /// [`Invalid`] if the number is not from 1 to [`POINTS_MAX`].
    pub fn new(point: i64) -> Result<Self, Invalid> {
        let valid = (1..=POINTS_MAX).contains(&point);
        valid.then_some(Self(point)).ok_or_else(|| Invalid { field: "point", rule: Self::RULE.to_owned() })
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

/// Why the points change, in the customer's words: 1 to 200 characters without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(String);

impl Reason {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = "must be a string of 1 to 200 characters without control characters";

    /// A reason with this text.
    ///
    /// # Errors
    /// [`Invalid`] if the text breaks [`Reason::RULE`].
    pub fn new(text: String) -> Result<Self, Invalid> {
        let length = text.chars().count();
        let valid = (1..=REASON_MAX_CHARS).contains(&length) && !text.chars().any(char::is_control);
        if !valid {
            return Err(Invalid { field: "reason", rule: Self::RULE.to_owned() });
        }
        Ok(Self(text))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Tells one change of points from another: 64 bits of everything that decides its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(i64);

impl Fingerprint {
    /// The number itself.
    pub(super) fn get(self) -> i64 {
        self.0
    }
}

impl From<i64> for Fingerprint {
    fn from(fingerprint: i64) -> Self {
        Self(fingerprint)
    }
}

/// One requested change, not yet decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Makes the change count at most once.
    pub request_id: RequestId,
    /// Whose points.
    pub user_id: UserId,
    /// What changes.
    pub change: Change,
    /// Who asked for it. Anonymous callers have no name.
    pub actor: Option<Actor>,
    /// Why, in the customer's words.
    pub reason: Option<Reason>,
    /// What the customer keeps with it.
    pub metadata: Option<Metadata>,
    /// When the request was accepted, by the clock of the node that accepted it.
    pub requested_at: Timestamp,
    /// The trace that its request belongs to. The log keeps its id.
    pub traceparent: Option<TraceParent>,
}

impl Delta {
    /// A change of a user, with a random id and nothing else, for tests.
    #[cfg(test)]
    pub(crate) fn of(user_id: &str, change: Change) -> Self {
        Self {
            request_id: RequestId::random(),
            user_id: UserId::new("user_id", user_id).expect("valid"),
            change,
            actor: None,
            reason: None,
            metadata: None,
            requested_at: Timestamp::UNIX_EPOCH,
            traceparent: None,
        }
    }

    /// Lets a user's expired points leave the balance.
    pub(super) fn expiry(user_id: UserId) -> Self {
        Self {
            request_id: RequestId::random(),
            user_id,
            change: Change::Expire,
            actor: Some(Actor::expiry()),
            reason: None,
            metadata: None,
            requested_at: Timestamp::UNIX_EPOCH,
            traceparent: None,
        }
    }

    /// Returns whether the entry is of this change, and not of another with the same request id.
    #[must_use]
    pub fn is_of(&self, entry: &Entry) -> bool {
        self.fingerprint() == entry.fingerprint
    }

    /// Returns the fingerprint of this change: XXH3 of the action, the user, the points, the other user, the other
    /// request, when the points expire or return, and whether a part is enough. The reason and the metadata do not
    /// count, so a retry may change them. Defaults do not count either: a member that is new leaves the fingerprints of
    /// all changes without it as they are.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let (action, user_id) = (self.change.action().as_str(), self.user_id.as_str());
        let mut bytes = Vec::with_capacity(3 + action.len() + user_id.len() + size_of::<Uuid>());
        for text in [action, user_id] {
            bytes.push(u8::try_from(text.len()).expect("short"));
            bytes.extend_from_slice(text.as_bytes());
        }
        match &self.change {
            Change::Add { point, .. } | Change::Subtract { point, .. } | Change::Hold { point, .. } => {
                bytes.extend_from_slice(&point.get().to_be_bytes());
            }
            Change::Reverse { request, .. } => bytes.extend_from_slice(request.get().as_bytes()),
            Change::Transfer { to, point } => {
                bytes.push(u8::try_from(to.as_str().len()).expect("short"));
                bytes.extend_from_slice(to.as_str().as_bytes());
                bytes.extend_from_slice(&point.get().to_be_bytes());
            }
            Change::Capture { hold, point } => {
                bytes.extend_from_slice(hold.get().as_bytes());
                bytes.extend(point.iter().flat_map(|point| point.get().to_be_bytes()));
            }
            Change::Release { hold } => bytes.extend_from_slice(hold.get().as_bytes()),
            Change::Expire => {}
        }
        if let Some(time) = self.change.expires_at() {
            bytes.extend_from_slice(&time.as_microsecond().to_be_bytes());
        }
        bytes.extend(self.change.is_partial().then_some(1));
        Fingerprint(xxh3_64(&bytes).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_fingerprint_tells_what_decides_the_effect() {
        let point = |point| Points::new(point).expect("in range");
        let lasting = |point| Change::Add { point, expires_at: None };
        let first = Delta::of("1", lasting(point(256)));
        let same = Delta {
            actor: Some(Actor::new("shop").expect("valid")),
            reason: Some(Reason::new("again".to_owned()).expect("valid")),
            metadata: Some(Metadata::new(r#"{"a":1}"#.to_owned()).expect("valid")),
            ..Delta::of("1", lasting(point(256)))
        };
        assert_eq!(first.fingerprint(), same.fingerprint());
        let subtract = |partial| Delta::of("1", Change::Subtract { point: point(256), partial });
        let reverse = |request, partial| {
            Delta::of("1", Change::Reverse { request: Uuid::from_u128(request).into(), partial })
        };
        let expiring = |second| {
            let expires_at = Timestamp::from_second(second).ok();
            Delta::of("1", Change::Add { point: point(256), expires_at })
        };
        let transfer = |to| {
            let to = UserId::new("to", to).expect("valid");
            Delta::of("1", Change::Transfer { to, point: point(256) })
        };
        let hold = |second: Option<i64>| {
            let expires_at = second.and_then(|second| Timestamp::from_second(second).ok());
            Delta::of("1", Change::Hold { point: point(256), expires_at })
        };
        let id = |id| RequestId::from(Uuid::from_u128(id));
        let capture = |hold, some: Option<i64>| {
            Delta::of("1", Change::Capture { hold: id(hold), point: some.map(point) })
        };
        let different = [
            first,
            Delta::of("2", lasting(point(256))),
            Delta::of("1", lasting(point(257))),
            Delta::of("1", lasting(point(1))),
            expiring(1),
            expiring(2),
            subtract(false),
            subtract(true),
            reverse(1, false),
            reverse(1, true),
            reverse(2, false),
            transfer("2"),
            transfer("3"),
            hold(None),
            hold(Some(1)),
            capture(1, None),
            capture(2, None),
            capture(1, Some(256)),
            capture(1, Some(1)),
            Delta::of("1", Change::Release { hold: id(1) }),
        ];
        let fingerprints = different.each_ref().map(|delta| delta.fingerprint().get());
        assert_eq!(HashSet::from(fingerprints).len(), different.len(), "{fingerprints:?}");
        assert_eq!(fingerprints[0], 793_649_616_998_302_996, "it is written in logs for ever");
    }

    #[test]
    fn the_rules_say_the_limits_they_hold() {
        assert!(Points::RULE.ends_with(&POINTS_MAX.to_string()));
        assert!(Reason::RULE.contains(&REASON_MAX_CHARS.to_string()));
        assert!(Points::new(POINTS_MAX).is_ok() && Points::new(POINTS_MAX + 1).is_err());
        assert!(Reason::new("a\0b".to_owned()).is_err());
    }
}
