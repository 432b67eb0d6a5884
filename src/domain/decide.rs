//! The decision, a pure function: accounts × deltas → entries. Must not contain I/O, a clock or SQL.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::{
    change::Change,
    delta::{Delta, POINTS_MAX},
    entry::{Account, Entry, Outcome, Rejection},
    request_id::RequestId,
    user_id::UserId,
};

/// The accounts that the deltas name.
pub(super) type Accounts = HashMap<UserId, Account>;

/// The entries of the request ids that are known, and of [`reuse`] of those that are known with another change.
pub(super) type Known = HashMap<(UserId, RequestId), Arc<Entry>>;

/// What a delta comes to: by how many points the balance changes, or why it does not.
type Verdict = Result<i64, Rejection>;

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
    let key = |request_id| (delta.user_id.clone(), request_id);
    let first = known.get(&key(delta.request_id)).cloned();
    let (request_id, first) = match first {
        None => (delta.request_id, None),
        Some(entry) if entry.fingerprint == fingerprint => {
            return Outcome { entry, replayed: true, first: None };
        }
        Some(first) => (reuse(delta), Some(first)),
    };
    if first.is_some()
        && let Some(reused) = known.get(&key(request_id))
    {
        return Outcome { entry: Arc::clone(reused), replayed: true, first };
    }
    let account = accounts.entry(delta.user_id.clone()).or_default();
    let verdict = if first.is_some() { Err(Rejection::KeyReused) } else { judge(account, &delta.change) };
    account.point += verdict.as_ref().unwrap_or(&0);
    account.seq += 1;
    account.updated_at = account.updated_at.max(now);
    let entry = Entry::of(delta, verdict, (account.seq, account.point), account.updated_at);
    let reference = first.as_ref().map(|first| first.request_id);
    let entry = Arc::new(Entry { request_id, reference, ..entry });
    known.insert(key(request_id), Arc::clone(&entry));
    Outcome { entry, replayed: false, first }
}

/// The id of the entry that a delta comes to if its request id is known with another change.
pub(super) fn reuse(delta: &Delta) -> RequestId {
    delta.request_id.of_reuse(delta.fingerprint())
}

/// One arm for each action.
fn judge(account: &Account, change: &Change) -> Verdict {
    match change {
        Change::Add(point) => give(account, point.get()),
        Change::Subtract { point, partial } => take(account, point.get(), *partial),
    }
}

fn give(account: &Account, point: i64) -> Verdict {
    if account.point > POINTS_MAX - point { Err(Rejection::BalanceLimit) } else { Ok(point) }
}

/// Takes less than `point` only if there is less, and a part is enough.
fn take(account: &Account, point: i64, partial: bool) -> Verdict {
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
    use crate::domain::delta::Points;

    /// A delta of a few users and request ids, so that the same id comes again with the same change and with another,
    /// with points near both limits.
    fn any_delta() -> impl Strategy<Value = Delta> {
        let point = prop_oneof![1..3i64, 1..100i64, POINTS_MAX - 50..=POINTS_MAX];
        (1..4i64, 0..40u128, 0..3u8, point).prop_map(|(user, request, kind, point)| {
            let point = Points::new(point).expect("in range");
            let change = match kind {
                0 => Change::Add(point),
                kind => Change::Subtract { point, partial: kind == 1 },
            };
            Delta { request_id: Uuid::from_u128(request).into(), ..Delta::of(&user.to_string(), change) }
        })
    }

    /// The same rules in a slow implementation: a user's log is a list, and the balance is its sum.
    fn naive(log: &mut Vec<Arc<Entry>>, delta: &Delta) -> Outcome {
        let of_user: Vec<&Arc<Entry>> = log.iter().filter(|e| e.user_id == delta.user_id).collect();
        let change = (delta.change.action().as_str(), delta.change.point().get(), delta.change.is_partial());
        let first = of_user.iter().find(|e| e.request_id == delta.request_id);
        let same = |entry: &&&Arc<Entry>| (entry.action.as_ref(), entry.point, entry.partial) == change;
        let is_again = |entry: &&&Arc<Entry>| entry.reference == Some(delta.request_id) && same(entry);
        let other = first.filter(|entry| !same(entry)).map(|entry| Arc::clone(entry));
        if let Some(entry) = first.filter(same).or_else(|| of_user.iter().find(is_again)) {
            return Outcome { entry: Arc::clone(entry), replayed: true, first: other };
        }
        let balance: i128 = of_user.iter().map(|e| i128::from(e.change)).sum();
        let wanted = match delta.change {
            Change::Add(point) => i128::from(point.get()),
            Change::Subtract { point, partial: false } => -i128::from(point.get()),
            Change::Subtract { point, partial: true } if balance == 0 => -i128::from(point.get()),
            Change::Subtract { point, partial: true } => -balance.min(i128::from(point.get())),
        };
        let after = balance + wanted;
        let rejection = match after {
            _ if first.is_some() => Some(Rejection::KeyReused),
            i128::MIN..0 => Some(Rejection::InsufficientPoints),
            _ if after > i128::from(POINTS_MAX) => Some(Rejection::BalanceLimit),
            _ => None,
        };
        let after = if rejection.is_some() { balance } else { after };
        let verdict = rejection.map_or(Ok(i64::try_from(wanted).expect("in range")), Err);
        let at = (i64::try_from(of_user.len()).expect("short") + 1, i64::try_from(after).expect("in range"));
        let entry = Arc::new(Entry {
            request_id: if first.is_some() { reuse(delta) } else { delta.request_id },
            reference: first.map(|_| delta.request_id),
            ..Entry::of(delta, verdict, at, Timestamp::UNIX_EPOCH)
        });
        log.push(Arc::clone(&entry));
        Outcome { entry, replayed: false, first: other }
    }

    proptest! {
        #[test]
        fn a_batch_comes_to_what_one_at_a_time_comes_to(
            deltas in prop::collection::vec(any_delta(), 0..120), cut in 0..120usize
        ) {
            let mut log = Vec::new();
            let expected: Vec<Outcome> = deltas.iter().map(|delta| naive(&mut log, delta)).collect();
            let (mut accounts, mut known) = (HashMap::new(), HashMap::new());
            let (first, second) = deltas.split_at(cut.min(deltas.len()));
            let mut outcomes = decide(&mut accounts, &mut known, first, Timestamp::UNIX_EPOCH);
            outcomes.extend(decide(&mut accounts, &mut known, second, Timestamp::UNIX_EPOCH));
            prop_assert_eq!(outcomes, expected);
        }

        #[test]
        fn a_balance_stays_within_its_limits(deltas in prop::collection::vec(any_delta(), 0..120)) {
            let outcomes = decide(&mut HashMap::new(), &mut HashMap::new(), &deltas, Timestamp::UNIX_EPOCH);
            prop_assert!(outcomes.iter().all(|o| (0..=POINTS_MAX).contains(&o.entry.balance)));
        }
    }
}
