//! The apply transaction, from its locks to the statement that writes. Must not contain a rule of the ledger: `decide`
//! decides, and the transaction writes the entries.

use std::{
    collections::HashMap,
    convert::identity,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::join;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    FORMAT_MAX, LOGGED, Store, StoreError, account, entry, get,
    lock::{Lock, counterparties, users_and_requests},
    rows::{Rows, WRITE},
    user_id,
};
use crate::domain::{
    Obstacle,
    change::Action,
    decide::{Accounts, Decided, counterparty, decide, reuse},
    delta::Delta,
    entry::{Entry, Outcome},
    known::Known,
    user_id::UserId,
};
use crate::infra::postgres::Client;

/// The longest that a transaction may take before its connection is closed. This is a second more than the session's
/// limit for a statement, so that PostgreSQL reports first that it is slow.
const APPLY_TIMEOUT_MS: u64 = 6_000;

/// What became of a delta in a committed transaction: its outcome, or the obstacle for which it was left out.
/// [`Change::Expire`](crate::domain::Change::Expire) has no outcome.
pub(in crate::domain) type Decision = Result<Option<Outcome>, Obstacle>;

/// A committed transaction.
pub(in crate::domain) struct Applied {
    /// What became of each delta.
    pub(in crate::domain) decisions: Vec<Decision>,
    /// The number of entries of expired points.
    pub(in crate::domain) expired: usize,
    /// The number of holds that were released because their time ran out.
    pub(in crate::domain) ended_holds: usize,
}

/// Removes the rows of users who have no entry.
const FORGET: &str = "delete from user_point where user_id = any($1) and seq = 0";

impl Store {
    /// Decides and writes a batch in one transaction: all of it or nothing. The deltas of users whose rows are locked
    /// by another session, or can't be read, are left out.
    pub(in crate::domain) async fn apply(&self, deltas: &[Delta]) -> Result<Applied, StoreError> {
        self.can_commit().await?;
        let began = Instant::now();
        let applied = self.with_client(APPLY_TIMEOUT_MS, async |client| match apply(client, deltas).await {
            Ok(ended) => Ok(ended),
            Err(error) => {
                // The session is of use again once its transaction has ended.
                let has_ended = client.batch_execute("rollback").await.is_ok();
                if has_ended && error.may_be_of_one_delta() { Ok(Err(error)) } else { Err(error) }
            }
        });
        match applied.await.and_then(identity) {
            Err(StoreError::Unavailable(why)) => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                // Our own limit does not distinguish a slow server from an unreachable one.
                let is_late = began.elapsed() >= Duration::from_millis(APPLY_TIMEOUT_MS);
                if is_late && self.can_apply().await {
                    return Err(StoreError::TooSlow { obstacle: Obstacle::Slow, why });
                }
                Err(StoreError::Unavailable(why))
            }
            other => other,
        }
    }
}

/// Takes two round trips, each pipelined on the connection: the locks and look-ups, then the write and the commit. If a
/// request id is known with another change, it takes one more. The outer error leaves the transaction open.
async fn apply(client: &Client, deltas: &[Delta]) -> Result<Result<Applied, StoreError>, StoreError> {
    let write = client.prepare_cached(WRITE).await?;
    let (mut users, asked) = users_and_requests(deltas);
    let comes_twice = asked.windows(2).any(|pair| pair[0] == pair[1]);
    let (asked_users, asked_requests): (Vec<&str>, Vec<Uuid>) = asked.into_iter().unzip();
    let referred = deltas.iter().filter_map(|delta| Some((&delta.user_id, delta.change.about()?)));
    let (referred_users, referred_requests): (Vec<&str>, Vec<Uuid>) =
        referred.map(|(user_id, request)| (user_id.as_str(), request.get())).unzip();
    let counterparties = counterparties(client, deltas).await?;
    let others = deltas.iter().filter_map(|delta| delta.change.to()).chain(&counterparties);
    let others: Vec<&str> = others.map(UserId::as_str).collect();
    let waits = !others.is_empty();
    if waits {
        users.extend(others);
        users.sort_unstable();
        users.dedup();
    }

    let lock = Lock {
        users: &users,
        asked_users: &asked_users,
        asked_requests: &asked_requests,
        referred_users: &referred_users,
        referred_requests: &referred_requests,
        waits,
    };
    let held = lock.take(client).await?;
    let mut state = State::of(&held.rows)?;
    state.learn(&held.logged)?;
    state.learn_referred(&held.referred)?;
    let may_be_reused = comes_twice || !held.logged.is_empty();
    let reused = if may_be_reused { state.reused(deltas) } else { Vec::new() };
    if !reused.is_empty() {
        let (users, requests): (Vec<&str>, Vec<Uuid>) = reused.into_iter().unzip();
        let logged = client.prepare_cached(LOGGED).await?;
        state.learn(&client.query(&logged, &[&users, &requests]).await?)?;
    }
    let is_complete = held.rows.len() == users.len() && referred_users.is_empty();
    let (decisions, further) = state.decide(deltas, is_complete, held.now);
    let outcomes = decisions.iter().flatten().flatten();
    let mut entries: Vec<&Entry> = outcomes.filter(|o| !o.replayed).map(|o| o.entry.as_ref()).collect();
    entries.extend(further.iter().map(AsRef::as_ref));
    entries.sort_unstable_by_key(|entry| (&entry.user_id, entry.seq));
    let rows = Rows::of(&state.accounts, &entries);
    let parameters = rows.parameters();
    let unused: Vec<&str> = if waits { state.unused().map(UserId::as_str).collect() } else { Vec::new() };
    let forget = async { if unused.is_empty() { Ok(0) } else { client.execute(FORGET, &[&unused]).await } };
    // This writes every locked row and commits, even if all requests are known and there is no entry to write. The
    // commit that wrote those entries may be visible here but on no standby, because its answer was lost. This commit
    // follows it in the WAL, so a standby that has confirmed this one has both. After an error, it ends the transaction.
    let (written, forgotten, ended) =
        join!(biased; client.execute(&write, &parameters), forget, client.batch_execute("commit"));
    if let Err(error) = written.and(forgotten).and(ended) {
        return Ok(Err(error.into()));
    }
    let count = |action| further.iter().filter(|entry| entry.known_action() == Some(action)).count();
    Ok(Ok(Applied { decisions, expired: count(Action::Expire), ended_holds: count(Action::Release) }))
}

/// The accounts and entries that the transaction has read, and what is wrong with other users' rows.
struct State {
    accounts: Accounts,
    known: Known,
    obstacles: HashMap<UserId, Obstacle>,
}

impl State {
    fn of(locked: &[Row]) -> Result<Self, StoreError> {
        let mut state = Self { accounts: HashMap::new(), known: Known::default(), obstacles: HashMap::new() };
        for row in locked {
            let user = user_id(row)?;
            let format: i16 = get(row, "format")?;
            match account(row) {
                _ if format > FORMAT_MAX => {
                    let what = format!("the user's row has format {format}");
                    state.obstacles.insert(user, Obstacle::Newer(what));
                }
                Ok(account) => drop(state.accounts.insert(user, account)),
                Err(why) => state.mark_unreadable(user, &why),
            }
        }
        Ok(state)
    }

    /// Adds entries of the log.
    fn learn(&mut self, logged: &[Row]) -> Result<(), StoreError> {
        for row in logged {
            match entry(row) {
                Ok(entry) => self.known.learn(Arc::new(entry)),
                Err(why) => self.mark_unreadable(user_id(row)?, &why),
            }
        }
        Ok(())
    }

    /// Adds the entries that deltas are about. Only the version that knows an applied action knows how to undo it.
    fn learn_referred(&mut self, referred: &[Row]) -> Result<(), StoreError> {
        for row in referred {
            match entry(row) {
                Ok(entry) if entry.rejection.is_none() && entry.known_action().is_none() => {
                    let what = format!("the user's log entry {} has the action {}", entry.seq, entry.action);
                    self.accounts.remove(&entry.user_id);
                    self.obstacles.entry(entry.user_id).or_insert(Obstacle::Newer(what));
                }
                Ok(entry) => self.known.learn(Arc::new(entry)),
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
            let known = self.known.entry(&delta.user_id, delta.request_id);
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

    /// Decides the deltas of the users without an obstacle. Returns the further entries as well. `is_complete` if the
    /// rows of all users whom the deltas name are locked.
    fn decide(
        &mut self,
        deltas: &[Delta],
        is_complete: bool,
        now: Timestamp,
    ) -> (Vec<Decision>, Vec<Arc<Entry>>) {
        let left_out =
            if is_complete && self.obstacles.is_empty() { HashMap::new() } else { self.left_out(deltas) };
        let Decided { outcomes, further } = if left_out.is_empty() {
            decide(&mut self.accounts, &mut self.known, deltas, now)
        } else {
            let free = deltas.iter().filter(|delta| !left_out.contains_key(&delta.user_id));
            let free: Vec<Delta> = free.cloned().collect();
            decide(&mut self.accounts, &mut self.known, &free, now)
        };
        let mut outcomes = outcomes.into_iter();
        let decisions = deltas.iter().map(|delta| match left_out.get(&delta.user_id) {
            Some(obstacle) => Err(obstacle.clone()),
            None => Ok(outcomes.next().expect("an outcome for each")),
        });
        (decisions.collect(), further)
    }

    /// The users whose deltas can't be decided, each with the obstacle: its own, or that of another user whom one of the
    /// deltas names. By now each user has a row. A row that was not locked is locked by another session.
    fn left_out(&self, deltas: &[Delta]) -> HashMap<UserId, Obstacle> {
        let mut left_out = HashMap::new();
        for delta in deltas {
            let other = counterparty(&self.known, delta);
            let missing = [Some(&delta.user_id), other.as_ref()]
                .into_iter()
                .flatten()
                .find(|user| !self.accounts.contains_key(*user));
            if let Some(user) = missing {
                let obstacle = match self.obstacles.get(user).cloned().unwrap_or(Obstacle::Locked) {
                    Obstacle::Unreadable(why) if *user != delta.user_id => {
                        Obstacle::Unreadable(format!("user {user}: {why}"))
                    }
                    obstacle => obstacle,
                };
                left_out.entry(delta.user_id.clone()).or_insert(obstacle);
            }
        }
        left_out
    }

    /// The users whose rows were created for transfers that were then rejected.
    fn unused(&self) -> impl Iterator<Item = &UserId> {
        self.accounts.iter().filter(|(_, account)| account.seq == 0).map(|(user, _)| user)
    }
}
