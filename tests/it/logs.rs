//! The lines of the log: their JSON, and the trace of a request through `serve` and a worker.

use serde_json::{Value, json};

use crate::{
    keys::{create, rotate},
    support::{
        client::{Client, answer, text},
        process::Process,
        system::{System, eventually},
    },
};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

/// The lines that contain `part`. Each must be a JSON object.
fn lines_with(process: &Process, part: &str) -> Vec<Value> {
    let printed = process.printed();
    let lines = printed.lines().filter(|line| line.contains(part));
    lines.map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The first line that contains `part`. It may come after what it tells.
async fn line_with(process: &Process, part: &str) -> Value {
    eventually(part, async || !lines_with(process, part).is_empty()).await;
    lines_with(process, part).swap_remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_followed_from_the_http_line_to_the_workers_by_its_trace_and_its_id() {
    let system = System::new().await;
    let json = ["--log-format", "json"];
    let serve = system.process("serve", &[&json[..], &["--listen", "127.0.0.1:0"]].concat());
    let work = system.process("work", &json);
    let port = text(&Value::from(serve.says("server listen at :").await)).replace("\"}", "");
    let client = Client::new(&format!("http://127.0.0.1:{port}"));

    let traced =
        |flags: &str, user| client.change("add", user, 5).header("traceparent", format!("{TRACE}-{flags}"));
    let (status, sampled) = answer(traced("01", 7)).await;
    assert_eq!(status, 202);
    let unsampled = answer(traced("00", 8)).await.1;
    let untraced = answer(client.change("add", 9, 5)).await.1;
    let wrong = answer(client.change("add", 10, 5).header("traceparent", format!("{TRACE}-1"))).await.1;
    let twice = traced("01", 11).header("traceparent", format!("{TRACE}-01"));
    let twice = answer(twice).await.1;
    let (rejected, waited) = {
        let rejected = client.change("subtract", 12, 5).header("traceparent", format!("{TRACE}-03"));
        let waited = client.change("add", 13, 5).header("Prefer", "wait");
        (answer(rejected).await.1, answer(waited.header("traceparent", format!("{TRACE}-01"))).await.1)
    };
    let operation = |user| json!({"action": "add", "user_id": user, "point": 5});
    let batch = client.post("/v1/point/batch").json(&json!({"operations": [operation(14), operation(15)]}));
    let of_batch = TRACE.replace('4', "5");
    assert_eq!(answer(batch.header("traceparent", format!("{of_batch}-01"))).await.0, 202);
    system.drain(9).await;
    eventually("a line for each operation", async || lines_with(&work, &of_batch).len() == 2).await;
    assert_eq!(line_with(&serve, &of_batch).await["route"], "/v1/point/batch");

    let id = text(&sampled["request_id"]);
    eventually("both lines", async || {
        !lines_with(&serve, &id).is_empty() && !lines_with(&work, &id).is_empty()
    })
    .await;
    let ([http], [worker]) = (&lines_with(&serve, &id)[..], &lines_with(&work, &id)[..]) else {
        panic!("one line each: {} {}", serve.printed(), work.printed());
    };
    for line in [http, worker] {
        assert_eq!(line["traceparent"], format!("{TRACE}-01"));
        assert_eq!((&line["level"], &line["user_id"]), (&"INFO".into(), &"7".into()), "{line}");
        assert!(text(&line["timestamp"]).parse::<jiff::Timestamp>().is_ok(), "{line}");
    }
    let of_http = (&http["method"], &http["route"], &http["status"]);
    assert_eq!(of_http, (&"POST".into(), &"/v1/point/add".into(), &202.into()));
    assert!(http["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{http}");
    assert_eq!((&worker["message"], &worker["seq"]), (&"applied".into(), &1.into()));

    let rejected = line_with(&work, &text(&rejected["request_id"])).await;
    assert_eq!(rejected["traceparent"], format!("{TRACE}-03"));
    assert_eq!(rejected["message"], "rejected: insufficient_points");
    assert_eq!(line_with(&serve, &text(&waited["request_id"])).await["status"], 200, "past the queue");
    for quiet in [&unsampled, &untraced, &wrong, &twice] {
        let id = text(&quiet["request_id"]);
        assert!(lines_with(&serve, &id).is_empty() && lines_with(&work, &id).is_empty(), "{quiet}");
    }
    for process in [serve, work] {
        let printed = process.printed();
        assert!(printed.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{printed}");
        assert!(process.end("-TERM").await.success());
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_keeps_the_id_of_the_trace_that_its_request_came_with() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let sent = |user, trace: &str| client.change("add", user, 5).header("traceparent", trace);
    for (user, flags) in [(1, "-01"), (2, "-00"), (3, "-1")] {
        assert_eq!(answer(sent(user, &format!("{TRACE}{flags}"))).await.0, 202);
    }
    assert_eq!(answer(client.change("add", 4, 5)).await.0, 202);
    let waited = sent(5, &format!("{TRACE}-00")).header("Prefer", "wait");
    assert_eq!(answer(waited).await.1["trace_id"], TRACE[3..35]);
    let operation = |user| json!({"action": "add", "user_id": user, "point": 5});
    let batch = client.post("/v1/point/batch").json(&json!({"operations": [operation(6), operation(7)]}));
    assert_eq!(answer(batch.header("traceparent", format!("{TRACE}-00"))).await.0, 202);
    system.drain(7).await;

    let mut kept = Vec::new();
    for user in 1..=7 {
        let log = answer(client.get(&format!("/v1/point/log?id={user}"))).await.1;
        kept.push(log["entries"][0].get("trace_id").cloned());
    }
    let id = Some(json!(TRACE[3..35]));
    assert_eq!(kept, [&id, &id, &None, &None, &id, &id, &id].map(Clone::clone));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_of_a_request_names_its_actor() {
    let system = System::new().await;
    let old = create(&system, "shop", "read").await;
    let new = rotate(&system, "shop").await;
    let serve = system.process("serve", &["--log-format=json", "--listen=127.0.0.1:0", "--allow-anonymous"]);
    let port = serve.says("server listen at :").await.replace("\"}", "");
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    // The client keeps its connection, so a request without a key follows one with a key.
    let mut requests = Vec::new();
    for (key, path, status) in [
        (Some(&old), "/v1/point?id=1", 404),
        (None, "/v1/point?id=1", 404),
        (Some(&new), "/v1/point?id=1", 404),
        (Some(&new), "/v1/point/batch", 403),
        (None, "/v1/point?id=1", 404),
    ] {
        let request = if status == 403 { client.post(path) } else { client.get(path) };
        let request = request.header("traceparent", format!("{TRACE}-01"));
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        assert_eq!(answer(request).await.0, status);
        requests.push(json!([status, key.map(|_| "shop")]));
    }
    eventually("a line for each", async || lines_with(&serve, TRACE).len() == requests.len()).await;
    let lines = lines_with(&serve, TRACE);
    let lines: Vec<Value> = lines.iter().map(|line| json!([line["status"], line["actor"]])).collect();
    assert_eq!(lines, requests);
    assert!(serve.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_the_database_refuses_keeps_its_trace_in_the_workers_line() {
    let mut system = System::new().await;
    system.execute("alter table log add check (point <> 666)").await;
    let client = system.serve();
    let work = system.process("work", &[]);
    let traced = client.change("add", 7, 666).header("traceparent", format!("{TRACE}-00"));
    let id = text(&answer(traced).await.1["request_id"]);
    let line = work.says("its message goes to the dead letters: ").await;
    assert!(line.contains(&format!("request_id={id} user_id=7 traceparent={TRACE}-00")), "{line}");
    let queues = system.queues().await;
    eventually("a dead letter", async || queues.dead().await == 1).await;
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}
