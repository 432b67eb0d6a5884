//! The decision, a pure function: accounts × deltas → entries. Must not contain I/O, a clock or SQL.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::{
    change::{Action, Change},
    delta::{Delta, POINTS_MAX, Points},
    entry::{Account, Entry, Outcome, Rejection, Verdict},
    known::Known,
    request_id::RequestId,
    user_id::UserId,
};

/// The accounts that the deltas name.
pub(super) type Accounts = HashMap<UserId, Account>;

/// Decides `deltas` in their order and returns an outcome for each. `accounts` has every account that the deltas name;
/// it is updated, as is `known`. A user's times never go back, even if `now` does: the search for a past balance relies
/// on it.
pub(super) fn decide(
    accounts: &mut Accounts,
    known: &mut Known,
    deltas: &[Delta],
    now: Timestamp,
) -> Vec<Outcome> {
    deltas.iter().map(|delta| decide_one(accounts, known, delta, now)).collect()
}

fn decide_one(accounts: &mut Accounts, known: &mut Known, delta: &Delta, now: Timestamp) -> Outcome {
    let fingerprint = delta.fingerprint();
    let first = known.entry(&delta.user_id, delta.request_id).cloned();
    let (request_id, first) = match first {
        None => (delta.request_id, None),
        Some(entry) if entry.fingerprint == fingerprint => {
            return Outcome { entry, replayed: true, first: None };
        }
        Some(first) => (reuse(delta), Some(first)),
    };
    if first.is_some()
        && let Some(reused) = known.entry(&delta.user_id, request_id)
    {
        return Outcome { entry: Arc::clone(reused), replayed: true, first };
    }
    let account = accounts.entry(delta.user_id.clone()).or_default();
    let verdict = match &first {
        Some(first) => refuse(Rejection::KeyReused, asked(&delta.change), first.request_id),
        None => judge(account, known, delta),
    };
    account.point += verdict.change.as_ref().unwrap_or(&0);
    account.seq += 1;
    account.updated_at = account.updated_at.max(now);
    let entry = Entry::of(delta, verdict, (account.seq, account.point), account.updated_at);
    let entry = Arc::new(Entry { request_id, ..entry });
    known.learn(Arc::clone(&entry));
    Outcome { entry, replayed: false, first }
}

/// The id of a delta's `key_reused` entry: its request id belongs to another change.
pub(super) fn reuse(delta: &Delta) -> RequestId {
    delta.request_id.of_reuse(delta.fingerprint())
}

/// One arm for each action.
fn judge(account: &Account, known: &Known, delta: &Delta) -> Verdict {
    let alone = |change| Verdict { point: asked(&delta.change), reference: None, change };
    match &delta.change {
        Change::Add(point) => alone(give(account, point.get())),
        Change::Subtract { point, partial } => alone(take(account, point.get(), *partial)),
        Change::Reverse { request, partial } => reverse(account, known, &delta.user_id, (*request, *partial)),
    }
}

/// How many points a change asks for by itself.
fn asked(change: &Change) -> i64 {
    change.point().map_or(0, Points::get)
}

fn refuse(why: Rejection, point: i64, reference: RequestId) -> Verdict {
    Verdict { point, reference: Some(reference), change: Err(why) }
}

/// Gives back what the request took, or takes what it gave.
fn reverse(
    account: &Account,
    known: &Known,
    user_id: &UserId,
    (request, partial): (RequestId, bool),
) -> Verdict {
    let Some(original) = known.entry(user_id, request) else {
        return refuse(Rejection::UnknownRequest, 0, request);
    };
    let point = original.change.abs();
    if original.rejection.is_some() || !original.known_action().is_some_and(Action::is_reversible) {
        return refuse(Rejection::NotReversible, point, request);
    }
    if let Some(reversal) = known.reversal(user_id, request) {
        return refuse(Rejection::AlreadyReversed, point, reversal.request_id);
    }
    let change = if original.change < 0 { give(account, point) } else { take(account, point, partial) };
    Verdict { point, reference: Some(request), change }
}

fn give(account: &Account, point: i64) -> Result<i64, Rejection> {
    if account.point > POINTS_MAX - point { Err(Rejection::BalanceLimit) } else { Ok(point) }
}

/// Takes less than `point` only if there is less, and a part is enough.
fn take(account: &Account, point: i64, partial: bool) -> Result<i64, Rejection> {
    match account.point {
        enough if enough >= point => Ok(-point),
        rest if partial && rest > 0 => Ok(-rest),
        _ => Err(Rejection::InsufficientPoints),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// A delta of a few users and request ids, so that the same id comes again with the same change and with another,
    /// and is reversed, with points near both limits.
    fn any_delta() -> impl Strategy<Value = Delta> {
        let point = prop_oneof![1..3i64, 1..100i64, POINTS_MAX - 50..=POINTS_MAX];
        let point = point.prop_map(|point| Points::new(point).expect("in range"));
        let id = || (0..40u128).prop_map(|id| RequestId::from(Uuid::from_u128(id)));
        let change = prop_oneof![
            point.clone().prop_map(Change::Add),
            (point, any::<bool>()).prop_map(|(point, partial)| Change::Subtract { point, partial }),
            (id(), any::<bool>()).prop_map(|(request, partial)| Change::Reverse { request, partial }),
        ];
        (1..4i64, id(), change).prop_map(|(user, request_id, change)| Delta {
            request_id,
            ..Delta::of(&user.to_string(), change)
        })
    }

    /// A log in the order in which it was written, each entry with the change that was asked for.
    type Log = Vec<(Change, Arc<Entry>)>;

    /// The same rules in a slow implementation: a user's log is a list, and the balance is its sum.
    fn naive(log: &mut Log, delta: &Delta) -> Outcome {
        let of_user: Vec<&(Change, Arc<Entry>)> =
            log.iter().filter(|(_, entry)| entry.user_id == delta.user_id).collect();
        let entry_of = |id: RequestId| of_user.iter().find(|(_, entry)| entry.request_id == id);
        let is_reuse = |entry: &Entry| {
            entry.rejection == Some(Rejection::KeyReused) && entry.reference == Some(delta.request_id)
        };
        let first = entry_of(delta.request_id);
        let other = first.filter(|(change, _)| *change != delta.change).map(|(_, entry)| Arc::clone(entry));
        let again = of_user.iter().find(|(change, entry)| *change == delta.change && is_reuse(entry));
        if let Some((_, entry)) = first.filter(|(change, _)| *change == delta.change).or(again) {
            return Outcome { entry: Arc::clone(entry), replayed: true, first: other };
        }
        let balance = of_user.iter().map(|(_, entry)| entry.change).sum();
        let original = delta.change.request().and_then(entry_of);
        let verdict = naive_verdict(delta.change, balance, original, &of_user);
        let verdict = match &other {
            Some(first) => Verdict {
                point: delta.change.point().map_or(0, Points::get),
                reference: Some(first.request_id),
                change: Err(Rejection::KeyReused),
            },
            None => verdict,
        };
        let seq = i64::try_from(of_user.len()).expect("short") + 1;
        let after = balance + verdict.change.as_ref().unwrap_or(&0);
        let request_id = if other.is_some() { reuse(delta) } else { delta.request_id };
        let entry = Entry::of(delta, verdict, (seq, after), Timestamp::UNIX_EPOCH);
        let entry = Arc::new(Entry { request_id, ..entry });
        log.push((delta.change, Arc::clone(&entry)));
        Outcome { entry, replayed: false, first: other }
    }

    fn naive_verdict(
        change: Change,
        balance: i64,
        original: Option<&&(Change, Arc<Entry>)>,
        of_user: &[&(Change, Arc<Entry>)],
    ) -> Verdict {
        let (wanted, partial, reference) = match change {
            Change::Add(point) => (point.get(), false, None),
            Change::Subtract { point, partial } => (-point.get(), partial, None),
            Change::Reverse { request, partial } => {
                (-original.map_or(0, |(_, entry)| entry.change), partial, Some(request))
            }
        };
        let undoes = |entry: &Entry| {
            entry.action == "reverse" && entry.rejection.is_none() && entry.reference == reference
        };
        let reversal = of_user.iter().find(|(_, entry)| undoes(entry)).filter(|_| reference.is_some());
        let is_undoable =
            |(change, entry): &&&(Change, Arc<Entry>)| change.request().is_none() && entry.change != 0;
        let verdict = |change| Verdict { point: wanted.abs(), reference, change };
        match (reference, original) {
            (Some(_), None) => verdict(Err(Rejection::UnknownRequest)),
            (Some(_), original) if !original.as_ref().is_some_and(is_undoable) => {
                verdict(Err(Rejection::NotReversible))
            }
            _ if reversal.is_some() => {
                let reference = reversal.map(|(_, first)| first.request_id);
                Verdict { reference, ..verdict(Err(Rejection::AlreadyReversed)) }
            }
            _ if wanted > POINTS_MAX - balance => verdict(Err(Rejection::BalanceLimit)),
            _ if balance + wanted >= 0 => verdict(Ok(wanted)),
            _ if partial && balance > 0 => verdict(Ok(-balance)),
            _ => verdict(Err(Rejection::InsufficientPoints)),
        }
    }

    /// What the store looks up in the log for `deltas`.
    fn looked_up(log: &Log, deltas: &[Delta]) -> Known {
        let mut known = Known::default();
        for delta in deltas {
            let of_user = log.iter().filter(|(_, entry)| entry.user_id == delta.user_id);
            let ids = [Some(delta.request_id), Some(reuse(delta)), delta.change.request()];
            let is_asked = |entry: &Entry| {
                ids.contains(&Some(entry.request_id)) || entry.reversed().is_some_and(|id| ids[2] == Some(id))
            };
            of_user
                .filter(|(_, entry)| is_asked(entry))
                .for_each(|(_, entry)| known.learn(Arc::clone(entry)));
        }
        known
    }

    proptest! {
        #[test]
        fn a_batch_comes_to_what_one_at_a_time_comes_to(
            deltas in prop::collection::vec(any_delta(), 0..120), cut in 0..120usize
        ) {
            let (mut log, mut accounts) = (Log::new(), HashMap::new());
            let (first, second) = deltas.split_at(cut.min(deltas.len()));
            for batch in [first, second] {
                let mut known = looked_up(&log, batch);
                let expected: Vec<Outcome> = batch.iter().map(|delta| naive(&mut log, delta)).collect();
                let outcomes = decide(&mut accounts, &mut known, batch, Timestamp::UNIX_EPOCH);
                prop_assert_eq!(outcomes, expected);
            }
        }

        #[test]
        fn a_balance_stays_within_its_limits(deltas in prop::collection::vec(any_delta(), 0..120)) {
            let outcomes = decide(&mut HashMap::new(), &mut Known::default(), &deltas, Timestamp::UNIX_EPOCH);
            prop_assert!(outcomes.iter().all(|o| (0..=POINTS_MAX).contains(&o.entry.balance)));
        }

        #[test]
        fn a_change_is_reversed_at_most_once_and_by_no_more_than_it_was(
            deltas in prop::collection::vec(any_delta(), 0..120)
        ) {
            let outcomes = decide(&mut HashMap::new(), &mut Known::default(), &deltas, Timestamp::UNIX_EPOCH);
            let entries = outcomes.into_iter().filter(|o| !o.replayed).map(|o| o.entry);
            let mut changes = HashMap::new();
            for entry in entries.filter(|entry| entry.rejection.is_none()) {
                match entry.reversed() {
                    None => drop(changes.insert((entry.user_id.clone(), entry.request_id), entry.change)),
                    Some(request) => {
                        let change = changes.remove(&(entry.user_id.clone(), request)).expect("a change");
                        prop_assert!(entry.change * change.signum() < 0 && entry.change.abs() <= change.abs());
                        prop_assert!(entry.change == -change || entry.partial && entry.balance == 0);
                    }
                }
            }
        }
    }
}
