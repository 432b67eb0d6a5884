//! The decision, a pure function: accounts × deltas → entries. Must not contain I/O, a clock or SQL.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{
    delta::{Action, Delta, POINTS_MAX, RequestId, UserId},
    entry::{Account, Entry, Outcome, Rejection},
};

/// Decides `deltas` in their order and returns one outcome per delta. `accounts` holds every user of the batch and is
/// updated; `logged` holds the entries of request ids that were decided earlier. A user's times never go back, even if
/// `now` does: the search for a past balance relies on it.
pub(super) fn decide(
    accounts: &mut HashMap<UserId, Account>,
    logged: &mut HashMap<(UserId, RequestId), Entry>,
    deltas: &[Delta],
    now: Timestamp,
) -> Vec<Outcome> {
    deltas
        .iter()
        .map(|delta| {
            let key = (delta.user_id, delta.request_id);
            if let Some(entry) = logged.get(&key) {
                return Outcome { entry: entry.clone(), replayed: true };
            }
            let account = accounts.entry(delta.user_id).or_default();
            let rejection = move_on(account, delta);
            account.updated_at = account.updated_at.max(now);
            let entry = Entry {
                delta: delta.clone(),
                seq: account.seq,
                rejection,
                balance: account.point,
                created_at: account.updated_at,
            };
            logged.insert(key, entry.clone());
            Outcome { entry, replayed: false }
        })
        .collect()
}

fn move_on(account: &mut Account, delta: &Delta) -> Option<Rejection> {
    account.seq += 1;
    let point = delta.point.get();
    let (changed, rejection) = match delta.action {
        Action::Add => (account.point + point, Rejection::BalanceLimit),
        Action::Subtract => (account.point - point, Rejection::InsufficientPoints),
    };
    if !(0..=POINTS_MAX).contains(&changed) {
        return Some(rejection);
    }
    account.point = changed;
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::delta::Points;

    /// A delta of a few users and request ids, so that duplicates happen, with points near both limits.
    fn any_delta() -> impl Strategy<Value = Delta> {
        let point = prop_oneof![1..100i64, POINTS_MAX - 50..=POINTS_MAX];
        (1..4i64, 0..40u128, any::<bool>(), point).prop_map(|(user, request, add, point)| Delta {
            request_id: Uuid::from_u128(request).into(),
            user_id: UserId::new("user_id", user).expect("positive"),
            action: if add { Action::Add } else { Action::Subtract },
            point: Points::new(point).expect("in range"),
            reason: None,
            requested_at: Timestamp::UNIX_EPOCH,
            traceparent: None,
        })
    }

    /// The same rules in a slow implementation: a user's log is a list, and the balance is its sum.
    fn naive(log: &mut Vec<Entry>, delta: &Delta) -> Outcome {
        let of_user: Vec<&Entry> = log.iter().filter(|e| e.delta.user_id == delta.user_id).collect();
        if let Some(first) = of_user.iter().find(|e| e.delta.request_id == delta.request_id) {
            return Outcome { entry: (*first).clone(), replayed: true };
        }
        let applied = of_user.iter().filter(|e| e.rejection.is_none());
        let balance: i128 = applied.map(|e| signed(&e.delta)).sum();
        let after = balance + signed(delta);
        let rejection = match after {
            i128::MIN..0 => Some(Rejection::InsufficientPoints),
            _ if after > i128::from(POINTS_MAX) => Some(Rejection::BalanceLimit),
            _ => None,
        };
        let entry = Entry {
            delta: delta.clone(),
            seq: i64::try_from(of_user.len()).expect("short") + 1,
            balance: i64::try_from(if rejection.is_some() { balance } else { after }).expect("in range"),
            rejection,
            created_at: Timestamp::UNIX_EPOCH,
        };
        log.push(entry.clone());
        Outcome { entry, replayed: false }
    }

    fn signed(delta: &Delta) -> i128 {
        match delta.action {
            Action::Add => i128::from(delta.point.get()),
            Action::Subtract => -i128::from(delta.point.get()),
        }
    }

    proptest! {
        #[test]
        fn a_batch_comes_to_what_one_at_a_time_comes_to(
            deltas in prop::collection::vec(any_delta(), 0..120), cut in 0..120usize
        ) {
            let mut log = Vec::new();
            let expected: Vec<Outcome> = deltas.iter().map(|delta| naive(&mut log, delta)).collect();
            let (mut accounts, mut logged) = (HashMap::new(), HashMap::new());
            let (first, second) = deltas.split_at(cut.min(deltas.len()));
            let mut outcomes = decide(&mut accounts, &mut logged, first, Timestamp::UNIX_EPOCH);
            outcomes.extend(decide(&mut accounts, &mut logged, second, Timestamp::UNIX_EPOCH));
            prop_assert_eq!(outcomes, expected);
        }

        #[test]
        fn a_balance_stays_within_its_limits(deltas in prop::collection::vec(any_delta(), 0..120)) {
            let outcomes = decide(&mut HashMap::new(), &mut HashMap::new(), &deltas, Timestamp::UNIX_EPOCH);
            prop_assert!(outcomes.iter().all(|o| (0..=POINTS_MAX).contains(&o.entry.balance)));
        }
    }
}
