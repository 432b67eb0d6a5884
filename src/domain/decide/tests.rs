//! The decision by properties, and its limits. Must not contain I/O.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::{
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
    // Two users never have the same request id, unless one has received points by it.
    let id =
        |user: i64, id: u128| RequestId::from(Uuid::from_u128(u128::from(user.cast_unsigned()) << 64 | id));
    let expired = (1..4i64, 1..20i64).prop_map(|(id, seq)| RequestId::of_expiry(&user(id), seq));
    let any_id = (1..4i64, 0..40u128).prop_map(move |(user, number)| id(user, number));
    let request = prop_oneof![9 => any_id, 1 => expired];
    let expires_at = prop::option::of((0..60i64).prop_map(second));
    // Few ids, so that holds are ended.
    let hold = move || (1..4i64, 30..40u128).prop_map(move |(user, number)| id(user, number));
    let hold_end = expires_at.clone();
    let change = prop_oneof![
        4 => (point.clone(), expires_at).prop_map(|(point, expires_at)| Change::Add { point, expires_at }),
        4 => (point.clone(), any::<bool>()).prop_map(|(point, partial)| Change::Subtract { point, partial }),
        4 => (request, any::<bool>()).prop_map(|(request, partial)| Change::Reverse { request, partial }),
        4 => (1..4i64, point.clone()).prop_map(|(to, point)| Change::Transfer { to: user(to), point }),
        4 => (point.clone(), hold_end).prop_map(|(point, expires_at)| Change::Hold { point, expires_at }),
        3 => (hold(), prop::option::of(point)).prop_map(|(hold, point)| Change::Capture { hold, point }),
        2 => hold().prop_map(|hold| Change::Release { hold }),
        1 => Just(Change::Expire),
    ];
    let numbers = (0..40u128, 30..40u128);
    (1..4i64, numbers, change).prop_map(move |(user, (number, few), change)| {
        let of =
            |number, change| Delta { request_id: id(user, number), ..Delta::of(&user.to_string(), change) };
        match change {
            Change::Expire => Delta::expiry(self::user(user)),
            Change::Hold { .. } => of(few, change),
            // Nobody's points go to their owner: they are then added.
            Change::Transfer { to, point } if to == self::user(user) => {
                of(number, Change::Add { point, expires_at: None })
            }
            _ => of(number, change),
        }
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
        entries.extend(decided.further);
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
        Delta::of("1", Change::Add { point: Points::new(2).expect("in range"), expires_at: Some(second(at)) })
    };
    let take = |point| {
        Delta::of("1", Change::Subtract { point: Points::new(point).expect("in range"), partial: false })
    };
    let undo = |delta: &Delta| Delta::of("1", Change::Reverse { request: delta.request_id, partial: false });
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
