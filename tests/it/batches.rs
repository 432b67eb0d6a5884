//! Batches of changes: their order, their keys, refusals, and a broker that accepts only some of them.

use reqwest::{RequestBuilder, header::RETRY_AFTER};
use serde_json::{Value, json};

use crate::{
    http::refused,
    support::{
        client::{Client, Promises, answer, body, text},
        queues::partition,
        servers::OwnServers,
        system::{System, eventually},
    },
};

fn batch(client: &Client, operations: &[Value]) -> RequestBuilder {
    client.post("/v1/point/batch").json(&json!({"operations": operations}))
}

fn add(user: i64, point: i64) -> Value {
    json!({"action": "add", "user_id": user, "point": point})
}

fn keyed(user: i64, key: &str) -> Value {
    json!({"action": "add", "user_id": user, "point": 1, "key": key})
}

/// The outcome of each operation in an answer.
fn operations(answer: &Value) -> Vec<(String, String)> {
    let operations = answer["operations"].as_array().unwrap_or_else(|| panic!("{answer}"));
    operations.iter().map(|one| (text(&one["request_id"]), text(&one["status"]))).collect()
}

async fn accepted(request: RequestBuilder) -> Vec<String> {
    let (status, body) = answer(request).await;
    assert_eq!(status, 202, "{body}");
    let operations = operations(&body).into_iter();
    operations.map(|(id, status)| (status == "pending").then_some(id).expect("pending")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_applied_in_its_order_for_each_user() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let mut promises = Promises::new();
    // All operations for one user, and for several.
    for users in [1, 7] {
        let users: Vec<i64> = (0..1_000).map(|index| 1 + index % users).collect();
        let changes: Vec<Value> = (1..).zip(&users).map(|(point, user)| add(*user, point)).collect();
        let ids = accepted(batch(&client, &changes)).await;
        for (user, id) in users.into_iter().zip(ids) {
            promises.entry(user).or_default().push(id);
        }
    }
    system.drain(2_000).await;
    assert!(system.ledger().await == promises, "a log is not in the order of its batches");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_sent_again_counts_once() {
    let mut system = System::new().await;
    let client = system.serve();
    let mut changes = vec![keyed(7, "a"), keyed(8, "a"), add(7, 10), add(7, 10)];
    changes[2]["reason"] = json!("why");
    let sent = || batch(&client, &changes).header("Idempotency-Key", "a");
    let first = accepted(sent()).await;
    assert_ne!(first[2], first[3], "each counts, though they ask for the same");
    assert_eq!(accepted(sent()).await, first, "the key of the batch is that of what has none");
    let (_, single) = answer(client.change("add", 7, 1).header("Idempotency-Key", "a")).await;
    assert_eq!(single["request_id"], first[0].as_str(), "a key is the same alone and in a batch");
    let without = [(); 2].map(|()| accepted(batch(&client, &changes)));
    let [one, other] = futures_util::future::join_all(without).await.try_into().expect("two");
    assert!(one[..2] == first[..2] && one[..2] == other[..2]);
    assert!(one[2] != other[2] && one[2] != first[2], "without any key each is another change");
    system.work();
    system.drain(8).await;
    eventually("all is applied", async || client.balance(7).await == 61 && client.balance(8).await == 1)
        .await;
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_with_a_batch_is_told_and_nothing_of_it_is_queued() {
    let mut system = System::new().await;
    let client = system.serve();
    let raw = |body: &str| {
        client.post("/v1/point/batch").header("Content-Type", "application/json").body(body.to_owned())
    };
    let wrong = r#"{"operations": [
        {"action": "add", "user_id": 7, "point": 1},
        {"action": "give", "user_id": "", "point": 1.5, "reason": 7, "key": "\n", "a/b~c": 1},
        {},
        5,
        {"action": "add", "user_id": 7, "point": 1, "point": 2},
        {"action": "add", "user_id": 7, "point": null, "reason": null, "key": null},
        {"action": "add", "user_id": 7, "point": 1, "key": "k"},
        {"action": "add", "user_id": 8, "point": 1, "key": "k"},
        {"action": "subtract", "user_id": 7, "point": 1, "key": "k"}
    ]}"#;
    let problem = refused(raw(wrong), 400, "invalid-field", Some("operations")).await;
    let errors = problem["errors"].as_array().expect("errors");
    assert!(errors.iter().all(|error| !text(&error["detail"]).is_empty()));
    let pointers: Vec<String> = errors.iter().map(|error| text(&error["pointer"])).collect();
    let expected = [
        "1/a~1b~0c",
        "1/action",
        "1/user_id",
        "1/point",
        "1/reason",
        "1/key",
        "2/action",
        "2/user_id",
        "3",
        "4",
        "5/point",
        "8/key",
    ];
    assert_eq!(pointers, expected.map(|pointer| format!("/operations/{pointer}")), "{problem}");

    for (wrong, kind, field) in [
        ("", "empty-body", None),
        ("[]", "malformed-body", None),
        (r#"[[{"action":"add","user_id":7,"point":1}]]"#, "malformed-body", None),
        (r#"{"operations":[{"action":"add","user_id":7,"point":1}"#, "malformed-body", None),
        (r#"{"operations":[],"more":1}"#, "invalid-field", Some("more")),
        (r#"{"operations":{}}"#, "invalid-field", Some("operations")),
        ("{}", "invalid-field", Some("operations")),
        (r#"{"operations":[]}"#, "invalid-field", Some("operations")),
    ] {
        refused(raw(wrong), 400, kind, field).await;
    }
    let many: Vec<Value> = (0..1_001).map(|_| add(7, 1)).collect();
    refused(batch(&client, &many), 400, "invalid-field", Some("operations")).await;
    let key = batch(&client, &many[..1]).header("Idempotency-Key", "é");
    refused(key, 400, "invalid-field", Some("Idempotency-Key")).await;
    refused(raw(&format!("{wrong}{}", " ".repeat(1 << 20))), 413, "body-too-large", None).await;
    refused(client.post("/v1/point/batch").body("{}"), 415, "unsupported-media-type", Some("Content-Type"))
        .await;
    assert_eq!(system.queues().await.waiting().await, 0, "a refused batch reached the queue");
    system.finish().await;
}

/// Uses its own servers, because it changes their limits.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_the_broker_takes_in_part_is_safe_to_send_again() {
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let client = system.serve();
    let full = partition(7);
    let other = (8..100).find(|user| partition(*user) != full).expect("another");
    let pattern = format!("^{}$", system.names().partition(full));
    let policy = ["set_policy", "--apply-to", "queues", "full", &pattern, r#"{"max-length":1}"#];
    servers.broker.control(&policy).await.expect("a policy");
    eventually("the queue is full", async || {
        answer(client.change("add", 7, 1).header("Idempotency-Key", "filler")).await.0 == 503
    })
    .await;

    let changes = [keyed(7, "a"), keyed(other, "a"), keyed(7, "b"), add(other, 5)];
    let sent = || batch(&client, &changes).header("Idempotency-Key", "batch");
    let response = sent().send().await.expect("an answer");
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key(RETRY_AFTER));
    let problem = body(response).await;
    assert_eq!(problem["type"], "/problems/queue-unavailable", "{problem}");
    let (ids, statuses): (Vec<String>, Vec<String>) = operations(&problem).into_iter().unzip();
    assert_eq!(statuses, ["refused", "pending", "refused", "pending"]);

    servers.broker.control(&["clear_policy", "full"]).await.expect("no policy");
    system.work();
    let mut again = Vec::new();
    eventually("the queue takes it", async || {
        let (status, body) = answer(sent()).await;
        again = operations(&body).into_iter().map(|(id, _)| id).collect();
        status == 202
    })
    .await;
    assert_eq!(again, ids);
    eventually("all is applied, once", async || {
        client.balance(7).await == 3 && client.balance(other).await == 6
    })
    .await;
    system.finish_drained().await;
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_while_the_broker_is_away_is_told_so_for_each_operation() {
    let mut servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let client = system.serve();
    client.queue("add", 7, 1).await;
    servers.broker.stop().await.expect("RabbitMQ stops");
    let changes = [keyed(7, "a"), keyed(8, "a")];
    let (status, problem) = answer(batch(&client, &changes)).await;
    assert_eq!((status.as_u16(), problem["type"].as_str()), (503, Some("/problems/queue-unavailable")));
    assert!(operations(&problem).iter().all(|(_, status)| status == "unknown"), "{problem}");
    servers.broker.resume().await.expect("RabbitMQ starts");
    eventually("the queue takes it", async || answer(batch(&client, &changes)).await.0 == 202).await;
    system.work();
    system.drain(3).await;
    system.finish_drained().await;
    servers.stop().await;
}
