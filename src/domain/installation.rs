//! The installation: what all nodes on one database have in common, and its row. Must not contain the names of queues.

use std::fmt;

use tokio_postgres::{Row, error::SqlState};

use super::{Invalid, Partitions};
use crate::infra::postgres::{Client, Pool, PoolError};

/// The longest id that this version reads. It makes shorter ones.
const ID_MAX_CHARS: usize = 32;

/// Distinguishes an installation from others on the same broker: 1 to 32 lower-case letters and digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallationId(String);

impl InstallationId {
    /// The installation with this id.
    ///
    /// # Errors
    /// [`Invalid`] for any other text.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let valid = (1..=ID_MAX_CHARS).contains(&text.len()) && text.chars().all(plain);
        let rule = || format!("must be 1 to {ID_MAX_CHARS} lower-case letters and digits");
        valid.then(|| Self(text.to_owned())).ok_or_else(|| Invalid { field: "id", rule: rule() })
    }
}

impl fmt::Display for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What all nodes on one database have in common. A node reads it once, when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Its id.
    pub id: InstallationId,
    /// The generation of its queues. Another number of partitions needs other queues, and so another epoch.
    pub epoch: i32,
    /// The number of its partitions.
    pub partitions: Partitions,
}

/// Why there is no installation to work with.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// The database can't be reached.
    #[error(transparent)]
    Unreachable(#[from] PoolError),
    /// The database refuses a statement.
    #[error(transparent)]
    Refused(#[from] tokio_postgres::Error),
    /// A newer version may have written its row.
    #[error("the row of the installation: {0}")]
    Unreadable(#[from] Invalid),
    /// The number of partitions can't be changed.
    #[error(
        "the installation has {has} partitions and can't have {asked}: a user's changes keep their order only while \
         the user stays in one partition"
    )]
    OtherPartitions {
        /// The number that it has.
        has: Partitions,
        /// The number that was asked for.
        asked: Partitions,
    },
}

/// Only the column that the first migration made and no later one changes: it is read before the others are applied.
const FIND_PARTITIONS: &str = "select partitions from installation";

const FIND: &str = "select id, epoch, partitions from installation";

/// The digits of a random UUID, of which the first 12 are random: 48 bits. The table has room for one row only.
const MAKE: &str = "insert into installation (id, partitions) \
     values (left(replace(gen_random_uuid()::text, '-', ''), 12), $1) on conflict do nothing";

impl Installation {
    /// Returns the installation, or `None` before the first `migrate`.
    ///
    /// # Errors
    /// [`InstallationError`] if it can't be read.
    pub async fn find(pool: &Pool) -> Result<Option<Self>, InstallationError> {
        match pool.get().await?.query_opt(FIND, &[]).await {
            Ok(row) => row.map(|row| read(&row)).transpose(),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that the installation, if there is one, has the number of partitions that an operator asks for, if any.
    /// Migrations may be pending. Returns whether there is an installation.
    ///
    /// # Errors
    /// [`InstallationError::OtherPartitions`], or it can't be read.
    pub async fn exists(pool: &Pool, asked: Option<Partitions>) -> Result<bool, InstallationError> {
        let row = match pool.get().await?.query_opt(FIND_PARTITIONS, &[]).await {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
            row => row?,
        };
        row.map(|row| agree(partitions(&row)?, asked)).transpose().map(|agreed| agreed.is_some())
    }

    /// Makes the installation, unless there is one. Returns it, and whether it is new. If several callers make it at
    /// once, they all get the same one.
    ///
    /// # Errors
    /// [`InstallationError`] if it can't be made or read.
    pub async fn make(pool: &Pool, partitions: Partitions) -> Result<(Self, bool), InstallationError> {
        let client: Client = pool.get().await?;
        let made = client.execute(MAKE, &[&partitions.count().cast_signed()]).await?;
        let row = client.query_one(FIND, &[]).await?;
        Ok((read(&row)?, made == 1))
    }

    /// Checks that the installation has the number of partitions that an operator asks for, if any.
    ///
    /// # Errors
    /// [`InstallationError::OtherPartitions`].
    pub fn agrees(&self, asked: Option<Partitions>) -> Result<(), InstallationError> {
        agree(self.partitions, asked)
    }
}

fn agree(has: Partitions, asked: Option<Partitions>) -> Result<(), InstallationError> {
    match asked {
        Some(asked) if asked != has => Err(InstallationError::OtherPartitions { has, asked }),
        _ => Ok(()),
    }
}

fn partitions(row: &Row) -> Result<Partitions, InstallationError> {
    let partitions: i16 = row.try_get("partitions")?;
    Ok(Partitions::new(u16::try_from(partitions).unwrap_or_default())?)
}

fn read(row: &Row) -> Result<Installation, InstallationError> {
    Ok(Installation {
        id: InstallationId::new(row.try_get("id")?)?,
        epoch: row.try_get("epoch")?,
        partitions: partitions(row)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_fit_for_the_name_of_a_queue() {
        for text in ["0", "3f9a0c12b7de", &"z".repeat(ID_MAX_CHARS)] {
            assert_eq!(InstallationId::new(text).expect(text).to_string(), text);
        }
        for text in ["", "A", "a b", "a.b", "é", &"z".repeat(ID_MAX_CHARS + 1)] {
            assert!(InstallationId::new(text).is_err(), "{text}");
        }
    }
}
