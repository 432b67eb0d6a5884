//! What an operator does with API keys: create, rotate, list and revoke them. Must not contain SQL.

use super::{
    AccessError,
    key::{ApiKey, KeyName, Scope, WhichKey},
    store::{self, KeyRecord},
};
use crate::infra::postgres::Pool;

/// The generation of the first key of a name. Each rotation creates the next one.
const FIRST_GENERATION: i32 = 1;

/// Creates the first key of a name. Returns its number and the key itself, which is not stored.
///
/// # Errors
/// [`AccessError::NameUsed`], [`AccessError::TooMany`], [`AccessError::Unavailable`].
pub async fn create(pool: &Pool, name: &KeyName, scope: Scope) -> Result<(i64, ApiKey), AccessError> {
    let key = ApiKey::random();
    let created = store::insert(pool, name, FIRST_GENERATION, scope, &key.hash()).await?;
    let id = created.ok_or_else(|| AccessError::NameUsed(name.as_str().to_owned()))?;
    Ok((id, key))
}

/// What a rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The number of the new key.
    pub id: i64,
    /// What it may do: the same as the previous key.
    pub scope: Scope,
    /// The number of the other active key, if there is one.
    pub other: Option<i64>,
}

/// Creates another key of a name, beside at most one that is active. Returns what it did and the key itself, which is
/// not stored.
///
/// # Errors
/// [`AccessError::NameUnknown`], [`AccessError::TwoActive`], [`AccessError::TooMany`], [`AccessError::Unavailable`].
pub async fn rotate(pool: &Pool, name: &KeyName) -> Result<(Rotation, ApiKey), AccessError> {
    let key = ApiKey::random();
    loop {
        let keys = store::keys_of(pool, name.as_str()).await?;
        let newest = keys.last().ok_or_else(|| AccessError::NameUnknown(name.as_str().to_owned()))?;
        let other = only_active(&keys)?.map(|key| key.id);
        let (scope, generation) = (newest.scope, newest.generation + 1);
        // If another rotation has just taken this generation, look again: its key counts, too.
        if let Some(id) = store::insert(pool, name, generation, scope, &key.hash()).await? {
            return Ok((Rotation { id, scope, other }, key));
        }
    }
}

/// Returns the active key among the keys of one name.
///
/// # Errors
/// [`AccessError::TwoActive`].
fn only_active(keys: &[KeyRecord]) -> Result<Option<&KeyRecord>, AccessError> {
    let mut active = keys.iter().filter(|key| key.revoked_at.is_none());
    match (active.next(), active.next()) {
        (Some(one), Some(other)) => {
            Err(AccessError::TwoActive { name: one.name.clone(), ids: [one.id, other.id] })
        }
        (only, _) => Ok(only),
    }
}

/// Returns all keys, including revoked ones, in the order of their numbers.
///
/// # Errors
/// [`AccessError::Unavailable`].
pub async fn list(pool: &Pool) -> Result<Vec<KeyRecord>, AccessError> {
    store::list(pool).await
}

/// Revokes a key for good. Returns the key as it was before, or `None` if there is no such key.
///
/// # Errors
/// [`AccessError::TwoActive`], [`AccessError::Unavailable`].
pub async fn revoke(pool: &Pool, which: &WhichKey) -> Result<Option<KeyRecord>, AccessError> {
    let id = match which {
        WhichKey::Id(id) => *id,
        WhichKey::Name(name) => match only_active(&store::keys_of(pool, name).await?)? {
            Some(key) => key.id,
            None => return Ok(None),
        },
    };
    store::revoke(pool, id).await
}
