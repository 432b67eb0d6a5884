//! Points that expire of users who have an obstacle. Must not contain what expires when.

use point_system::domain::{Obstacle, ServiceError};

use super::{balance, in_hours, pass, points};
use crate::{
    apply::{add_until, apply, reverse, subtract, subtract_some},
    support::system::{System, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_can_not_be_read_keeps_no_other_points_from_expiring() {
    let system = System::new().await;
    let service = system.service(2);
    for id in [7, 8, 9] {
        apply(&service, &add_until(id, 5, in_hours(1))).await;
    }
    pass(&system, 2 * 3_600).await;
    system.execute("create table intact as select user_id, due_at from user_point").await;
    system.execute("update user_point set due_at = '-infinity' where user_id in ('7', '8')").await;
    let work = system.process("work", &[]);
    for user in ["user_id=7", "user_id=8"] {
        eventually(user, async || {
            let printed = work.printed();
            printed.lines().any(|line| line.contains("the row breaks the rules") && line.contains(user))
        })
        .await;
    }
    eventually("the other user's have expired", async || balance(&service, 9).await.seq == 2).await;
    assert_eq!(system.count("select count(*) from log where action = 'expire'").await, 1);
    let repair = "update user_point set due_at = intact.due_at from intact \
         where intact.user_id = user_point.user_id and user_point.due_at = '-infinity'";
    system.execute(repair).await;
    system.drain(6).await;
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_keeps_expired_points_is_named() {
    let system = System::new().await;
    let service = system.service(2);
    for id in [7, 8] {
        apply(&service, &add_until(id, 5, in_hours(1))).await;
    }
    pass(&system, 2 * 3_600).await;
    let session = system.pool.get().await.expect("a connection");
    let lock = "reset all; begin; select from user_point where user_id = '7' for update";
    session.batch_execute(lock).await.expect("locked");
    let work = system.process("work", &["--metrics-listen", "127.0.0.1:0"]);
    let line = work.says("expired points stay in the user's balance for now").await;
    assert!(
        line.contains("locked by another session")
            && line.contains("user_id=7")
            && line.contains("such users: 1"),
        "{line}"
    );
    assert_eq!(balance(&service, 8).await.seq, 2, "the other user's have expired");
    let overdue = async || {
        let metrics = work.metrics().await;
        let series = "point_system_expired_lots_overdue_seconds ";
        let found = metrics.lines().find_map(|line| line.strip_prefix(series)?.parse::<f64>().ok());
        found.unwrap_or_else(|| panic!("{metrics}"))
    };
    let first = overdue().await;
    assert!((3_599.0..3_700.0).contains(&first), "expired an hour ago: {first} s");
    eventually("it grows", async || overdue().await > first + 1.0).await;
    session.batch_execute("rollback").await.expect("unlocked");
    drop(session);
    system.drain(4).await;
    eventually("nothing is overdue", async || overdue().await == 0.0).await;
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_with_lots_of_more_points_than_it_moved_gives_none_back() {
    let system = System::new().await;
    let service = system.service(2);
    // The second one asks for more than it takes: what it took is the limit.
    for (user, taken, points_taken) in [(7, subtract(7, 20), 20), (8, subtract_some(8, 100), 50)] {
        for delta in [add_until(user, 50, in_hours(1)), taken.clone()] {
            apply(&service, &delta).await;
        }
        let damage = async |by: &str| {
            let sql = format!("update log set lots[2] = lots[2] {by} where user_id = '{user}' and seq = 2");
            system.execute(&sql).await;
        };
        damage("+ 1").await;
        let undo = reverse(user, taken.request_id);
        let results = service.apply_deltas(vec![undo.clone()]).await.expect("results");
        let limit = format!("more than {points_taken} points");
        let is_named = |result: &Result<_, _>| match result {
            Err(ServiceError::Blocked(Obstacle::Unreadable(why))) => why.contains(&limit),
            _ => false,
        };
        assert!(results.iter().all(is_named), "{results:?}");
        damage("- 1").await;
        assert_eq!(points(&apply(&service, &undo).await.entry.lots), [points_taken]);
    }
    system.finish_without_queues().await;
}
