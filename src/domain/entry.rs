//! What the ledger holds: accounts, log entries, and what became of a delta. Must not contain a decision.

use jiff::Timestamp;
use strum::{EnumIter, EnumString, IntoStaticStr};

use super::delta::{Delta, UserId};

/// Where a user stands while deltas are decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// The balance, from 0 to [`POINTS_MAX`](super::POINTS_MAX).
    pub point: i64,
    /// The number of entries in the log, which is the `seq` of the last one.
    pub seq: i64,
    /// When the last entry was written.
    pub updated_at: Timestamp,
}

/// What became of a delta. The names are those of the log and the API.
#[derive(Clone, Copy, Debug, EnumIter, EnumString, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// The balance changed.
    Applied,
    /// The balance did not change, and never will for this request id.
    Rejected,
}

impl Status {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a delta was rejected. The names are those of the log and the API.
#[derive(Clone, Debug, EnumIter, EnumString, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum Rejection {
    /// The balance is smaller than the points to subtract.
    InsufficientPoints,
    /// The balance would exceed [`POINTS_MAX`](super::POINTS_MAX).
    BalanceLimit,
    /// A reason that this version does not know: a newer version wrote the entry.
    #[strum(disabled)]
    Unknown(String),
}

impl Rejection {
    /// The rejection with this name.
    pub(super) fn named(name: &str) -> Self {
        name.parse().unwrap_or_else(|_| Self::Unknown(name.to_owned()))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unknown(name) => name,
            Self::InsufficientPoints | Self::BalanceLimit => self.into(),
        }
    }
}

/// One row of the log: a delta and what became of it, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was requested.
    pub delta: Delta,
    /// Its place in the user's log, 1, 2, 3, … without gaps.
    pub seq: i64,
    /// `None` if it was applied.
    pub rejection: Option<Rejection>,
    /// The user's balance after this entry.
    pub balance: i64,
    /// When it was decided, by the database's clock.
    pub created_at: Timestamp,
}

impl Entry {
    /// What became of its delta.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.rejection.is_some() { Status::Rejected } else { Status::Applied }
    }
}

/// What a delta came to, now or earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The log entry of this request id. Its delta is the first one with this id.
    pub entry: Entry,
    /// Whether the entry was there already: this delta changed nothing.
    pub replayed: bool,
}

/// A user's points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Whose.
    pub user_id: UserId,
    /// How many, from 0 to [`POINTS_MAX`](super::POINTS_MAX).
    pub point: i64,
    /// The number of the user's log entries.
    pub seq: i64,
    /// When the last entry was written, by the database's clock.
    pub updated_at: Timestamp,
}
