//! The statements that read balances and the log. Must not contain writes or a rule of the ledger.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use tokio::try_join;
use tokio_postgres::{Row, Statement, types::ToSql};
use uuid::Uuid;

use super::{LOGGED, Store, StoreError, account, entry, entry_columns, get, user_id};
use crate::domain::{
    Action, Balance, Entry, Status,
    account::Account,
    balances::{BalancesPage, BalancesQuery},
    lots::Lots,
    read::{HistoryQuery, Page},
    request_id::RequestId,
    user_id::UserId,
};
use crate::infra::postgres::Client;

/// The most entries to search for a page of applied entries, for which there is no index. 10,000 consecutive rejections
/// take some 250 blocks of 8 KiB.
const APPLIED_SCAN_MAX: i64 = 10_000;

/// The most entries to search for a page of one action, for which there is no index. If each is in a block of its own, a
/// disk of 10,000 reads a second takes half a second.
const ACTION_SCAN_MAX: i64 = 5_000;

/// The longest that a read may take before its connection is closed.
pub(super) const READ_TIMEOUT_MS: u64 = 2_000;

impl Store {
    /// The balances of the known users among `users`, all of one moment.
    pub(in crate::domain) async fn balances(
        &self,
        users: &[&str],
    ) -> Result<HashMap<UserId, Balance>, StoreError> {
        self.with_client(READ_TIMEOUT_MS, async |client| {
            let statement = client.prepare_cached(BALANCES).await?;
            let rows = client.query(&statement, &[&users]).await?;
            let balances = rows.iter().map(|row| balance(row).map(|found| (found.user_id.clone(), found)));
            balances.collect()
        })
        .await
    }

    /// A page of balances for each query. Pipelined on one connection.
    pub(in crate::domain) async fn balance_pages(
        &self,
        queries: &[BalancesQuery],
    ) -> Result<Vec<BalancesPage>, StoreError> {
        self.with_client(READ_TIMEOUT_MS, async |client| {
            let statement = client.prepare_cached(BALANCES_PAGE).await?;
            try_join_all(queries.iter().map(|query| balance_page(client, &statement, query))).await
        })
        .await
    }

    /// The log entries of the known request ids among `asked`, or why an entry can't be read.
    pub(in crate::domain) async fn logged(
        &self,
        asked: &[(UserId, RequestId)],
    ) -> Result<HashMap<(UserId, RequestId), Result<Arc<Entry>, StoreError>>, StoreError> {
        let (users, requests): (Vec<&str>, Vec<Uuid>) =
            asked.iter().map(|(user, request)| (user.as_str(), request.get())).unzip();
        self.with_client(READ_TIMEOUT_MS, async |client| {
            let statement = client.prepare_cached(LOGGED).await?;
            let rows = client.query(&statement, &[&users, &requests]).await?;
            let entries = rows.iter().map(|row| {
                let request = (user_id(row)?, get::<Uuid>(row, "request_id")?.into());
                Ok((request, entry(row).map(Arc::new)))
            });
            entries.collect()
        })
        .await
    }

    /// The balance of each user at a time, or `None` if the user had no entry yet. Pipelined on one connection.
    pub(in crate::domain) async fn past_balances(
        &self,
        asked: &[(UserId, Timestamp)],
    ) -> Result<Vec<Option<Balance>>, StoreError> {
        self.with_client(READ_TIMEOUT_MS, async |client| {
            let each = asked.iter().map(|(user_id, at)| async {
                let Some(row) = last_until(client, user_id, *at).await? else { return Ok(None) };
                let Account { point, seq, updated_at, .. } = account(&row)?.at(*at);
                let expires = Lots::default();
                Ok(Some(Balance { user_id: user_id.clone(), point, seq, updated_at, expires, holds: None }))
            });
            try_join_all(each).await
        })
        .await
    }

    /// A page for each query. Pipelined on one connection.
    pub(in crate::domain) async fn pages(&self, queries: &[HistoryQuery]) -> Result<Vec<Page>, StoreError> {
        self.with_client(READ_TIMEOUT_MS, async |client| {
            try_join_all(queries.iter().map(|query| page(client, query))).await
        })
        .await
    }
}

/// Selects balances. `now` is the time of the query, or null if nothing of the user's is ever due.
macro_rules! select_balances {
    () => {
        "select user_id, point, seq, updated_at, lots, holds, case when due_at is not null then now() end as now \
         from user_point "
    };
}

const BALANCES: &str = concat!(select_balances!(), "where user_id = any($1) and seq > 0");

/// Reads a range of the primary key, in its order. A `like` would need escapes.
const BALANCES_PAGE: &str = concat!(
    select_balances!(),
    "where user_id >= $1 and user_id > $2 and user_id < $3 and seq > 0 order by user_id limit $4"
);

async fn balance_page(
    client: &Client,
    statement: &Statement,
    query: &BalancesQuery,
) -> Result<BalancesPage, StoreError> {
    let (first, end) = (query.prefix.as_str(), query.prefix.end());
    let after = query.after.as_ref().map_or("", UserId::as_str);
    // One more than the page needs, as for a page of the log.
    let wanted = i64::from(query.limit) + 1;
    let rows = client.query(statement, &[&first, &after, &end, &wanted]).await?;
    let balances = rows.iter().take(query.limit.into()).map(balance);
    let balances: Vec<Balance> = balances.collect::<Result<_, StoreError>>()?;
    let last = balances.last().filter(|_| rows.len() > balances.len());
    Ok(BalancesPage { next: last.map(|last| last.user_id.clone()), balances })
}

/// Reads a row of `user_point`. An error names the user: the row is one of many.
fn balance(row: &Row) -> Result<Balance, StoreError> {
    let user_id = user_id(row)?;
    let read = || {
        let mut account = account(row)?;
        if let Some(now) = get(row, "now")? {
            account = account.at(now);
        }
        let Account { point, seq, updated_at, lots: expires, holds } = account;
        Ok(Balance { user_id: user_id.clone(), point, seq, updated_at, expires, holds: Some(holds) })
    };
    read().map_err(|error| match error {
        StoreError::Unreadable(why) => StoreError::Unreadable(format!("user {user_id}: {why}")),
        other => other,
    })
}

/// A binary search for the last entry that is not after a time. It works because a user's times never go back and `seq`
/// has no gaps. It takes one look-up in the primary key per binary digit of the number of entries. The `limit` clauses
/// keep the planner from reading all of the user's entries instead. The user's last entry comes with the lots and the
/// holds.
const LAST_UNTIL: &str = "with recursive search (low, high) as ( \
         select 0::bigint, seq + 1 from user_point where user_id = $1 \
         union all \
         select case when created_at <= $2 then middle else low end, \
             case when created_at <= $2 then high else middle end \
         from search, lateral ( \
             select seq as middle, created_at from log where user_id = $1 and seq = (low + high) / 2 limit 1 \
         ) entry where high - low > 1) \
     select entry.*, lots, holds from search, lateral ( \
         select seq, balance as point, created_at as updated_at from log where user_id = $1 and seq = low limit 1 \
     ) entry left join user_point on user_id = $1 and user_point.seq = entry.seq where high - low = 1";

async fn last_until(client: &Client, user: &UserId, time: Timestamp) -> Result<Option<Row>, StoreError> {
    let statement = client.prepare_cached(LAST_UNTIL).await?;
    let time = in_microseconds(time.as_nanosecond());
    Ok(client.query_opt(&statement, &[&user.as_str(), &time]).await?)
}

/// Rounds a time down to a whole microsecond, as the times of the log are.
fn in_microseconds(nanoseconds: i128) -> Timestamp {
    let earlier = nanoseconds - nanoseconds.rem_euclid(1_000);
    Timestamp::from_nanosecond(earlier).unwrap_or(Timestamp::MIN)
}

/// The `seq` of the last entry before a time, or 0 if there is none.
pub(super) async fn last_before(client: &Client, user: &UserId, time: Timestamp) -> Result<i64, StoreError> {
    let until = in_microseconds(time.as_nanosecond() - 1);
    let found = last_until(client, user, until).await?;
    found.map_or(Ok(0), |row| get(&row, "seq"))
}

macro_rules! entries_between {
    ($filter:literal) => {
        concat!(
            "select ",
            entry_columns!(),
            " from log where user_id = $1 and seq > $2 and seq < $3 ",
            $filter,
            " order by seq desc limit $4"
        )
    };
}

const ENTRIES: &str = entries_between!("");
const APPLIED: &str = entries_between!("and reject_reason is null");
const REJECTED: &str = entries_between!("and reject_reason is not null");
const OF_ACTION: &str = entries_between!("and action = $5");
const APPLIED_OF_ACTION: &str = entries_between!("and reject_reason is null and action = $5");
const REJECTED_OF_ACTION: &str = entries_between!("and reject_reason is not null and action = $5");

const NEWEST: &str = "select coalesce(max(seq), 0) as newest from user_point where user_id = $1";

/// The `seq` of a user's last entry, or 0 if there is none.
pub(super) async fn newest(client: &Client, user: &UserId) -> Result<i64, StoreError> {
    let newest = client.prepare_cached(NEWEST).await?;
    get(&client.query_one(&newest, &[&user.as_str()]).await?, "newest")
}

/// The statement of a page, and the most entries that it may search if its index does not find them all.
fn statement(query: &HistoryQuery) -> (&'static str, Option<i64>) {
    match (query.status, query.action) {
        (None, None) => (ENTRIES, None),
        (Some(Status::Rejected), None) => (REJECTED, None),
        (Some(Status::Applied), None) => (APPLIED, Some(APPLIED_SCAN_MAX)),
        (None, Some(_)) => (OF_ACTION, Some(ACTION_SCAN_MAX)),
        (Some(Status::Applied), Some(_)) => (APPLIED_OF_ACTION, Some(ACTION_SCAN_MAX)),
        (Some(Status::Rejected), Some(_)) => (REJECTED_OF_ACTION, Some(ACTION_SCAN_MAX)),
    }
}

/// Reads a page with one look-up in an index, wherever in the log it is.
async fn page(client: &Client, query: &HistoryQuery) -> Result<Page, StoreError> {
    let user = &query.user_id;
    let (after, mut before) = try_join!(
        async {
            match query.from {
                Some(from) => last_before(client, user, from).await,
                None => Ok(0),
            }
        },
        async {
            match query.to {
                Some(to) => Ok(last_before(client, user, to).await? + 1),
                None => Ok(i64::MAX),
            }
        },
    )?;
    before = before.min(query.before.unwrap_or(i64::MAX));
    let mut floor = after;
    let (text, scan_max) = statement(query);
    if let Some(scan_max) = scan_max {
        before = before.min(newest(client, user).await? + 1);
        floor = after.max(before - 1 - scan_max);
    }
    let statement = client.prepare_cached(text).await?;
    // One entry more than the page needs tells whether there is a next page.
    let wanted = i64::from(query.limit) + 1;
    let (user, action) = (user.as_str(), query.action.map(Action::as_str));
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&user, &floor, &before, &wanted];
    parameters.extend(action.as_ref().map(|action| action as &(dyn ToSql + Sync)));
    let rows = client.query(&statement, &parameters).await?;
    let entries = rows.iter().take(query.limit.into()).map(entry);
    let entries: Vec<Entry> = entries.collect::<Result<_, StoreError>>()?;
    let next = if rows.len() > entries.len() {
        entries.last().map(|last| last.seq)
    } else {
        (floor > after).then_some(floor + 1)
    };
    Ok(Page { entries, next })
}
