//! What is held: it is never lost, ends once, and always has room to return. Must not contain I/O.

use super::*;
use crate::domain::{account::Account, holds::HOLDS_MAX};

proptest! {
    #[test]
    fn what_a_user_has_is_what_was_added_less_what_was_taken_captured_and_expired(batches in any_batches()) {
        let mut accounts = HashMap::new();
        let (mut held, mut had) = (HashMap::<_, i64>::new(), HashMap::<_, i64>::new());
        let mut open = HashMap::new();
        for entry in decide_all(&batches, &mut accounts) {
            let (held, had) =
                (held.entry(entry.user_id.clone()).or_default(), had.entry(entry.user_id.clone()).or_default());
            let hold = entry.reference.unwrap_or(entry.request_id);
            let key = (entry.user_id.clone(), hold);
            match &*entry.action {
                _ if entry.rejection.is_some() => {}
                "hold" => {
                    *held += entry.point;
                    prop_assert_eq!(open.insert(key, entry.point), None);
                }
                "capture" => {
                    *held -= entry.point + entry.change;
                    *had -= entry.point;
                    prop_assert_eq!(open.remove(&key), Some(entry.point + entry.change));
                }
                "release" => {
                    *held -= entry.change;
                    prop_assert_eq!(open.remove(&key), Some(entry.point));
                }
                _ => *had += entry.change,
            }
            prop_assert_eq!(entry.balance + *held, *had);
            prop_assert!(*held >= 0 && *had <= POINTS_MAX);
        }
        for (user, account) in &accounts {
            prop_assert_eq!(account.point + account.holds.point(), had.remove(user).unwrap_or_default());
            prop_assert_eq!(account.holds.as_slice().len(), open.keys().filter(|(owner, _)| owner == user).count());
        }
    }

    #[test]
    fn what_all_users_have_is_what_was_added_less_what_was_taken_and_expired(batches in any_batches()) {
        let mut accounts = HashMap::new();
        let (mut total, mut moved) = (0, HashMap::<_, i64>::new());
        for entry in decide_all(&batches, &mut accounts) {
            match &*entry.action {
                _ if entry.rejection.is_some() => {}
                "hold" | "release" => {}
                "capture" => total -= entry.point,
                _ if entry.counterparty.is_some() => *moved.entry(entry.request_id).or_default() += entry.change,
                _ => total += entry.change,
            }
        }
        prop_assert!(moved.values().all(|sum| *sum == 0), "{:?}", moved);
        let of_all = accounts.values().map(|account| account.point + account.holds.point());
        prop_assert_eq!(of_all.sum::<i64>(), total);
    }

    #[test]
    fn what_is_there_at_a_time_is_what_a_change_would_leave(batches in any_batches(), later in 0..120i64) {
        let mut accounts = HashMap::new();
        decide_all(&batches, &mut accounts);
        for (user, account) in accounts {
            let time = account.time(second(later));
            let mut after = HashMap::from([(user.clone(), account.clone())]);
            decide(&mut after, &mut Known::default(), &[Delta::expiry(user.clone())], time);
            let (now, after) = (account.at(time), &after[&user]);
            prop_assert_eq!((now.point, &now.lots, &now.holds), (after.point, &after.lots, &after.holds));
        }
    }
}

fn points(point: i64) -> Points {
    Points::new(point).expect("in range")
}

fn hold(point: i64, at: i64) -> Delta {
    Delta::of("1", Change::Hold { point: points(point), expires_at: Some(second(at)) })
}

fn add(point: i64, at: Option<i64>) -> Delta {
    Delta::of("1", Change::Add { point: points(point), expires_at: at.map(second) })
}

fn rejections(decided: &Decided) -> Vec<Option<Rejection>> {
    decided.outcomes.iter().flatten().map(|outcome| outcome.entry.rejection.clone()).collect()
}

#[test]
fn a_user_has_a_limited_number_of_holds_and_a_place_for_each_lot_in_them() {
    let (mut accounts, mut known) = (HashMap::new(), Known::default());
    let many = i64::try_from(HOLDS_MAX).expect("small");
    let mut deltas: Vec<Delta> = (1..=many).map(|at| add(2, Some(100 + at))).collect();
    deltas.extend((0..many).map(|_| hold(2, 50)));
    deltas.extend([add(1, None), hold(1, 50), add(1, Some(99)), add(1, Some(200))]);
    let decided = decide(&mut accounts, &mut known, &deltas, second(5));
    let rejected = rejections(&decided);
    let (first, last) = rejected.split_at(2 * HOLDS_MAX);
    assert!(first.iter().all(Option::is_none));
    assert_eq!(last, [None, Some(Rejection::HoldLimit), Some(Rejection::LotLimit), None]);
    assert_eq!(accounts[&user(1)].lots.as_slice().len(), 1);
    // All return at once, each to its own lot.
    let decided = decide(&mut accounts, &mut known, &[hold(1, 60)], second(50));
    assert_eq!((rejections(&decided), decided.further.len()), (vec![None], HOLDS_MAX));
    let Account { point, lots, .. } = &accounts[&user(1)];
    assert_eq!((*point, lots.as_slice().len()), (2 * many + 1, LOTS_MAX));
}

#[test]
fn what_is_held_counts_towards_the_limit_of_a_balance() {
    let (mut accounts, mut known) = (HashMap::new(), Known::default());
    let held = hold(POINTS_MAX, 50);
    let capture =
        |point| Delta::of("1", Change::Capture { hold: held.request_id, point: Some(points(point)) });
    let (some, too_much) = (capture(POINTS_MAX - 10), capture(POINTS_MAX));
    let deltas = [
        add(POINTS_MAX, None),
        held.clone(),
        add(1, None),
        some.clone(),
        too_much,
        add(POINTS_MAX - 10, None),
    ];
    let undo = Delta::of("1", Change::Reverse { request: some.request_id, partial: false });
    let decided = decide(&mut accounts, &mut known, &[&deltas[..], &[undo]].concat(), second(5));
    let limit = Some(Rejection::BalanceLimit);
    assert_eq!(
        rejections(&decided),
        [None, None, limit.clone(), None, Some(Rejection::HoldOver), None, limit]
    );
}

#[test]
fn a_hold_runs_from_its_decision_unless_it_says_otherwise() {
    let (mut accounts, mut known) = (HashMap::new(), Known::default());
    let held = Delta::of("1", Change::Hold { point: points(1), expires_at: None });
    let decided = decide(&mut accounts, &mut known, &[add(5, None), held], second(1_000));
    let entry = &decided.outcomes[1].as_ref().expect("decided").entry;
    assert_eq!(entry.expires_at, Some(second(1_000 + 15 * 60)));
    let decided = decide(&mut accounts, &mut known, &[hold(1, 1_000), hold(1, 1_001)], second(900));
    assert_eq!(rejections(&decided), [Some(Rejection::Expired), None], "the user's time does not go back");
}
