//! Points that expire over HTTP: alone, in a batch and through the queue; how balances, entries and problems say it.

use jiff::{Timestamp, ToSpan};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{in_hours, pass};
use crate::{
    http::refused,
    support::{
        client::{Client, answer, text},
        system::{System, eventually},
    },
};

fn add(client: &Client, point: i64, expires_at: &Value) -> RequestBuilder {
    client.send("add", &json!({"user_id": "7", "point": point, "expires_at": expires_at}))
}

async fn waited(request: RequestBuilder) -> Value {
    let (status, entry) = answer(request.header("Prefer", "wait")).await;
    assert_eq!(status, 200, "{entry}");
    entry
}

#[tokio::test(flavor = "multi_thread")]
async fn points_expire_alone_in_a_batch_and_through_the_queue() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let [first, second, third] = [1, 2, 3].map(|hours| json!(in_hours(hours).to_string()));
    let entry = waited(add(&client, 10, &first)).await;
    assert_eq!((&entry["expires_at"], &entry["lots"]), (&first, &json!(null)));
    let operation = json!({"action": "add", "user_id": "7", "point": 20, "expires_at": second});
    let batch = client.post("/v1/point/batch").json(&json!({"operations": [operation]}));
    assert_eq!(answer(batch).await.0, 202);
    assert_eq!(answer(add(&client, 30, &third)).await.0, 202);
    system.drain(3).await;
    let lots = json!([{"at": first, "point": 10}, {"at": second, "point": 20}, {"at": third, "point": 30}]);
    let balance = answer(client.get("/v1/point?id=7")).await.1;
    assert_eq!((&balance["point"], &balance["expires"]), (&json!(60), &lots));
    assert_eq!(answer(client.get("/v1/points?id=7")).await.1["points"][0], balance);
    assert_eq!(answer(client.get("/v1/points?prefix=7")).await.1["points"][0], balance);
    let at = answer(client.get(&format!("/v1/point?id=7&at={}", text(&second)))).await.1;
    assert_eq!((&at["point"], &at["expires"]), (&json!(30), &json!(null)), "what will be left by then");
    let order = waited(client.change("subtract", 7, 15)).await;
    assert_eq!(order["lots"], json!([{"at": first, "point": 10}, {"at": second, "point": 5}]));
    let replay = waited(add(&client, 1, &third).header("Idempotency-Key", "a")).await;
    assert_eq!(waited(add(&client, 1, &third).header("Idempotency-Key", "a")).await, replay);
    for other in [&second, &json!(null)] {
        let key = add(&client, 1, other).header("Idempotency-Key", "a").header("Prefer", "wait");
        refused(key, 422, "key-reused", Some("Idempotency-Key")).await;
    }
    pass(&system, 2 * 3_600).await;
    eventually("a worker has let it expire", async || {
        answer(client.get("/v1/point/log?id=7")).await.1["entries"][0]["action"] == "expire"
    })
    .await;
    let entry = answer(client.get("/v1/point/log?id=7")).await.1["entries"][0].clone();
    let expected =
        json!({"status": "applied", "point": 15, "change": -15, "actor": "system:expiry", "balance": 31});
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&entry[name], value, "{name} of {entry}");
    }
    assert_eq!(entry["created_at"], entry["expires_at"]);
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_is_right_before_any_entry_says_so() {
    let mut system = System::new().await;
    let client = system.serve();
    for hours in 1..=12 {
        waited(add(&client, hours, &json!(in_hours(hours).to_string()))).await;
    }
    let balance = answer(client.get("/v1/point?id=7")).await.1;
    assert_eq!((&balance["point"], balance["expires"].as_array().map(Vec::len)), (&json!(78), Some(10)));
    pass(&system, 4 * 3_600 + 1_800).await;
    for path in ["/v1/point?id=7", "/v1/points?id=7", "/v1/points?prefix="] {
        let found = answer(client.get(path)).await.1;
        let balance = found["points"].get(0).unwrap_or(&found);
        assert_eq!((&balance["point"], &balance["seq"]), (&json!(78 - 10), &json!(12)), "{path}");
        assert_eq!(balance["expires"][0]["point"], 5, "{path}");
    }
    let minutes_ago = Timestamp::now() - 100.minutes();
    let at = answer(client.get(&format!("/v1/point?id=7&at={minutes_ago}"))).await.1;
    assert_eq!((&at["point"], &at["seq"]), (&json!(78 - 3), &json!(12)));
    // What is there counts, not what the row has.
    let order = client.change("subtract", 7, 69).header("Prefer", "wait");
    let problem = refused(order, 409, "insufficient-points", None).await;
    assert_eq!(problem["balance"], 68);
    let log = answer(client.get("/v1/point/log?id=7")).await.1;
    let told: Vec<(String, i64)> = (0..5)
        .map(|index| &log["entries"][index])
        .map(|entry| (text(&entry["action"]), entry["balance"].as_i64().expect("a number")))
        .collect();
    let expected = [("subtract", 68), ("expire", 68), ("expire", 72), ("expire", 75), ("expire", 77)];
    assert_eq!(told, expected.map(|(action, balance)| (action.to_owned(), balance)));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_past_or_no_time_is_refused_by_name() {
    let mut system = System::new().await;
    let client = system.serve();
    let (hour, past) = (json!(in_hours(1).to_string()), json!(in_hours(-1).to_string()));
    for wrong in
        [json!("tomorrow"), json!("2099-01-01"), json!(4_070_908_800_i64), json!("+2099-01-01T00:00:00Z")]
    {
        let problem = refused(add(&client, 1, &wrong), 400, "invalid-field", Some("expires_at")).await;
        let detail = "expires_at must be an RFC 3339 time such as 2026-12-01T00:00:00Z";
        assert_eq!(problem["detail"], detail);
    }
    for late in [&past, &json!("1969-12-31T23:59:59Z"), &json!(Timestamp::now().to_string())] {
        let problem = refused(add(&client, 1, late), 400, "invalid-field", Some("expires_at")).await;
        assert!(text(&problem["detail"]).starts_with("expires_at must be later than now"), "{problem}");
    }
    let subtract = client.send("subtract", &json!({"user_id": "7", "point": 1, "expires_at": hour}));
    let problem = refused(subtract, 400, "invalid-field", Some("expires_at")).await;
    let detail =
        "expires_at is not a field of subtract, which takes user_id, point, partial, reason, metadata";
    assert_eq!(problem["detail"], detail);
    let operation = |action: &str, expires_at: &Value| json!({"action": action, "user_id": "7", "point": 1, "expires_at": expires_at});
    let operations = [
        operation("add", &past),
        operation("add", &json!(0)),
        operation("subtract", &hour),
        operation("give", &json!(0)),
        operation("expire", &hour),
    ];
    let batch = client.post("/v1/point/batch").json(&json!({"operations": operations}));
    let problem = refused(batch, 400, "invalid-field", Some("operations")).await;
    let errors = problem["errors"].as_array().expect("errors").iter();
    let pointers: Vec<String> = errors.map(|error| text(&error["pointer"])).collect();
    let expected = ["0/expires_at", "1/expires_at", "2/expires_at", "3/action", "3/expires_at", "4/action"];
    assert_eq!(pointers, expected.map(|pointer| format!("/operations/{pointer}")), "{problem}");
    refused(client.send("expire", &json!({"user_id": "7"})), 404, "not-found", None).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_expire_in_the_queue_are_a_rejected_entry() {
    let mut system = System::new().await;
    let client = system.serve();
    // The server is ready, and connected to its servers.
    client.queue("add", 7, 1).await;
    let soon = Timestamp::now() + 2.seconds();
    let (status, queued) = answer(add(&client, 5, &json!(soon.to_string()))).await;
    assert_eq!(status, 202, "{queued}");
    eventually("it is past", async || Timestamp::now() > soon + 10.milliseconds()).await;
    system.work();
    let path = format!("/v1/point/request/{}?id=7", text(&queued["request_id"]));
    let entry = answer(client.get(&path).header("Prefer", "wait=30")).await.1;
    assert_eq!((&entry["reject_reason"], &entry["change"]), (&json!("expired"), &json!(0)), "{entry}");
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lot_too_many_is_a_problem_of_its_own() {
    let mut system = System::new().await;
    let client = system.serve();
    let lots = (1..=100).map(|hours| crate::apply::add_until(7, 1, in_hours(hours)));
    system.service(1).apply_deltas(lots.collect()).await.expect("results");
    let more = add(&client, 1, &json!(in_hours(101).to_string())).header("Prefer", "wait");
    let problem = refused(more, 409, "lot-limit", None).await;
    assert_eq!(problem["balance"], 100);
    system.finish().await;
}
