//! The values of a change of points, valid by construction. Must not contain I/O or a wire format.

use jiff::Timestamp;
use strum::{EnumDiscriminants, EnumIter, EnumString, IntoStaticStr};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Invalid, actor::Actor, entry::Entry, metadata::Metadata, request_id::RequestId, trace::TraceParent,
    user_id::UserId,
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

/// What a delta asks for.
#[derive(Clone, Copy, Debug, EnumDiscriminants, PartialEq, Eq)]
#[strum_discriminants(
    name(Action),
    derive(EnumIter, EnumString, IntoStaticStr),
    strum(serialize_all = "snake_case"),
    doc = "The kind of a [`Change`]. The names are those of the API, the queue and the log."
)]
pub enum Change {
    /// The balance grows.
    Add(Points),
    /// The balance shrinks. The delta is rejected if the balance would be negative.
    Subtract(Points),
}

impl Change {
    /// The change of this kind, for this many points.
    #[must_use]
    pub fn new(action: Action, point: Points) -> Self {
        match action {
            Action::Add => Self::Add(point),
            Action::Subtract => Self::Subtract(point),
        }
    }

    /// Its kind.
    #[must_use]
    pub fn action(&self) -> Action {
        self.into()
    }

    /// How many points it asks for.
    #[must_use]
    pub fn point(&self) -> Points {
        match self {
            Self::Add(point) | Self::Subtract(point) => *point,
        }
    }
}

impl Action {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = "must be add or subtract";

    /// The action with this name.
    ///
    /// # Errors
    /// [`Invalid`] if there is none.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        name.parse().map_err(|_| Invalid { field: "action", rule: Self::RULE.to_owned() })
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
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
    /// The trace that its request belongs to. The log does not keep it.
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

    /// Returns whether the entry is of this change, and not of another with the same request id.
    #[must_use]
    pub fn is_of(&self, entry: &Entry) -> bool {
        self.fingerprint() == entry.fingerprint
    }

    /// Returns the fingerprint of this change: XXH3 of the action, the user and the points. The reason and the metadata
    /// do not count, so a retry may change them.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let (action, user_id) = (self.change.action().as_str(), self.user_id.as_str());
        let mut bytes = Vec::with_capacity(2 + action.len() + user_id.len() + size_of::<i64>());
        for text in [action, user_id] {
            bytes.push(u8::try_from(text.len()).expect("short"));
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&self.change.point().get().to_be_bytes());
        Fingerprint(xxh3_64(&bytes).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn a_fingerprint_tells_what_decides_the_effect() {
        let point = |point| Points::new(point).expect("in range");
        let first = Delta::of("1", Change::Add(point(256)));
        let same = Delta {
            actor: Some(Actor::new("shop").expect("valid")),
            reason: Some(Reason::new("again".to_owned()).expect("valid")),
            metadata: Some(Metadata::new(r#"{"a":1}"#.to_owned()).expect("valid")),
            ..Delta::of("1", Change::Add(point(256)))
        };
        assert_eq!(first.fingerprint(), same.fingerprint());
        for other in [
            Delta::of("2", Change::Add(point(256))),
            Delta::of("1", Change::Subtract(point(256))),
            Delta::of("1", Change::Add(point(257))),
            Delta::of("1", Change::Add(point(1))),
        ] {
            assert_ne!(first.fingerprint(), other.fingerprint(), "{other:?}");
        }
        assert_eq!(
            first.fingerprint(),
            Fingerprint(793_649_616_998_302_996),
            "it is written in logs for ever"
        );
    }

    #[test]
    fn the_rules_say_the_limits_they_hold() {
        assert!(Points::RULE.ends_with(&POINTS_MAX.to_string()));
        assert!(Reason::RULE.contains(&REASON_MAX_CHARS.to_string()));
        assert!(Action::iter().all(|action| Action::RULE.contains(action.as_str())));
        assert!(Points::new(POINTS_MAX).is_ok() && Points::new(POINTS_MAX + 1).is_err());
        assert!(Reason::new("a\0b".to_owned()).is_err());
    }
}
