//! Partial subtracts over HTTP, alone, in a batch and through the queue: they take what there is, and say how much.

use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use serde_json::{Value, json};

use crate::{
    http::refused,
    support::{
        client::{Client, answer, text},
        system::{System, eventually},
    },
};

fn subtract(client: &Client, point: i64, partial: &Value) -> RequestBuilder {
    let body = json!({"user_id": "7", "point": point, "partial": partial});
    client.post("/v1/point/subtract").json(&body)
}

/// What an entry says about its points.
fn told(entry: &Value) -> Value {
    json!([entry["status"], entry["point"], entry["partial"], entry["change"], entry["balance"]])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_is_taken_alone_in_a_batch_and_through_the_queue() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    assert_eq!(answer(client.change("add", 7, 100).header("Prefer", "wait")).await.0, 200);
    let (status, entry) = answer(subtract(&client, 30, &json!(true)).header("Prefer", "wait")).await;
    assert_eq!(status, 200, "{entry}");
    assert_eq!(told(&entry), json!(["applied", 30, true, -30, 70]));
    let refusal = refused(
        subtract(&client, 71, &json!(false)).header("Prefer", "wait"),
        409,
        "insufficient-points",
        None,
    );
    assert_eq!(refusal.await["balance"], 70);

    let operation = |action: &str, point: i64, partial: bool| json!({"action": action, "user_id": "7", "point": point, "partial": partial.then_some(true)});
    let operations = [operation("subtract", 100, true), operation("add", 5, false)];
    let batch = client.post("/v1/point/batch").json(&json!({"operations": operations}));
    let (status, pending) = answer(batch).await;
    assert_eq!(status, 202, "{pending}");
    let (status, queued) = answer(subtract(&client, 6, &json!(true))).await;
    assert_eq!(status, 202, "{queued}");
    let (_, late) = answer(subtract(&client, 1, &json!(true))).await;
    let outcome = async |pending: &Value| {
        let path = format!("/v1/point/request/{}?id=7", text(&pending["request_id"]));
        answer(client.get(&path).header("Prefer", "wait=30")).await.1
    };
    let rejected = outcome(&late).await;
    assert_eq!(told(&rejected), json!(["rejected", 1, true, 0, 0]));
    assert_eq!(rejected["reject_reason"], "insufficient_points");
    assert_eq!(told(&outcome(&pending["operations"][0]).await), json!(["applied", 100, true, -70, 0]));
    assert_eq!(told(&outcome(&queued).await), json!(["applied", 6, true, -5, 0]));
    let log = answer(client.get("/v1/point/log?id=7")).await.1;
    assert_eq!(log["entries"][0], rejected, "as it is in the log");
    assert_eq!(told(&outcome(&pending["operations"][1]).await), json!(["applied", 5, null, 5, 5]));
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_a_change_with_partial_or_for_one_without() {
    let mut system = System::new().await;
    let client = system.serve();
    assert_eq!(answer(client.change("add", 7, 5).header("Prefer", "wait")).await.0, 200);
    let keyed = |key: &str, partial: Value| {
        subtract(&client, 9, &partial).header("Idempotency-Key", key).header("Prefer", "wait")
    };
    let (status, first) = answer(keyed("with", json!(true))).await;
    assert_eq!((status.as_u16(), told(&first)), (200, json!(["applied", 9, true, -5, 0])));
    assert_eq!(answer(keyed("with", json!(true))).await.1, first, "a replay says how much it was");
    refused(keyed("with", json!(false)), 422, "key-reused", Some("Idempotency-Key")).await;
    let without = refused(keyed("without", json!(false)), 409, "insufficient-points", None).await;
    let again = refused(keyed("without", json!(null)), 409, "insufficient-points", None).await;
    assert_eq!(again["request_id"], without["request_id"], "false is the default");
    refused(keyed("without", json!(true)), 422, "key-reused", Some("Idempotency-Key")).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_is_refused_where_it_says_nothing() {
    let mut system = System::new().await;
    let client = system.serve();
    for wrong in [json!("true"), json!(1), json!([])] {
        let problem = refused(subtract(&client, 1, &wrong), 400, "invalid-field", Some("partial")).await;
        assert_eq!(problem["detail"], "partial must be true or false");
    }
    for partial in ["true", "false"] {
        let body = format!(r#"{{"user_id":"7","point":1,"partial":{partial}}}"#);
        let add = client.post("/v1/point/add").header(CONTENT_TYPE, "application/json").body(body);
        let problem = refused(add, 400, "invalid-field", Some("partial")).await;
        let detail =
            "partial is not a field of add, which takes user_id, point, expires_at, reason, metadata";
        assert_eq!(problem["detail"], detail);
    }
    let operation = |action: &str, partial: Value| json!({"action": action, "user_id": "7", "point": 1, "partial": partial});
    let operations =
        [operation("add", json!(true)), operation("subtract", json!(0)), operation("give", json!(0))];
    let batch = client.post("/v1/point/batch").json(&json!({"operations": operations}));
    let problem = refused(batch, 400, "invalid-field", Some("operations")).await;
    let errors = problem["errors"].as_array().expect("errors").iter();
    let pointers: Vec<String> = errors.map(|error| text(&error["pointer"])).collect();
    let expected = ["0/partial", "1/partial", "2/action", "2/partial"];
    assert_eq!(pointers, expected.map(|pointer| format!("/operations/{pointer}")), "{problem}");
    let none = client.post("/v1/point/add").json(&json!({"user_id": "7", "point": 1, "partial": null}));
    assert_eq!(answer(none).await.0, 202, "null is absent");
    system.work();
    eventually("it is applied", async || client.balance(7).await == 1).await;
    system.finish().await;
}
