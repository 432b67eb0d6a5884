//! Outages of either half, on separate servers that the test stops and starts.

use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;

use crate::support::{
    client::{Client, answer, body, is_promised},
    servers::OwnServers,
    system::{System, eventually},
};

/// The longest that a client waits to learn that the broker is gone.
const REFUSAL_LIMIT: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn either_half_may_go_away_and_come_back() {
    let mut servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let client = system.serve();
    system.work();
    client.queue("add", 7, 1).await;
    system.drain(1).await;

    servers.broker.stop().await.expect("RabbitMQ stops");
    let asked = Instant::now();
    let response = client.change("add", 7, 10).send().await.expect("an answer");
    assert!(asked.elapsed() < REFUSAL_LIMIT, "{:?}", asked.elapsed());
    assert_eq!(response.status(), 503);
    assert!(response.headers()[RETRY_AFTER].to_str().expect("a number").parse::<u32>().is_ok());
    assert_eq!(body(response).await["type"], "/problems/queue-unavailable");
    assert_eq!(client.balance(7).await, 1, "reads go on, and nothing is applied");
    let waited = client.change("add", 7, 100).header("Prefer", "wait");
    assert_eq!(answer(waited).await.0, 200, "writes past the queue go on");
    let late = system.process("serve", &["--listen", "127.0.0.1:0"]);
    let late_client = Client::new(&format!("http://127.0.0.1:{}", late.says("server listen at :").await));
    assert_eq!(late_client.balance(7).await, 101, "a server that starts now reads, too");
    assert_eq!(late_client.get("/readyz").send().await.expect("an answer").status(), 503);
    servers.broker.resume().await.expect("RabbitMQ starts");
    eventually("the queue takes deltas again", async || accepted(&client, "after the outage", 1_000).await)
        .await;
    eventually("they are applied", async || client.balance(7).await == 1_101).await;
    eventually("the late server is ready", async || {
        late_client.get("/readyz").send().await.expect("an answer").status() == 200
    })
    .await;
    assert!(late.end("-TERM").await.success());

    servers.broker.control(&["close_all_connections", "a test"]).await.expect("closed");
    eventually("the queue takes deltas again", async || accepted(&client, "after the close", 1).await).await;
    eventually("they are applied", async || client.balance(7).await == 1_102).await;

    servers.postgres.stop().await.expect("PostgreSQL stops");
    client.queue("add", 7, 10_000).await;
    let (status, problem) = answer(client.get("/v1/point?id=7")).await;
    assert_eq!((status.as_u16(), problem["type"].as_str()), (503, Some("/problems/database-unavailable")));
    servers.postgres.resume().await.expect("PostgreSQL starts");
    eventually("the delta of the outage is applied", async || client_balance(&client).await == Some(11_102))
        .await;
    assert_eq!(system.queues().await.dead().await, 0, "an outage makes no dead letters");
    system.finish().await;
    servers.stop().await;
}

async fn accepted(client: &Client, key: &str, point: i64) -> bool {
    is_promised(client.change("add", 7, point).header("Idempotency-Key", key)).await
}

/// The balance, or `None` while the database is away.
async fn client_balance(client: &Client) -> Option<i64> {
    answer(client.get("/v1/point?id=7")).await.1["point"].as_i64()
}
