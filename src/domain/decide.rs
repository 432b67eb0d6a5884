//! The decision, a pure function: accounts × deltas → entries. Must not contain I/O, a clock or SQL.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::{
    account::{Account, Moved},
    change::Change,
    delta::Delta,
    entry::{Entry, Outcome, Rejection},
    judge::{asked, judge, refuse},
    known::Known,
    request_id::RequestId,
    user_id::UserId,
};

/// The accounts that the deltas name.
pub(super) type Accounts = HashMap<UserId, Account>;

/// The result of deciding deltas.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// The outcome of each delta. [`Change::Expire`] has none.
    pub outcomes: Vec<Option<Outcome>>,
    /// The new entries that are in no outcome: those of expired points, of holds whose time has come, and of
    /// the other users of transfers.
    pub further: Vec<Arc<Entry>>,
}

/// Decides `deltas` in their order. `accounts` has every account that the deltas name; it is updated, as is `known`. A
/// user's times never go back, even if `now` does: the search for a past balance relies on it.
pub(super) fn decide(
    accounts: &mut Accounts,
    known: &mut Known,
    deltas: &[Delta],
    now: Timestamp,
) -> Decided {
    let mut further = Vec::new();
    let one = |delta| decide_one(accounts, known, delta, now, &mut further);
    let outcomes = deltas.iter().map(one).collect();
    Decided { outcomes, further }
}

/// Ends holds whose time has come and removes expired points, before the change and after it, as far as it has brought
/// them back. So there are none after an entry.
fn decide_one(
    accounts: &mut Accounts,
    known: &mut Known,
    delta: &Delta,
    now: Timestamp,
    further: &mut Vec<Arc<Entry>>,
) -> Option<Outcome> {
    let fingerprint = delta.fingerprint();
    let first = known.entry(&delta.user_id, delta.request_id).cloned();
    let (request_id, first) = match first {
        None => (delta.request_id, None),
        Some(entry) if entry.fingerprint == fingerprint => {
            return Some(Outcome { entry, replayed: true, first: None });
        }
        Some(first) => (reuse(delta), Some(first)),
    };
    if first.is_some()
        && let Some(reused) = known.entry(&delta.user_id, request_id)
    {
        return Some(Outcome { entry: Arc::clone(reused), replayed: true, first });
    }
    let counterparty = if first.is_none() { counterparty(known, delta) } else { None };
    let (account, mut other) = named(accounts, &delta.user_id, counterparty.as_ref());
    let others_time = other.as_ref().map_or(now, |(_, other)| other.time(now));
    let time = account.time(others_time);
    expire(&delta.user_id, account, known, (time, now), further);
    if let Some((user_id, other)) = &mut other {
        expire(user_id, other, known, (time, now), further);
    }
    let verdict = match &first {
        Some(first) => refuse(Rejection::KeyReused, asked(&delta.change), first.request_id),
        None => judge(account, other.as_ref().map(|(_, other)| &**other), known, delta, time)?,
    };
    let mut mirrored = None;
    if let Ok(moved) = &verdict.change {
        account.moves(moved);
        mirrored = other.as_ref().map(|_| moved.mirrored());
    }
    account.next(time);
    let entry = Entry::of(delta, verdict, (account.seq, account.point), time);
    let named = counterparty.clone().or(entry.counterparty);
    let entry = Arc::new(Entry { request_id, counterparty: named, ..entry });
    known.learn(Arc::clone(&entry));
    if let Some(((user_id, other), moved)) = other.as_mut().zip(mirrored) {
        other.moves(&moved);
        other.next(time);
        let entry = Arc::new(entry.mirrored(user_id, other));
        known.learn(Arc::clone(&entry));
        further.push(entry);
        expire(user_id, other, known, (time, now), further);
    }
    // Points that have come back may have expired meanwhile.
    expire(&delta.user_id, account, known, (time, now), further);
    Some(Outcome { entry, replayed: false, first })
}

/// The other user whose balance a delta may change.
pub(super) fn counterparty(known: &Known, delta: &Delta) -> Option<UserId> {
    match &delta.change {
        Change::Add { .. }
        | Change::Subtract { .. }
        | Change::Hold { .. }
        | Change::Capture { .. }
        | Change::Release { .. }
        | Change::Expire => None,
        Change::Transfer { to, .. } => Some(to.clone()),
        Change::Reverse { request, .. } => {
            let original = known.entry(&delta.user_id, *request)?;
            original.counterparty.clone().filter(|_| original.is_reversible())
        }
    }
}

/// The account of a user, and that of another one, if there is one.
fn named<'a>(
    accounts: &'a mut Accounts,
    user_id: &UserId,
    other: Option<&'a UserId>,
) -> (&'a mut Account, Option<(&'a UserId, &'a mut Account)>) {
    let Some(other) = other else { return (accounts.entry(user_id.clone()).or_default(), None) };
    for user_id in [user_id, other] {
        accounts.entry(user_id.clone()).or_default();
    }
    let [account, others] = accounts.get_disjoint_mut([user_id, other]);
    (account.expect("inserted"), others.map(|account| (other, account)))
}

/// Applies what is due by a time, in the order of time: a hold ends, or a lot leaves the balance.
fn expire(
    user_id: &UserId,
    account: &mut Account,
    known: &mut Known,
    (time, now): (Timestamp, Timestamp),
    expired: &mut Vec<Arc<Entry>>,
) {
    loop {
        let by = account.lots.first().map_or(time, |lot| lot.min(time));
        let entry = if let Some(hold) = account.holds.pop_due(by) {
            account.moves(&Moved::release(&hold));
            account.next(hold.at);
            Entry::of_end(user_id, &hold, account, now)
        } else if let Some(lot) = account.lots.pop_due(time) {
            account.point -= lot.point;
            account.next(lot.at);
            Entry::of_expiry(user_id, lot, account, now)
        } else {
            break;
        };
        let entry = Arc::new(entry);
        known.learn(Arc::clone(&entry));
        expired.push(entry);
    }
}

/// The id of a delta's `key_reused` entry: its request id belongs to another change.
pub(super) fn reuse(delta: &Delta) -> RequestId {
    delta.request_id.of_reuse(delta.fingerprint())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        delta::{POINTS_MAX, Points},
        lots::{LOTS_MAX, Lots},
    };
    use naive::Naive;
    use random::{any_batches, decide_all, second, user};

    mod holds;
    mod naive;
    mod random;

    proptest! {
        #[test]
        fn a_batch_comes_to_what_one_at_a_time_comes_to(batches in any_batches()) {
            let (mut naive, mut accounts) = (Naive::default(), HashMap::new());
            for (now, batch) in &batches {
                let (mut known, before) = (naive.looked_up(batch), naive.log.len());
                let expected: Vec<_> = batch.iter().map(|delta| naive.decide(delta, *now)).collect();
                let decided = decide(&mut accounts, &mut known, batch, *now);
                let told: Vec<Arc<Entry>> =
                    expected.iter().flatten().map(|outcome| Arc::clone(&outcome.entry)).collect();
                prop_assert_eq!(decided.outcomes, expected);
                let mut new: Vec<_> = naive.log[before..].iter().map(|(_, entry)| Arc::clone(entry)).collect();
                new.retain(|entry| !told.contains(entry));
                prop_assert_eq!(decided.further, new);
            }
            for (user, account) in accounts {
                prop_assert_eq!(account.point, naive.balance(&user));
                prop_assert_eq!(account.lots, naive.lots(&user));
                prop_assert_eq!(account.holds, naive.holds(&user));
            }
        }

        #[test]
        fn a_balance_is_what_was_added_less_what_was_taken_and_what_has_expired(batches in any_batches()) {
            let mut accounts = HashMap::new();
            let (mut sums, mut last) = (HashMap::new(), HashMap::<_, (i64, Timestamp)>::new());
            for entry in decide_all(&batches, &mut accounts) {
                let sum: &mut i64 = sums.entry(entry.user_id.clone()).or_default();
                *sum += entry.change;
                prop_assert_eq!(*sum, entry.balance);
                prop_assert!((0..=POINTS_MAX).contains(&entry.balance));
                let (seq, time) = last.entry(entry.user_id.clone()).or_default();
                prop_assert!(entry.seq == *seq + 1 && entry.created_at >= *time);
                if entry.action == "expire" {
                    prop_assert_eq!(entry.expires_at.map(|at| at.max(*time)), Some(entry.created_at));
                }
                (*seq, *time) = (entry.seq, entry.created_at);
            }
            for (user, account) in accounts {
                prop_assert_eq!(account.point, sums.remove(&user).unwrap_or_default());
                prop_assert!(account.lots.due(Timestamp::MAX) <= account.point);
                prop_assert!(account.due().is_none_or(|first| first > account.updated_at));
            }
        }

        #[test]
        fn a_change_is_reversed_at_most_once_and_by_no_more_than_it_was(batches in any_batches()) {
            let is_about_holds = |entry: &Entry| ["capture", "release"].contains(&&*entry.action);
            let entries = decide_all(&batches, &mut HashMap::new());
            let mut changes = HashMap::new();
            for entry in entries.into_iter().filter(|entry| entry.rejection.is_none()) {
                // A capture has taken what was held before.
                let change = if entry.action == "capture" { -entry.point } else { entry.change };
                match entry.ended().filter(|_| !is_about_holds(&entry)) {
                    None => drop(changes.insert((entry.user_id.clone(), entry.request_id), change)),
                    Some(request) => {
                        let change = changes.remove(&(entry.user_id.clone(), request)).expect("a change");
                        prop_assert!(entry.change * change.signum() < 0 && entry.change.abs() <= change.abs());
                        let is_all = entry.balance == 0 || entry.counterparty.is_some();
                        prop_assert!(entry.change == -change || entry.partial && is_all);
                    }
                }
            }
        }
    }

    #[test]
    fn a_user_has_a_limited_number_of_lots() {
        let many = i64::try_from(LOTS_MAX).expect("small");
        let add = |at| {
            Delta::of(
                "1",
                Change::Add { point: Points::new(2).expect("in range"), expires_at: Some(second(at)) },
            )
        };
        let take = |point| {
            Delta::of("1", Change::Subtract { point: Points::new(point).expect("in range"), partial: false })
        };
        let undo =
            |delta: &Delta| Delta::of("1", Change::Reverse { request: delta.request_id, partial: false });
        let (one, two) = (take(2), take(1));
        let mut deltas: Vec<Delta> = (1..=many).map(|at| add(10 * at)).collect();
        deltas.extend([add(15), add(20), one.clone(), add(25), add(35), undo(&one), two.clone(), undo(&two)]);
        let (mut accounts, mut known) = (HashMap::new(), Known::default());
        let rejections = |decided: &Decided| {
            let outcomes = decided.outcomes.iter().flatten();
            outcomes.map(|outcome| outcome.entry.rejection.clone()).collect::<Vec<_>>()
        };
        let decided = decide(&mut accounts, &mut known, &deltas, second(5));
        let rejected = rejections(&decided);
        let (first, last) = rejected.split_at(LOTS_MAX);
        assert!(first.iter().all(Option::is_none));
        let full = Some(Rejection::LotLimit);
        assert_eq!(last, [full.clone(), None, None, None, full.clone(), full, None, None]);
        // What has expired meanwhile needs no place: the lot of 20, and what comes back to the lot of 10.
        let decided = decide(&mut accounts, &mut known, &[add(905), add(15), undo(&one)], second(20));
        assert_eq!(rejections(&decided), [None, Some(Rejection::Expired), None]);
        assert_eq!(decided.further.len(), 2);
        let lots: &Lots = &accounts[&user(1)].lots;
        assert_eq!(lots.as_slice().len(), LOTS_MAX);
    }
}
