//! Transfers through the queue: a receiver who is locked, or popular, delays only those who send to that user.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    client::answer,
    system::{System, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn senders_to_a_locked_user_wait_and_all_others_go_on() {
    let mut system = System::new().await;
    let client = system.serve();
    let work = system.process("work", &["--metrics-listen", "127.0.0.1:0"]);
    let queue = async |user: i64, to: i64| {
        let body = json!({"user_id": user, "to": to, "point": 1});
        let (status, body) = answer(client.post("/v1/point/transfer").json(&body)).await;
        assert_eq!(status, 202, "{body}");
    };
    join_all((1..=100).map(|user| client.queue("add", user, 10))).await;
    system.drain(100).await;
    let session = system.database.pool(1).get().await.expect("a connection");
    let lock = "reset all; begin; select from user_point where user_id = '100' for update";
    session.batch_execute(lock).await.expect("locked");
    // Users 1 to 9 send to the locked user, and the others to each other.
    join_all((1..=9).map(|user| queue(user, 100))).await;
    join_all((10..=98).map(|user| queue(user, user + 1))).await;
    let applied = async || system.count("select count(*) from log where action = 'transfer'").await;
    eventually("the others are applied", async || applied().await == 2 * 89).await;
    session.batch_execute("rollback").await.expect("unlocked");
    eventually("all are applied", async || applied().await == 2 * 98).await;
    assert_eq!(client.balance(100).await, 10 + 9);
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_senders_to_one_user_are_all_applied_by_several_workers() {
    const SENDERS: i64 = 10_000;
    let mut system = System::new().await;
    let client = system.serve();
    let add = |user: &i64| json!({"action": "add", "user_id": user, "point": 2});
    let gift = |user: &i64| json!({"action": "transfer", "user_id": user, "to": "star", "point": 1});
    let senders: Vec<i64> = (1..=SENDERS).collect();
    for change in [&add as &dyn Fn(&i64) -> Value, &gift, &gift] {
        for some in senders.chunks(1_000) {
            let operations: Vec<Value> = some.iter().map(change).collect();
            let batch = client.post("/v1/point/batch").json(&json!({"operations": operations}));
            let (status, body) = answer(batch).await;
            assert_eq!(status, 202, "{body}");
        }
    }
    system.work();
    system.work();
    let balance = "select coalesce(max(point), 0) from user_point where user_id = 'star'";
    eventually("all points have arrived", async || system.count(balance).await == 2 * SENDERS).await;
    assert_eq!(system.count("select count(*) from user_point where point > 0").await, 1);
    system.finish().await;
}
