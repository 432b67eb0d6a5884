//! Transfers over HTTP, alone, in a batch and through the queue: their answers, and the refusals by name.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    http::refused,
    support::{
        client::{answer, text},
        system::System,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_names_both_users_and_its_faults() {
    let mut system = System::new().await;
    let client = system.serve();
    let wait = |request: RequestBuilder| request.header("Prefer", "wait");
    let send = |body: Value| client.post("/v1/point/transfer").json(&body);
    answer(wait(client.change("add", 7, 100))).await;
    let (status, entry) = answer(wait(send(json!({"user_id": 7, "to": "shop/8", "point": 30})))).await;
    assert_eq!(status, 200, "{entry}");
    let expected = json!({"user_id": "7", "action": "transfer", "counterparty": "shop/8", "point": 30,
        "change": -30, "balance": 70});
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&entry[name], value, "{name} of {entry}");
    }
    let path = format!("/v1/point/request/{}?id=shop%2F8", text(&entry["request_id"]));
    let (_, received) = answer(client.get(&path)).await;
    assert_eq!(
        (&received["counterparty"], &received["change"], &received["balance"]),
        (&json!("7"), &json!(30), &json!(30))
    );
    for (body, field) in [
        (json!({"user_id": 7, "to": "7", "point": 1}), "to"),
        (json!({"user_id": 7, "point": 1}), "to"),
        (json!({"user_id": 7, "to": "", "point": 1}), "to"),
        (json!({"user_id": 7, "to": "8", "point": 0}), "point"),
        (json!({"user_id": 7, "to": "8"}), "point"),
        (json!({"user_id": 7, "to": "8", "point": 1, "partial": true}), "partial"),
    ] {
        refused(wait(send(body)), 400, "invalid-field", Some(field)).await;
    }
    let add_to = client.post("/v1/point/add").json(&json!({"user_id": 7, "to": "8", "point": 1}));
    refused(add_to, 400, "invalid-field", Some("to")).await;
    let too_much = wait(send(json!({"user_id": 7, "to": "8", "point": 71})));
    let problem = refused(too_much, 409, "insufficient-points", None).await;
    assert_eq!(problem["balance"], 70);

    let operations = json!({"operations": [
        {"action": "transfer", "user_id": 7, "to": 9, "point": 20},
        {"action": "transfer", "user_id": 9, "to": "7", "point": 1},
    ]});
    let (status, body) = answer(client.post("/v1/point/batch").json(&operations)).await;
    assert_eq!(status, 202, "{body}");
    let own = json!({"operations": [{"action": "transfer", "user_id": 7, "to": "7", "point": 1}]});
    let (status, problem) = answer(client.post("/v1/point/batch").json(&own)).await;
    assert_eq!((status.as_u16(), &problem["errors"][0]["pointer"]), (400, &json!("/operations/0/to")));
    system.work();
    system.drain(7).await;
    let total = "select sum(point)::bigint from user_point";
    assert_eq!(system.count(total).await, 100);
    system.finish().await;
}
