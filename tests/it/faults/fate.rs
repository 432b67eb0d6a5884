//! What a client can ask about its change after an outage, and the answer for a change that never counts.

use reqwest::header::{LOCATION, RETRY_AFTER};
use serde_json::Value;

use crate::support::{
    client::{Client, answer, body, text},
    proxy::{Proxy, Weather, detour},
    system::{System, eventually},
};

/// The answer to a change during an outage: its id, and the path of its outcome.
async fn told(request: reqwest::RequestBuilder, kind: &str) -> (String, String) {
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key(RETRY_AFTER));
    let location = response.headers().get(LOCATION).cloned();
    let problem = body(response).await;
    assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
    let location = location.unwrap_or_else(|| panic!("no Location: {problem}"));
    let location = location.to_str().expect("a path").to_owned();
    assert!(text(&problem["detail"]).contains("Location"), "{problem}");
    let id = text(&problem["request_id"]);
    assert_eq!(location, format!("/v1/point/request/{id}?id=7"));
    (id, location)
}

/// Waits until the change is applied, with the id and path that its sender got.
async fn is_applied(client: &Client, (id, location): (String, String)) {
    eventually("its outcome is known", async || {
        let (status, outcome) = answer(client.get(&location)).await;
        status == 200 && outcome["status"] == "applied" && outcome["request_id"] == id.as_str()
    })
    .await;
}

/// An installation whose `serve` reaches its servers through proxies.
async fn serving() -> (System, Client, Proxy, Proxy) {
    let mut system = System::new().await;
    let (postgres, database_url) = detour(&system.database.url).await;
    let (broker, amqp_url) = detour(&system.amqp_url).await;
    system.node_database_url = Some(database_url.into());
    system.node_amqp_url = Some(amqp_url.into());
    let client = system.serve();
    client.queue("add", 7, 1).await;
    (system, client, postgres, broker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_may_be_queued_is_named_so_that_its_sender_can_ask() {
    let (mut system, client, _postgres, broker) = serving().await;
    broker.turn(Weather::Stalled);
    let keyed = || client.change("add", 7, 10).header("Idempotency-Key", "order-7");
    let named = told(keyed(), "queue-unavailable").await;
    assert_eq!(answer(client.get(&named.1)).await.0, 200, "it can be asked for at once");
    told(client.change("add", 7, 100), "queue-unavailable").await;
    broker.turn(Weather::Fair);
    let mut id = Value::Null;
    eventually("the queue takes it", async || {
        let (status, body) = answer(keyed()).await;
        id = body["request_id"].clone();
        status == 202
    })
    .await;
    assert_eq!(id, named.0.as_str(), "the id is that of the key");
    system.work();
    is_applied(&client, named).await;
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_waited_for_and_may_be_applied_is_named_too() {
    let (mut system, client, postgres, _broker) = serving().await;
    postgres.turn(Weather::Stalled);
    let waited = |key: &'static str| {
        client.change("add", 7, 10).header("Idempotency-Key", key).header("Prefer", "wait")
    };
    let named = told(waited("order-8"), "database-unavailable").await;
    // A read changes nothing, so it has no outcome.
    let response = client.get("/v1/point?id=7").send().await.expect("an answer");
    assert_eq!((response.status().as_u16(), response.headers().get(LOCATION)), (503, None));
    let problem = body(response).await;
    assert_eq!(problem.get("request_id"), None, "{problem}");
    postgres.turn(Weather::Fair);
    eventually("it is applied", async || answer(waited("order-8")).await.0 == 200).await;
    is_applied(&client, named).await;
    system.work();
    system.drain(2).await;
    system.finish_drained().await;
}
