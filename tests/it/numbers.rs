//! Numbers are parsed from their digits, wherever the service reads one.

use reqwest::header::CONTENT_TYPE;
use serde_json::json;

use crate::{
    http::refused,
    support::{
        client::{Client, answer, text},
        queues::{message, partition},
        system::{System, eventually},
    },
};

/// Numbers with a fraction, however small, or out of range. The last ones are cheap to refuse.
const WRONG: [&str; 14] = [
    "0.99999999999999999999",
    "1.00000000000000000001",
    "4503599627370497.5",
    "9007199254740990.9999",
    "9007199254740991.00000000000000001",
    "1e-1",
    "-5.0",
    "0e5",
    "0.0",
    "1e400",
    "1e-400",
    "1e999999999",
    "1e-99999999999999999999",
    "9223372036854775808",
];

/// Those that are zero.
const ZERO: [&str; 2] = ["0e5", "0.0"];

/// Five, in forms that JSON Schema allows (2020-12 Validation §6.1.1: a zero fraction is no fraction).
const FIVE: [&str; 6] = ["5", "5.0", "0.5e1", "50E-1", "500e-2", "5.000000000000000000000000000e+0"];

fn add(client: &Client, user: &str, point: &str) -> reqwest::RequestBuilder {
    let body = format!(r#"{{"user_id":{user},"point":{point}}}"#);
    client.post("/v1/point/add").header(CONTENT_TYPE, "application/json").body(body)
}

fn batch(client: &Client, user: &str, point: &str) -> reqwest::RequestBuilder {
    let body = format!(r#"{{"operations":[{{"action":"add","user_id":{user},"point":{point}}}]}}"#);
    client.post("/v1/point/batch").header(CONTENT_TYPE, "application/json").body(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remainder_is_refused_however_small_it_is() {
    let mut system = System::new().await;
    let client = system.serve();
    for wrong in WRONG {
        // Zero is no number of points, but a user's id.
        let fields = if ZERO.contains(&wrong) { &["point"][..] } else { &["point", "user_id"] };
        for field in fields {
            let (user, point) = if *field == "point" { ("7", wrong) } else { (wrong, "1") };
            refused(add(&client, user, point), 400, "invalid-field", Some(field)).await;
            let request = batch(&client, user, point);
            let problem = refused(request, 400, "invalid-field", Some("operations")).await;
            assert_eq!(text(&problem["errors"][0]["pointer"]), format!("/operations/0/{field}"), "{problem}");
        }
        let id = wrong.replace('+', "%2B");
        for parameter in ["limit", "before"] {
            let page = client.get(&format!("/v1/point/log?id=7&{parameter}={id}"));
            refused(page, 400, "invalid-field", Some(parameter)).await;
        }
        let page = client.get(&format!("/v1/points?prefix=&limit={id}"));
        refused(page, 400, "invalid-field", Some("limit")).await;
    }
    assert_eq!(system.queues().await.waiting().await, 0, "a refused request reached the queue");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_number_counts_however_it_is_written() {
    let mut system = System::new().await;
    let client = system.serve();
    for point in FIVE {
        let (status, entry) = answer(add(&client, "7.0", point).header("Prefer", "wait")).await;
        assert_eq!((status.as_u16(), &entry["point"]), (200, &json!(5)), "{point}: {entry}");
        let (status, body) = answer(batch(&client, "70e-1", point)).await;
        assert_eq!(status, 202, "{point}: {body}");
    }
    system.work();
    eventually("all is applied", async || client.balance(7).await == 60).await;
    let largest = "9007199254740991.0";
    let (status, entry) = answer(add(&client, largest, largest).header("Prefer", "wait")).await;
    assert_eq!((status.as_u16(), &entry["user_id"]), (200, &json!("9007199254740991")), "{entry}");
    let (status, page) = answer(client.get("/v1/point/log?id=7&limit=2e0&before=300e-2")).await;
    assert_eq!((status.as_u16(), page["entries"].as_array().map(Vec::len)), (200, Some(2)), "{page}");
    let (status, page) = answer(client.get("/v1/points?prefix=&limit=10e-1")).await;
    assert_eq!((status.as_u16(), page["points"].as_array().map(Vec::len)), (200, Some(1)), "{page}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_a_remainder_is_malformed_and_one_without_is_applied() {
    let mut system = System::new().await;
    let client = system.serve();
    client.queue("add", 7, 1).await;
    let queues = system.queues().await;
    let send = async |id: &str, point: &str| {
        let message = message(id, 7, 1).replace(r#""point":1"#, &format!(r#""point":{point}"#));
        assert!(message.contains(point), "{message}");
        queues.publish(partition(7), &message).await;
    };
    send("01890a5d-ac96-774b-bcce-b302099a8057", "0.99999999999999999999").await;
    send("01890a5d-ac96-774b-bcce-b302099a8058", "50e-1").await;
    system.work();
    eventually("one is dead", async || queues.dead().await == 1).await;
    system.drain(2).await;
    assert_eq!(client.balance(7).await, 6);
    system.finish().await;
}
