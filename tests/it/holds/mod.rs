//! Holds: points are out of the balance until they are captured, released, or the hold's time comes, and then it is over.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use point_system::domain::{Action, Change, Delta, Entry, Hold, PointService, Rejection, RequestId};
use tokio::task::JoinSet;

use crate::{
    apply::{add, add_until, apply, capture, delta, hold, reverse, subtract},
    expiry::{balance, in_hours, log, pass, points, told, user},
    support::system::{System, eventually},
};

mod http;

pub fn release(user_id: i64, hold: RequestId) -> Delta {
    delta(user_id, Change::Release { hold })
}

/// The balance, what is held, and the open holds.
async fn held(service: &PointService, id: i64) -> (i64, i64, Vec<Hold>) {
    let found = balance(service, id).await;
    let holds = found.holds.expect("a current balance");
    (found.point, holds.point(), holds.as_slice().to_vec())
}

async fn done(service: &PointService, delta: &Delta) -> Arc<Entry> {
    let entry = apply(service, delta).await.entry;
    assert_eq!(entry.rejection, None, "{entry:?}");
    entry
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_takes_what_expires_first_and_the_rest_returns_to_its_lots() {
    let system = System::new().await;
    let service = system.service(2);
    let [soon, late] = [1, 2].map(in_hours);
    for delta in [add(7, 100), add_until(7, 30, soon), add_until(7, 20, late)] {
        done(&service, &delta).await;
    }
    let ends = in_hours(3);
    let order = hold(7, 60, Some(ends));
    let entry = done(&service, &order).await;
    assert_eq!((entry.change, entry.balance, points(&entry.lots)), (-60, 90, vec![30, 20]));
    assert_eq!(entry.expires_at, Some(ends));
    let (point, sum, open) = held(&service, 7).await;
    assert_eq!((point, sum, open.len(), open[0].request), (90, 60, 1, order.request_id));
    let format = "select format from user_point";
    assert_eq!(system.rows(format).await[0].get::<_, i16>(0), 2);
    let taken = capture(7, order.request_id, Some(40));
    let entry = done(&service, &taken).await;
    assert_eq!((entry.point, entry.change, entry.balance), (40, 20, 110));
    assert_eq!((points(&entry.lots), entry.reference), (vec![30, 10], Some(order.request_id)));
    assert_eq!(points(&balance(&service, 7).await.expires), [10]);
    assert_eq!(held(&service, 7).await, (110, 0, vec![]));
    // What was captured comes back once, to its own lots.
    let entry = done(&service, &reverse(7, taken.request_id)).await;
    assert_eq!((entry.change, entry.balance, points(&entry.lots)), (40, 150, vec![30, 10]));
    assert_eq!(points(&balance(&service, 7).await.expires), [30, 20]);
    let again = apply(&service, &reverse(7, taken.request_id)).await.entry;
    assert_eq!(again.rejection, Some(Rejection::AlreadyReversed));
    done(&service, &subtract(7, 150)).await;
    assert_eq!(system.rows(format).await[0].get::<_, i16>(0), 0, "the row is as if it never had a hold");
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_once_and_what_came_first_is_named() {
    let system = System::new().await;
    let service = system.service(2);
    done(&service, &add(7, 100)).await;
    let (one, two) = (hold(7, 10, None), hold(7, 20, None));
    let (take, put_back) = (capture(7, one.request_id, None), release(7, two.request_id));
    for delta in [&one, &two, &take, &put_back] {
        done(&service, delta).await;
    }
    let unknown = RequestId::random();
    for (delta, why, reference, point) in [
        (release(7, one.request_id), Rejection::HoldOver, take.request_id, 10),
        (capture(7, one.request_id, Some(3)), Rejection::HoldOver, take.request_id, 3),
        (capture(7, two.request_id, None), Rejection::HoldOver, put_back.request_id, 20),
        (capture(7, unknown, None), Rejection::UnknownHold, unknown, 0),
        (release(8, two.request_id), Rejection::UnknownHold, two.request_id, 0),
        (release(7, take.request_id), Rejection::UnknownHold, take.request_id, 0),
        (reverse(7, one.request_id), Rejection::NotReversible, one.request_id, 10),
        (reverse(7, put_back.request_id), Rejection::NotReversible, put_back.request_id, 20),
    ] {
        let entry = apply(&service, &delta).await.entry;
        assert_eq!((entry.rejection.clone(), entry.reference), (Some(why), Some(reference)), "{delta:?}");
        assert_eq!((entry.point, entry.change), (point, 0), "{delta:?}");
    }
    let open = hold(7, 5, None);
    done(&service, &open).await;
    let entry = apply(&service, &capture(7, open.request_id, Some(6))).await.entry;
    assert_eq!(entry.rejection, Some(Rejection::HoldTooSmall));
    let entry = apply(&service, &hold(7, 86, None)).await.entry;
    assert_eq!((entry.rejection.clone(), entry.expires_at), (Some(Rejection::InsufficientPoints), None));
    assert_eq!(held(&service, 7).await.1, 5, "it stays open");
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_time_comes_the_points_return_and_those_that_have_expired_are_gone() {
    let system = System::new().await;
    let service = system.service(2);
    let ends = in_hours(3);
    let order = hold(7, 60, Some(ends));
    for delta in [add(7, 100), add_until(7, 30, in_hours(1)), add_until(7, 20, in_hours(4)), order.clone()] {
        done(&service, &delta).await;
    }
    pass(&system, 2 * 3_600).await;
    assert_eq!(held(&service, 7).await.1, 60, "what has expired is still held");
    pass(&system, 3_600).await;
    let end = ends - 3.hours();
    eventually("the hold's time has come", async || Timestamp::now() > end).await;
    assert_eq!(held(&service, 7).await, (120, 0, vec![]), "no entry says so yet");
    assert_eq!(points(&balance(&service, 7).await.expires), [20]);
    let at = async |time: Timestamp| {
        let found = service.balance_at(user(7), time).await.expect("an answer").expect("a balance");
        (found.point, found.holds)
    };
    assert_eq!((at(end - 1.microsecond()).await, at(end).await), ((90, None), (120, None)));
    let work = system.process("work", &["--metrics-listen", "127.0.0.1:0"]);
    eventually("a worker has ended it", async || balance(&service, 7).await.seq == 6).await;
    for series in ["point_system_ended_holds_total 1", "point_system_expired_lots_total 1"] {
        eventually(series, async || work.metrics().await.lines().any(|line| line == series)).await;
    }
    assert!(work.end("-TERM").await.success(), "a clean end");
    let entries = log(&service, 7).await;
    assert_eq!(told(&entries)[3..], [("hold", -60, 90), ("release", 60, 150), ("expire", -30, 120)]);
    assert_eq!((entries[4].created_at, entries[5].created_at), (end, end));
    assert_eq!(entries[4].reference, Some(order.request_id));
    assert_eq!(entries[4].actor.as_ref().map(ToString::to_string).as_deref(), Some("system:expiry"));
    let late = apply(&service, &capture(7, order.request_id, None)).await.entry;
    assert_eq!(
        (late.rejection.clone(), late.reference),
        (Some(Rejection::HoldOver), Some(entries[4].request_id))
    );
    // The clock is set back: it does not end twice.
    pass(&system, -3 * 3_600).await;
    service.expire_all().await.expect("an answer");
    assert_eq!(log(&service, 7).await.len(), 7);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_ends_at_once_one_counts() {
    let system = System::new().await;
    let order = hold(7, 10, None);
    let service = system.service(1);
    for delta in [&add(7, 100), &order] {
        done(&service, delta).await;
    }
    let mut tasks = JoinSet::new();
    // Separate services, which share only the database.
    let services = [1, 2, 3].map(|_| Arc::new(system.service(1)));
    for (number, service) in (0..12).zip(services.iter().cycle()) {
        let service = Arc::clone(service);
        let end = if number % 2 == 0 {
            capture(7, order.request_id, Some(1 + number % 3))
        } else {
            release(7, order.request_id)
        };
        tasks.spawn(async move { apply(&service, &end).await.entry });
    }
    let entries = tasks.join_all().await;
    let first: Vec<_> = entries.iter().filter(|entry| entry.rejection.is_none()).collect();
    assert_eq!(first.len(), 1);
    let others = entries.iter().filter(|entry| entry.rejection.is_some());
    assert!(others.into_iter().all(|entry| entry.reference == Some(first[0].request_id)));
    system.finish_without_queues().await;
}

/// Even if the look-up failed, the database would not take a second end.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_a_second_end() {
    let system = System::new().await;
    let service = system.service(1);
    let order = hold(7, 10, None);
    for delta in [&add(7, 10), &order, &capture(7, order.request_id, Some(4)), &add(7, 10)] {
        done(&service, delta).await;
    }
    let client = system.pool.get().await.expect("a connection");
    let second =
        "insert into log (user_id, seq, request_id, action, point, change, balance, ref, fingerprint,
             requested_at, created_at)
         select user_id, 5, gen_random_uuid(), 'release', 10, 10, 20, ref, fingerprint, requested_at, created_at
         from log where action = 'capture'";
    let refused = client.batch_execute(second).await.expect_err("a second end");
    assert!(format!("{refused:?}").contains("log_ended"), "{refused:?}");
    drop(client);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sees_what_was_held_and_ended_before_in_it() {
    let system = System::new().await;
    let service = system.service(1);
    let (order, take) = (hold(7, 10, None), |hold| capture(7, hold, Some(4)));
    let (first, second) = (take(order.request_id), take(order.request_id));
    let early = take(order.request_id);
    let deltas = vec![add(7, 10), early, order, first.clone(), second, reverse(7, first.request_id)];
    let results = service.apply_deltas(deltas).await.expect("results");
    let entries: Vec<_> = results.into_iter().map(|result| result.expect("an outcome").entry).collect();
    let rejections: Vec<_> = entries.iter().map(|entry| entry.rejection.clone()).collect();
    let (unknown, over) = (Some(Rejection::UnknownHold), Some(Rejection::HoldOver));
    assert_eq!(rejections, [None, unknown, None, None, over, None]);
    assert_eq!(entries[4].reference, Some(first.request_id));
    assert_eq!(entries[5].balance, 10);
    system.finish_without_queues().await;
}

#[test]
fn every_action_about_holds_can_be_requested() {
    for action in [Action::Hold, Action::Capture, Action::Release] {
        assert_eq!(Action::new(action.as_str()), Ok(action));
    }
}
