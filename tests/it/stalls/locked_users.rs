//! Users whose rows are locked by another session, or damaged by hand: only their changes wait, and the log names them.

use std::time::Duration;

use futures_util::future::join_all;
use point_system::{cli::MessageArgs, infra::postgres::Client as Session};
use reqwest::RequestBuilder;
use tokio::time::interval;

use super::{entries_of, queue_adds, users_of};
use crate::support::{
    client::{Promises, answer, is_promised, text},
    queues::partition,
    system::{PARTITIONS, System, eventually},
};

/// The user whose row is locked.
const STUCK: i64 = 1;

/// A session that holds the stuck user's row until it is dropped or rolls back.
async fn lock_stuck(system: &System) -> Session {
    let session = system.database.pool(1).get().await.expect("a connection");
    let lock = "reset all; begin; select from user_point where user_id = '1' for update";
    session.batch_execute(lock).await.expect("locked");
    session
}

/// A client that waits for the outcome of `change` is told that its user is blocked.
async fn is_blocked(change: RequestBuilder) {
    let (status, problem) = answer(change.header("Prefer", "wait")).await;
    assert_eq!(
        (status.as_u16(), problem["type"].as_str()),
        (503, Some("/problems/user-blocked")),
        "{problem}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_locked_user_holds_up_nobody_else() {
    let mut system = System::new().await;
    let client = system.serve();
    let mut promises = vec![client.queue("add", STUCK, 1).await];
    let work = system.process("work", &["--metrics-listen", "127.0.0.1:0"]);
    system.drain(1).await;
    let session = lock_stuck(&system).await;
    for point in 2..5 {
        promises.push(client.queue("add", STUCK, point).await);
    }
    queue_adds(&client, 2..=201).await;
    let others = "user_id::bigint between 2 and 201";
    eventually("all others are applied", async || entries_of(&system, others).await == 200).await;
    assert_eq!(entries_of(&system, "user_id = '1'").await, 1, "the row is locked");
    work.says("only this user's changes wait").await;
    let metrics = work.metrics().await;
    let named = metrics.lines().any(|line| {
        line.starts_with("point_system_waiting_user_seconds")
            && line.contains(r#"user_id="1""#)
            && line.contains(r#"obstacle="locked""#)
    });
    assert!(named, "{metrics}");
    // One change waits for the lock, and another in the same partition does not.
    promises.push(client.queue("subtract", STUCK, 1).await);
    let neighbour = users_of(partition(STUCK), 1_000).next().expect("a neighbour");
    queue_adds(&client, [neighbour]).await;
    eventually("a neighbour is applied", async || client.balance(neighbour).await == 1).await;
    is_blocked(client.change("add", STUCK, 1)).await;
    session.batch_execute("rollback").await.expect("unlocked");
    eventually("the user goes on", async || client.balance(STUCK).await == 1 + 2 + 3 + 4 - 1).await;
    let ledger = system.ledger().await;
    assert_eq!(ledger[&STUCK], promises, "in the order of their 202s");
    eventually("nobody is named any more", async || !work.metrics().await.contains("waiting_user_seconds{"))
        .await;
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_whom_another_session_is_creating_holds_up_nobody_else() {
    let mut system = System::new().await;
    let client = system.serve();
    let work = system.process("work", &["--metrics-listen", "127.0.0.1:0"]);
    let session = system.database.pool(1).get().await.expect("a connection");
    let create = "reset all; begin; insert into user_point (user_id) select generate_series(1, 3)::text";
    session.batch_execute(create).await.expect("created");
    queue_adds(&client, 1..=201).await;
    eventually("all others are applied", async || entries_of(&system, "user_id::bigint > 3").await == 198)
        .await;
    assert_eq!(entries_of(&system, "user_id::bigint <= 3").await, 0, "their rows are not there yet");
    work.says("only this user's changes wait").await;
    is_blocked(client.change("add", STUCK, 1)).await;
    let smaller = r#"point_system_database_retries_total{reason="slow"} 0"#;
    let metrics = work.metrics().await;
    assert!(metrics.contains(smaller), "no transaction was too slow: {metrics}");
    session.batch_execute("rollback").await.expect("gone");
    eventually("they go on", async || entries_of(&system, "user_id::bigint <= 3").await >= 3).await;
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_user_in_a_tenth_of_the_messages_holds_up_nobody_else() {
    const MESSAGES: i64 = 2_500;
    let mut system = System::new().await;
    let client = system.serve();
    let mut promises = Promises::new();
    promises.insert(STUCK, vec![client.queue("add", STUCK, 1).await]);
    system.work();
    system.drain(1).await;
    let session = lock_stuck(&system).await;
    // A hundred a second.
    let mut due = interval(Duration::from_millis(10));
    for message in 0..MESSAGES {
        due.tick().await;
        let user = if message % 10 == 0 { STUCK } else { 2 + message % 100 };
        let id = client.queue("add", user, 1).await;
        promises.entry(user).or_default().push(id);
    }
    let others = "user_id::bigint > 1";
    eventually("all others are applied", async || entries_of(&system, others).await == MESSAGES * 9 / 10)
        .await;
    assert_eq!(entries_of(&system, "user_id = '1'").await, 1, "the row is locked");
    session.batch_execute("rollback").await.expect("unlocked");
    system.drain(usize::try_from(1 + MESSAGES).expect("a small number")).await;
    assert_eq!(system.ledger().await, promises);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_more_messages_have_stuck_users_than_a_worker_holds_their_partition_waits_and_no_other() {
    const MESSAGES: usize = 600;
    let mut system = System::new().await;
    let client = system.serve();
    let mut stuck = vec![client.queue("add", STUCK, 1).await];
    let stop = system.work();
    system.drain(1).await;
    let session = lock_stuck(&system).await;
    for _ in 0..MESSAGES {
        stuck.push(client.queue("add", STUCK, 1).await);
    }
    let neighbour = users_of(partition(STUCK), 1_000).next().expect("a neighbour");
    queue_adds(&client, [neighbour]).await;
    let elsewhere = PARTITIONS.all().find(|other| *other != partition(STUCK)).expect("another");
    let elsewhere = users_of(elsewhere, 1_000).next().expect("a user");
    queue_adds(&client, [elsewhere]).await;
    eventually("another partition goes on", async || client.balance(elsewhere).await == 1).await;
    // Messages beyond those that the broker sends ahead are not delivered.
    let queues = system.queues().await;
    let ahead = |waiting: u32| usize::try_from(waiting).is_ok_and(|waiting| waiting > 0);
    eventually("messages are left in the queue", async || ahead(queues.waiting().await)).await;
    // The next worker gets everything in order.
    stop.cancel();
    system.work();
    session.batch_execute("rollback").await.expect("unlocked");
    system.drain(MESSAGES + 3).await;
    let ledger = system.ledger().await;
    assert_eq!(ledger[&STUCK], stuck);
    assert_eq!(client.balance(neighbour).await, 1);
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_held_for_too_long_go_back_and_keep_their_order() {
    let mut system = System::new().await;
    let client = system.serve();
    let mut stuck = vec![client.queue("add", STUCK, 1).await];
    let ack_timeout = Duration::from_secs(1);
    system.work_with(MessageArgs { ack_timeout, ..MessageArgs::default() });
    system.drain(1).await;
    let session = lock_stuck(&system).await;
    stuck.push(client.queue("add", STUCK, 2).await);
    // The next worker in line gets the messages only if the first one gives them back.
    let next = system.process("work", &[]);
    next.says("only this user's changes wait").await;
    stuck.push(client.queue("add", STUCK, 3).await);
    let neighbour = users_of(partition(STUCK), 1_000).next().expect("a neighbour");
    queue_adds(&client, [neighbour]).await;
    eventually("a neighbour is applied", async || client.balance(neighbour).await == 1).await;
    session.batch_execute("rollback").await.expect("unlocked");
    system.drain(4).await;
    assert_eq!(system.ledger().await[&STUCK], stuck);
    assert!(next.end("-TERM").await.success());
    // A message that goes back just after its commit comes again.
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_rows_are_damaged_waits_alone_and_is_named() {
    let mut system = System::new().await;
    let client = system.serve();
    let key = |user| client.change("add", user, 1).header("Idempotency-Key", "order-7");
    for user in [STUCK, 2] {
        assert_eq!(answer(key(user)).await.0, 202);
    }
    let work = system.process("work", &[]);
    system.drain(2).await;
    system.execute("update log set requested_at = 'infinity' where user_id = '1'").await;
    // Sent again, so that the worker looks up the damaged entry.
    assert_eq!(answer(key(STUCK)).await.0, 202);
    assert!(is_promised(key(2)).await);
    queue_adds(&client, (2..=201).chain([STUCK])).await;
    eventually("all others are applied", async || entries_of(&system, "user_id::bigint > 1").await == 201)
        .await;
    let line = work.says("only this user's changes wait").await;
    assert!(line.contains("a row breaks the rules of its table"), "{line}");
    is_blocked(key(STUCK)).await;
    system.execute("update log set requested_at = created_at where user_id = '1'").await;
    eventually("the user goes on", async || client.balance(STUCK).await == 2).await;
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_row_fails_the_reads_of_its_own_user_only() {
    let mut system = System::new().await;
    let client = system.serve();
    for user in 1..=20 {
        assert_eq!(answer(client.change("add", user, 1).header("Prefer", "wait")).await.0, 200);
    }
    system.execute("update user_point set updated_at = 'infinity' where user_id = '1'").await;
    for _ in 0..20 {
        // All at once, so that they share queries.
        let paths = (1..=20).map(|user| format!("/v1/point?id={user}"));
        let answers = join_all(paths.map(|path| answer(client.get(&path)))).await;
        for (user, (status, body)) in (1..).zip(answers) {
            assert_eq!(status.as_u16(), if user == STUCK { 503 } else { 200 }, "user {user}: {body}");
        }
        // The first request of each kind has the damaged row.
        let many =
            ["id=1&id=2", "id=2&id=3&id=4", "prefix=1&limit=1", "prefix=1&limit=1&after=1", "prefix=2"];
        let answers = join_all(many.map(|query| answer(client.get(&format!("/v1/points?{query}"))))).await;
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| status.as_u16()).collect();
        assert_eq!(statuses, [503, 200, 503, 200, 200], "{answers:?}");
        for (_, problem) in [&answers[0], &answers[2]] {
            assert_eq!(problem["type"], "/problems/user-blocked");
            assert!(text(&problem["detail"]).starts_with("user 1: a row breaks the rules"), "{problem}");
        }
    }
    system
        .execute(
            "update user_point set updated_at = (select created_at from log where user_id = '1')
         where user_id = '1'",
        )
        .await;
    assert_eq!(client.balance(STUCK).await, 1);
    system.finish().await;
}
