//! Reversals: a change is undone once, by as much as it was or as there is, and its entry says which change that was.

use std::sync::Arc;

use point_system::domain::{Delta, Entry, POINTS_MAX, Rejection, RequestId, ServiceError};
use tokio::task::JoinSet;

use crate::{
    apply::{add, apply, reverse, reverse_some, subtract, subtract_some},
    support::system::System,
};

mod http;

/// The rejection, the points, the change and the balance of an entry.
type Told = (Option<Rejection>, i64, i64, i64);

fn told(entry: &Entry) -> Told {
    (entry.rejection.clone(), entry.point, entry.change, entry.balance)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_undone_once() {
    let system = System::new().await;
    let service = system.service(2);
    let (welcome, order, too_much) = (add(7, 100), subtract(7, 30), subtract(7, 900));
    let undo_order = reverse(7, order.request_id);
    let undo_welcome = reverse_some(7, welcome.request_id);
    let unknown = RequestId::random();
    let steps: [(Delta, RequestId, Told); 9] = [
        (undo_order.clone(), order.request_id, (None, 30, 30, 100)),
        (reverse(7, order.request_id), undo_order.request_id, (Some(Rejection::AlreadyReversed), 30, 0, 100)),
        (
            reverse(7, undo_order.request_id),
            undo_order.request_id,
            (Some(Rejection::NotReversible), 30, 0, 100),
        ),
        (reverse(7, too_much.request_id), too_much.request_id, (Some(Rejection::NotReversible), 0, 0, 100)),
        (reverse(7, unknown), unknown, (Some(Rejection::UnknownRequest), 0, 0, 100)),
        (undo_welcome.clone(), welcome.request_id, (None, 100, -100, 0)),
        (
            reverse_some(7, welcome.request_id),
            undo_welcome.request_id,
            (Some(Rejection::AlreadyReversed), 100, 0, 0),
        ),
        (
            reverse(7, undo_welcome.request_id),
            undo_welcome.request_id,
            (Some(Rejection::NotReversible), 100, 0, 0),
        ),
        // Another user's request is unknown.
        (reverse(8, order.request_id), order.request_id, (Some(Rejection::UnknownRequest), 0, 0, 0)),
    ];
    for change in [&welcome, &order, &too_much] {
        apply(&service, change).await;
    }
    for (delta, reference, expected) in steps {
        let outcome = apply(&service, &delta).await;
        let entry = &outcome.entry;
        assert_eq!((told(entry), entry.reference), (expected, Some(reference)), "{delta:?}");
        assert_eq!((entry.partial, outcome.replayed), (delta.change.is_partial(), false));
        let again = apply(&service, &delta).await;
        assert_eq!((again.entry.seq, again.replayed), (entry.seq, true), "a retry gets the first outcome");
    }
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spent_is_not_taken_back_unless_a_part_is_enough() {
    let system = System::new().await;
    let service = system.service(2);
    let (gift, other) = (add(7, 100), add(7, 50));
    let step = async |delta: Delta| told(&apply(&service, &delta).await.entry);
    step(gift.clone()).await;
    step(subtract(7, 90)).await;
    let undo = || reverse(7, gift.request_id);
    assert_eq!(step(undo()).await, (Some(Rejection::InsufficientPoints), 100, 0, 10));
    let some = reverse_some(7, gift.request_id);
    assert_eq!(step(some.clone()).await, (None, 100, -10, 0), "90 are missing");
    let second = apply(&service, &undo()).await.entry;
    assert_eq!(second.rejection, Some(Rejection::AlreadyReversed), "a part was all that it will ever be");
    assert_eq!(second.reference, Some(some.request_id));

    step(other.clone()).await;
    step(subtract_some(7, 60)).await;
    let none = reverse_some(7, other.request_id);
    assert_eq!(step(none).await, (Some(Rejection::InsufficientPoints), 50, 0, 0));
    // A partial subtract is undone by what it took.
    let partial = subtract_some(7, 500);
    step(add(7, 20)).await;
    step(partial.clone()).await;
    step(add(7, POINTS_MAX - 19)).await;
    let undo = || reverse(7, partial.request_id);
    assert_eq!(step(undo()).await, (Some(Rejection::BalanceLimit), 20, 0, POINTS_MAX - 19));
    step(subtract(7, 1)).await;
    assert_eq!(step(undo()).await, (None, 20, 20, POINTS_MAX));
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reversal_sees_what_was_decided_before_it_in_its_batch() {
    let system = System::new().await;
    let service = system.service(1);
    let gift = add(7, 5);
    let (undo, again) = (reverse(7, gift.request_id), reverse(7, gift.request_id));
    let undo_undo = reverse(7, undo.request_id);
    let early = reverse(7, gift.request_id);
    let deltas = vec![early, gift, undo.clone(), again, undo.clone(), undo_undo];
    let results = service.apply_deltas(deltas).await.expect("results");
    let outcomes: Vec<_> = results.into_iter().map(|result| result.expect("an outcome")).collect();
    let rejections: Vec<_> = outcomes.iter().map(|outcome| outcome.entry.rejection.clone()).collect();
    assert_eq!(
        rejections,
        [
            Some(Rejection::UnknownRequest),
            None,
            None,
            Some(Rejection::AlreadyReversed),
            None,
            Some(Rejection::NotReversible)
        ]
    );
    assert!(outcomes[4].replayed && outcomes[4].entry == outcomes[2].entry);
    assert_eq!(outcomes[3].entry.reference, Some(undo.request_id));
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_reversals_at_once_one_counts() {
    let system = System::new().await;
    let gift = add(7, 10);
    apply(&system.service(1), &gift).await;
    apply(&system.service(1), &add(7, 1_000)).await;
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        // Separate services, which share only the database.
        let service = Arc::new(system.service(2));
        for _ in 0..8 {
            let (service, undo) = (Arc::clone(&service), reverse(7, gift.request_id));
            tasks.spawn(async move { apply(&service, &undo).await.entry });
        }
    }
    let entries = tasks.join_all().await;
    let applied: Vec<_> = entries.iter().filter(|entry| entry.rejection.is_none()).collect();
    assert_eq!(applied.len(), 1);
    let others = entries.iter().filter(|entry| entry.rejection.is_some());
    assert!(others.into_iter().all(|entry| entry.reference == Some(applied[0].request_id)));
    system.finish_without_queues().await;
}

/// Even if the look-up failed, the database would not take a second reversal.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_a_second_reversal() {
    let system = System::new().await;
    let service = system.service(1);
    let gift = add(7, 10);
    for delta in [&gift, &reverse(7, gift.request_id), &add(7, 10)] {
        apply(&service, delta).await;
    }
    let client = system.pool.get().await.expect("a connection");
    let second =
        "insert into log (user_id, seq, request_id, action, point, change, balance, ref, fingerprint,
             requested_at, created_at)
         select user_id, 4, gen_random_uuid(), action, point, change, balance, ref, fingerprint, requested_at,
             created_at from log where action = 'reverse'";
    let refused = client.batch_execute(second).await.expect_err("a second reversal");
    assert!(format!("{refused:?}").contains("log_ended"), "{refused:?}");
    drop(client);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_only_a_newer_version_can_undo_is_left_to_it() {
    let system = System::new().await;
    let service = system.service(1);
    let gift = add(7, 10);
    apply(&service, &gift).await;
    let become_action = |action: &str| format!("update log set action = '{action}' where user_id = '7'");
    system.execute("alter domain action drop constraint action_check").await;
    system.execute(&become_action("grant")).await;
    let (undo, other) = (reverse(7, gift.request_id), add(8, 1));
    let results = service.apply_deltas(vec![undo.clone(), add(7, 1), other]).await.expect("results");
    let why = "the user's log entry 1 has the action grant";
    assert!(
        matches!(&results[0], Err(ServiceError::NotUnderstood(text)) if text.starts_with(why)),
        "{results:?}"
    );
    assert!(matches!(results[1], Err(ServiceError::NotUnderstood(_))), "the user's order holds: {results:?}");
    assert!(results[2].is_ok(), "{results:?}");
    system.execute(&become_action("add")).await;
    assert_eq!(told(&apply(&service, &undo).await.entry), (None, 10, -10, 0));
    system.finish_without_queues().await;
}
