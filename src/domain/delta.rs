//! The values of a change of points, valid by construction. Must not contain I/O or a wire format.

use std::fmt;

use jiff::Timestamp;
use strum::{EnumIter, EnumString, IntoStaticStr};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{Partitions, trace::TraceParent};

/// The largest number of points in a delta or a balance: 2^53 − 1, the largest whole number that every JSON client reads
/// exactly (RFC 8259 §6).
pub const POINTS_MAX: i64 = (1 << 53) - 1;

/// The longest reason, in characters.
pub const REASON_MAX_CHARS: usize = 200;

/// The longest `Idempotency-Key`, in bytes.
pub const KEY_MAX_BYTES: usize = 255;

/// The namespace of request ids made from idempotency keys (UUID version 5, RFC 9562 §5.5).
const KEY_NAMESPACE: Uuid = Uuid::from_u128(0x7d3f_41a2_9c58_4e0b_b6a1_52f0_8c1e_6d94);

/// A value that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct Invalid {
    /// The field's name, as the API spells it.
    pub field: &'static str,
    /// The rule, readable after the field's name: "must be …".
    pub rule: String,
}

/// A user of the customer's system: a whole number from 1 to 2^63 − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(i64);

impl UserId {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = "must be a whole number from 1 to 9223372036854775807";

    /// The user with this number; the error names `field`.
    ///
    /// # Errors
    /// [`Invalid`] if the number is below 1.
    pub fn new(field: &'static str, id: i64) -> Result<Self, Invalid> {
        let valid = id >= 1;
        valid.then_some(Self(id)).ok_or_else(|| Invalid { field, rule: Self::RULE.to_owned() })
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    /// The partition of this user, by XXH3 of the id's 8 little-endian bytes. It is the same on every machine and in every
    /// version.
    #[must_use]
    pub fn partition(self, partitions: Partitions) -> u16 {
        partitions.of_hash(xxh3_64(&self.0.to_le_bytes()))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

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

/// A client's name for a request, so that the request counts once however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencyKey<'a>(&'a str);

impl<'a> IdempotencyKey<'a> {
    /// A key of 1 to [`KEY_MAX_BYTES`] printable ASCII characters.
    ///
    /// # Errors
    /// [`Invalid`] for any other text.
    pub fn new(key: &'a str) -> Result<Self, Invalid> {
        let visible = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let rule = || format!("must be 1 to {KEY_MAX_BYTES} visible ASCII characters");
        let valid = !key.is_empty() && key.len() <= KEY_MAX_BYTES && visible;
        valid.then_some(Self(key)).ok_or_else(|| Invalid { field: "Idempotency-Key", rule: rule() })
    }
}

/// Identifies a delta of a user. A request id is applied at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new id for a request without an idempotency key: UUID version 7, ordered by time.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of a user's idempotency key, the same on every call: UUID version 5 of the user id in 8 big-endian bytes,
    /// followed by the key.
    #[must_use]
    pub fn from_key(user_id: UserId, key: IdempotencyKey) -> Self {
        Self::named(user_id, key, &[])
    }

    /// The id of an operation in a batch that has a key: as [`RequestId::from_key`], followed by a zero byte and the index in
    /// 8 big-endian bytes. A key has no zero byte, so the id is never that of another key.
    #[must_use]
    pub fn from_batch_key(user_id: UserId, key: IdempotencyKey, index: usize) -> Self {
        let index = (index as u64).to_be_bytes();
        Self::named(user_id, key, &[&[0], &index[..]].concat())
    }

    fn named(user_id: UserId, IdempotencyKey(key): IdempotencyKey, rest: &[u8]) -> Self {
        let name = [&user_id.get().to_be_bytes(), key.as_bytes(), rest].concat();
        Self(Uuid::new_v5(&KEY_NAMESPACE, &name))
    }

    /// The UUID itself.
    #[must_use]
    pub fn get(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for RequestId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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

/// The direction of a delta. The names are those of the API, the queue and the log.
#[derive(Clone, Copy, Debug, EnumIter, EnumString, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    /// The balance grows.
    Add,
    /// The balance shrinks. The delta is rejected if the balance would be negative.
    Subtract,
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

/// One change of one user's points, not yet decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Makes the change count at most once.
    pub request_id: RequestId,
    /// Whose points.
    pub user_id: UserId,
    /// In which direction.
    pub action: Action,
    /// How many.
    pub point: Points,
    /// Why, in the customer's words.
    pub reason: Option<Reason>,
    /// When the request was accepted, by the clock of the node that accepted it.
    pub requested_at: Timestamp,
    /// The trace that its request belongs to. The log does not keep it.
    pub traceparent: Option<TraceParent>,
}

impl Delta {
    /// Whether both request the same change: the same user, action, points and reason.
    #[must_use]
    pub fn same_change(&self, other: &Self) -> bool {
        let Self { request_id: _, user_id, action, point, reason, requested_at: _, traceparent: _ } = self;
        (user_id, action, point, reason) == (&other.user_id, &other.action, &other.point, &other.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_partition_never_changes() {
        let partitions = |of: Partitions| -> Vec<u16> {
            (1..=8).map(|id| UserId::new("user_id", id).expect("valid").partition(of)).collect()
        };
        let four = partitions(Partitions::DEFAULT);
        assert_eq!(four, [2, 3, 1, 0, 0, 3, 3, 2], "these eight are written in queues on real disks");
        assert!(partitions(Partitions::MAX).iter().any(|partition| *partition > 31));
    }

    #[test]
    fn a_key_gives_one_request_id_per_user() {
        let [one, two] = [1, 2].map(|id| UserId::new("user_id", id).expect("valid"));
        let key = IdempotencyKey::new("order-7").expect("valid");
        let id = RequestId::from_key(one, key);
        assert_eq!(id, RequestId::from_key(one, key));
        assert_ne!(id, RequestId::from_key(two, key));
        let [first, again, second] = [0, 0, 1].map(|index| RequestId::from_batch_key(one, key, index));
        assert!(first == again && first != second && first != id);
        for key in ["", "\n", &"k".repeat(KEY_MAX_BYTES + 1), "é"] {
            assert!(IdempotencyKey::new(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn the_rules_say_the_limits_they_hold() {
        assert!(Points::RULE.ends_with(&POINTS_MAX.to_string()));
        assert!(UserId::RULE.ends_with(&i64::MAX.to_string()));
        assert!(Reason::RULE.contains(&REASON_MAX_CHARS.to_string()));
        assert!(Points::new(POINTS_MAX).is_ok() && Points::new(POINTS_MAX + 1).is_err());
        assert!(Reason::new("a\0b".to_owned()).is_err());
    }
}
