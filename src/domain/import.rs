//! Points that come from another system: the change that a row of an import is, and which rows the log has. Must not
//! contain SQL, or how a file says a row.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;

use super::{
    Change, Delta, Entry, IdempotencyKey, Metadata, Patience, PointService, Points, Reason, RequestId,
    ServiceError, UserId,
    actor::{Actor, name_rule},
    patience::retried,
};

/// The name of an import, as of an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportName(Actor);

impl FromStr for ImportName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let actor = Actor::new(text).ok().filter(|actor| !actor.is_system());
        actor.map(Self).ok_or(concat!("must be ", name_rule!()))
    }
}

impl fmt::Display for ImportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Points that a user has in another system.
#[derive(Debug)]
pub struct Row<'a> {
    /// Whose.
    pub user_id: UserId,
    /// How many.
    pub point: Points,
    /// When they expire, if they do.
    pub expires_at: Option<Timestamp>,
    /// Why the user has them.
    pub reason: Option<Reason>,
    /// Makes the row count once, whatever the import is called.
    pub key: Option<IdempotencyKey<'a>>,
}

/// An import: what its rows have in common.
#[derive(Clone, Debug)]
pub struct Import {
    actor: Actor,
    name: ImportName,
    metadata: Metadata,
    requested_at: Timestamp,
}

impl Import {
    /// An import that begins now.
    #[must_use]
    pub fn new(name: &ImportName, now: Timestamp) -> Self {
        let metadata = Metadata::new(format!(r#"{{"import":"{name}"}}"#)).expect("a short object");
        Self { actor: Actor::import(), name: name.clone(), metadata, requested_at: now }
    }

    /// The request id of a row: a row counts once, by its key, or else by the name of the import, the user and the time.
    #[must_use]
    pub fn request_id(&self, row: &Row) -> RequestId {
        match &row.key {
            Some(key) => RequestId::from_key(Some(&self.actor), &row.user_id, key),
            None => RequestId::of_row(&self.actor, self.name.0.as_str(), &row.user_id, row.expires_at),
        }
    }

    /// The change that a row is.
    #[must_use]
    pub fn delta(&self, row: Row) -> Delta {
        Delta {
            request_id: self.request_id(&row),
            user_id: row.user_id,
            change: Change::Add { point: row.point, expires_at: row.expires_at },
            actor: Some(self.actor.clone()),
            reason: row.reason,
            metadata: Some(self.metadata.clone()),
            requested_at: self.requested_at,
            traceparent: None,
        }
    }
}

impl PointService {
    /// Returns the log entry of each delta whose request id is known. The entry may be of another change: see
    /// [`Delta::is_of`]. An entry that can't be read is unknown: applying the delta says why.
    ///
    /// # Errors
    /// [`ServiceError`] if PostgreSQL does not answer, within a few seconds.
    pub async fn known(&self, deltas: &[Delta]) -> Result<Vec<Option<Arc<Entry>>>, ServiceError> {
        let ids: Vec<_> = deltas.iter().map(|delta| (delta.user_id.clone(), delta.request_id)).collect();
        let found = retried(|| self.store.logged(&ids), &Patience::Caller, &self.metrics).await?;
        Ok(ids.iter().map(|id| found.get(id)?.clone().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_row_counts_once_by_its_key_or_by_import_user_and_time() {
        let id = |name: &str, user: &str, second: Option<i64>, key: Option<&str>| {
            let import = Import::new(&name.parse().expect("valid"), Timestamp::UNIX_EPOCH);
            let row = Row {
                user_id: UserId::new("user_id", user).expect("valid"),
                point: Points::new(1).expect("valid"),
                expires_at: second.map(|second| Timestamp::from_second(second).expect("in range")),
                reason: None,
                key: key.map(|key| IdempotencyKey::new(key).expect("valid")),
            };
            import.delta(row).request_id
        };
        let ids = [
            id("a", "b", None, None),
            id("ab", "b", None, None),
            id("a", "bb", None, None),
            id("a", "b", Some(1), None),
            id("a", "b", Some(2), None),
            id("a", "b", None, Some("a")),
            id("a", "b", None, Some("import")),
            id("a", "bb", None, Some("a")),
        ];
        assert_eq!(HashSet::from(ids).len(), ids.len(), "{ids:?}");
        assert_eq!(
            ids[5],
            id("z", "b", Some(1), Some("a")),
            "a key counts once, whatever the import is called"
        );
        assert_eq!(
            [ids[0].to_string(), ids[3].to_string()],
            ["b3c3496d-8c11-5ee1-a341-2dca68035e6d", "21dd3970-35ce-5f4e-8dd7-c1ebc90dbeeb"],
            "they are written in logs for ever"
        );
    }

    #[test]
    fn an_import_has_a_name_that_json_takes_as_it_is() {
        for wrong in ["", "7", "a b", "a\"", "system:import", &"x".repeat(64)] {
            assert!(wrong.parse::<ImportName>().is_err(), "{wrong:?}");
        }
        let longest: ImportName = "x".repeat(63).parse().expect("valid");
        assert!(Import::new(&longest, Timestamp::UNIX_EPOCH).metadata.as_str().contains("xxx"));
    }
}
