//! Every SQL statement on our tables, and what a failure of one means. Private to the domain; no rule of
//! the ledger may enter: `settle` decides, this writes it down.

use std::{collections::HashMap, time::Duration};

use deadpool_postgres::{Client, Object, Pool, PoolError};
use futures_util::future::try_join_all;
use jiff::Timestamp;
use tokio::{time::timeout, try_join};
use tokio_postgres::{Row, error::SqlState, types::ToSql};
use uuid::Uuid;

use super::{
    delta::{Action, Delta, Points, Reason, RequestId, UserId},
    settle::{Account, Entry, Outcome, Rejection, settle},
};

mod read;

/// The longest that one transaction may take before its connection is given up.
const APPLY_TIMEOUT_MS: u64 = 6_000;

/// What a failed statement means for the deltas in hand.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The database can't be used now: try again later, with the same deltas.
    #[error("PostgreSQL is not available: {0}")]
    Unavailable(String),
    /// Two transactions met: try again at once.
    #[error("PostgreSQL asks for another try: {0}")]
    Conflict(String),
    /// The database will never take this batch.
    #[error("PostgreSQL refuses: {0}")]
    Refused(String),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        // The message alone: a DETAIL may quote a customer's row.
        let Some(refusal) = error.as_db_error() else { return Self::Unavailable(error.to_string()) };
        let text = format!("{} ({})", refusal.message(), refusal.code().code());
        match refusal.code() {
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => Self::Conflict(text),
            // Data exceptions, broken constraints, and what a trigger raises; the rest is the server's state.
            state if ["22", "23", "P0"].contains(&&state.code()[..2]) => Self::Refused(text),
            _ => Self::Unavailable(text),
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::Unavailable(Self::from(error).to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// The tables of one database.
#[derive(Clone)]
pub(super) struct Store {
    pool: Pool,
}

impl Store {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Decides and writes a batch in one transaction; all of it or nothing.
    pub(super) async fn apply(&self, deltas: &[Delta]) -> Result<Vec<Outcome>, StoreError> {
        self.with_client(APPLY_TIMEOUT_MS, async |client| apply(client, deltas).await).await
    }

    /// Lends a connection for at most `limit_ms`. One that failed is closed, which ends its transaction;
    /// where the server can't be used, so are the idle ones, which are likely to be dead as well.
    async fn with_client<T>(
        &self,
        limit_ms: u64,
        work: impl AsyncFnOnce(&Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let result = match self.pool.get().await {
            Ok(client) => {
                let late = || StoreError::Unavailable(format!("no answer within {limit_ms} ms"));
                let done = timeout(Duration::from_millis(limit_ms), work(&client)).await;
                let result = done.unwrap_or_else(|_| Err(late()));
                if result.is_err() {
                    drop(Object::take(client));
                }
                result
            }
            Err(error) => Err(error.into()),
        };
        if matches!(result, Err(StoreError::Unavailable(_))) {
            self.pool.retain(|_, _| false);
        }
        result
    }
}

const CREATE: &str = "insert into user_point (user_id) select unnest($1::bigint[]) on conflict do nothing";

const LOCK: &str = "select user_id, point, seq, updated_at from user_point where user_id = any($1) \
     order by user_id for update";

const LOGGED: &str = "select user_id, seq, request_id, action, point, reject_reason, reason, balance, \
     requested_at, created_at \
     from unnest($1::bigint[], $2::uuid[]) as asked (user_id, request_id) join log using (user_id, request_id)";

const NOW: &str = "select clock_timestamp()";

const WRITE: &str = "with moved as ( \
         update user_point set point = new.point, seq = new.seq, updated_at = new.updated_at \
         from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[]) \
             as new (user_id, point, seq, updated_at) \
         where user_point.user_id = new.user_id) \
     insert into log (user_id, seq, request_id, action, point, status, reject_reason, reason, balance, \
         requested_at, created_at) \
     select * from unnest($5::bigint[], $6::bigint[], $7::uuid[], $8::text[], $9::bigint[], $10::text[], \
         $11::text[], $12::text[], $13::bigint[], $14::timestamptz[], $15::timestamptz[])";

/// Two round trips: locks and what is known, then the decision; each is pipelined on the connection. Users who
/// are new take one more.
async fn apply(client: &Client, deltas: &[Delta]) -> Result<Vec<Outcome>, StoreError> {
    let [create, lock, logged, now, write]: [_; 5] =
        try_join_all([CREATE, LOCK, LOGGED, NOW, WRITE].map(|sql| client.prepare_cached(sql)))
            .await?
            .try_into()
            .expect("as many statements as texts");
    // In the order of the indexes, here and where entries are written: then what is on one page is found there while
    // the page is at hand.
    let mut asked: Vec<(i64, Uuid)> =
        deltas.iter().map(|delta| (delta.user_id.get(), delta.request_id.get())).collect();
    asked.sort_unstable();
    let (asked_users, asked_requests): (Vec<i64>, Vec<Uuid>) = asked.into_iter().unzip();
    let mut users = asked_users.clone();
    users.dedup();

    // Everyone locks in the order of the ids, so nobody waits in a circle: where a user is new, all locks are given
    // up before the next try. In READ COMMITTED a statement sees what was committed before it began: what is
    // logged is asked once the locks are held. `biased` polls in the order of the lines, which is then the order
    // on the wire.
    let of_users: [&(dyn ToSql + Sync); 1] = [&users];
    let of_requests: [&(dyn ToSql + Sync); 2] = [&asked_users, &asked_requests];
    let hold = async |begin, new_users: bool| {
        try_join!(
            biased;
            client.batch_execute(begin),
            async { if new_users { client.execute(&create, &of_users).await } else { Ok(0) } },
            client.query(&lock, &of_users),
            client.query(&logged, &of_requests),
            client.query_one(&now, &[]),
        )
    };
    let mut first = hold("begin", false).await?;
    if first.2.len() < users.len() {
        first = hold("rollback; begin", true).await?;
    }
    let (.., locked, logged, now) = first;
    let mut accounts = locked.iter().map(account).collect::<Result<HashMap<_, _>, _>>()?;
    let mut known = logged.iter().map(entry).collect::<Result<HashMap<_, _>, _>>()?;

    let outcomes = settle(&mut accounts, &mut known, deltas, now.try_get(0)?);
    let mut entries: Vec<&Entry> = outcomes.iter().filter(|o| !o.replayed).map(|o| &o.entry).collect();
    entries.sort_unstable_by_key(|entry| (entry.delta.user_id, entry.seq));
    let rows = Rows::of(&accounts, &entries);
    let parameters = rows.parameters();
    try_join!(biased; client.execute(&write, &parameters), client.batch_execute("commit"))?;
    Ok(outcomes)
}

/// The columns of a [`WRITE`]: the accounts as they stand now, and the new entries.
#[derive(Default)]
struct Rows<'a> {
    users: Vec<i64>,
    points: Vec<i64>,
    seqs: Vec<i64>,
    updated_ats: Vec<Timestamp>,
    user_ids: Vec<i64>,
    entry_seqs: Vec<i64>,
    request_ids: Vec<Uuid>,
    actions: Vec<&'a str>,
    deltas: Vec<i64>,
    statuses: Vec<&'a str>,
    reject_reasons: Vec<Option<&'a str>>,
    reasons: Vec<Option<&'a str>>,
    balances: Vec<i64>,
    requested_ats: Vec<Timestamp>,
    created_ats: Vec<Timestamp>,
}

impl<'a> Rows<'a> {
    fn of(accounts: &HashMap<UserId, Account>, entries: &[&'a Entry]) -> Self {
        let mut rows = Self::default();
        for (user, account) in accounts {
            rows.users.push(user.get());
            rows.points.push(account.point);
            rows.seqs.push(account.seq);
            rows.updated_ats.push(account.updated_at);
        }
        for entry in entries {
            rows.user_ids.push(entry.delta.user_id.get());
            rows.entry_seqs.push(entry.seq);
            rows.request_ids.push(entry.delta.request_id.get());
            rows.actions.push(entry.delta.action.as_str());
            rows.deltas.push(entry.delta.point.get());
            rows.statuses.push(entry.status().as_str());
            rows.reject_reasons.push(entry.rejection.map(Rejection::as_str));
            rows.reasons.push(entry.delta.reason.as_ref().map(Reason::as_str));
            rows.balances.push(entry.balance);
            rows.requested_ats.push(entry.delta.requested_at);
            rows.created_ats.push(entry.created_at);
        }
        rows
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 15] {
        [
            &self.users,
            &self.points,
            &self.seqs,
            &self.updated_ats,
            &self.user_ids,
            &self.entry_seqs,
            &self.request_ids,
            &self.actions,
            &self.deltas,
            &self.statuses,
            &self.reject_reasons,
            &self.reasons,
            &self.balances,
            &self.requested_ats,
            &self.created_ats,
        ]
    }
}

fn user_id(row: &Row) -> Result<UserId, StoreError> {
    UserId::new("user_id", row.try_get(0)?).map_err(corrupt)
}

fn account(row: &Row) -> Result<(UserId, Account), StoreError> {
    let (point, seq, updated_at) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    Ok((user_id(row)?, Account { point, seq, updated_at }))
}

fn entry(row: &Row) -> Result<((UserId, RequestId), Entry), StoreError> {
    let request_id = RequestId::from(row.try_get::<_, Uuid>(2)?);
    let reject_reason: Option<&str> = row.try_get(5)?;
    let delta = Delta {
        request_id,
        user_id: user_id(row)?,
        action: Action::parse(row.try_get(3)?).ok_or_else(|| corrupt("unknown action"))?,
        point: Points::new(row.try_get(4)?).map_err(corrupt)?,
        reason: row.try_get::<_, Option<String>>(6)?.map(Reason::new).transpose().map_err(corrupt)?,
        requested_at: row.try_get(8)?,
        traceparent: None,
    };
    let rejection =
        reject_reason.map(|why| Rejection::parse(why).ok_or_else(|| corrupt("unknown rejection")));
    let entry = Entry {
        seq: row.try_get(1)?,
        rejection: rejection.transpose()?,
        balance: row.try_get(7)?,
        created_at: row.try_get(9)?,
        delta,
    };
    Ok(((entry.delta.user_id, request_id), entry))
}

/// A row that our constraints do not allow: somebody changed the tables by hand.
fn corrupt(why: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("a row breaks the rules of its table: {why}"))
}
