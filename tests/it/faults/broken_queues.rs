//! Deleted queues. The messages of a queue are lost with it, so each queue is empty by then.

use std::{future::pending, time::Duration};

use tokio::time::timeout;

use crate::support::{
    client::is_promised,
    load::Load,
    system::{PARTITIONS, System, eventually},
};

const LOAD: Load = Load { users: 48, changes_per_user: 6, connections: 16 };

#[tokio::test(flavor = "multi_thread")]
async fn queues_that_are_deleted_under_their_consumers_are_declared_again() {
    let mut system = System::new().await;
    let client = system.serve();
    let stop = system.work();
    client.queue("add", 1_000, 1).await;
    system.drain(1).await;
    let queues = system.queues().await;
    queues.delete_partitions().await;
    let promises = LOAD.run(&client).await;
    system.drain(1 + LOAD.changes()).await;
    stop.cancel();
    let mut ledger = system.ledger().await;
    ledger.remove(&1_000);
    assert_eq!(ledger, promises);
    system.finish().await;
}

/// If a queue is declared again within 30 ms of its deletion, RabbitMQ keeps the consumer of the old queue, which then
/// gets no messages.
#[tokio::test(flavor = "multi_thread")]
async fn queues_that_are_deleted_at_any_moment_come_back_with_consumers_that_hear() {
    const ROUNDS: usize = 5;
    const USERS: i64 = 40;
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let queues = system.queues().await;
    for round in 0..=ROUNDS {
        if round > 0 {
            for partition in PARTITIONS.all() {
                queues.delete_partition(partition).await;
                let pause = Duration::from_millis(fastrand::u64(..=50));
                timeout(pause, pending::<()>()).await.ok();
            }
        }
        for user in 1..=USERS {
            let key = format!("{round}-{user}");
            let keyed = || client.change("add", user, 1).header("Idempotency-Key", &key);
            eventually("it is promised", async || is_promised(keyed()).await).await;
        }
        system.drain((round + 1) * 40).await;
    }
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_for_a_queue_that_is_gone_gets_no_202() {
    let mut system = System::new().await;
    let client = system.serve();
    let first = client.queue("add", 1_000, 1).await;
    let work = system.process("work", &[]);
    system.drain(1).await;
    // No process is left that would learn of the deletion.
    assert!(work.end("-TERM").await.success());
    system.queues().await.delete_partitions().await;
    let mut refusals = 0;
    let mut second = String::new();
    eventually("the queue is declared again", async || {
        let response = client.change("add", 1_000, 2).send().await.expect("an answer");
        refusals += usize::from(response.status() == 503);
        let accepted = response.status() == 202;
        second = response.json::<serde_json::Value>().await.expect("JSON")["request_id"].to_string();
        accepted
    })
    .await;
    assert!(refusals > 0, "a 202 for what found no queue");
    let promises = LOAD.run(&client).await;
    system.work();
    system.drain(2 + LOAD.changes()).await;
    let mut ledger = system.ledger().await;
    assert_eq!(ledger.remove(&1_000), Some(vec![first, second.trim_matches('"').to_owned()]));
    assert_eq!(ledger, promises);
    system.finish().await;
}
