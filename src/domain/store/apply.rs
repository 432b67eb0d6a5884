//! The apply transaction, from its locks to the statement that writes. Must not contain a rule of the ledger: `decide`
//! decides, and the transaction writes the entries.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use deadpool_postgres::Client;
use jiff::Timestamp;
use tokio::try_join;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{Store, StoreError, account, entry, entry_columns, hold::Hold, user_id};
use crate::domain::{
    Obstacle,
    decide::decide,
    delta::{Delta, Reason, RequestId, UserId},
    entry::{Account, Entry, Outcome, Rejection},
};

/// The longest that a transaction may take before its connection is closed. This is a second more than the session's
/// limit for a statement, so that PostgreSQL reports first that it is slow.
const APPLY_TIMEOUT_MS: u64 = 6_000;

/// What became of a delta in a committed transaction: its outcome, or the obstacle for which it was left out.
pub(in crate::domain) type Decision = Result<Outcome, Obstacle>;

impl Store {
    /// Decides and writes a batch in one transaction: all of it or nothing. The deltas of users whose rows are locked
    /// by another session, or can't be read, are left out.
    pub(in crate::domain) async fn apply(&self, deltas: &[Delta]) -> Result<Vec<Decision>, StoreError> {
        let began = Instant::now();
        let applied = self.with_client(APPLY_TIMEOUT_MS, async |client| apply(client, deltas).await).await;
        match applied {
            // Our own limit does not distinguish a slow server from an unreachable one.
            Err(StoreError::Unavailable(why))
                if began.elapsed() >= Duration::from_millis(APPLY_TIMEOUT_MS) && self.can_apply().await =>
            {
                Err(StoreError::TooSlow { obstacle: Obstacle::Slow, why })
            }
            other => other,
        }
    }
}

const WRITE: &str = concat!(
    "with moved as ( \
         update user_point set point = new.point, seq = new.seq, updated_at = new.updated_at \
         from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[]) \
             as new (user_id, point, seq, updated_at) \
         where user_point.user_id = new.user_id) \
     insert into log (",
    entry_columns!(),
    ", status) \
     select * from unnest($5::bigint[], $6::bigint[], $7::uuid[], $8::text[], $9::bigint[], $10::text[], \
         $11::text[], $12::bigint[], $13::timestamptz[], $14::timestamptz[], $15::text[])"
);

/// Takes two round trips, each pipelined on the connection: the locks and look-ups, then the write and the commit.
async fn apply(client: &Client, deltas: &[Delta]) -> Result<Vec<Decision>, StoreError> {
    let write = client.prepare_cached(WRITE).await?;
    // Reads and writes follow the order of the indexes, so that rows on one page are used while the page is in the
    // cache.
    let mut asked: Vec<(i64, Uuid)> =
        deltas.iter().map(|delta| (delta.user_id.get(), delta.request_id.get())).collect();
    asked.sort_unstable();
    let (asked_users, asked_requests): (Vec<i64>, Vec<Uuid>) = asked.into_iter().unzip();
    let mut users = asked_users.clone();
    users.dedup();

    let held = Hold { users: &users, asked_users: &asked_users, asked_requests: &asked_requests }
        .take(client)
        .await?;
    let mut state = State::of(&users, &held.locked, &held.logged)?;
    let decisions = state.decide(deltas, held.now);
    let outcomes = decisions.iter().flatten();
    let mut entries: Vec<&Entry> = outcomes.filter(|o| !o.replayed).map(|o| &o.entry).collect();
    entries.sort_unstable_by_key(|entry| (entry.delta.user_id, entry.seq));
    let rows = Rows::of(&state.accounts, &entries);
    let parameters = rows.parameters();
    try_join!(biased; client.execute(&write, &parameters), client.batch_execute("commit"))?;
    Ok(decisions)
}

/// The accounts and entries that the transaction has read, and the users it can't decide for.
struct State {
    accounts: HashMap<UserId, Account>,
    known: HashMap<(UserId, RequestId), Entry>,
    obstacles: HashMap<UserId, Obstacle>,
}

impl State {
    /// By now each of `users` has a row. A row that was not locked is locked by another session.
    fn of(users: &[i64], locked: &[Row], logged: &[Row]) -> Result<Self, StoreError> {
        let mut state = Self { accounts: HashMap::new(), known: HashMap::new(), obstacles: HashMap::new() };
        for row in locked {
            let user = user_id(row)?;
            match account(row) {
                Ok(account) => drop(state.accounts.insert(user, account)),
                Err(why) => state.mark_unreadable(user, &why),
            }
        }
        for row in logged {
            match entry(row) {
                Ok((key, entry)) => drop(state.known.insert(key, entry)),
                Err(why) => state.mark_unreadable(user_id(row)?, &why),
            }
        }
        if locked.len() < users.len() {
            for user in users {
                let user = UserId::new("user_id", *user).expect("from a delta");
                if !state.accounts.contains_key(&user) {
                    state.obstacles.entry(user).or_insert(Obstacle::Locked);
                }
            }
        }
        Ok(state)
    }

    fn mark_unreadable(&mut self, user: UserId, why: &StoreError) {
        self.accounts.remove(&user);
        self.obstacles.insert(user, Obstacle::Unreadable(why.to_string()));
    }

    /// Decides the deltas of the users without an obstacle.
    fn decide(&mut self, deltas: &[Delta], now: Timestamp) -> Vec<Decision> {
        let outcomes = if self.obstacles.is_empty() {
            decide(&mut self.accounts, &mut self.known, deltas, now)
        } else {
            let free = deltas.iter().filter(|delta| !self.obstacles.contains_key(&delta.user_id));
            let free: Vec<Delta> = free.cloned().collect();
            decide(&mut self.accounts, &mut self.known, &free, now)
        };
        let mut outcomes = outcomes.into_iter();
        let decisions = deltas.iter().map(|delta| match self.obstacles.get(&delta.user_id) {
            Some(obstacle) => Err(obstacle.clone()),
            None => Ok(outcomes.next().expect("an outcome for each")),
        });
        decisions.collect()
    }
}

/// The columns of a [`WRITE`]: the accounts after the batch, and the new entries.
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
    reject_reasons: Vec<Option<&'a str>>,
    reasons: Vec<Option<&'a str>>,
    balances: Vec<i64>,
    requested_ats: Vec<Timestamp>,
    created_ats: Vec<Timestamp>,
    statuses: Vec<&'a str>,
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
            rows.reject_reasons.push(entry.rejection.as_ref().map(Rejection::as_str));
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
            &self.reject_reasons,
            &self.reasons,
            &self.balances,
            &self.requested_ats,
            &self.created_ats,
            &self.statuses,
        ]
    }
}
