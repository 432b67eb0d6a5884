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

#[cfg(test)]
mod tests {
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
}
