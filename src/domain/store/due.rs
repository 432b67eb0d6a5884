//! The statement that finds the users whose points have expired, or whose holds have ended. Must not contain a lock or
//! a write.

use jiff::Timestamp;

use super::{Store, StoreError, get, user_id};
use crate::domain::user_id::UserId;

/// The longest that the search may take before its connection is closed.
const DUE_TIMEOUT_MS: u64 = 2_000;

/// A user for whom something is due, and since when.
#[derive(Clone, Debug)]
pub(in crate::domain) struct Due {
    pub(in crate::domain) user_id: UserId,
    pub(in crate::domain) since: Timestamp,
    /// How long ago that was when the search found them, by the database's clock.
    pub(in crate::domain) overdue_s: f64,
}

/// Reads a range of the index, which has only the users with points that expire and with holds.
const DUE: &str = "select user_id, due_at, extract(epoch from now() - due_at)::float8 as overdue_s \
     from user_point where due_at <= now() and isfinite(due_at) and (due_at, user_id) > (coalesce($1, '-infinity'::timestamptz), $2) \
     order by due_at, user_id limit $3";

impl Store {
    /// Up to `limit` users for whom something is due, those first who wait longest, from the one after `after`.
    pub(in crate::domain) async fn due(
        &self,
        after: Option<&Due>,
        limit: i64,
    ) -> Result<Vec<Due>, StoreError> {
        let (since, user) = (after.map(|due| due.since), after.map(|due| due.user_id.as_str()));
        self.with_client(DUE_TIMEOUT_MS, async |client| {
            let statement = client.prepare_cached(DUE).await?;
            let rows = client.query(&statement, &[&since, &user.unwrap_or_default(), &limit]).await?;
            let due = rows.iter().map(|row| {
                let (since, overdue_s) = (get(row, "due_at")?, get(row, "overdue_s")?);
                Ok(Due { user_id: user_id(row)?, since, overdue_s })
            });
            due.collect()
        })
        .await
    }
}
