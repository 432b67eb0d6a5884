//! A time as PostgreSQL stores it. Its range is wider than that of our own times. Must not contain SQL.

use std::{error::Error, fmt};

use jiff::Timestamp;
use tokio_postgres::types::{FromSql, Type, accepts};

/// PostgreSQL's epoch, 2000-01-01T00:00:00Z, in microseconds since 1970.
const EPOCH_US: i64 = 946_684_800_000_000;

/// Microseconds since [`EPOCH_US`]. The smallest and the largest value stand for −infinity and infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub i64);

impl Moment {
    /// The time, if the service can read it.
    pub(super) fn readable(self) -> Option<Timestamp> {
        Timestamp::from_microsecond(self.0.checked_add(EPOCH_US)?).ok().filter(|_| self.0 != i64::MIN)
    }
}

impl<'a> FromSql<'a> for Moment {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    accepts!(TIMESTAMPTZ);
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.readable(), self.0) {
            (Some(time), _) => time.fmt(f),
            (None, i64::MIN) => f.write_str("-infinity"),
            (None, i64::MAX) => f.write_str("infinity"),
            (None, _) => f.write_str("after the year 9999"),
        }
    }
}
