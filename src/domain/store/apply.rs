//! The apply transaction, from its locks to the statement that writes. Must not contain a rule of the ledger: `decide`
//! decides, and the transaction writes the entries.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::Client;
use jiff::Timestamp;
use tokio::try_join;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{FORMAT_MAX, LOGGED, Store, StoreError, account, entry, entry_columns, get, hold::Hold, user_id};
use crate::domain::{
    Obstacle,
    actor::Actor,
    decide::{Accounts, Known, decide, reuse},
    delta::{Delta, Reason},
    entry::{Entry, Outcome, Rejection},
    metadata::Metadata,
    request_id::RequestId,
    user_id::UserId,
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
         from unnest($1::text[], $2::bigint[], $3::bigint[], $4::timestamptz[]) \
             as new (user_id, point, seq, updated_at) \
         where user_point.user_id = new.user_id) \
     insert into log (",
    entry_columns!(),
    ") \
     select * from unnest($5::text[], $6::bigint[], $7::uuid[], $8::text[], $9::bigint[], $10::bigint[], \
         $11::bigint[], $12::text[], $13::uuid[], $14::bigint[], $15::text[], $16::text[], $17::text[], \
         $18::timestamptz[], $19::timestamptz[], $20::boolean[])"
);

/// Takes two round trips, each pipelined on the connection: the locks and look-ups, then the write and the commit. If a
/// request id is known with another change, it takes one more.
async fn apply(client: &Client, deltas: &[Delta]) -> Result<Vec<Decision>, StoreError> {
    let write = client.prepare_cached(WRITE).await?;
    // Reads and writes follow the order of the indexes, so that rows on one page are used while the page is in the
    // cache.
    let mut asked: Vec<(&str, Uuid)> =
        deltas.iter().map(|delta| (delta.user_id.as_str(), delta.request_id.get())).collect();
    asked.sort_unstable();
    let (asked_users, asked_requests): (Vec<&str>, Vec<Uuid>) = asked.into_iter().unzip();
    let mut users = asked_users.clone();
    users.dedup();

    let held = Hold { users: &users, asked_users: &asked_users, asked_requests: &asked_requests }
        .take(client)
        .await?;
    let mut state = State::of(deltas, users.len(), &held.locked)?;
    state.learn(&held.logged)?;
    let reused = state.reused(deltas);
    if !reused.is_empty() {
        let (users, requests): (Vec<&str>, Vec<Uuid>) = reused.into_iter().unzip();
        let logged = client.prepare_cached(LOGGED).await?;
        state.learn(&client.query(&logged, &[&users, &requests]).await?)?;
    }
    let decisions = state.decide(deltas, held.now);
    let outcomes = decisions.iter().flatten();
    let mut entries: Vec<&Entry> = outcomes.filter(|o| !o.replayed).map(|o| o.entry.as_ref()).collect();
    entries.sort_unstable_by_key(|entry| (&entry.user_id, entry.seq));
    let rows = Rows::of(&state.accounts, &entries);
    let parameters = rows.parameters();
    try_join!(biased; client.execute(&write, &parameters), client.batch_execute("commit"))?;
    Ok(decisions)
}

/// The accounts and entries that the transaction has read, and the users it can't decide for.
struct State {
    accounts: Accounts,
    known: Known,
    obstacles: HashMap<UserId, Obstacle>,
}

impl State {
    /// By now each of the `users` of `deltas` has a row. A row that was not locked is locked by another session.
    fn of(deltas: &[Delta], users: usize, locked: &[Row]) -> Result<Self, StoreError> {
        let mut state = Self { accounts: HashMap::new(), known: HashMap::new(), obstacles: HashMap::new() };
        for row in locked {
            let user = user_id(row)?;
            let format: i16 = get(row, "format")?;
            match account(row) {
                _ if format > FORMAT_MAX => drop(state.obstacles.insert(user, Obstacle::Newer(format))),
                Ok(account) => drop(state.accounts.insert(user, account)),
                Err(why) => state.mark_unreadable(user, &why),
            }
        }
        if locked.len() < users {
            for user in deltas.iter().map(|delta| &delta.user_id) {
                if !state.accounts.contains_key(user) {
                    state.obstacles.entry(user.clone()).or_insert(Obstacle::Locked);
                }
            }
        }
        Ok(state)
    }

    /// Adds entries of the log.
    fn learn(&mut self, logged: &[Row]) -> Result<(), StoreError> {
        for row in logged {
            match entry(row) {
                Ok(entry) => {
                    drop(self.known.insert((entry.user_id.clone(), entry.request_id), Arc::new(entry)));
                }
                Err(why) => self.mark_unreadable(user_id(row)?, &why),
            }
        }
        Ok(())
    }

    /// The ids of the entries that say that a request id came with another change, as far as `deltas` may need them:
    /// the id is known, or comes twice, with different changes.
    fn reused<'a>(&self, deltas: &'a [Delta]) -> Vec<(&'a str, Uuid)> {
        let mut first = HashMap::with_capacity(deltas.len());
        let mut reused = Vec::new();
        for delta in deltas {
            let (key, fingerprint) = ((&delta.user_id, delta.request_id), delta.fingerprint());
            let known = self.known.get(&(delta.user_id.clone(), delta.request_id));
            let first = *first.entry(key).or_insert_with(|| known.map_or(fingerprint, |e| e.fingerprint));
            if first != fingerprint {
                reused.push((delta.user_id.as_str(), reuse(delta).get()));
            }
        }
        reused
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
    users: Vec<&'a str>,
    points: Vec<i64>,
    seqs: Vec<i64>,
    updated_ats: Vec<Timestamp>,
    user_ids: Vec<&'a str>,
    entry_seqs: Vec<i64>,
    request_ids: Vec<Uuid>,
    actions: Vec<&'a str>,
    asked_points: Vec<i64>,
    changes: Vec<i64>,
    balances: Vec<i64>,
    actors: Vec<Option<&'a str>>,
    references: Vec<Option<Uuid>>,
    fingerprints: Vec<i64>,
    reject_reasons: Vec<Option<&'a str>>,
    reasons: Vec<Option<&'a str>>,
    metadata: Vec<Option<&'a str>>,
    requested_ats: Vec<Timestamp>,
    created_ats: Vec<Timestamp>,
    /// Ends with the last entry that has a value: `unnest` fills the shorter arrays up with nulls.
    partials: Vec<Option<bool>>,
}

impl<'a> Rows<'a> {
    fn of(accounts: &'a Accounts, entries: &[&'a Entry]) -> Self {
        let mut rows = Self::default();
        for (user, account) in accounts {
            rows.users.push(user.as_str());
            rows.points.push(account.point);
            rows.seqs.push(account.seq);
            rows.updated_ats.push(account.updated_at);
        }
        for (index, entry) in entries.iter().enumerate() {
            rows.user_ids.push(entry.user_id.as_str());
            rows.entry_seqs.push(entry.seq);
            rows.request_ids.push(entry.request_id.get());
            rows.actions.push(&entry.action);
            rows.asked_points.push(entry.point);
            rows.changes.push(entry.change);
            rows.balances.push(entry.balance);
            rows.actors.push(entry.actor.as_ref().map(Actor::as_str));
            rows.references.push(entry.reference.map(RequestId::get));
            rows.fingerprints.push(entry.fingerprint.get());
            rows.reject_reasons.push(entry.rejection.as_ref().map(Rejection::as_str));
            rows.reasons.push(entry.reason.as_ref().map(Reason::as_str));
            rows.metadata.push(entry.metadata.as_ref().map(Metadata::as_str));
            rows.requested_ats.push(entry.requested_at);
            rows.created_ats.push(entry.created_at);
            if entry.partial {
                rows.partials.resize(index, None);
                rows.partials.push(Some(true));
            }
        }
        rows
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 20] {
        [
            &self.users,
            &self.points,
            &self.seqs,
            &self.updated_ats,
            &self.user_ids,
            &self.entry_seqs,
            &self.request_ids,
            &self.actions,
            &self.asked_points,
            &self.changes,
            &self.balances,
            &self.actors,
            &self.references,
            &self.fingerprints,
            &self.reject_reasons,
            &self.reasons,
            &self.metadata,
            &self.requested_ats,
            &self.created_ats,
            &self.partials,
        ]
    }
}
