//! Reversals over HTTP, alone, in a batch and through the queue: their answers, and the refusals by name.

use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::{
    http::refused,
    support::{
        client::{Client, answer, text},
        system::{System, eventually},
    },
};

fn undo(client: &Client, request: &Value) -> RequestBuilder {
    client.post("/v1/point/reverse").json(&json!({"user_id": "7", "request": request}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_reversal_is_told_the_first() {
    let mut system = System::new().await;
    let client = system.serve();
    let wait = |request: RequestBuilder| request.header("Prefer", "wait");
    let (_, gift) = answer(wait(client.change("add", 7, 100))).await;
    let gift = &gift["request_id"];
    let keyed = || wait(undo(&client, gift)).header("Idempotency-Key", "refund-7");
    let (status, entry) = answer(keyed()).await;
    assert_eq!(status, 200, "{entry}");
    let expected =
        json!({"action": "reverse", "ref": gift, "point": 100, "change": -100, "balance": 0, "seq": 2});
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&entry[name], value, "{name} of {entry}");
    }
    assert_eq!(answer(keyed()).await.1, entry, "the same reversal again");
    let second = || wait(undo(&client, gift)).header("Idempotency-Key", "refund-8");
    let problem = refused(second(), 409, "already-reversed", None).await;
    assert_eq!((&problem["ref"], &problem["balance"]), (&entry["request_id"], &json!(0)));
    assert!(text(&problem["detail"]).contains(&text(&entry["request_id"])), "{problem}");
    assert_eq!(refused(second(), 409, "already-reversed", None).await, problem, "replayed");
    let rejected = format!("/v1/point/request/{}?id=7", text(&problem["request_id"]));
    let (_, rejected) = answer(client.get(&rejected)).await;
    assert_eq!(
        (&rejected["reject_reason"], &rejected["ref"]),
        (&json!("already_reversed"), &entry["request_id"])
    );

    let of_reversal = refused(wait(undo(&client, &entry["request_id"])), 409, "not-reversible", None).await;
    assert_eq!(of_reversal["ref"], entry["request_id"]);
    let nothing = json!("01890a5d-ac96-774b-bcce-b302099a8057");
    let unknown = refused(wait(undo(&client, &nothing)), 409, "unknown-request", None).await;
    assert_eq!(unknown["ref"], nothing);
    // A key stands for one request to undo, with or without partial.
    refused(
        wait(undo(&client, &nothing)).header("Idempotency-Key", "refund-7"),
        422,
        "key-reused",
        Some("Idempotency-Key"),
    )
    .await;
    let partial = json!({"user_id": "7", "request": gift, "partial": true});
    let partial = client.post("/v1/point/reverse").json(&partial).header("Idempotency-Key", "refund-7");
    refused(wait(partial), 422, "key-reused", Some("Idempotency-Key")).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_still_in_the_queue_is_decided_before_its_reversal() {
    let mut system = System::new().await;
    let client = system.serve();
    let gift = json!(client.queue("add", 7, 100).await);
    client.queue("subtract", 7, 60).await;
    let operation = |partial: Option<bool>| json!({"action": "reverse", "user_id": "7", "request": gift, "partial": partial});
    let add = json!({"action": "add", "user_id": "7", "point": 1, "key": "k"});
    let operations = [operation(None), operation(Some(true)), add, operation(Some(true))];
    let batch = client.post("/v1/point/batch").json(&json!({"operations": operations}));
    let (status, pending) = answer(batch).await;
    assert_eq!(status, 202, "{pending}");
    let (status, alone) = answer(undo(&client, &gift)).await;
    assert_eq!(status, 202, "{alone}");
    system.work();
    system.drain(7).await;
    let entries = answer(client.get("/v1/point/log?id=7")).await.1["entries"].clone();
    let entries: Vec<_> = entries.as_array().expect("entries").iter().rev().skip(2).collect();
    let told: Vec<_> = entries
        .iter()
        .map(|entry| json!([entry["reject_reason"], entry["point"], entry["change"], entry["partial"]]))
        .collect();
    let first = &entries[1]["request_id"];
    assert_eq!(
        told,
        [
            json!(["insufficient_points", 100, 0, null]),
            json!([null, 100, -40, true]),
            json!([null, 1, 1, null]),
            json!(["already_reversed", 100, 0, true]),
            json!(["already_reversed", 100, 0, null]),
        ]
    );
    let references: Vec<_> = entries.iter().map(|entry| &entry["ref"]).collect();
    assert_eq!(references, [&gift, &gift, &Value::Null, first, first]);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_reversal_is_refused_by_the_name_of_its_fault() {
    let mut system = System::new().await;
    let client = system.serve();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (members, field) in [
        (json!({"user_id": "7"}), "request"),
        (json!({"user_id": "7", "request": null}), "request"),
        (json!({"user_id": "7", "request": "order-7"}), "request"),
        (json!({"user_id": "7", "request": 7}), "request"),
        (json!({"request": id}), "user_id"),
        (json!({"user_id": "7", "request": id, "point": 5}), "point"),
        (json!({"user_id": "7", "request": id, "partial": 1}), "partial"),
        (json!({"user_id": "7", "request": id, "hold": id}), "hold"),
    ] {
        let alone = client
            .post("/v1/point/reverse")
            .header(CONTENT_TYPE, "application/json")
            .body(members.to_string());
        refused(alone, 400, "invalid-field", Some(field)).await;
        let mut operation = members;
        operation["action"] = json!("reverse");
        let batch = client.post("/v1/point/batch").json(&json!({"operations": [operation]}));
        let problem = refused(batch, 400, "invalid-field", Some("operations")).await;
        assert_eq!(text(&problem["errors"][0]["pointer"]), format!("/operations/0/{field}"), "{problem}");
        assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1), "{problem}");
    }
    let add = client.post("/v1/point/add").json(&json!({"user_id": "7", "point": 1, "request": id}));
    let problem = refused(add, 400, "invalid-field", Some("request")).await;
    let detail = "request is not a field of add, which takes user_id, point, expires_at, reason, metadata";
    assert_eq!(problem["detail"], detail);
    client.queue("add", 7, 1).await;
    system.work();
    eventually("nothing else is applied", async || client.balance(7).await == 1).await;
    assert_eq!(system.count("select count(*) from log").await, 1);
    system.finish().await;
}
