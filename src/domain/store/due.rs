//! The statement that finds the users whose points have expired, or whose holds have ended. Must not contain a lock or
//! a write.

use super::{Store, StoreError, get, user_id};
use crate::domain::user_id::UserId;

/// The longest that the search may take before its connection is closed.
const DUE_TIMEOUT_MS: u64 = 2_000;

/// A user for whom something is due.
#[derive(Clone, Debug)]
pub(in crate::domain) struct Due {
    pub(in crate::domain) user_id: UserId,
    /// How long ago it became due when the search found the user, by the database's clock.
    pub(in crate::domain) overdue_s: f64,
}

/// The users of one search, those first who wait longest.
pub(in crate::domain) struct Found {
    pub(in crate::domain) due: Vec<Due>,
    /// The ids of users whose rows can't be read.
    pub(in crate::domain) unreadable: Vec<String>,
    /// Where the next search begins, unless this one has found nobody.
    pub(in crate::domain) place: Option<Place>,
}

/// A place in the index: as PostgreSQL prints the time, and the user, whatever they are.
pub(in crate::domain) struct Place(String, String);

/// Reads a range of the index, which has only the users with points that expire and with holds.
const DUE: &str = "select user_id, due_at::text, \
         (extract(epoch from now()) - extract(epoch from due_at))::float8 as overdue_s \
     from user_point where due_at <= now() and (due_at, user_id) > ($1::text::timestamptz, $2) \
     order by user_point.due_at, user_id limit $3";

impl Store {
    /// Up to `limit` users for whom something is due, from the one after `after`.
    pub(in crate::domain) async fn due(
        &self,
        after: Option<&Place>,
        limit: i64,
    ) -> Result<Found, StoreError> {
        let (since, user) = after.map_or(("-infinity", ""), |Place(since, user)| (since, user));
        self.with_client(DUE_TIMEOUT_MS, async |client| {
            let statement = client.prepare_cached(DUE).await?;
            let rows = client.query(&statement, &[&since, &user, &limit]).await?;
            let mut found =
                Found { due: Vec::with_capacity(rows.len()), unreadable: Vec::new(), place: None };
            for row in &rows {
                let (since, user, overdue_s): (_, String, f64) =
                    (get(row, "due_at")?, get(row, "user_id")?, get(row, "overdue_s")?);
                match user_id(row) {
                    Ok(user_id) if overdue_s.is_finite() => found.due.push(Due { user_id, overdue_s }),
                    Ok(_) | Err(_) => found.unreadable.push(user.clone()),
                }
                found.place = Some(Place(since, user));
            }
            Ok(found)
        })
        .await
    }
}
