//! What a broker sends once too often or not at all. A partition whose deliveries never arrive, although the broker
//! counts them as delivered, is noticed, reported, and recovers.

use serde_json::Value;

use super::queue_adds;
use crate::support::{
    client::{Client, answer},
    frames::Tampering,
    proxy::{Weather, detour},
    queues::partition,
    system::{System, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn swallowed_deliveries_are_noticed_told_and_delivered_again() {
    let mut system = System::new().await;
    let client = system.serve();
    let (broker, amqp_url) = detour(&system.amqp_url).await;
    system.node_amqp_url = Some(amqp_url.into());
    broker.turn(Weather::Tampered(Tampering::NoDeliveries));
    let work = system.process("work", &["--metrics-listen", "127.0.0.1:0"]);
    work.says("working on").await;
    queue_adds(&client, 1..=40).await;
    let queues = system.queues().await;
    eventually("the broker has sent everything", async || queues.waiting().await == 0).await;
    // The current connection keeps losing deliveries, but the next one will not. Nothing is applied until both nodes
    // have told: a partition is no longer silent once its latest change is in the log.
    let session = system.database.pool(1).get().await.expect("a connection");
    let lock = "reset all; begin; lock table log in share row exclusive mode";
    session.batch_execute(lock).await.expect("locked");
    broker.turn(Weather::Fair);
    let listener = Client::new(&format!("http://{}", work.says("metrics listen at ").await));
    // Either node may be the first to see it, and to see that it is over.
    let mut told = [Value::Null, Value::Null];
    eventually("it is told", async || {
        for (node, told) in [&listener, &client].into_iter().zip(&mut told) {
            let state = answer(node.get("/readyz")).await.1;
            if state["state"] == "degraded" {
                *told = state;
            }
        }
        !told.contains(&Value::Null)
    })
    .await;
    session.batch_execute("rollback").await.expect("unlocked");
    for state in told {
        assert!(state["silent_partitions"].as_array().is_some_and(|silent| !silent.is_empty()), "{state}");
    }
    work.says("is silent").await;
    system.drain(40).await;
    for node in [&listener, &client] {
        eventually("all is well", async || answer(node.get("/readyz")).await.1["state"] == "ready").await;
    }
    let metrics = work.metrics().await;
    let silence: Vec<_> =
        metrics.lines().filter(|line| line.contains("partition_silence_seconds{")).collect();
    assert!(!silence.is_empty() && silence.iter().all(|line| line.ends_with(" 0")), "{silence:?}");
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}

/// For how many seconds the partition of the user is silent, as `node` has it.
async fn silence(node: &Client, user: i64) -> Option<f64> {
    let metrics = node.get("/metrics").send().await.expect("an answer").text().await.expect("text");
    let series = format!("point_system_partition_silence_seconds{{partition=\"{}\"}} ", partition(user));
    metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_before_it_can_tell_leaves_no_silence() {
    const USER: i64 = 7;
    let system = System::new().await;
    let serve = system.process("serve", &["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    let client = Client::new(&format!("http://127.0.0.1:{}", serve.says("server listen at :").await));
    let node = Client::new(&format!("http://{}", serve.says("metrics listen at ").await));
    let untold = "select count(*) from partition_pulse where accepted_until > taken_until";
    let mut sent = 0;
    // A worker tells every five seconds what it has taken, so one that is killed at once has not.
    while system.count(untold).await == 0 {
        client.queue("add", USER, 1).await;
        sent += 1;
        let told = "select count(*) from partition_pulse join log on accepted_request = request_id";
        eventually("it is told that the change was accepted", async || {
            system
                .count(
                    "select count(accepted_request) from partition_pulse where accepted_until > taken_until",
                )
                .await
                == 1
        })
        .await;
        let work = system.process("work", &[]);
        system.drain(sent).await;
        assert!(!work.end("-KILL").await.success());
        assert_eq!(system.count(told).await, 1);
    }
    // Hours later.
    system.execute("update partition_pulse set moved_at = moved_at - interval '1 hour'").await;
    eventually("nothing waits", async || silence(&node, USER).await == Some(0.0)).await;
    eventually("it is told in the worker's place", async || system.count(untold).await == 0).await;
    client.queue("add", USER, 1).await;
    eventually("the next change waits", async || silence(&node, USER).await.is_some_and(|since| since > 0.0))
        .await;
    assert!(silence(&node, USER).await.is_some_and(|since| since < 60.0), "its silence began with it");
    let mut system = system;
    system.work();
    system.drain(sent + 1).await;
    eventually("nothing waits", async || silence(&node, USER).await == Some(0.0)).await;
    assert!(serve.end("-TERM").await.success());
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_confirmed_twice_gets_its_deliveries() {
    let mut system = System::new().await;
    let client = system.serve();
    let (broker, amqp_url) = detour(&system.amqp_url).await;
    system.node_amqp_url = Some(amqp_url.into());
    broker.turn(Weather::Tampered(Tampering::SubscribedTwice));
    let work = system.process("work", &[]);
    work.says("working on").await;
    queue_adds(&client, 1..=40).await;
    system.drain(40).await;
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}
