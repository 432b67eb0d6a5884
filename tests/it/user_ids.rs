//! User ids: the customer's own, as strings, everywhere.

use reqwest::header::{CONTENT_TYPE, LINK, LOCATION};
use serde_json::json;

use crate::support::{
    client::{answer, body, text},
    system::{System, eventually},
};

/// Ids that a careless place would change, merge or refuse.
const IDS: [&str; 10] = [
    "7",
    "07",
    "7.0",
    "0",
    "800356270543470622",
    "alice/coins",
    "a&b=c+d%2F#?",
    "';drop/**/table/**/log;--",
    r#"\"{}[]"#,
    "0195c3f0-6b5e-7c60-9f0c-6f1d2e7a9b10",
];

pub fn encoded(id: &str) -> String {
    url::form_urlencoded::byte_serialize(id.as_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_id_is_one_user_in_each_request_and_answer() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let ids: Vec<&str> = IDS.iter().copied().filter(|id| !id.contains(' ')).collect();
    for (id, point) in ids.iter().zip(1..) {
        let change = || client.post("/v1/point/add").json(&json!({"user_id": id, "point": point}));
        let queued = change().send().await.expect("an answer");
        assert_eq!(queued.status(), 202, "{id}");
        let location = queued.headers()[LOCATION].to_str().expect("text").to_owned();
        let request_id = text(&body(queued).await["request_id"]);
        let entry = answer(client.get(&location).header("Prefer", "wait")).await.1;
        assert_eq!((&entry["user_id"], &entry["request_id"]), (&json!(id), &json!(request_id)), "{entry}");
        let operation = json!({"action": "add", "user_id": id, "point": point});
        let batch = client.post("/v1/point/batch").json(&json!({"operations": [operation]}));
        assert_eq!(answer(batch).await.0, 202, "{id}");
        let (status, waited) = answer(change().header("Prefer", "wait")).await;
        assert_eq!((status.as_u16(), &waited["user_id"]), (200, &json!(id)), "{waited}");
    }
    for (id, point) in ids.iter().zip(1..) {
        let path = format!("/v1/point?id={}", encoded(id));
        eventually("three changes are applied", async || {
            let (_, balance) = answer(client.get(&path)).await;
            assert_eq!(balance["user_id"], json!(id), "{balance}");
            balance["point"] == 3 * point
        })
        .await;
        let page = client.get(&format!("/v1/point/log?id={}&limit=2", encoded(id))).send().await;
        let page = page.expect("an answer");
        let link = page.headers()[LINK].to_str().expect("text").to_owned();
        let next = link.trim_start_matches('<').split('>').next().expect("a target").to_owned();
        let (_, last) = answer(client.get(&next)).await;
        assert_eq!(
            (&last["entries"][0]["seq"], &last["entries"][0]["user_id"]),
            (&json!(1), &json!(id)),
            "{id}"
        );
    }
    let users = i64::try_from(ids.len()).expect("few");
    assert_eq!(system.count("select count(*) from user_point").await, users, "no two ids are one user");
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_means_its_digits_unless_a_client_may_have_rounded_it() {
    let mut system = System::new().await;
    let client = system.serve();
    let sent = |user: &str| {
        let body = format!(r#"{{"user_id":{user},"point":5}}"#);
        let request = client.post("/v1/point/add").header(CONTENT_TYPE, "application/json").body(body);
        answer(request.header("Prefer", "wait"))
    };
    for (number, id) in [("7", "7"), ("7.0", "7"), ("0.7e1", "7"), ("9007199254740991", "9007199254740991")] {
        let (status, entry) = sent(number).await;
        assert_eq!((status.as_u16(), &entry["user_id"]), (200, &json!(id)), "{entry}");
    }
    for number in ["9007199254740992", "800356270543470622", "1e400", "123456789012345678901234567890"] {
        let (status, problem) = sent(number).await;
        assert_eq!((status.as_u16(), &problem["field"]), (400, &json!("user_id")), "{problem}");
        if number != "1e400" {
            assert!(text(&problem["detail"]).contains("as a string"), "{problem}");
        }
    }
    // As JavaScript's JSON.stringify writes it.
    let (status, entry) = sent(r#""800356270543470622""#).await;
    assert_eq!((status.as_u16(), &entry["user_id"]), (200, &json!("800356270543470622")), "{entry}");
    assert_eq!(client.balance(7).await, 15);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_back_as_it_was_sent() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let metadata = r#"{ "order" : 1.50, "tags":["é","\u00e9"], "big": 12345678901234567890123 }"#;
    let body = format!(r#"{{"user_id":"7","point":5,"metadata": {metadata} }}"#);
    let request = client.post("/v1/point/add").header(CONTENT_TYPE, "application/json").body(body);
    assert_eq!(answer(request).await.0, 202);
    eventually("it is applied", async || client.balance(7).await == 5).await;
    let page =
        client.get("/v1/point/log?id=7").send().await.expect("an answer").text().await.expect("a body");
    assert!(page.contains(&format!(r#""metadata":{metadata},"#)), "{page}");
    system.finish_drained().await;
}
