//! The HTTP interface: every answer, and that a refused request changes nothing.

use reqwest::header::{ALLOW, CONTENT_TYPE};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    client::{Client, answer, body, text},
    system::{System, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn points_are_added_and_subtracted_through_the_queue() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let first = client.queue("add", 7, 1000).await;
    let second = client.queue("subtract", 7, 300).await;
    let [first, second] = [first, second].map(|id| id.parse::<Uuid>().expect("a UUID"));
    assert_ne!(first, second);
    eventually("a balance of 700", async || client.balance(7).await == 700).await;
    let (status, balance) = answer(client.get("/v1/point?id=7")).await;
    assert_eq!((status.as_u16(), &balance["user_id"], &balance["seq"]), (200, &json!("7"), &json!(2)));
    assert!(text(&balance["updated_at"]).parse::<jiff::Timestamp>().is_ok(), "{balance}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_used_twice_counts_once() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let keyed = || client.change("add", 7, 10).header("Idempotency-Key", "order-1");
    let (_, first) = answer(keyed()).await;
    let (status, again) = answer(keyed()).await;
    assert!([200, 202].contains(&status.as_u16()), "{again}");
    assert_eq!(again["request_id"], first["request_id"]);
    // The user's last change: once it is applied, so are the others.
    client.queue("add", 7, 1).await;
    system.drain(2).await;
    assert_eq!(client.balance(7).await, 11);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_waited_for_where_the_client_prefers_it() {
    let mut system = System::new().await;
    let client = system.serve();
    let keyed = |action, point, key: &'static str| {
        client
            .change(action, 7, point)
            .header("Idempotency-Key", key)
            .header("Prefer", "return=minimal, Wait=5")
    };
    let response = keyed("add", 100, "a").send().await.expect("an answer");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["preference-applied"]),
        (200, &"wait".parse().expect("a header"))
    );
    assert!(!response.headers().contains_key("idempotency-replayed"));
    let first = body(response).await;
    let expected = json!({"user_id": "7", "action": "add", "point": 100, "change": 100, "seq": 1, "balance": 100, "status": "applied"});
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&first[name], value, "{name} of {first}");
    }
    let replayed = keyed("add", 100, "a").send().await.expect("an answer");
    assert_eq!(replayed.headers()["idempotency-replayed"], "true");
    assert_eq!(body(replayed).await, first, "a replay is the first answer");

    refused(keyed("subtract", 100, "a"), 422, "key-reused", Some("Idempotency-Key")).await;
    refused(keyed("add", 99, "a"), 422, "key-reused", Some("Idempotency-Key")).await;
    let problem = refused(keyed("subtract", 101, "b"), 409, "insufficient-points", None).await;
    assert_eq!(problem["balance"], 100);
    // A rejected key stays rejected, even if there are enough points by now.
    answer(keyed("add", 100, "c")).await;
    let again = refused(keyed("subtract", 101, "b"), 409, "insufficient-points", None).await;
    assert_eq!(again["request_id"], problem["request_id"]);
    refused(keyed("add", (1 << 53) - 1, "d"), 409, "balance-limit", None).await;
    assert_eq!(client.balance(7).await, 200);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_is_refused_by_the_name_of_its_fault() {
    let mut system = System::new().await;
    let client = system.serve();
    let json = |body: &str| {
        client.post("/v1/point/add").header(CONTENT_TYPE, "application/json").body(body.to_owned())
    };
    for (wrong, field) in [
        (r#"{"user_id":-1,"point":1}"#, "user_id"),
        (r#"{"user_id":"","point":1}"#, "user_id"),
        (r#"{"user_id":"a b","point":1}"#, "user_id"),
        (r#"{"user_id":"é","point":1}"#, "user_id"),
        (r#"{"user_id":["1"],"point":1}"#, "user_id"),
        (r#"{"user_id":9007199254740992,"point":1}"#, "user_id"),
        (r#"{"user_id":92233720368547758080,"point":1}"#, "user_id"),
        (r#"{"point":1}"#, "user_id"),
        (r#"{"user_id":1}"#, "point"),
        (r#"{"user_id":1,"point":null}"#, "point"),
        (r#"{"user_id":1,"point":0}"#, "point"),
        (r#"{"user_id":1,"point":-5}"#, "point"),
        (r#"{"user_id":1,"point":1.5}"#, "point"),
        (r#"{"user_id":1,"point":9007199254740992}"#, "point"),
        (r#"{"user_id":1,"point":1,"reason":""}"#, "reason"),
        (r#"{"user_id":1,"point":1,"reason":7}"#, "reason"),
        (r#"{"user_id":1,"point":1,"reason":"a\u0000b"}"#, "reason"),
        (r#"{"user_id":1,"point":1,"metadata":[]}"#, "metadata"),
        (r#"{"user_id":1,"point":1,"metadata":{"a":"\u0000"}}"#, "metadata"),
        (r#"{"user_id":1,"point":1,"metadata":{"a":"\ud800"}}"#, "metadata"),
        (r#"{"user_id":1,"point":1,"amount":1}"#, "amount"),
        (r#"{"user_id":1,"point":1,"partial":true}"#, "partial"),
    ] {
        refused(json(wrong), 400, "invalid-field", Some(field)).await;
    }
    for (wrong, kind) in [
        ("", "empty-body"),
        ("{", "malformed-body"),
        ("[1,2,null]", "malformed-body"),
        (r#"{"user_id":1,"point":1} x"#, "malformed-body"),
        (r#"{"user_id":1,"user_id":1,"point":1}"#, "malformed-body"),
    ] {
        refused(json(wrong), 400, kind, None).await;
    }
    let long = format!(r#"{{"user_id":1,"point":1,"reason":"{}"}}"#, "x".repeat(16 * 1024));
    refused(json(&long), 413, "body-too-large", None).await;
    let ok = r#"{"user_id":1,"point":1}"#;
    let text = client.post("/v1/point/add").header(CONTENT_TYPE, "text/plain").body(ok);
    refused(text, 415, "unsupported-media-type", Some("Content-Type")).await;
    refused(client.post("/v1/point/add").body(ok), 415, "unsupported-media-type", Some("Content-Type")).await;
    for key in [String::new(), "k".repeat(256), "é".to_owned()] {
        refused(json(ok).header("Idempotency-Key", key), 400, "invalid-field", Some("Idempotency-Key")).await;
    }
    let twice = json(ok).header("Idempotency-Key", "a").header("Idempotency-Key", "b");
    refused(twice, 400, "invalid-field", Some("Idempotency-Key")).await;
    refused(client.get("/v1/point?id=1"), 404, "unknown-user", None).await;
    refused(client.get("/v1/point/"), 404, "not-found", None).await;
    assert_eq!(system.queues().await.waiting().await, 0, "a refused request reached the queue");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_query_is_refused_by_the_name_of_its_fault() {
    let mut system = System::new().await;
    let client = system.serve();
    for (query, field) in [
        ("", "id"),
        ("?id=", "id"),
        ("?id=a%20b", "id"),
        ("?id=%C3%A9", "id"),
        ("?id=1&id=1", "id"),
        ("?id=1&page=2", "page"),
        ("?id=1&at=", "at"),
        ("?id=1&at=yesterday", "at"),
        ("?id=1&at=2026-11-01", "at"),
        ("?id=1&at=2026-11-01T00:00:00+01:00", "at"),
        ("?id=1&at=-009999-01-02T00:00:00Z", "at"),
    ] {
        refused(client.get(&format!("/v1/point{query}")), 400, "invalid-field", Some(field)).await;
    }
    for (query, field) in [
        ("limit=50", "id"),
        ("id=1&limit=0", "limit"),
        ("id=1&limit=1001", "limit"),
        ("id=1&limit=1&limit=2", "limit"),
        ("id=1&before=0", "before"),
        ("id=1&before=x", "before"),
        ("id=1&from=now", "from"),
        ("id=1&to=12:00", "to"),
        ("id=1&status=pending", "status"),
        ("id=1&after=1", "after"),
    ] {
        refused(client.get(&format!("/v1/point/log?{query}")), 400, "invalid-field", Some(field)).await;
    }
    for (path, field) in [
        ("x?id=1", "request_id"),
        ("01890a5d-ac96-774b-bcce-b302099a8057", "id"),
        ("01890a5d-ac96-774b-bcce-b302099a8057?id=1&wait=5", "wait"),
    ] {
        let request = client.get(&format!("/v1/point/request/{path}"));
        refused(request, 400, "invalid-field", Some(field)).await;
    }
    for oldest in ["0000-01-01T00:00:00%2B23:59", "0000-01-01T00:00:00.000000001Z", "9999-12-30T00:00:00Z"] {
        refused(client.get(&format!("/v1/point?id=1&at={oldest}")), 404, "unknown-user", None).await;
        let log = client.get(&format!("/v1/point/log?id=1&from={oldest}&to={oldest}"));
        assert_eq!(answer(log).await.1, json!({"entries": []}), "{oldest}");
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_is_told_the_right_one() {
    let mut system = System::new().await;
    let client = system.serve();
    for (path, request, allow) in [
        ("/v1/point/add", client.get("/v1/point/add"), "POST"),
        ("/v1/point/subtract", client.get("/v1/point/subtract"), "POST"),
        ("/v1/point/reverse", client.get("/v1/point/reverse"), "POST"),
        ("/v1/point/batch", client.get("/v1/point/batch"), "POST"),
        ("/v1/point", client.post("/v1/point?id=1"), "GET, HEAD"),
        ("/v1/points", client.post("/v1/points?id=1"), "GET, HEAD"),
        ("/v1/point/log", client.post("/v1/point/log?id=1"), "GET, HEAD"),
        ("/v1/point/request/x", client.post("/v1/point/request/x?id=1"), "GET, HEAD"),
        ("/ping", client.post("/ping"), "GET, HEAD"),
        ("/", client.post("/"), "GET, HEAD"),
    ] {
        let response = request.send().await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()[ALLOW]),
            (405, &allow.parse().expect("a header")),
            "{path}"
        );
        assert_eq!(body(response).await["type"], "/problems/method-not-allowed");
    }
    let head = client.head("/v1/point?id=1").send().await.expect("an answer");
    assert_eq!((head.status().as_u16(), head.text().await.expect("a body").as_str()), (404, ""));
    let (_, about) = answer(client.get("/")).await;
    assert_eq!(about, json!({"name": "point-system", "version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(answer(client.get("/ping")).await.1, json!("pong"));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_of_everything_is_taken() {
    let mut system = System::new().await;
    let client: Client = system.serve();
    system.work();
    let (user, point, reason) = ((1i64 << 53) - 1, (1i64 << 53) - 1, "\"\\é".repeat(66));
    let change =
        client.post("/v1/point/add").json(&json!({"user_id": user, "point": point, "reason": reason}));
    let (status, answered) = answer(change.header("Idempotency-Key", "k".repeat(255))).await;
    assert_eq!(status, 202, "{answered}");
    eventually("the points are there", async || client.balance(user).await == point).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_number_may_be_written_as_json_schema_allows() {
    let mut system = System::new().await;
    let client = system.serve();
    for point in ["5", "5.0", "0.5e1"] {
        let json = format!(r#"{{"user_id":7.0,"point":{point}}}"#);
        let change = client.post("/v1/point/add").header(CONTENT_TYPE, "application/json").body(json);
        let (status, entry) = answer(change.header("Prefer", "wait")).await;
        assert_eq!((status.as_u16(), &entry["point"]), (200, &json!(5)), "{point}: {entry}");
    }
    assert_eq!(client.balance(7).await, 15);
    system.finish().await;
}

/// Sends a request that must be refused, and returns the problem.
pub async fn refused(
    request: reqwest::RequestBuilder,
    status: u16,
    kind: &str,
    field: Option<&str>,
) -> Value {
    let response = request.send().await.expect("an answer");
    let (got, media_type) = (response.status().as_u16(), response.headers()[CONTENT_TYPE].clone());
    let problem = body(response).await;
    assert_eq!((got, media_type.as_bytes()), (status, &b"application/problem+json"[..]), "{problem}");
    assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["field"].as_str(), field, "{problem}");
    assert!(!text(&problem["title"]).is_empty() && !text(&problem["detail"]).is_empty());
    problem
}
