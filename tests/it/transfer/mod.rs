//! Transfers: both users have an entry or none, whatever happens to either of them, and nobody else waits.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use point_system::domain::{Delta, Entry, Obstacle, POINTS_MAX, Rejection, RequestId, ServiceError};
use tokio::task::JoinSet;

use crate::{
    apply::{add, add_until, apply, reverse, reverse_some, subtract, transfer},
    support::system::System,
};

mod flow;
mod http;

/// A user's whole log: of each entry the points, the change, the balance, the other user, and why it was rejected.
async fn log_of(system: &System, user: i64) -> Vec<String> {
    let sql = format!(
        "select concat_ws(' ', point, change, balance, counterparty, reject_reason) from log
         where user_id = '{user}' order by seq"
    );
    system.rows(&sql).await.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_users_have_an_entry_of_the_same_request_or_only_the_sender() {
    let system = System::new().await;
    let service = system.service(2);
    apply(&service, &add(1, 100)).await;
    let gift = transfer(1, 2, 30);
    let outcome = apply(&service, &gift).await;
    assert!(!outcome.replayed && apply(&service, &gift).await.replayed);
    let too_much = apply(&service, &transfer(1, 3, 71)).await;
    assert_eq!(too_much.entry.rejection, Some(Rejection::InsufficientPoints));
    apply(&service, &add(4, POINTS_MAX)).await;
    apply(&service, &transfer(2, 4, 1)).await;
    assert_eq!(log_of(&system, 1).await, ["100 100 100", "30 -30 70 2", "71 0 70 3 insufficient_points"]);
    assert_eq!(log_of(&system, 2).await, ["30 30 30 1", "1 0 30 4 balance_limit"]);
    assert_eq!(log_of(&system, 4).await.len(), 1);
    // Nothing tells that user 3 was named.
    assert_eq!(system.count("select count(*) from user_point where user_id = '3'").await, 0);
    let both = format!("select count(*) from log where request_id = '{}'", gift.request_id);
    assert_eq!(system.count(&both).await, 2);
    let other = Delta { request_id: gift.request_id, ..transfer(1, 5, 30) };
    assert_eq!(apply(&service, &other).await.entry.rejection, Some(Rejection::KeyReused));
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_expire_are_still_points_that_expire_and_come_back_as_such() {
    let system = System::new().await;
    let service = system.service(2);
    let (soon, later) = (Timestamp::now() + 24.hours(), Timestamp::now() + 48.hours());
    for change in [add_until(1, 10, later), add_until(1, 20, soon), add(1, 5)] {
        apply(&service, &change).await;
    }
    let gift = transfer(1, 2, 25);
    apply(&service, &gift).await;
    let lots = async |user: i64| {
        let found = service.balance(crate::apply::user(user)).await.expect("an answer").expect("a balance");
        found.expires.as_slice().iter().map(|lot| lot.point).collect::<Vec<_>>()
    };
    assert_eq!((lots(1).await, lots(2).await), (vec![5], vec![20, 5]));
    apply(&service, &subtract(2, 12)).await;
    // Of the 25 points 13 are there: 8 and 5 that expire.
    assert_eq!(
        apply(&service, &reverse(1, gift.request_id)).await.entry.rejection,
        Some(Rejection::InsufficientPoints)
    );
    let back = apply(&service, &reverse_some(1, gift.request_id)).await.entry;
    assert_eq!((back.point, back.change, back.balance), (25, 13, 23));
    assert_eq!((lots(1).await, lots(2).await), (vec![8, 10], vec![]));
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_is_undone_once_and_by_its_sender() {
    let system = System::new().await;
    let service = system.service(2);
    apply(&service, &add(1, 100)).await;
    let gift = transfer(1, 2, 30);
    apply(&service, &gift).await;
    let rejection = async |delta: Delta| apply(&service, &delta).await.entry.rejection.clone();
    assert_eq!(rejection(reverse(2, gift.request_id)).await, Some(Rejection::NotReversible));
    let undo = reverse(1, gift.request_id);
    assert_eq!(rejection(undo.clone()).await, None);
    assert_eq!(rejection(reverse(1, gift.request_id)).await, Some(Rejection::AlreadyReversed));
    assert_eq!(rejection(reverse(2, undo.request_id)).await, Some(Rejection::NotReversible));
    assert_eq!(rejection(reverse(1, undo.request_id)).await, Some(Rejection::NotReversible));
    let of_both = "select count(*) from log where action = 'reverse' and reject_reason is null and counterparty is not null";
    assert_eq!(system.count(of_both).await, 2);
    // In one transaction, in which the reversal names a transfer that is not in the log yet.
    let (gift, other) = (transfer(1, 2, 10), transfer(1, 3, 10));
    let deltas = vec![gift.clone(), reverse(1, gift.request_id), other.clone(), reverse(1, other.request_id)];
    let outcomes = service.apply_deltas(deltas).await.expect("an answer");
    let entries: Vec<Arc<Entry>> = outcomes.into_iter().map(|one| one.expect("an outcome").entry).collect();
    assert_eq!(entries.iter().map(|entry| entry.change).collect::<Vec<_>>(), [-10, 10, -10, 10]);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_who_send_to_each_other_at_full_speed_all_go_on() {
    const USERS: i64 = 4;
    const EACH: i64 = 150;
    let system = System::new().await;
    let service = Arc::new(system.service(4));
    for user in 1..=USERS {
        apply(&service, &add(user, 1_000)).await;
    }
    let mut senders = JoinSet::new();
    for sender in 1..=USERS {
        let service = Arc::clone(&service);
        senders.spawn(async move {
            for nth in 1..=EACH {
                let to = (sender + nth % (USERS - 1)) % USERS + 1;
                let outcome = apply(&service, &transfer(sender, to, 1)).await;
                assert_eq!(outcome.entry.rejection, None);
            }
        });
    }
    senders.join_all().await;
    assert_eq!(system.count("select sum(point)::bigint from user_point").await, USERS * 1_000);
    assert_eq!(system.count("select count(*) from log").await, USERS * (2 * EACH + 1));
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_waits_for_a_receiver_who_is_locked_and_other_senders_do_not() {
    let system = System::new().await;
    let service = system.service(1);
    for user in 1..=4 {
        apply(&service, &add(user, 100)).await;
    }
    let session = system.database.pool(1).get().await.expect("a connection");
    let lock = "reset all; begin; select from user_point where user_id = '4' for update";
    session.batch_execute(lock).await.expect("locked");
    let deltas = vec![
        subtract(1, 1),
        transfer(2, 4, 5),
        transfer(3, 2, 5),
        add(2, 1),
        transfer(1, 3, 5),
        reverse(1, RequestId::random()),
        transfer(4, 1, 5),
    ];
    let results = service.apply_deltas(deltas).await.expect("an answer");
    let is_locked: Vec<bool> = results
        .iter()
        .map(|result| match result {
            Ok(_) => false,
            Err(ServiceError::Blocked(Obstacle::Locked)) => true,
            Err(other) => panic!("{other}"),
        })
        .collect();
    // All changes of the senders to or of user 4 wait, and nobody else's, not even those that name such a sender.
    assert_eq!(is_locked, [false, true, false, true, false, false, true]);
    session.batch_execute("rollback").await.expect("unlocked");
    apply(&service, &transfer(2, 4, 5)).await;
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_with_a_damaged_row_stops_only_those_who_send_to_that_user() {
    let system = System::new().await;
    let service = system.service(1);
    for user in 1..=3 {
        apply(&service, &add(user, 100)).await;
    }
    system.execute("alter domain last_seq drop constraint last_seq_check").await;
    system.execute("update user_point set seq = -1 where user_id = '3'").await;
    let deltas = vec![transfer(1, 3, 5), transfer(2, 1, 5), transfer(1, 2, 5)];
    let results = service.apply_deltas(deltas).await.expect("an answer");
    let told = |index: usize| match &results[index] {
        Err(ServiceError::Blocked(Obstacle::Unreadable(why))) => why.contains("user 3: "),
        _ => false,
    };
    assert!(told(0) && results[1].is_ok() && told(2), "{results:?}");
    system.execute("update user_point set seq = 1 where user_id = '3'").await;
    apply(&service, &transfer(1, 3, 5)).await;
    system.finish_without_queues().await;
}
