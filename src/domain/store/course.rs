//! The statements that read the course of a balance. Must not contain writes or a rule of the ledger.

use futures_util::future::try_join_all;

use super::{
    Store, StoreError, get,
    read::{READ_TIMEOUT_MS, last_before, newest},
};
use crate::{
    domain::course::{Course, CoursePoint, CourseQuery, places},
    infra::postgres::Client,
};

impl Store {
    /// A course for each query. Pipelined on one connection.
    pub(in crate::domain) async fn courses(
        &self,
        queries: &[CourseQuery],
    ) -> Result<Vec<Course>, StoreError> {
        self.with_client(READ_TIMEOUT_MS, async |client| {
            try_join_all(queries.iter().map(|query| course(client, query))).await
        })
        .await
    }
}

/// Each place is one look-up in the primary key: `seq` has no gaps. With `seq = any($2)` instead, PostgreSQL before 17
/// may read all entries of the user, if most users have few.
const BALANCES_AFTER: &str = "select entry.created_at, entry.balance from unnest($2::bigint[]) as place, \
     lateral (select created_at, balance from log where user_id = $1 and seq = place limit 1) as entry order by place";

async fn course(client: &Client, query: &CourseQuery) -> Result<Course, StoreError> {
    let user = &query.user_id;
    let first = match query.from {
        Some(from) => last_before(client, user, from).await?.max(1),
        None => 1,
    };
    let places = places(first, newest(client, user).await?);
    let Some(last) = places.last() else { return Ok(Course::default()) };
    let statement = client.prepare_cached(BALANCES_AFTER).await?;
    let rows = client.query(&statement, &[&user.as_str(), &places]).await?;
    let point = |row| Ok(CoursePoint { at: get(row, "created_at")?, balance: get(row, "balance")? });
    let points = rows.iter().map(point).collect::<Result<_, StoreError>>()?;
    Ok(Course { points, entries: last - first + 1 })
}
