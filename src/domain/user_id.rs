//! The customer's own id of a user, and its partition. Must not contain I/O or a wire format.

use std::fmt;

use smol_str::SmolStr;
use xxhash_rust::xxh3::xxh3_64;

use super::{Invalid, Partitions};

/// The longest user id, in bytes.
pub const USER_ID_MAX_BYTES: usize = 64;

/// A user of the customer's system: the customer's own id, 1 to 64 visible ASCII characters. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(SmolStr);

impl UserId {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = "must be a string of 1 to 64 visible ASCII characters";

    /// The user with this id; the error names `field`.
    ///
    /// # Errors
    /// [`Invalid`] if the id breaks [`UserId::RULE`].
    pub fn new(field: &'static str, id: &str) -> Result<Self, Invalid> {
        if !Self::is_valid(id) {
            return Err(Invalid { field, rule: Self::RULE.to_owned() });
        }
        Ok(Self(id.into()))
    }

    /// Whether a text is a user id.
    pub(super) fn is_valid(id: &str) -> bool {
        (1..=USER_ID_MAX_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// The id itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The partition of this user, by XXH3 of the id. It is the same on every machine and in every version.
    #[must_use]
    pub fn partition(&self, partitions: Partitions) -> u16 {
        partitions.of_hash(xxh3_64(self.0.as_bytes()))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What user ids begin with: up to 64 visible ASCII characters. Every id begins with the empty prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserIdPrefix(SmolStr);

impl UserIdPrefix {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = "must be a string of at most 64 visible ASCII characters";

    /// The prefix; the error names `field`.
    ///
    /// # Errors
    /// [`Invalid`] if the prefix breaks [`UserIdPrefix::RULE`].
    pub fn new(field: &'static str, prefix: &str) -> Result<Self, Invalid> {
        if !prefix.is_empty() && !UserId::is_valid(prefix) {
            return Err(Invalid { field, rule: Self::RULE.to_owned() });
        }
        Ok(Self(prefix.into()))
    }

    /// The prefix itself, which no id that begins with it comes before.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// A text that comes after all ids with this prefix, and before all later ids: DEL is the character after the last
    /// visible one.
    pub(super) fn end(&self) -> String {
        format!("{}\u{7f}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_users_partition_never_changes() {
        let partitions = |of: Partitions| {
            ["1", "2", "3", "alice", "alice/coins", "0195c3f0-6b5e-7c60-9f0c-6f1d2e7a9b10"]
                .map(|id| UserId::new("user_id", id).expect("valid").partition(of))
        };
        let four = partitions(Partitions::DEFAULT);
        assert_eq!(four, [0, 0, 0, 0, 3, 2], "these six are written in queues on real disks");
        assert!(partitions(Partitions::MAX).iter().any(|partition| *partition > 31));
    }

    #[test]
    fn an_id_has_1_to_64_visible_ascii_characters() {
        let longest = "~".repeat(USER_ID_MAX_BYTES);
        for id in ["1", "!", "alice/coins", "a+b@example.org", &longest] {
            assert_eq!(UserId::new("user_id", id).expect("valid").as_str(), id);
        }
        for id in ["", " ", "a b", "a\n", "é", "\u{7f}", &"~".repeat(USER_ID_MAX_BYTES + 1)] {
            assert!(UserId::new("user_id", id).is_err(), "{id:?}");
        }
        assert!(UserId::RULE.contains(&format!("1 to {USER_ID_MAX_BYTES} ")));
    }

    #[test]
    fn a_prefix_has_up_to_64_visible_ascii_characters() {
        let longest = "~".repeat(USER_ID_MAX_BYTES);
        for prefix in ["", "%_\\", &longest] {
            assert_eq!(UserIdPrefix::new("prefix", prefix).expect("valid").as_str(), prefix);
        }
        for prefix in [" ", "a b", "é", "\u{7f}", &"~".repeat(USER_ID_MAX_BYTES + 1)] {
            assert!(UserIdPrefix::new("prefix", prefix).is_err(), "{prefix:?}");
        }
        assert!(UserIdPrefix::RULE.contains(&format!("at most {USER_ID_MAX_BYTES} ")));
    }

    proptest! {
        #[test]
        fn the_ids_with_a_prefix_are_those_between_its_ends(prefix in "[!A%_~]{0,3}", id in "[!A%_~]{1,4}") {
            let prefix = UserIdPrefix::new("prefix", &prefix).expect("valid");
            let between = prefix.as_str() <= id.as_str() && id < prefix.end();
            prop_assert_eq!(between, id.starts_with(prefix.as_str()), "{:?} {}", prefix, id);
        }
    }
}
