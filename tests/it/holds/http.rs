//! Holds over HTTP: alone, in a batch and through the queue; how balances, entries and problems say it.

use jiff::{Timestamp, ToSpan};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    expiry::{in_hours, pass},
    http::refused,
    support::{
        client::{Client, answer, text},
        system::System,
    },
};

async fn waited(request: RequestBuilder) -> Value {
    let (status, entry) = answer(request.header("Prefer", "wait")).await;
    assert_eq!(status, 200, "{entry}");
    entry
}

fn hold(client: &Client, point: i64) -> RequestBuilder {
    client.send("hold", &json!({"user_id": "7", "point": point}))
}

fn end(client: &Client, action: &str, hold: &Value) -> RequestBuilder {
    client.send(action, &json!({"user_id": "7", "hold": hold}))
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_held_and_captured_alone_in_a_batch_and_through_the_queue() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    waited(client.change("add", 7, 100)).await;
    let until = in_hours(24);
    let first = json!({"user_id": "7", "point": 30, "expires_at": until.to_string()});
    let first = waited(client.send("hold", &first)).await;
    assert_eq!((&first["expires_at"], &first["change"]), (&json!(until.to_string()), &json!(-30)));
    let before = Timestamp::now();
    let (status, second) = answer(hold(&client, 20)).await;
    assert_eq!(status, 202);
    system.drain(3).await;
    let holds = answer(client.get("/v1/point/holds?id=7")).await.1;
    let listed: Vec<_> = holds["holds"]
        .as_array()
        .expect("holds")
        .iter()
        .map(|hold| (&hold["hold"], &hold["point"]))
        .collect();
    assert_eq!(listed, [(&second["request_id"], &json!(20)), (&first["request_id"], &json!(30))]);
    assert_eq!((&holds["user_id"], &holds["held"]), (&json!("7"), &json!(50)));
    let ends: Timestamp = text(&holds["holds"][0]["expires_at"]).parse().expect("a time");
    let default = ends.duration_since(before).as_secs();
    assert!((14 * 60..=16 * 60).contains(&default), "{default} s");
    let balance = answer(client.get("/v1/point?id=7")).await.1;
    assert_eq!((&balance["point"], &balance["held"]), (&json!(50), &json!(50)));
    assert_eq!(answer(client.get("/v1/points?id=7")).await.1["points"][0], balance);
    assert_eq!(answer(client.get("/v1/points?prefix=7")).await.1["points"][0], balance);
    let at = answer(client.get(&format!("/v1/point?id=7&at={until}"))).await.1;
    assert_eq!((&at["point"], &at["held"]), (&json!(100), &json!(null)), "what will have returned by then");
    let operations = json!([
        {"action": "capture", "user_id": "7", "hold": first["request_id"], "point": 25},
        {"action": "release", "user_id": "7", "hold": second["request_id"]},
        {"action": "hold", "user_id": "7", "point": 5},
    ]);
    let batch = client.post("/v1/point/batch").json(&json!({"operations": operations}));
    assert_eq!(answer(batch).await.0, 202);
    system.drain(6).await;
    let log = answer(client.get("/v1/point/log?id=7&limit=3")).await.1;
    let told: Vec<_> = (0..3)
        .map(|index| &log["entries"][index])
        .map(|entry| json!([entry["action"], entry["point"], entry["change"], entry["balance"]]))
        .collect();
    assert_eq!(
        told,
        [json!(["hold", 5, -5, 70]), json!(["release", 20, 20, 75]), json!(["capture", 25, 5, 55])]
    );
    assert_eq!(log["entries"][1]["ref"], second["request_id"]);
    refused(client.get("/v1/point/holds?id=8"), 404, "unknown-user", None).await;
    refused(client.get("/v1/point/holds"), 400, "invalid-field", Some("id")).await;
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_end_is_told_what_the_first_did() {
    let mut system = System::new().await;
    let client = system.serve();
    waited(client.change("add", 7, 100)).await;
    let order = waited(hold(&client, 40)).await["request_id"].clone();
    let some = json!({"user_id": "7", "hold": order, "point": 30});
    let keyed = || client.send("capture", &some).header("Idempotency-Key", "pay-7");
    let taken = waited(keyed()).await;
    assert_eq!((&taken["point"], &taken["change"], &taken["ref"]), (&json!(30), &json!(10), &order));
    assert_eq!(waited(keyed()).await, taken, "the same capture again");
    let second = || end(&client, "release", &order).header("Prefer", "wait").header("Idempotency-Key", "r");
    let problem = refused(second(), 409, "hold-over", None).await;
    assert_eq!((&problem["ref"], &problem["balance"]), (&taken["request_id"], &json!(70)));
    let detail = format!(
        "the hold is over: capture of 30 points at {}, by the request {}",
        text(&taken["created_at"]),
        text(&taken["request_id"])
    );
    assert_eq!(problem["detail"], detail);
    assert_eq!(refused(second(), 409, "hold-over", None).await, problem, "replayed");
    let whole = json!({"user_id": "7", "hold": order});
    let other = client.send("capture", &whole).header("Idempotency-Key", "pay-7");
    refused(other, 422, "key-reused", Some("Idempotency-Key")).await;

    let nothing = json!("01890a5d-ac96-774b-bcce-b302099a8057");
    for action in ["capture", "release"] {
        let problem =
            refused(end(&client, action, &nothing).header("Prefer", "wait"), 409, "unknown-hold", None).await;
        assert_eq!(problem["ref"], nothing);
    }
    let order = waited(hold(&client, 5)).await["request_id"].clone();
    let more = client.send("capture", &json!({"user_id": "7", "hold": order, "point": 6}));
    let problem = refused(more.header("Prefer", "wait"), 409, "hold-too-small", None).await;
    assert_eq!(problem["ref"], order);
    let undo = client.post("/v1/point/reverse").json(&json!({"user_id": "7", "request": order}));
    refused(undo.header("Prefer", "wait"), 409, "not-reversible", None).await;
    refused(hold(&client, 66).header("Prefer", "wait"), 409, "insufficient-points", None).await;
    pass(&system, 3_600).await;
    let late =
        refused(end(&client, "capture", &order).header("Prefer", "wait"), 409, "hold-over", None).await;
    assert!(text(&late["detail"]).starts_with("the hold is over: release of 5 points at "), "{late}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_hold_is_refused_by_the_name_of_its_fault() {
    let mut system = System::new().await;
    let client = system.serve();
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let (past, far) = (in_hours(-1).to_string(), (in_hours(30 * 24) + 2.minutes()).to_string());
    for (action, members, field) in [
        ("hold", json!({"user_id": "7"}), "point"),
        ("hold", json!({"user_id": "7", "point": 0}), "point"),
        ("hold", json!({"user_id": "7", "point": 1, "expires_at": past}), "expires_at"),
        ("hold", json!({"user_id": "7", "point": 1, "expires_at": far}), "expires_at"),
        ("hold", json!({"user_id": "7", "point": 1, "partial": true}), "partial"),
        ("capture", json!({"user_id": "7"}), "hold"),
        ("capture", json!({"user_id": "7", "hold": "order-7"}), "hold"),
        ("capture", json!({"user_id": "7", "hold": id, "point": 0}), "point"),
        ("capture", json!({"user_id": "7", "hold": id, "request": id}), "request"),
        ("release", json!({"user_id": "7"}), "hold"),
        ("release", json!({"user_id": "7", "hold": id, "point": 1}), "point"),
        ("add", json!({"user_id": "7", "point": 1, "hold": id}), "hold"),
    ] {
        let problem = refused(client.send(action, &members), 400, "invalid-field", Some(field)).await;
        if members["expires_at"] == far {
            assert!(text(&problem["detail"]).starts_with("expires_at must be at most 30 days"), "{problem}");
        }
        let mut operation = members;
        operation["action"] = json!(action);
        let batch = client.post("/v1/point/batch").json(&json!({"operations": [operation]}));
        let problem = refused(batch, 400, "invalid-field", Some("operations")).await;
        assert_eq!(text(&problem["errors"][0]["pointer"]), format!("/operations/0/{field}"), "{problem}");
    }
    assert_eq!(system.count("select count(*) from log").await, 0);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_too_many_and_one_that_ended_in_the_queue_are_rejected() {
    let mut system = System::new().await;
    let client = system.serve();
    let service = system.service(1);
    let mut deltas = vec![crate::apply::add(7, 1_000)];
    deltas.extend((0..100).map(|_| crate::apply::hold(7, 1, None)));
    service.apply_deltas(deltas).await.expect("results");
    let problem = refused(hold(&client, 1).header("Prefer", "wait"), 409, "hold-limit", None).await;
    assert_eq!(problem["balance"], 900);
    let late = crate::apply::hold(8, 1, Some(Timestamp::now() - 1.second()));
    let entry = crate::apply::apply(&service, &late).await.entry;
    assert_eq!(entry.rejection, Some(point_system::domain::Rejection::Expired));
    system.finish().await;
}
