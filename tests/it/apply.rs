//! Tests of `apply_delta` on a real PostgreSQL.

use std::{collections::HashSet, sync::Arc};

use point_system::domain::{
    Delta, Obstacle, Outcome, POINTS_MAX, Patience, PointService, Points, Rejection, ServiceError,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::system::{System, eventually};
pub use deltas::*;

mod deltas;
mod previews;

pub async fn apply(service: &PointService, delta: &Delta) -> Outcome {
    service.apply_delta(delta.clone()).await.expect("an outcome")
}

async fn balance(service: &PointService, id: i64) -> Option<(i64, i64)> {
    service.balance(user(id)).await.expect("an answer").map(|found| (found.point, found.seq))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_is_what_its_entries_come_to() {
    let system = System::new().await;
    let service = system.service(2);
    assert_eq!(balance(&service, 7).await, None);
    for (change, rejection, after) in [
        (subtract(7, 1), Some(Rejection::InsufficientPoints), 0),
        (add(7, 100), None, 100),
        (subtract(7, 101), Some(Rejection::InsufficientPoints), 100),
        (subtract(7, 100), None, 0),
        (add(7, POINTS_MAX), None, POINTS_MAX),
        (add(7, 1), Some(Rejection::BalanceLimit), POINTS_MAX),
    ] {
        let outcome = apply(&service, &change).await;
        assert_eq!((&outcome.entry.rejection, outcome.entry.balance), (&rejection, after), "{change:?}");
        assert!(!outcome.replayed);
    }
    assert_eq!(balance(&service, 7).await, Some((POINTS_MAX, 6)));
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_subtract_takes_what_there_is() {
    let system = System::new().await;
    let service = system.service(2);
    for (delta, rejection, change, after) in [
        (subtract_some(7, 1), Some(Rejection::InsufficientPoints), 0, 0),
        (add(7, 100), None, 100, 100),
        (subtract_some(7, 30), None, -30, 70),
        (subtract_some(7, 70), None, -70, 0),
        (add(7, 5), None, 5, 5),
        (subtract_some(7, POINTS_MAX), None, -5, 0),
        (subtract_some(7, 1), Some(Rejection::InsufficientPoints), 0, 0),
    ] {
        let entry = apply(&service, &delta).await.entry;
        let told = (&entry.rejection, entry.change, entry.balance);
        assert_eq!(told, (&rejection, change, after), "{delta:?}");
        let point = delta.change.point().map(Points::get);
        assert_eq!((Some(entry.point), entry.partial), (point, delta.change.is_partial()));
    }
    let partial = "select count(*) from log where partial and action = 'subtract'";
    assert_eq!(system.count(partial).await, 5);
    assert_eq!(system.count("select count(partial) from log").await, 5, "null where it is not true");
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_changes_nothing_within_a_batch_and_across_batches() {
    let system = System::new().await;
    let service = system.service(1);
    let (once, other) = (add(7, 10), add(7, 1));
    let group = vec![once.clone(), other.clone(), once.clone()];
    let results = service.apply_deltas(group).await.expect("results");
    let outcomes: Vec<Outcome> = results.into_iter().map(|result| result.expect("an outcome")).collect();
    assert_eq!(
        outcomes.iter().map(|o| (o.entry.seq, o.replayed)).collect::<Vec<_>>(),
        [(1, false), (2, false), (1, true)]
    );
    let before = service.balance(user(7)).await;
    let again = apply(&service, &once).await;
    assert_eq!((again.entry.seq, again.entry.balance, again.replayed), (1, 10, true));
    assert_eq!(service.balance(user(7)).await, before, "and its time");
    // Another user's delta with the same id is another delta.
    let elsewhere = Delta { user_id: user(8), ..once };
    assert!(!apply(&service, &elsewhere).await.replayed);
    assert_eq!(balance(&service, 7).await, Some((11, 2)));
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_users_may_be_created_by_many_at_once() {
    let system = System::new().await;
    // Separate services, which share only the database.
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let service = system.service(2);
        tasks.spawn(async move {
            for id in 1..=50 {
                apply(&service, &add(id, 1)).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(system.count("select count(*) from user_point where point = 4 and seq = 4").await, 50);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_transactions_at_once_share_the_same_users_in_order() {
    let system = System::new().await;
    let service = Arc::new(system.service(8));
    let mut tasks = JoinSet::new();
    for user_id in 1..=20 {
        let service = Arc::clone(&service);
        tasks.spawn(async move {
            let mut seqs = Vec::new();
            for change in 0..50 {
                let delta = if change % 3 == 2 { subtract(user_id, 2) } else { add(user_id, 1) };
                seqs.push(apply(&service, &delta).await.entry.seq);
            }
            assert_eq!(seqs, (1..=50).collect::<Vec<i64>>(), "user {user_id}");
        });
    }
    tasks.join_all().await;
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_only_the_guilty_delta_is_refused() {
    let system = System::new().await;
    system.execute("alter table log add check (point <> 666)").await;
    let service = system.service(1);
    let deltas = vec![add(7, 1), add(7, 666), add(7, 2), add(7, 3)];
    let results = service.apply_deltas(deltas).await.expect("results");
    let refused: Vec<bool> = results.iter().map(|r| matches!(r, Err(ServiceError::Refused(_)))).collect();
    assert_eq!(refused, [false, true, false, false]);
    assert_eq!(balance(&service, 7).await, Some((6, 3)));
    system.finish_without_queues().await;
}

/// A balance that contradicts the log makes the entry impossible to write. The changes are good, so they wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_that_contradicts_the_log_holds_up_its_own_user_only() {
    let system = System::new().await;
    let service = system.service(1);
    for damage in [
        "update user_point set seq = seq - 1 where user_id = '7'",
        "delete from user_point where user_id = '7'",
    ] {
        for delta in [add(7, 1), add(7, 2)] {
            apply(&service, &delta).await;
        }
        let (point, seq) = balance(&service, 7).await.expect("a user");
        system.execute("create table intact as select * from user_point").await;
        system.execute(damage).await;
        let deltas = vec![add(8, 1), add(7, 3), add(9, 1), add(7, 4)];
        let results = service.apply_deltas(deltas.clone()).await.expect("results");
        let waits = |result: &Result<_, _>| match result {
            Err(ServiceError::Blocked(Obstacle::Unreadable(why))) => why.contains("contradict"),
            _ => false,
        };
        let waiting: Vec<bool> = results.iter().map(waits).collect();
        assert_eq!(waiting, [false, true, false, true], "{damage}: {results:?}");
        assert!(results[0].is_ok() && results[2].is_ok(), "{damage}: {results:?}");
        let repair = "delete from user_point where user_id = '7';
             insert into user_point select * from intact where user_id = '7'; drop table intact";
        system.execute(repair).await;
        let results = service.apply_deltas(deltas).await.expect("results");
        assert!(results.iter().all(Result::is_ok), "{damage}: {results:?}");
        assert_eq!(balance(&service, 7).await, Some((point + 7, seq + 2)), "in their order");
    }
    system.finish_without_queues().await;
}

/// A damaged page, a missing file and a trigger that fails look like this. The statement may succeed for other users.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_for_whom_the_database_fails_waits_alone() {
    let system = System::new().await;
    system
        .execute(
            "create function fail() returns trigger language plpgsql as $$ begin
                 if new.user_id = '7' then
                     raise exception 'invalid page' using errcode = (select code from failure);
                 end if;
                 return new;
             end $$;
             create table failure (code text);
             create trigger fail before insert on log for each row execute function fail()",
        )
        .await;
    let patience = Patience::Queue(CancellationToken::new());
    let service = PointService::start(system.database.pool(1), 1, &patience);
    for (round, code) in (1..).zip(["XX000", "XX001", "XX002", "58030", "58P01", "38000", "39000", "2F000"]) {
        system.execute(&format!("truncate failure; insert into failure values ('{code}')")).await;
        let deltas: Vec<Delta> = (1..=40).map(|user| add(user, 1)).chain([add(7, 2), add(8, 2)]).collect();
        let results = service.apply_deltas(deltas.clone()).await.expect("results");
        for (delta, result) in deltas.iter().zip(&results) {
            let waits = match result {
                Err(ServiceError::Blocked(Obstacle::Failing(state))) => state == code,
                _ => false,
            };
            let is_seventh = delta.user_id == user(7);
            assert!(waits == is_seventh && result.is_err() == is_seventh, "{code}: {result:?}");
        }
        assert_eq!(balance(&service, 8).await, Some((3 * round, 2 * round)), "{code}");
    }
    system.execute("drop trigger fail on log").await;
    apply(&service, &add(7, 1)).await;
    system.finish_without_queues().await;
}

/// After a refusal the deltas are applied in parts. A later delta must not overtake one that fails for now.
#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_fails_while_its_worker_stops_is_not_overtaken() {
    let system = System::new().await;
    system
        .execute(
            "alter table log add check (point <> 666);
             create sequence failures;
             create function fail() returns trigger language plpgsql as $$ begin
                 if new.point = 777 then
                     perform nextval('failures');
                     raise exception 'disk full' using errcode = '53100';
                 end if;
                 return new;
             end $$;
             create trigger fail before insert on log for each row execute function fail()",
        )
        .await;
    let stop = CancellationToken::new();
    let patience = Patience::Queue(stop.clone());
    let service = PointService::start(system.database.pool(1), 1, &patience);
    let deltas = vec![add(7, 666), add(7, 777), add(7, 1)];
    let stopping = async {
        let tries = "select case when is_called then last_value else 0 end from failures";
        eventually("it is tried again", async || system.count(tries).await >= 2).await;
        stop.cancel();
    };
    let (results, ()) = tokio::join!(service.apply_deltas(deltas), stopping);
    let results = results.expect("results");
    assert!(
        matches!(
            results[..],
            [
                Err(ServiceError::Refused(_)),
                Err(ServiceError::Unavailable(_)),
                Err(ServiceError::Unavailable(_))
            ]
        ),
        "{results:?}"
    );
    assert_eq!(system.count("select count(*) from log").await, 0);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_is_read_while_it_is_written() {
    let system = System::new().await;
    let service = Arc::new(system.service(4));
    let writer = Arc::clone(&service);
    let writing = tokio::spawn(async move {
        for _ in 0..100 {
            apply(&writer, &add(7, 1)).await;
        }
    });
    let mut seen = HashSet::new();
    while !writing.is_finished() {
        let (point, seq) = balance(&service, 7).await.unwrap_or_default();
        assert_eq!(point, seq, "a balance without its entry");
        seen.insert(point);
    }
    writing.await.expect("no panic");
    assert!(seen.len() > 1, "no read fell between the writes");
    system.finish_without_queues().await;
}
