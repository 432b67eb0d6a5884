//! A broker that accepts no more messages: clients get an answer in time, and all else goes on. It has its own servers.

use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;

use crate::support::{
    client::{Client, answer, body, is_promised},
    servers::OwnServers,
    system::{System, eventually},
};

/// The confirm timeout of 5 s, and some time for the answer.
const REFUSAL_LIMIT: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_no_more_is_waited_for_no_longer_than_it_should() {
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let client = system.serve();
    client.queue("add", 7, 1).await;

    // A queue at its limit, which a policy makes small: the broker refuses at once.
    let pattern = format!("^{}\\..*\\.deltas\\.", system.prefix);
    let policy = ["set_policy", "--apply-to", "queues", "full", &pattern, r#"{"max-length":1}"#];
    servers.broker.control(&policy).await.expect("a policy");
    let mut promised = 1;
    let full = loop {
        let response = client.change("add", 7, 1).send().await.expect("an answer");
        if response.status() != 202 {
            break response;
        }
        promised += 1;
        assert!(promised < 1_000, "the limit is not held");
    };
    assert_eq!(full.status(), 503);
    let seconds: u64 = full.headers()[RETRY_AFTER].to_str().expect("a text").parse().expect("a number");
    assert!((1..=30).contains(&seconds), "{seconds}");
    assert_eq!(body(full).await["type"], "/problems/overloaded");
    the_rest_goes_on(&client).await;
    servers.broker.control(&["clear_policy", "full"]).await.expect("no policy");
    system.work();
    eventually("what was promised is applied", async || client.balance(7).await == promised).await;

    // A memory alarm: the broker stops reading, and sends nothing.
    servers.broker.control(&["set_vm_memory_high_watermark", "0.00001"]).await.expect("an alarm");
    let asked = Instant::now();
    let (status, problem) = answer(client.change("add", 7, 1)).await;
    assert_eq!((status.as_u16(), problem["type"].as_str()), (503, Some("/problems/queue-unavailable")));
    assert!(asked.elapsed() < REFUSAL_LIMIT, "{:?}", asked.elapsed());
    the_rest_goes_on(&client).await;
    servers.broker.control(&["set_vm_memory_high_watermark", "0.4"]).await.expect("no alarm");
    let keyed = || client.change("add", 7, 1).header("Idempotency-Key", "after the alarm");
    eventually("the queue takes deltas again", async || is_promised(keyed()).await).await;
    eventually("they are applied", async || client.balance(7).await > promised).await;
    system.finish_drained().await;
    servers.stop().await;
}

/// Checks that reads, and changes that do not use the queue, go on.
async fn the_rest_goes_on(client: &Client) {
    let before = client.balance(8).await;
    let (status, entry) = answer(client.change("add", 8, 1).header("Prefer", "wait")).await;
    assert_eq!(status, 200, "{entry}");
    assert_eq!(client.balance(8).await, before + 1);
}
