//! The number of partitions, valid by construction. Must not contain queues or I/O.

use std::{fmt, ops::Range, str::FromStr};

use super::Invalid;

/// A number of partitions. It is a power of two, so that twice as many divide each partition into two.
///
/// It is fixed for the life of an installation: a user's deltas keep their order because the user never changes
/// partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions(u16);

impl Partitions {
    /// The rule in words, readable after a field's name.
    pub const RULE: &str = "must be 1, 2, 4, 8, 16, 32 or 64";

    /// The number of an installation that names none. With few partitions, a message carries many deltas, and each delta
    /// costs the broker little (docs/performance.md).
    pub const DEFAULT: Self = Self(4);

    /// The largest number.
    pub const MAX: Self = Self(64);

    /// This many partitions.
    ///
    /// # Errors
    /// [`Invalid`] if the number breaks [`Partitions::RULE`].
    pub fn new(count: u16) -> Result<Self, Invalid> {
        let valid = count.is_power_of_two() && count <= Self::MAX.0;
        valid
            .then_some(Self(count))
            .ok_or_else(|| Invalid { field: "partitions", rule: Self::RULE.to_owned() })
    }

    /// The number itself.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.0
    }

    /// Every partition, from 0 on.
    #[must_use]
    pub fn all(self) -> Range<u16> {
        0..self.0
    }

    /// The partition that a hash belongs to.
    #[must_use]
    pub fn of_hash(self, hash: u64) -> u16 {
        u16::try_from(hash % u64::from(self.0)).expect("less than the number of partitions")
    }
}

impl FromStr for Partitions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let valid = text.parse().ok().and_then(|count| Self::new(count).ok());
        valid.ok_or_else(|| Self::RULE.to_owned())
    }
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_of_partitions_is_a_power_of_two_up_to_64() {
        let valid: Vec<String> = (0..=u16::MAX)
            .filter_map(|count| Partitions::new(count).ok())
            .map(|valid| valid.to_string())
            .collect();
        assert_eq!(valid, ["1", "2", "4", "8", "16", "32", "64"]);
        for text in ["0", "3", "128", "-1", "65537", "", "four"] {
            assert_eq!(text.parse::<Partitions>(), Err(Partitions::RULE.to_owned()), "{text}");
        }
        assert_eq!("8".parse::<Partitions>().map(Partitions::all), Ok(0..8));
    }

    proptest! {
        #[test]
        fn twice_as_many_divide_each_partition_into_two(hash: u64, exponent in 0..6u32) {
            let [few, many] = [exponent, exponent + 1].map(|e| Partitions::new(1 << e).expect("valid"));
            prop_assert_eq!(many.of_hash(hash) % few.count(), few.of_hash(hash));
        }
    }
}
