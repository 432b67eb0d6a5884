//! Reads from the broker's headers why and when a message became a dead letter. Must not contain channels.

use std::fmt;

use amqprs::{BasicProperties, FieldTable, FieldValue};
use jiff::Timestamp;

use super::wire::{self, Unread};
use crate::domain::{Delta, Partitions, UserId};

/// Why a message is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// The message can't be read, for this reason.
    Malformed(String),
    /// A newer version wrote it; the text names the evidence. An operator set it aside.
    NotUnderstood(String),
    /// It can be read. A worker rejected it because the database refused one of its deltas, or an operator set it aside.
    Refused,
    /// It can be read, but it was in the wrong partition: this user belongs to this partition.
    Misplaced(UserId, u16),
    /// It can be read, but the broker moved it by itself. The text is the broker's reason, such as `expired`, which
    /// only a policy can cause.
    GivenUp(String),
    /// It can be read, but it did not come from a partition's queue.
    Stray,
}

impl Death {
    /// Returns whether this version may apply the message on another attempt.
    #[must_use]
    pub fn is_redrivable(&self) -> bool {
        match self {
            Self::Refused | Self::Misplaced(..) | Self::GivenUp(_) | Self::Stray => true,
            Self::Malformed(_) | Self::NotUnderstood(_) => false,
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(how) => write!(f, "malformed: {how}"),
            Self::NotUnderstood(what) => write!(f, "of a newer version: {what}"),
            Self::Refused => f.write_str("refused by the database, or set aside"),
            Self::Misplaced(user, partition) => {
                write!(f, "in the wrong partition: user {user} belongs to partition {partition}")
            }
            Self::GivenUp(why) => write!(f, "given up by the broker: {why}"),
            Self::Stray => f.write_str("not from a partition"),
        }
    }
}

impl From<Unread> for Death {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Malformed(why) => Self::Malformed(why),
            Unread::NotUnderstood(what) => Self::NotUnderstood(what),
        }
    }
}

/// Why a readable message is a dead letter.
pub(super) fn of(
    properties: &BasicProperties,
    (partition, partitions): (Option<u16>, Partitions),
    deltas: &[Delta],
) -> Death {
    let Some(partition) = partition else { return Death::Stray };
    match header(properties, "x-first-death-reason") {
        None | Some("rejected") if partitions.all().contains(&partition) => {
            let stranger = wire::stranger(deltas, (partition, partitions));
            stranger.map_or(Death::Refused, |(user, partition)| Death::Misplaced(user, partition))
        }
        None | Some("rejected") => Death::Refused,
        Some(why) => Death::GivenUp(why.to_owned()),
    }
}

fn field<'a>(table: &'a FieldTable, name: &str) -> Option<&'a FieldValue> {
    table.get(&name.try_into().expect("a short name"))
}

/// A text from a message's headers.
pub(super) fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a str> {
    field(properties.headers()?, name)?.try_into().ok()
}

/// The time in the first entry of `x-death`, which is the latest death (RabbitMQ, Dead Letter Exchanges).
pub(super) fn died_at(properties: &BasicProperties) -> Option<Timestamp> {
    let Some(FieldValue::A(deaths)) = field(properties.headers()?, "x-death") else { return None };
    let deaths: Vec<FieldValue> = deaths.clone().into();
    let Some(FieldValue::F(latest)) = deaths.first() else { return None };
    let Some(FieldValue::T(second)) = field(latest, "time") else { return None };
    Timestamp::from_second(i64::try_from(*second).ok()?).ok()
}
