//! Idempotency keys: what a key that was used before is answered with, whose it is, and what becomes of a key that two
//! changes share.

use std::time::Duration;

use point_system::domain::RequestId;
use reqwest::{RequestBuilder, Response, StatusCode, header::LOCATION};
use serde_json::{Value, json};

use crate::{
    apply::{add, apply},
    http::refused,
    keys::create,
    support::{
        client::{Client, answer, body, text},
        proxy::{Weather, detour},
        system::{System, eventually},
    },
};

/// The number of operations in a batch of which one has a damaged entry.
const MANY: usize = 250;

fn keyed(client: &Client, key: &str, point: i64) -> RequestBuilder {
    client.change("add", 7, point).header("Idempotency-Key", key)
}

/// Sends a request again and again until it gets this status: a look-up that takes too long is left out, and the change
/// is then queued. Returns the last answer.
async fn answered(status: u16, request: impl Fn() -> RequestBuilder) -> Response {
    let mut last = None;
    eventually(&format!("an answer {status}"), async || {
        let response = request().send().await.expect("an answer");
        let is_it = response.status() == status;
        assert!(is_it || response.status() == 202, "{}", response.status());
        last = Some(response);
        is_it
    })
    .await;
    last.expect("an answer")
}

/// Sends a request. Returns the status, whether the answer is a replay, and its JSON.
async fn sent(request: RequestBuilder) -> (StatusCode, bool, Value) {
    let response = request.send().await.expect("an answer");
    let replayed = response.headers().contains_key("idempotency-replayed");
    (response.status(), replayed, body(response).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_change_that_is_sent_again_is_answered_with_its_outcome() {
    let mut system = System::new().await;
    let client = system.serve();
    let subtract = || client.change("subtract", 7, 500).header("Idempotency-Key", "too-much");
    for request in [keyed(&client, "k", 100), subtract(), keyed(&client, "k", 100)] {
        let (status, replayed, answer) = sent(request).await;
        assert_eq!((status.as_u16(), replayed), (202, false), "nothing is decided yet: {answer}");
    }
    system.work();
    eventually("both are decided", async || client.balance(7).await == 100).await;
    eventually("both are decided", async || system.count("select count(*) from log").await == 2).await;
    let replay = answered(200, || keyed(&client, "k", 100)).await;
    assert_eq!(replay.headers()["idempotency-replayed"], "true");
    let entry = body(replay).await;
    let response = keyed(&client, "k", 100).header("Prefer", "wait").send().await.expect("an answer");
    assert_eq!(response.headers()["preference-applied"], "wait");
    assert_eq!(
        (body(response).await, &entry["seq"]),
        (entry.clone(), &json!(1)),
        "the same with Prefer: wait"
    );
    assert_eq!(answered(409, subtract).await.headers()["idempotency-replayed"], "true");
    let reused = body(answered(422, || keyed(&client, "k", 200)).await).await;
    assert_eq!(
        (&reused["type"], &reused["field"]),
        (&json!("/problems/key-reused"), &json!("Idempotency-Key"))
    );
    assert!(text(&reused["detail"]).contains("add 100"), "it says which change counted: {reused}");
    let reason = json!({"user_id": "7", "point": 100, "reason": "another", "metadata": {"a": 1}});
    let again = || client.post("/v1/point/add").header("Idempotency-Key", "k").json(&reason);
    answered(200, again).await;
    let decided = "select count(*) from log where reject_reason is distinct from 'key_reused'";
    assert_eq!(system.count(decided).await, 2, "nothing more counts");
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_with_one_key_in_the_queue_one_counts_and_the_other_is_an_entry() {
    let mut system = System::new().await;
    let client = system.serve();
    let first = keyed(&client, "k", 100).send().await.expect("an answer");
    let location = first.headers()[LOCATION].to_str().expect("text").to_owned();
    let first = body(first).await;
    for point in [200, 200, 300, 100] {
        assert_eq!(sent(keyed(&client, "k", point)).await.0, 202);
    }
    client.queue("add", 7, 1).await;
    system.work();
    eventually("all are decided", async || client.balance(7).await == 101).await;
    let entries = answer(client.get("/v1/point/log?id=7")).await.1["entries"].clone();
    let entries: Vec<_> = entries.as_array().expect("entries").iter().rev().collect();
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (&entry["point"], &entry["change"], entry["reject_reason"].as_str(), &entry["ref"]))
        .collect();
    let (id, null) = (&first["request_id"], &Value::Null);
    assert_eq!(
        told,
        [
            (&json!(100), &json!(100), None, null),
            (&json!(200), &json!(0), Some("key_reused"), id),
            (&json!(300), &json!(0), Some("key_reused"), id),
            (&json!(1), &json!(1), None, null),
        ],
        "each change is there once"
    );
    let (_, outcome) = answer(client.get(&location)).await;
    assert_eq!(&outcome, entries[0], "the request has the outcome of the change that counted");
    let own = format!("/v1/point/request/{}?id=7", text(&entries[1]["request_id"]));
    assert_eq!(&answer(client.get(&own)).await.1, entries[1]);
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_id_is_one_entry_however_the_batches_fall() {
    let system = System::new().await;
    let service = system.service(1);
    let id = RequestId::random();
    let with = |point| point_system::domain::Delta { request_id: id, ..add(7, point) };
    let results = service.apply_deltas(vec![with(1), with(2), with(1), with(2)]).await.expect("results");
    let outcomes: Vec<_> = results.into_iter().map(|result| result.expect("an outcome")).collect();
    let told: Vec<_> = outcomes
        .iter()
        .map(|o| (o.entry.seq, o.replayed, o.first.as_ref().map(|first| first.point)))
        .collect();
    assert_eq!(told, [(1, false, None), (2, false, Some(1)), (1, true, None), (2, true, Some(1))]);
    let again = apply(&service, &with(2)).await;
    assert_eq!((again.entry.seq, again.replayed), (2, true), "found in the log");
    let third = apply(&service, &with(3)).await;
    assert_eq!((third.entry.seq, third.replayed, third.entry.reference), (3, false, Some(id)));
    assert_eq!(third.entry.balance, 1);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_one_key_in_every_spelling_and_another_for_every_actor() {
    let mut system = System::new().await;
    let (shop, game) = (create(&system, "shop", "write").await, create(&system, "game", "write").await);
    let client = system.serve();
    let send = async |key: &str, api_key: &str| {
        let request = keyed(&client, key, 5).header("Prefer", "wait").bearer_auth(api_key);
        let (status, replayed, entry) = sent(request).await;
        assert_eq!(status, 200, "{key}: {entry}");
        (replayed, text(&entry["actor"]))
    };
    assert_eq!(send("order-7", &shop).await, (false, "shop".to_owned()));
    assert_eq!(send("\"order-7\"", &shop).await, (true, "shop".to_owned()));
    assert_eq!(send("order-7", &game).await, (false, "game".to_owned()));
    let operation = |key: &str| json!({"action": "add", "user_id": "7", "point": 5, "key": key});
    let spellings = ["order-7", " order-7 ", "\"order-7\""].map(operation);
    let batch = json!({"operations": spellings});
    let problem = refused(
        client.post("/v1/point/batch").bearer_auth(&shop).json(&batch),
        400,
        "invalid-field",
        Some("operations"),
    )
    .await;
    let pointers: Vec<_> =
        problem["errors"].as_array().expect("errors").iter().map(|e| text(&e["pointer"])).collect();
    assert_eq!(pointers, ["/operations/1/key", "/operations/2/key"], "one key");
    let balance = answer(client.get("/v1/point?id=7").bearer_auth(&shop)).await.1;
    assert_eq!(balance["point"], 10, "two actors, two changes");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_replays_what_is_known_and_refuses_a_key_of_another_change() {
    let mut system = System::new().await;
    let client = system.serve();
    let operation = |user: &str, point: i64| json!({"action": "subtract", "user_id": user, "point": point});
    let batch = |operations: &[Value]| {
        let request = client.post("/v1/point/batch").header("Idempotency-Key", "payday");
        request.json(&json!({"operations": operations}))
    };
    let mut operations = vec![operation("7", 1), operation("8", 1), operation("7", 2)];
    operations[1]["action"] = json!("add");
    let statuses = |answer: &Value| {
        let operations = answer["operations"].as_array().unwrap_or_else(|| panic!("{answer}")).iter();
        operations.map(|one| (text(&one["status"]), one["replayed"] == true)).collect::<Vec<_>>()
    };
    let pending = || ("pending".to_owned(), false);
    let (_, first) = answer(batch(&operations)).await;
    assert_eq!(statuses(&first), [pending(), pending(), pending()]);
    system.work();
    system.drain(3).await;
    // A new operation of another user between them changes no id.
    operations.insert(1, operation("9", 1));
    let (applied, rejected) = (("applied".to_owned(), true), ("rejected".to_owned(), true));
    let mut again = Value::Null;
    eventually("the known ones are replayed", async || {
        again = answer(batch(&operations)).await.1;
        let statuses = statuses(&again);
        let known = [&statuses[0], &statuses[2], &statuses[3]];
        known == [&rejected, &applied, &rejected]
    })
    .await;
    for (old, new) in [(0, 0), (1, 2), (2, 3)] {
        assert_eq!(first["operations"][old]["request_id"], again["operations"][new]["request_id"]);
    }
    system.drain(4).await;
    operations[2]["point"] = json!(2);
    operations[3]["point"] = json!(3);
    operations.push(operation("10", 1));
    let problem = body(answered(422, || batch(&operations)).await).await;
    assert_eq!((&problem["type"], &problem["field"]), (&json!("/problems/key-reused"), &json!("operations")));
    let pointers: Vec<_> =
        problem["errors"].as_array().expect("errors").iter().map(|e| text(&e["pointer"])).collect();
    assert_eq!(pointers, ["/operations/2", "/operations/3"], "the key stands in the header");
    let own = client.change("add", 8, 1).header("Idempotency-Key", "own").header("Prefer", "wait");
    assert_eq!(answer(own).await.0, 200);
    operations.truncate(2);
    operations[1] = json!({"action": "add", "user_id": "8", "point": 3, "key": "own"});
    let problem = body(answered(422, || batch(&operations)).await).await;
    let pointers: Vec<_> =
        problem["errors"].as_array().expect("errors").iter().map(|e| text(&e["pointer"])).collect();
    assert_eq!(pointers, ["/operations/1/key"]);
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_hides_no_other_from_the_look_up() {
    let mut system = System::new().await;
    let (postgres, database_url) = detour(&system.database.url).await;
    system.node_database_url = Some(database_url.into());
    let client = system.serve();
    let operations: Vec<Value> = (0..MANY)
        .map(|user| json!({"action": "add", "user_id": user.to_string(), "point": 5, "key": "k"}))
        .collect();
    let batch = client.post("/v1/point/batch").json(&json!({"operations": operations}));
    let sent = async || answer(batch.try_clone().expect("a copy")).await.1["operations"].clone();
    sent().await;
    let worker = system.work();
    system.drain(MANY).await;
    worker.cancel();
    system.execute("update log set requested_at = 'infinity' where user_id = '8'").await;
    // One query takes a tenth of the time for a look-up, and a query for each entry takes twenty times as long.
    postgres.turn(Weather::Slow(Duration::from_millis(2)));
    eventually("all entries that can be read are replayed", async || {
        let operations = sent().await;
        assert_eq!(operations[8]["status"], "pending", "{operations}");
        let replayed =
            operations.as_array().expect("operations").iter().filter(|one| one["replayed"] == true);
        replayed.count() == MANY - 1
    })
    .await;
    postgres.turn(Weather::Fair);
    system.execute("update log set requested_at = created_at where user_id = '8'").await;
    system.work();
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_a_keyed_change_is_queued_without_a_look_up() {
    let mut system = System::new().await;
    let (postgres, database_url) = detour(&system.database.url).await;
    system.node_database_url = Some(database_url.into());
    let client = system.serve();
    assert_eq!(sent(keyed(&client, "k", 5).header("Prefer", "wait")).await.0, 200);
    // The first look-up of the outage is sent, and gets no answer. It delays the change much less than a read.
    postgres.turn(Weather::Stalled);
    let read = tokio::spawn(client.get("/v1/point?id=7").send());
    let (status, replayed, _) = sent(keyed(&client, "k", 5)).await;
    assert_eq!((status.as_u16(), replayed), (202, false));
    assert!(!read.is_finished(), "the change waited for the database as long as a read does");
    assert_eq!(read.await.expect("no panic").expect("an answer").status(), 503);
    for weather in [Weather::Stalled, Weather::Fair] {
        postgres.turn(weather);
        let expected = if weather == Weather::Stalled { 202 } else { 200 };
        eventually("the answer needs the database only to replay", async || {
            let (status, replayed, answer) = sent(keyed(&client, "k", 5)).await;
            assert!([200, 202].contains(&status.as_u16()), "{answer}");
            assert_eq!(replayed, status == 200);
            status == expected
        })
        .await;
    }
    system.node_database_url = None;
    system.work();
    eventually("all are decided", async || system.queues().await.waiting().await == 0).await;
    assert_eq!(client.balance(7).await, 5);
    system.finish_drained().await;
}
