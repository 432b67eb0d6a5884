//! The first half of an apply transaction: locks the users' rows and looks up the request ids. Must not contain a rule
//! of the ledger, or a write to it except the rows of new users.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use tokio::try_join;
use tokio_postgres::{Row, Statement, error::SqlState, types::ToSql};
use uuid::Uuid;

use super::{LOGGED, StoreError, entry_columns, get, logged};
use crate::domain::{change::Change, delta::Delta, user_id::UserId};
use crate::infra::postgres::Client;

/// The longest time for creating users one by one. The remaining users count as locked and are tried again later.
const CREATE_TIME_MAX_MS: u64 = 300;

/// Inserts only users that have no row: for the others it would wait until their rows are unlocked.
const CREATE: &str = "insert into user_point (user_id) select asked.user_id \
     from (select unnest($1::text[]) as user_id) as asked \
     where not exists (select from user_point where user_point.user_id = asked.user_id) \
     order by asked.user_id collate \"C\" on conflict do nothing";

/// Limits the wait for another session that has inserted the same user and not committed yet. It stays until the end of
/// the transaction, which then waits only for locks on whole tables.
const WAIT_BRIEFLY: &str = "set local lock_timeout = '50ms'";

/// As above, for each of the users once it is known that one is stuck.
const WAIT_BARELY: &str = "set local lock_timeout = '5ms'";

/// Locks rows, or waits for them.
macro_rules! lock {
    () => {
        "select user_id, point, seq, updated_at, format, lots, holds from user_point where user_id = any($1) \
         order by user_id for update"
    };
}

/// Skips rows that another session has locked, so that a user locked for long does not delay other users.
const LOCK: &str = concat!(lock!(), " skip locked");

/// Waits for rows that another session has locked: a user to whom many others transfer points is locked most of the
/// time, but each time only for one transaction.
const LOCK_ALL: &str = lock!();

/// Limits the wait for each row. If a user is locked for longer, the transaction begins again and skips locked rows.
const BEGIN_AND_WAIT: &str = "begin; set local lock_timeout = '100ms'";

/// The entries of requests, and what has ended these. The `limit` makes the planner look up each request in the index of
/// endings. As long as it takes that for empty, it would otherwise read all of it.
pub(super) const REFERRED: &str = concat!(
    logged!(),
    " union all select entry.* from (select unnest($1::text[]) as user_id, unnest($2::uuid[]) as request_id) as asked, \
     lateral (select ",
    entry_columns!(),
    " from log where log.user_id = asked.user_id and log.ref = asked.request_id \
         and action in ('reverse', 'capture', 'release') and reject_reason is null limit 1) as entry"
);

/// The other users of the transfers among requests.
const COUNTERPARTIES: &str = "select counterparty \
     from (select unnest($1::text[]) as user_id, unnest($2::uuid[]) as request_id) as asked \
     join log using (user_id, request_id) where counterparty is not null";

pub(super) const NOW: &str = "select clock_timestamp() as now";

/// The users and requests of a transaction: each user once, and each request with its user, in the order of the index.
pub(super) struct Lock<'a> {
    pub(super) users: &'a [&'a str],
    pub(super) asked_users: &'a [&'a str],
    pub(super) asked_requests: &'a [Uuid],
    /// The requests that the deltas are about, each with its user.
    pub(super) referred_users: &'a [&'a str],
    pub(super) referred_requests: &'a [Uuid],
    /// Whether to wait for users whom another transaction has locked.
    pub(super) waits: bool,
}

/// The rows that the transaction has locked and read.
pub(super) struct Locked {
    /// The rows of the users, except those that another session has locked.
    pub(super) rows: Vec<Row>,
    /// The entries of the known requests.
    pub(super) logged: Vec<Row>,
    /// The entries of the requests that the deltas are about, and what has ended these.
    pub(super) referred: Vec<Row>,
    /// The database's clock.
    pub(super) now: Timestamp,
}

impl Lock<'_> {
    /// Begins a transaction. If users are new, or locked by another session, it takes one more round trip.
    pub(super) async fn take(&self, client: &Client) -> Result<Locked, StoreError> {
        let [create, free, logged, now] = prepared(client, [CREATE, LOCK, LOGGED, NOW]).await?;
        let referred =
            if self.referred_users.is_empty() { None } else { Some(client.prepare_cached(REFERRED).await?) };
        let lock_all = if self.waits { Some(client.prepare_cached(LOCK_ALL).await?) } else { None };
        // There are no deadlocks: rows that others have locked are skipped, or locked in the order of the ids like
        // those of all transactions that wait, and all transactions create users in that order. Where a transaction
        // waits for a row while it has created users, the limit of the wait ends what could be one. In READ COMMITTED,
        // a statement sees what was committed before it began, so the log is read after the locks are taken. `biased`
        // polls in the order of the lines, which is then the order on the wire.
        let of_users: [&(dyn ToSql + Sync); 1] = [&self.users];
        let of_requests: [&(dyn ToSql + Sync); 2] = [&self.asked_users, &self.asked_requests];
        let of_referred: [&(dyn ToSql + Sync); 2] = [&self.referred_users, &self.referred_requests];
        let lock = async |begin: &str, lock: &Statement, new_users: bool| {
            let ((), _, locked, logged, referred, now) = try_join!(
                biased;
                client.batch_execute(begin),
                async { if new_users { client.execute(&create, &of_users).await } else { Ok(0) } },
                client.query(lock, &of_users),
                client.query(&logged, &of_requests),
                async {
                    match &referred {
                        Some(referred) => client.query(referred, &of_referred).await,
                        None => Ok(Vec::new()),
                    }
                },
                client.query_one(&now, &[]),
            )?;
            Ok((locked, logged, referred, now))
        };
        let mut held = match &lock_all {
            None => lock("begin", &free, false).await?,
            Some(all) => match lock(BEGIN_AND_WAIT, all, false).await {
                Err(error) if is_locked(&error) => lock("rollback; begin", &free, false).await?,
                held => held?,
            },
        };
        if held.0.len() < self.users.len() {
            held = match lock(WAIT_BRIEFLY, &free, true).await {
                Err(error) if is_locked(&error) => {
                    client.batch_execute(&format!("rollback; begin; {WAIT_BARELY}")).await?;
                    self.create_each(client, &create, &held.0).await?;
                    lock(WAIT_BRIEFLY, &free, false).await?
                }
                held => held?,
            };
        }
        let (rows, logged, referred, now) = held;
        Ok(Locked { rows, logged, referred, now: now.try_get("now")? })
    }

    /// Creates the users that are not `there`, one by one, except users that another session is creating.
    async fn create_each(
        &self,
        client: &Client,
        create: &Statement,
        there: &[Row],
    ) -> Result<(), StoreError> {
        let there: HashSet<&str> =
            there.iter().map(|row| row.try_get("user_id")).collect::<Result<_, _>>()?;
        let began = Instant::now();
        for user in self.users.iter().filter(|user| !there.contains(*user)) {
            if began.elapsed() > Duration::from_millis(CREATE_TIME_MAX_MS) {
                break;
            }
            let user = std::slice::from_ref(user);
            let of_user: [&(dyn ToSql + Sync); 1] = [&user];
            let created = try_join!(
                biased;
                client.batch_execute("savepoint before_user"),
                client.execute(create, &of_user),
                client.batch_execute("release before_user"),
            );
            match created {
                Err(error) if is_locked(&error) => {
                    client.batch_execute("rollback to before_user").await?;
                }
                created => created.map(drop)?,
            }
        }
        Ok(())
    }
}

/// The users of a batch, and the request ids that the log may have. Reads and writes follow the order of the indexes, so
/// that rows on one page are used while the page is in the cache.
pub(super) fn users_and_requests(deltas: &[Delta]) -> (Vec<&str>, Vec<(&str, Uuid)>) {
    // No request asks for expiry, so the log never has the id of such a delta.
    let is_requested = |delta: &&Delta| delta.change != Change::Expire;
    let requested = deltas.iter().filter(is_requested);
    let mut asked: Vec<(&str, Uuid)> =
        requested.map(|delta| (delta.user_id.as_str(), delta.request_id.get())).collect();
    asked.sort_unstable();
    let mut users: Vec<&str> = asked.iter().map(|(user, _)| *user).collect();
    if asked.len() < deltas.len() {
        users = deltas.iter().map(|delta| delta.user_id.as_str()).collect();
        users.sort_unstable();
    }
    users.dedup();
    (users, asked)
}

/// The other users of the transfers that `deltas` reverse. A transfer that is not committed yet is not found.
pub(super) async fn counterparties(client: &Client, deltas: &[Delta]) -> Result<Vec<UserId>, StoreError> {
    let reversed = deltas.iter().filter_map(|delta| Some((&delta.user_id, delta.change.request()?)));
    let (users, requests): (Vec<&str>, Vec<Uuid>) =
        reversed.map(|(user_id, request)| (user_id.as_str(), request.get())).unzip();
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let statement = client.prepare_cached(COUNTERPARTIES).await?;
    let rows = client.query(&statement, &[&users, &requests]).await?;
    // An id that is damaged makes its entry unreadable, once that is read.
    let ids = rows.iter().map(|row| get::<String>(row, "counterparty"));
    let ids: Vec<String> = ids.collect::<Result<_, _>>()?;
    Ok(ids.iter().filter_map(|id| UserId::new("counterparty", id).ok()).collect())
}

fn is_locked(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

async fn prepared<const N: usize>(client: &Client, texts: [&str; N]) -> Result<[Statement; N], StoreError> {
    let statements = try_join_all(texts.map(|sql| client.prepare_cached(sql))).await?;
    Ok(statements.try_into().expect("as many statements as texts"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delta::Points;

    #[test]
    fn expiry_locks_its_user_and_looks_up_no_request() {
        let add = || Change::Add { point: Points::new(1).expect("in range"), expires_at: None };
        let deltas = [("3", Change::Expire), ("2", add()), ("1", Change::Expire), ("3", add()), ("2", add())];
        let deltas = deltas.map(|(user, change)| Delta::of(user, change));
        let (users, asked) = users_and_requests(&deltas);
        assert_eq!(users, ["1", "2", "3"]);
        assert_eq!(asked.iter().map(|(user, _)| *user).collect::<Vec<_>>(), ["2", "2", "3"]);
        let (users, asked) = users_and_requests(&deltas[..1]);
        assert_eq!((users, asked), (vec!["3"], vec![]));
        assert_eq!(users_and_requests(&deltas[3..]).0, ["2", "3"]);
    }
}
