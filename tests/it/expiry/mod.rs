//! Points that expire: what expires first is taken first, what is left leaves the balance once, and reads tell the truth
//! before that is written.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan};
use point_system::domain::{Balance, Entry, HistoryQuery, LOTS_MAX, Lots, PointService, Rejection, UserId};
use tokio::task::JoinSet;

use crate::{
    apply::{add, add_until, apply, reverse, reverse_some, subtract, subtract_some},
    support::system::{System, eventually},
};

mod clock;
mod http;
mod obstacles;

/// As if this much time had passed since everything in the database happened; if negative, as if the clock were set back.
pub async fn pass(system: &System, seconds: i64) {
    let lots = |table: &str| {
        format!(
            "(select array_agg(case when place % 2 = 1 then number - {seconds} * 1000000::bigint else number end order by place) \
                 from unnest({table}.lots) with ordinality as numbers (number, place))"
        )
    };
    let earlier = |column: &str| format!("{column} = {column} - interval '{seconds} s'");
    let held = |table: &str| {
        format!(
            "(select json_agg(json_build_object('request', hold->'request', 'point', hold->'point',
                     'expires_at', (hold->>'expires_at')::bigint - {seconds} * 1000000::bigint,
                     'lots', (select json_agg(case when place % 2 = 1 then number::bigint - {seconds} * 1000000::bigint
                             else number::bigint end order by place)
                         from json_array_elements_text(hold->'lots') with ordinality as numbers (number, place)))
                     order by at)::text
                 from json_array_elements({table}.holds::json) with ordinality as holds (hold, at))"
        )
    };
    let statement = format!(
        "update user_point set {}, {}, lots = {}, holds = {}; update log set {}, {}, {}, lots = {}",
        earlier("updated_at"),
        earlier("due_at"),
        lots("user_point"),
        held("user_point"),
        earlier("requested_at"),
        earlier("created_at"),
        earlier("expires_at"),
        lots("log")
    );
    system.execute(&statement).await;
}

pub fn in_hours(hours: i64) -> Timestamp {
    let now = Timestamp::from_second(Timestamp::now().as_second()).expect("in range");
    now + hours.hours()
}

pub fn user(id: i64) -> UserId {
    UserId::new("user_id", &id.to_string()).expect("positive")
}

pub async fn balance(service: &PointService, id: i64) -> Balance {
    service.balance(user(id)).await.expect("an answer").expect("a user")
}

/// The points of lots, in their order.
pub fn points(lots: &Lots) -> Vec<i64> {
    lots.as_slice().iter().map(|lot| lot.point).collect()
}

/// The user's log, oldest first.
pub async fn log(service: &PointService, id: i64) -> Vec<Entry> {
    let query = HistoryQuery {
        user_id: user(id),
        limit: 1_000,
        before: None,
        from: None,
        to: None,
        status: None,
        action: None,
    };
    let mut entries = service.history(query).await.expect("a page").entries;
    entries.reverse();
    entries
}

pub fn told(entries: &[Entry]) -> Vec<(&str, i64, i64)> {
    entries.iter().map(|entry| (&*entry.action, entry.change, entry.balance)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_first_is_taken_first_and_what_is_left_expires_once() {
    let system = System::new().await;
    let service = system.service(2);
    let (soon, late) = (in_hours(1), in_hours(2));
    for delta in [add(7, 100), add_until(7, 50, late), add_until(7, 20, soon), add_until(7, 10, soon)] {
        apply(&service, &delta).await;
    }
    assert_eq!(points(&balance(&service, 7).await.expires), [30, 50], "points of one moment are one lot");
    let taken = apply(&service, &subtract(7, 40)).await.entry;
    assert_eq!((points(&taken.lots), taken.balance), (vec![30, 10], 140));
    assert_eq!(points(&balance(&service, 7).await.expires), [40]);
    let format = "select format from user_point";
    assert_eq!(system.rows(format).await[0].get::<_, i16>(0), 1);

    pass(&system, 3 * 3_600).await;
    let late = late - 3.hours();
    let found = balance(&service, 7).await;
    assert_eq!((found.point, found.seq, points(&found.expires)), (100, 5, vec![]), "no entry says so yet");
    let at = async |time: Timestamp| {
        let found = service.balance_at(user(7), time).await.expect("an answer").expect("a balance");
        (found.point, found.seq)
    };
    assert_eq!((at(late - 1.microsecond()).await, at(late).await), ((140, 5), (100, 5)));
    apply(&service, &add(7, 1)).await;
    let entries = log(&service, 7).await;
    assert_eq!(told(&entries)[4..], [("subtract", -40, 140), ("expire", -40, 100), ("add", 1, 101)]);
    let expired = &entries[5];
    assert_eq!((expired.point, expired.expires_at, expired.created_at), (40, Some(late), late));
    assert!(expired.requested_at > late, "it says when it was written");
    assert_eq!(expired.actor.as_ref().map(ToString::to_string).as_deref(), Some("system:expiry"));
    assert_eq!((at(late - 1.microsecond()).await, at(late).await), ((140, 5), (100, 6)));
    assert_eq!(system.rows(format).await[0].get::<_, i16>(0), 0, "the row is as if it never had a lot");
    // The clock is set back: nothing comes back, and nothing expires twice.
    pass(&system, -3 * 3_600).await;
    service.expire_all().await.expect("an answer");
    apply(&service, &add(7, 1)).await;
    assert_eq!(log(&service, 7).await.len(), 8);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_comes_back_with_its_own_expiry() {
    let system = System::new().await;
    let service = system.service(2);
    let (soon, late) = (in_hours(1), in_hours(3));
    let (order, next) = (subtract(7, 60), subtract_some(7, 1_000));
    for delta in [add(7, 5), add_until(7, 50, soon), add_until(7, 50, late), order.clone()] {
        apply(&service, &delta).await;
    }
    let undone = apply(&service, &reverse(7, order.request_id)).await.entry;
    assert_eq!((points(&undone.lots), undone.change, undone.balance), (vec![50, 10], 60, 105));
    assert_eq!(points(&balance(&service, 7).await.expires), [50, 50]);
    // Of what comes back too late, what has expired meanwhile leaves at once.
    apply(&service, &next).await;
    pass(&system, 2 * 3_600).await;
    let undone = apply(&service, &reverse(7, next.request_id)).await.entry;
    assert_eq!((points(&undone.lots), undone.balance), (vec![50, 50], 105));
    let entries = log(&service, 7).await;
    assert_eq!(told(&entries)[6..], [("reverse", 105, 105), ("expire", -50, 55)]);
    assert_eq!(entries[7].created_at, entries[6].created_at, "not before the reversal");
    let found = balance(&service, 7).await;
    assert_eq!((found.point, points(&found.expires)), (55, vec![50]));
    let refused = apply(&service, &reverse(7, entries[7].request_id)).await.entry;
    assert_eq!(refused.rejection, Some(Rejection::NotReversible), "expired points do not come back");
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_added_is_taken_back_from_its_own_lot_first() {
    let system = System::new().await;
    let service = system.service(2);
    let (soon, late) = (in_hours(1), in_hours(2));
    let (gift, other) = (add_until(7, 50, late), add_until(7, 30, soon));
    for delta in [add(7, 5), gift.clone(), add_until(7, 10, soon), subtract(7, 20)] {
        apply(&service, &delta).await;
    }
    // 40 of the gift are left, then nothing of the sooner lot, and 5 that do not expire.
    apply(&service, &other).await;
    let undone = apply(&service, &reverse(7, gift.request_id)).await.entry;
    assert_eq!((undone.change, points(&undone.lots)), (-50, vec![10, 40]));
    assert_eq!(points(&balance(&service, 7).await.expires), [20]);
    let undone = apply(&service, &reverse_some(7, other.request_id)).await.entry;
    assert_eq!((undone.change, points(&undone.lots), undone.balance), (-25, vec![20], 0));
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_come_too_late_or_at_too_many_times_are_refused() {
    let system = System::new().await;
    let service = system.service(2);
    let late = add_until(7, 1, in_hours(-1));
    let entry = apply(&service, &late).await.entry;
    assert_eq!((&entry.rejection, entry.balance), (&Some(Rejection::Expired), 0));
    assert_eq!(entry.expires_at, late.change.expires_at());
    let many = i64::try_from(LOTS_MAX).expect("small");
    let full: Vec<_> = (1..=many).map(|hours| add_until(7, 2, in_hours(hours))).collect();
    for result in service.apply_deltas(full).await.expect("results") {
        assert_eq!(result.expect("an outcome").entry.rejection, None);
    }
    let entry = apply(&service, &add_until(7, 1, in_hours(many + 1))).await.entry;
    assert_eq!((&entry.rejection, entry.balance), (&Some(Rejection::LotLimit), 2 * many));
    for delta in [add(7, 1), add_until(7, 1, in_hours(1))] {
        assert_eq!(apply(&service, &delta).await.entry.rejection, None, "{delta:?}");
    }
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_services_let_everything_expire_once() {
    let system = System::new().await;
    let service = system.service(2);
    let soon = in_hours(1);
    let users = 1..=2_500;
    let deltas: Vec<_> = users.clone().flat_map(|id| [add(id, 1), add_until(id, 2, soon)]).collect();
    let later = add_until(2_501, 2, in_hours(9));
    service.apply_deltas([deltas, vec![add(2_502, 1), later]].concat()).await.expect("results");
    pass(&system, 2 * 3_600).await;
    // A locked user waits, and nobody else does.
    let session = system.pool.get().await.expect("a connection");
    session
        .batch_execute("reset all; begin; select from user_point where user_id = '9' for update")
        .await
        .expect("locked");
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let service = Arc::new(system.service(2));
        tasks.spawn(async move { service.expire_all().await.expect("an answer") });
    }
    tasks.join_all().await;
    let expired = "select count(*) from log where action = 'expire'";
    assert_eq!(system.count(expired).await, 2_499);
    session.batch_execute("rollback").await.expect("unlocked");
    drop(session);
    service.expire_all().await.expect("an answer");
    assert_eq!(system.count(expired).await, 2_500);
    assert_eq!(system.count("select sum(point)::bigint from user_point").await, 2_500 + 3);
    assert_eq!(system.count("select count(due_at) from user_point").await, 1);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_let_points_expire_of_users_whom_nobody_touches() {
    let mut system = System::new().await;
    let service = system.service(2);
    for id in 1..=20 {
        apply(&service, &add_until(id, 5, in_hours(1))).await;
    }
    system.work();
    system.work();
    pass(&system, 2 * 3_600).await;
    system.drain(40).await;
    eventually("nobody has points", async || {
        system.count("select count(*) from user_point where point = 0 and seq = 2").await == 20
    })
    .await;
    system.finish().await;
}
