//! The statement that finds the users whose points have expired. Must not contain a lock or a write.

use jiff::Timestamp;

use super::{Store, StoreError, get, user_id};
use crate::domain::user_id::UserId;

/// The longest that the search may take before its connection is closed.
const DUE_TIMEOUT_MS: u64 = 2_000;

/// A user whose points have expired, and when the first of them did.
#[derive(Clone, Debug)]
pub(in crate::domain) struct Due {
    pub(in crate::domain) user_id: UserId,
    pub(in crate::domain) expired_at: Timestamp,
    /// How long ago that was when the search found them, by the database's clock.
    pub(in crate::domain) overdue_s: f64,
}

/// Reads a range of the index, which has only the users with points that expire.
const DUE: &str = "select user_id, expires_at, extract(epoch from now() - expires_at)::float8 as overdue_s \
     from user_point where expires_at <= now() and (expires_at, user_id) > (coalesce($1, '-infinity'::timestamptz), $2) \
     order by expires_at, user_id limit $3";

impl Store {
    /// Up to `limit` users whose points have expired, those first whose points expired first, from the one after `after`.
    pub(in crate::domain) async fn due(
        &self,
        after: Option<&Due>,
        limit: i64,
    ) -> Result<Vec<Due>, StoreError> {
        let (expired_at, user) = (after.map(|due| due.expired_at), after.map(|due| due.user_id.as_str()));
        self.with_client(DUE_TIMEOUT_MS, async |client| {
            let statement = client.prepare_cached(DUE).await?;
            let rows = client.query(&statement, &[&expired_at, &user.unwrap_or_default(), &limit]).await?;
            let due = rows.iter().map(|row| {
                let (expired_at, overdue_s) = (get(row, "expires_at")?, get(row, "overdue_s")?);
                Ok(Due { user_id: user_id(row)?, expired_at, overdue_s })
            });
            due.collect()
        })
        .await
    }
}
