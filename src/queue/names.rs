//! The names of our queues. Must not contain their arguments, or a connection.

use std::str::FromStr;

use crate::domain::{Installation, Partitions};

/// The longest prefix. A queue's name has at most 255 bytes (AMQP 0-9-1 §3.1).
const PREFIX_MAX_CHARS: usize = 100;

/// The operator's part of the queue names: 1 to 100 ASCII letters, digits, `.`, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePrefix(String);

impl FromStr for QueuePrefix {
    type Err = String;

    /// Parses a prefix. The error is the rule, readable after the setting's name.
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if text.is_empty() || text.len() > PREFIX_MAX_CHARS || !text.chars().all(plain) {
            return Err(format!("must be 1 to {PREFIX_MAX_CHARS} letters, digits, '.', '-' and '_'"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The names of an installation's queues. Two installations never share a queue, even if they share a broker and a
/// prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueNames {
    /// The prefix, the installation's id and its epoch.
    stem: String,
    partitions: Partitions,
}

impl QueueNames {
    /// The names of this installation's queues.
    #[must_use]
    pub fn new(QueuePrefix(prefix): &QueuePrefix, installation: &Installation) -> Self {
        let Installation { id, epoch, partitions } = installation;
        Self { stem: format!("{prefix}.{id}.{epoch}"), partitions: *partitions }
    }

    /// The number of partitions.
    #[must_use]
    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// The queue of a partition.
    #[must_use]
    pub fn partition(&self, partition: u16) -> String {
        format!("{}.deltas.{partition}", self.stem)
    }

    /// The queue of messages that can't be applied.
    #[must_use]
    pub fn dead_letters(&self) -> String {
        format!("{}.dead-letters", self.stem)
    }

    /// Every queue of the installation.
    pub fn all(&self) -> impl Iterator<Item = String> {
        [self.dead_letters()]
            .into_iter()
            .chain(self.partitions.all().map(|partition| self.partition(partition)))
    }

    /// The beginning of the names of the queues.
    #[must_use]
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// The regular expression of a policy for these queues and no others.
    #[must_use]
    pub fn pattern(&self) -> String {
        format!("^{}\\.", self.stem.replace('.', "\\."))
    }

    /// The partition in a queue's name, if there is one. It need not exist today: the user decides which queue a delta
    /// belongs to.
    pub(super) fn partition_of(&self, queue: &str) -> Option<u16> {
        let number = queue.rsplit('.').next()?.parse().ok()?;
        (self.partition(number) == queue).then_some(number)
    }

    /// The queue that a command holds while it works on the dead letters, or sets a message aside.
    pub(super) fn dead_letters_lock(&self) -> String {
        format!("{}.dead-letters.lock", self.stem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::InstallationId;

    fn names(prefix: &str, id: &str, epoch: i32) -> QueueNames {
        let id = InstallationId::new(id).expect("valid");
        let installation = Installation { id, epoch, partitions: Partitions::DEFAULT };
        QueueNames::new(&prefix.parse().expect("valid"), &installation)
    }

    #[test]
    fn no_other_prefix_installation_or_epoch_has_the_same_queues() {
        let ours = names("points", "3f9a0c12b7de", 0);
        let all = |names: &QueueNames| [names.partition(1), names.dead_letters(), names.dead_letters_lock()];
        assert_eq!(
            all(&ours),
            [
                "points.3f9a0c12b7de.0.deltas.1",
                "points.3f9a0c12b7de.0.dead-letters",
                "points.3f9a0c12b7de.0.dead-letters.lock"
            ]
        );
        for other in
            [names("point", "3f9a0c12b7de", 0), names("points", "a", 0), names("points", "3f9a0c12b7de", 1)]
        {
            assert!(all(&other).iter().all(|name| !all(&ours).contains(name)), "{other:?}");
            assert_eq!(ours.partition_of(&other.partition(1)), None);
        }
        assert_eq!([1, 63].map(|number| ours.partition_of(&ours.partition(number))), [Some(1), Some(63)]);
    }

    #[test]
    fn the_longest_names_fit() {
        let longest = names(&"p".repeat(PREFIX_MAX_CHARS), &"i".repeat(32), i32::MAX);
        assert!(longest.partition(u16::MAX).len() <= 255 && longest.dead_letters_lock().len() <= 255);
        for wrong in ["", "a b", "é", &"p".repeat(PREFIX_MAX_CHARS + 1)] {
            assert!(wrong.parse::<QueuePrefix>().is_err(), "{wrong}");
        }
    }
}
