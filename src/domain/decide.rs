//! The decision, a pure function: accounts × deltas → entries. Must not contain I/O, a clock or SQL.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::{
    account::{Account, Moved},
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
    /// The outcome of each delta. [`Change::Expire`](super::Change::Expire) has none.
    pub outcomes: Vec<Option<Outcome>>,
    /// The new entries of expired points and of holds whose time has come, which are in no outcome.
    pub expired: Vec<Arc<Entry>>,
}

/// Decides `deltas` in their order. `accounts` has every account that the deltas name; it is updated, as is `known`. A
/// user's times never go back, even if `now` does: the search for a past balance relies on it.
pub(super) fn decide(
    accounts: &mut Accounts,
    known: &mut Known,
    deltas: &[Delta],
    now: Timestamp,
) -> Decided {
    let mut expired = Vec::new();
    let one = |delta| decide_one(accounts, known, delta, now, &mut expired);
    let outcomes = deltas.iter().map(one).collect();
    Decided { outcomes, expired }
}

/// Ends holds whose time has come and removes expired points, before the change and after it, as far as it has brought
/// them back. So there are none after an entry.
fn decide_one(
    accounts: &mut Accounts,
    known: &mut Known,
    delta: &Delta,
    now: Timestamp,
    expired: &mut Vec<Arc<Entry>>,
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
    let account = accounts.entry(delta.user_id.clone()).or_default();
    expire(account, known, delta, now, expired);
    let verdict = match &first {
        Some(first) => refuse(Rejection::KeyReused, asked(&delta.change), first.request_id),
        None => judge(account, known, delta, now)?,
    };
    if let Ok(moved) = &verdict.change {
        account.moves(moved);
    }
    account.next(now);
    let entry = Entry::of(delta, verdict, (account.seq, account.point), account.updated_at);
    let entry = Arc::new(Entry { request_id, ..entry });
    known.learn(Arc::clone(&entry));
    // Points that have come back may have expired meanwhile.
    expire(account, known, delta, now, expired);
    Some(Outcome { entry, replayed: false, first })
}

/// What is due of the delta's user happens in the order of time: holds end, and expired points leave the balance, lot by
/// lot.
fn expire(
    account: &mut Account,
    known: &mut Known,
    delta: &Delta,
    now: Timestamp,
    expired: &mut Vec<Arc<Entry>>,
) {
    loop {
        let by = account.lots.first().map_or(account.time(now), |lot| lot.min(account.time(now)));
        let entry = if let Some(hold) = account.holds.pop_due(by) {
            account.moves(&Moved::release(&hold));
            account.next(hold.at);
            Entry::of_end(delta, &hold, account, now)
        } else if let Some(lot) = account.lots.pop_due(account.time(now)) {
            account.point -= lot.point;
            account.next(lot.at);
            Entry::of_expiry(delta, lot, account, now)
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
        actor::Actor,
        change::Change,
        delta::{POINTS_MAX, Points},
        lots::{LOTS_MAX, Lots},
    };
    use naive::Naive;

    mod holds;
    mod naive;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn user(id: i64) -> UserId {
        UserId::new("user_id", &id.to_string()).expect("valid")
    }

    /// A delta of a few users and request ids, so that the same id comes again with the same change and with another,
    /// and is reversed, with points near both limits, which expire sooner or later or not at all.
    fn any_delta() -> impl Strategy<Value = Delta> {
        let point = prop_oneof![1..3i64, 1..100i64, POINTS_MAX - 50..=POINTS_MAX];
        let point = point.prop_map(|point| Points::new(point).expect("in range"));
        let id = || (0..40u128).prop_map(|id| RequestId::from(Uuid::from_u128(id)));
        let expired = (1..4i64, 1..20i64).prop_map(|(id, seq)| RequestId::of_expiry(&user(id), seq));
        let request = prop_oneof![9 => id(), 1 => expired];
        let expires_at = prop::option::of((0..60i64).prop_map(second));
        let hold = || (30..40u128).prop_map(|id| RequestId::from(Uuid::from_u128(id)));
        let hold_end = expires_at.clone();
        let change = prop_oneof![
            4 => (point.clone(), expires_at).prop_map(|(point, expires_at)| Change::Add { point, expires_at }),
            4 => (point.clone(), any::<bool>()).prop_map(|(point, partial)| Change::Subtract { point, partial }),
            4 => (request, any::<bool>()).prop_map(|(request, partial)| Change::Reverse { request, partial }),
            4 => (point.clone(), hold_end).prop_map(|(point, expires_at)| Change::Hold { point, expires_at }),
            3 => (hold(), prop::option::of(point)).prop_map(|(hold, point)| Change::Capture { hold, point }),
            2 => hold().prop_map(|hold| Change::Release { hold }),
            1 => Just(Change::Expire),
        ];
        let ids = (id(), hold());
        (1..4i64, ids, change).prop_map(|(user, (request_id, hold), change)| match change {
            Change::Expire => Delta::expiry(self::user(user)),
            // Few ids, so that holds are ended.
            Change::Hold { .. } => Delta { request_id: hold, ..Delta::of(&user.to_string(), change) },
            _ => Delta { request_id, ..Delta::of(&user.to_string(), change) },
        })
    }

    /// Batches, each with the time of its decision: the clock goes on, or jumps back.
    fn any_batches() -> impl Strategy<Value = Vec<(Timestamp, Vec<Delta>)>> {
        prop::collection::vec(((0..60i64).prop_map(second), prop::collection::vec(any_delta(), 0..40)), 0..8)
    }

    /// Decides all batches, and returns the new entries.
    fn decide_all(batches: &[(Timestamp, Vec<Delta>)], accounts: &mut Accounts) -> Vec<Arc<Entry>> {
        let mut known = Known::default();
        let mut entries = Vec::new();
        for (now, batch) in batches {
            let decided = decide(accounts, &mut known, batch, *now);
            entries.extend(decided.outcomes.into_iter().flatten().filter(|o| !o.replayed).map(|o| o.entry));
            entries.extend(decided.expired);
        }
        entries.sort_by_key(|entry| (entry.user_id.clone(), entry.seq));
        entries
    }

    proptest! {
        #[test]
        fn a_batch_comes_to_what_one_at_a_time_comes_to(batches in any_batches()) {
            let (mut naive, mut accounts) = (Naive::default(), HashMap::new());
            for (now, batch) in &batches {
                let (mut known, before) = (naive.looked_up(batch), naive.log.len());
                let expected: Vec<_> = batch.iter().map(|delta| naive.decide(delta, *now)).collect();
                let decided = decide(&mut accounts, &mut known, batch, *now);
                prop_assert_eq!(decided.outcomes, expected);
                let new = naive.log[before..].iter().map(|(_, entry)| Arc::clone(entry));
                let due = new.filter(|entry| entry.actor == Some(Actor::expiry()));
                prop_assert_eq!(decided.expired, due.collect::<Vec<_>>());
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
                        prop_assert!(entry.change == -change || entry.partial && entry.balance == 0);
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
        assert_eq!(decided.expired.len(), 2);
        let lots: &Lots = &accounts[&user(1)].lots;
        assert_eq!(lots.as_slice().len(), LOTS_MAX);
    }
}
