//! What a node tells its operators: probes and metrics.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    client::{Client, answer, body},
    process::Process,
    queues::{message, partition},
    servers::OwnServers,
    system::{System, eventually},
};

/// Starts a role as a process, with a client of its metrics listener.
async fn with_metrics(system: &System, role: &str, arguments: &[&str]) -> (Process, Client) {
    let process = system.process(role, &[arguments, &["--metrics-listen", "127.0.0.1:0"]].concat());
    let address = process.says("metrics listen at ").await;
    (process, Client::new(&format!("http://{address}")))
}

async fn serving(system: &System) -> (Process, Client, Client) {
    let (process, node) = with_metrics(system, "serve", &["--listen", "127.0.0.1:0"]).await;
    let port = process.says("server listen at :").await;
    (process, node, Client::new(&format!("http://127.0.0.1:{port}")))
}

async fn metrics(node: &Client) -> String {
    let response = node.get("/metrics").send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4");
    response.text().await.expect("text")
}

fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

async fn readiness(client: &Client) -> (u16, Value) {
    let (status, body) = answer(client.get("/readyz")).await;
    (status.as_u16(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_counts_what_it_does() {
    let system = System::new().await;
    let (serve, serving, client) = serving(&system).await;
    assert_eq!(answer(client.change("add", 7, 100).header("Idempotency-Key", "a")).await.0, 202);
    assert_eq!(answer(client.change("add", 7, 100).header("Idempotency-Key", "a")).await.0, 202);
    let (work, working) = with_metrics(&system, "work", &[]).await;
    client.queue("subtract", 7, 1_000).await;
    system.drain(2).await;
    assert_eq!(answer(client.change("add", 7, 1).header("Prefer", "wait")).await.0, 200);
    assert_eq!(client.balance(7).await, 101);
    for path in ["/v1/pointless", "/v1/point/7", "/wp-login.php"] {
        assert_eq!(answer(client.get(path)).await.0, 404);
    }
    assert_eq!(answer(client.get("/v1/point/add")).await.0, 405);
    let queues = system.queues().await;
    queues.publish(0, "not JSON").await;
    eventually("a dead letter is seen", async || {
        value(&metrics(&working).await, "point_system_dead_letter_messages") == Some(1.0)
    })
    .await;

    let (served, worked) = (metrics(&serving).await, metrics(&working).await);
    for (metrics, series, expected) in [
        (&served, "point_system_http_requests_total{route=\"/v1/point/add\",status=\"202\"}", 2.0),
        (&served, "point_system_http_requests_total{route=\"/v1/point/add\",status=\"200\"}", 1.0),
        (&served, "point_system_http_requests_total{route=\"/v1/point/add\",status=\"405\"}", 1.0),
        (&served, "point_system_http_requests_total{route=\"/v1/point\",status=\"200\"}", 1.0),
        (&served, "point_system_http_requests_total{route=\"unmatched\",status=\"404\"}", 3.0),
        (&served, "point_system_http_request_duration_seconds_count{route=\"/v1/point/add\"}", 4.0),
        (&served, "point_system_published_deltas_total{result=\"confirmed\"}", 3.0),
        (&served, "point_system_batch_size_sum{lane=\"publish\"}", 3.0),
        (&served, "point_system_settled_deltas_total{outcome=\"applied\"}", 1.0),
        (&worked, "point_system_settled_deltas_total{outcome=\"applied\"}", 1.0),
        (&worked, "point_system_settled_deltas_total{outcome=\"duplicate\"}", 1.0),
        (&worked, "point_system_settled_deltas_total{outcome=\"rejected\"}", 1.0),
        (&worked, "point_system_apply_lag_seconds_count", 2.0),
        (&worked, "point_system_batch_size_sum{lane=\"apply\"}", 3.0),
        (&worked, "point_system_dead_lettered_messages_total{reason=\"malformed\"}", 1.0),
        (&worked, "point_system_queue_consumers{partition=\"3\"}", 1.0),
        (&worked, "point_system_rabbitmq_connections_total{role=\"work\"}", 1.0),
        (&worked, "point_system_pool_connections_max{role=\"work\"}", 9.0),
        (&worked, "point_system_oldest_delta_age_seconds{partition=\"0\"}", 0.0),
    ] {
        assert_eq!(value(metrics, series), Some(expected), "{series} of {metrics}");
    }
    assert!(!served.contains("wp-login"), "a client's words became a label");
    assert!(served.contains(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))));
    for (node, other) in [(&serving, "/v1/point?id=7"), (&working, "/"), (&client, "/metrics")] {
        assert_eq!(answer(node.get(other)).await.0, 404, "each listener has its own");
    }
    assert!(work.end("-TERM").await.success() && serve.end("-TERM").await.success());
    system.finish().await;
}

/// Everything that a `serve` and a `work` export once each metric has a value.
pub async fn exported(system: &System) -> String {
    let (serve, serving, client) = serving(system).await;
    let (work, working) = with_metrics(system, "work", &[]).await;
    client.queue("add", 7, 100).await;
    system.drain(1).await;
    client.balance(7).await;
    eventually("the queues are seen", async || {
        value(&metrics(&serving).await, "point_system_queue_messages{partition=\"0\"}").is_some()
    })
    .await;
    // A user that waits, whom the metrics then name.
    let session = system.database.pool(1).get().await.expect("a connection");
    let lock = "reset all; begin; select from user_point where user_id = '7' for update";
    session.batch_execute(lock).await.expect("locked");
    client.queue("add", 7, 100).await;
    eventually("silence is told", async || metrics(&working).await.contains("silence_seconds{")).await;
    eventually("the user is named", async || metrics(&working).await.contains("waiting_user_seconds{")).await;
    let exported = [metrics(&serving).await, metrics(&working).await].concat();
    session.batch_execute("rollback").await.expect("unlocked");
    system.drain(2).await;
    assert!(work.end("-TERM").await.success() && serve.end("-TERM").await.success());
    exported
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_what_is_down_and_whether_it_can_work() {
    let mut servers = OwnServers::start().await;
    let system = System::on_own(&servers).await;
    let (serve, serving, client) = serving(&system).await;
    let (work, working) = with_metrics(&system, "work", &[]).await;
    let says = async |client: &Client, status: u16, state: &str| {
        let what = format!("{status} {state}");
        eventually(&what, async || {
            let (got, body) = readiness(client).await;
            (got, &body["state"]) == (status, &json!(state))
        })
        .await;
        readiness(client).await.1
    };
    says(&client, 200, "ready").await;
    says(&working, 200, "ready").await;

    servers.postgres.stop().await.expect("PostgreSQL stops");
    let report = says(&client, 200, "degraded").await;
    assert_eq!(
        (&report["postgresql"]["state"], &report["rabbitmq"]["state"], report.get("type")),
        (&json!("down"), &json!("up"), None)
    );
    assert_eq!(client.change("add", 7, 1).send().await.expect("an answer").status(), 202, "degraded");
    says(&serving, 200, "degraded").await;
    says(&working, 503, "unable").await;
    let age = "point_system_oldest_delta_age_seconds";
    eventually("the change in hand ages", async || {
        let metrics = metrics(&working).await;
        let ages = metrics.lines().filter(|line| line.starts_with(age));
        ages.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).any(|age| age > 1.0)
    })
    .await;
    servers.postgres.resume().await.expect("PostgreSQL starts");
    says(&working, 200, "ready").await;

    servers.broker.stop().await.expect("RabbitMQ stops");
    let problem = says(&client, 503, "unable").await;
    assert_eq!((&problem["type"], &problem["status"]), (&json!("/problems/not-ready"), &json!(503)));
    assert_eq!(problem["rabbitmq"]["state"], "down");
    let response = client.get("/readyz").send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(body(client.get("/livez").send().await.expect("an answer")).await, "live");
    let (url, shown) = (&system.database.url, problem.to_string());
    assert!(!shown.contains(url.as_str()) && !shown.contains("127.0.0.1"), "{shown}");
    assert!(value(&metrics(&serving).await, "point_system_ready{role=\"serve\"}").is_some());
    servers.broker.resume().await.expect("RabbitMQ starts");
    says(&client, 200, "ready").await;
    let opened = "point_system_rabbitmq_connections_total{role=\"serve\"}";
    assert_eq!(value(&metrics(&serving).await, opened), Some(2.0), "a reconnect is counted");
    system.drain(1).await;
    // Its ack may be lost in the outage. Then the message comes again.
    let queues = system.queues().await;
    eventually("it is in a worker's hands", async || queues.waiting().await == 0).await;
    assert!(work.end("-TERM").await.success() && serve.end("-TERM").await.success());
    system.finish().await;
    servers.stop().await;
}

/// A probe is answered from memory, without the database, however often it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_probes_is_no_load_on_the_database() {
    let mut system = System::new().await;
    let client = system.serve();
    eventually("it is ready", async || {
        client.get("/readyz").send().await.is_ok_and(|response| response.status() == 200)
    })
    .await;
    let transactions = "select xact_commit from pg_stat_database where datname = current_database()";
    let before = system.count(transactions).await;
    for _ in 0..20 {
        let answers = join_all((0..100).map(|_| readiness(&client))).await;
        assert!(answers.iter().all(|(status, _)| *status == 200));
    }
    let after = system.count(transactions).await;
    assert!(after - before < 500, "{} transactions for 2,000 probes", after - before);
    system.finish().await;
}

/// A load balancer learns of a node's end from the metrics listener, which outlives the API's.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_is_ready_no_more() {
    let system = System::new().await;
    let (work, working) = with_metrics(&system, "work", &[]).await;
    eventually("it is ready", async || readiness(&working).await.0 == 200).await;
    let session = system.pool.get().await.expect("a connection");
    let lock = "reset all; begin; insert into user_point (user_id) values ('7')";
    session.batch_execute(lock).await.expect("locked");
    system.queues().await.publish(partition(7), &message("01890a5d-ac96-774b-bcce-b302099a8057", 7, 1)).await;
    let waiting = "select count(*) from pg_stat_activity \
         where datname = current_database() and wait_event_type = 'Lock'";
    eventually("the worker is within its transaction", async || system.count(waiting).await > 0).await;
    work.signal("-TERM").await;
    eventually("it is stopping", async || readiness(&working).await.1["state"] == "stopping").await;
    assert_eq!(readiness(&working).await.0, 503);
    assert_eq!(answer(working.get("/livez")).await.0, 200);
    session.batch_execute("rollback").await.expect("rolled back");
    assert!(work.ends().await.0.success());
    let mut system = system;
    system.work();
    system.drain(1).await;
    system.finish().await;
}
