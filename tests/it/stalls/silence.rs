//! What a broker sends once too often or not at all. A partition whose deliveries never arrive, although the broker
//! counts them as delivered, is noticed, reported, and recovers.

use serde_json::Value;

use super::queue_adds;
use crate::support::{
    client::{Client, answer},
    frames::Tampering,
    proxy::{Weather, detour},
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
    // The current connection keeps losing deliveries, but the next one will not.
    broker.turn(Weather::Fair);
    let listener = Client::new(&format!("http://{}", work.says("metrics listen at ").await));
    for node in [&listener, &client] {
        let mut state = Value::Null;
        eventually("it is told", async || {
            state = answer(node.get("/readyz")).await.1;
            state["state"] == "degraded"
        })
        .await;
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
