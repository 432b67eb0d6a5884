//! The outcome of a request, the wait for it, and the order of changes with `Prefer: wait`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use point_system::domain::{RequestId, UserId};
use reqwest::header::{LOCATION, RETRY_AFTER};
use serde_json::{Value, json};

use crate::support::{
    client::{Client, answer, body, text},
    system::{System, eventually},
};

/// An unknown id.
const NEVER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Queues a change. Returns the path of its outcome.
async fn queued(client: &Client, action: &str, user: i64, point: i64) -> String {
    let response = client.change(action, user, point).send().await.expect("an answer");
    let location = response.headers()[LOCATION].to_str().expect("text").to_owned();
    let id = text(&body(response).await["request_id"]);
    assert_eq!(location, format!("/v1/point/request/{id}?id={user}"));
    location
}

async fn status(client: &Client, location: &str) -> Value {
    answer(client.get(location)).await.1["status"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_pending_until_it_is_applied_or_rejected() {
    let mut system = System::new().await;
    let client = system.serve();
    let applied = queued(&client, "add", 7, 5).await;
    let rejected = queued(&client, "subtract", 7, 6).await;
    for location in [&applied, &rejected, &format!("/v1/point/request/{NEVER}?id=7")] {
        let response = client.get(location).send().await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()[RETRY_AFTER]),
            (200, &"1".parse().expect("a header"))
        );
        let pending = body(response).await;
        assert_eq!(pending["status"], "pending", "{pending}");
        assert!(location.contains(&text(&pending["request_id"])));
    }
    system.work();
    system.drain(2).await;
    let (code, entry) = answer(client.get(&applied)).await;
    assert_eq!((code.as_u16(), &entry["status"], &entry["balance"]), (200, &json!("applied"), &json!(5)));
    let (code, entry) = answer(client.get(&rejected)).await;
    assert_eq!((code.as_u16(), &entry["status"], &entry["balance"]), (200, &json!("rejected"), &json!(5)));
    assert_eq!(entry["reject_reason"], "insufficient_points");
    let log = answer(client.get("/v1/point/log?id=7")).await.1;
    assert_eq!(log["entries"][0], entry, "as it is in the log");
    assert_eq!(status(&client, &rejected.replace("id=7", "id=8")).await, "pending", "it is not that user's");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_waited_for() {
    let mut system = System::new().await;
    let client = system.serve();
    let location = queued(&client, "add", 7, 5).await;
    let asked = Instant::now();
    let (none, ()) = tokio::join!(client.get(&location).header("Prefer", "wait=1").send(), async {
        assert_eq!(status(&client, &location).await, "pending", "others need not wait");
        assert!(asked.elapsed() < Duration::from_secs(1));
    });
    let none = none.expect("an answer");
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert_eq!(none.headers()["preference-applied"], "wait=1");
    assert_eq!(body(none).await["status"], "pending");

    let waiting = {
        let request = client.get(&location).header("Prefer", "respond-async, wait=999");
        tokio::spawn(async move { request.send().await.expect("an answer") })
    };
    system.work();
    let outcome = waiting.await.expect("no panic");
    assert_eq!(outcome.headers()["preference-applied"], "wait=30", "at the most");
    assert!(asked.elapsed() < Duration::from_secs(30));
    assert_eq!(body(outcome).await["status"], "applied");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_are_looked_up_together() {
    let mut system = System::new().await;
    let client = system.serve();
    let transactions = || {
        system
            .count("select sum(xact_commit)::bigint from pg_stat_database where datname = current_database()")
    };
    let wait = |user: i64| {
        let request = client.get(&format!("/v1/point/request/{NEVER}?id={user}")).header("Prefer", "wait=3");
        answer(request)
    };
    let before = transactions().await;
    for (_, pending) in join_all((1..=300).map(wait)).await {
        assert_eq!(pending["status"], "pending");
    }
    let made = transactions().await - before;
    // 60 rounds. Without sharing, the requests would have made 18,000 transactions.
    assert!(made < 600, "{made} transactions");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_too_many_is_answered_at_once() {
    let system = System::new().await;
    let service = system.service(1);
    let (user, never) = (UserId::new("id", &7.to_string()).expect("positive"), RequestId::random());
    let wait = async |seconds| {
        let asked = Instant::now();
        let outcome = service.outcome_within(user.clone(), never, Duration::from_secs(seconds)).await;
        assert_eq!(outcome, Ok(None));
        asked.elapsed()
    };
    let (waited, at_once) = tokio::join!(join_all((0..1_000).map(|_| wait(2))), wait(60));
    assert!(waited.iter().all(|time| *time >= Duration::from_secs(2)));
    assert!(at_once < Duration::from_secs(60), "{at_once:?}");
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_lets_nobody_wait() {
    let system = System::new().await;
    let serve = system.process_with_log("serve", &["--listen", "127.0.0.1:0"], "debug");
    let client = Client::new(&format!("http://127.0.0.1:{}", serve.says("server listen at :").await));
    let waiting = client.get(&format!("/v1/point/request/{NEVER}?id=7")).header("Prefer", "wait=30");
    let waiting = tokio::spawn(answer(waiting));
    // The statement is prepared at the first look.
    serve.says("join log using").await;
    let stopped = Instant::now();
    assert!(serve.end("-TERM").await.success());
    assert!(stopped.elapsed() < Duration::from_secs(15), "{:?}", stopped.elapsed());
    assert_eq!(waiting.await.expect("no panic").1["status"], "pending");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_waited_for_passes_those_in_the_queue() {
    let mut system = System::new().await;
    let client = system.serve();
    let (mut queued, mut order) = (Vec::new(), Vec::new());
    for point in 1..=5 {
        queued.push(client.queue("add", 7, point).await);
    }
    // Decided at once, against the current balance: queued changes do not count yet.
    let (refused, _) = answer(client.change("subtract", 7, 1).header("Prefer", "wait")).await;
    assert_eq!(refused, 409);
    for point in [10, 20] {
        let (_, entry) = answer(client.change("add", 7, point).header("Prefer", "wait")).await;
        order.push(text(&entry["request_id"]));
        assert_eq!(entry["seq"], point / 10 + 1, "{entry}");
    }
    system.work();
    system.drain(8).await;
    order.extend(queued);
    assert_eq!(system.ledger().await[&7][1..], order, "those in the queue keep their own order");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_queued_and_waited_for_counts_once() {
    let mut system = System::new().await;
    let client = system.serve();
    let keyed = |point| client.change("add", 7, point).header("Idempotency-Key", "order-7");
    assert_eq!(answer(keyed(5)).await.0, 202);
    let waited = || keyed(5).header("Prefer", "wait");
    let response = waited().send().await.expect("an answer");
    assert!(!response.headers().contains_key("idempotency-replayed"), "the queue has not got to it");
    let first = body(response).await;
    assert_eq!((&first["seq"], &first["status"]), (&json!(1), &json!("applied")));
    system.work();
    let last = client.queue("add", 7, 1).await;
    eventually("what was queued is done with", async || {
        status(&client, &format!("/v1/point/request/{last}?id=7")).await == "applied"
    })
    .await;
    assert_eq!(client.balance(7).await, 6);
    let replay = waited().send().await.expect("an answer");
    assert_eq!(replay.headers()["idempotency-replayed"], "true");
    assert_eq!(body(replay).await, first);
    assert_eq!(answer(keyed(6).header("Prefer", "wait")).await.0, 422);
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_behind_a_reused_key_is_told_to_its_sender_and_to_the_operator() {
    let mut system = System::new().await;
    let client = system.serve();
    let keyed = |point| client.change("add", 7, point).header("Idempotency-Key", "order-7");
    let response = keyed(100).send().await.expect("an answer");
    assert_eq!(response.status(), 202);
    let location = response.headers()[LOCATION].to_str().expect("text").to_owned();
    assert_eq!(answer(keyed(7).header("Prefer", "wait")).await.0, 200, "it passes the one in the queue");
    let work = system.process("work", &["--metrics-listen", "127.0.0.1:0"]);
    let line = work.says("its request id was used before for another change").await;
    for pair in ["user_id=7", "action=add", "point=100", "first_action=add", "first_point=7"] {
        assert!(line.contains(pair), "{pair}: {line}");
    }
    let conflict = r#"point_system_settled_deltas_total{outcome="conflict"} 1"#;
    eventually("it is counted", async || work.metrics().await.contains(conflict)).await;
    let (_, outcome) = answer(client.get(&location)).await;
    assert_eq!((&outcome["status"], &outcome["point"]), (&json!("applied"), &json!(7)), "{outcome}");
    assert!(line.contains(&text(&outcome["request_id"])), "{line}");
    let (_, page) = answer(client.get("/v1/point/log?id=7")).await;
    let reused = &page["entries"][0];
    assert_eq!(
        (&reused["reject_reason"], &reused["point"], &reused["change"]),
        (&json!("key_reused"), &json!(100), &json!(0))
    );
    assert_eq!((&reused["ref"], &reused["seq"]), (&outcome["request_id"], &json!(2)), "{page}");
    let (_, found) =
        answer(client.get(&format!("/v1/point/request/{}?id=7", text(&reused["request_id"])))).await;
    assert_eq!(&found, reused);
    work.signal("-TERM").await;
    let (status, printed) = work.ends().await;
    assert!(status.success());
    assert_eq!(printed.matches("rejected: ").count(), 1, "it is said once: {printed}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_that_a_newer_version_decided_is_told_as_it_is() {
    let mut system = System::new().await;
    let client = system.serve();
    let keyed = || client.change("subtract", 7, 1).header("Idempotency-Key", "order-7");
    let (status, problem) = answer(keyed().header("Prefer", "wait")).await;
    assert_eq!(status, 409, "{problem}");
    system
        .execute(
            "alter domain reject_reason drop constraint reject_reason_check;
             update log set reject_reason = 'account_frozen' where user_id = '7'",
        )
        .await;
    let (status, page) = answer(client.get("/v1/point/log?id=7")).await;
    assert_eq!((status.as_u16(), &page["entries"][0]["reject_reason"]), (200, &json!("account_frozen")));
    let (status, again) = answer(keyed().header("Prefer", "wait")).await;
    assert_eq!((status.as_u16(), &again["type"]), (409, &json!("/problems/rejected")), "{again}");
    assert!(text(&again["detail"]).contains("account_frozen"), "{again}");
    // Whether it is looked up in time or queued, the same request is a duplicate, and holds nothing back.
    assert!([202, 409].contains(&answer(keyed()).await.0.as_u16()));
    client.queue("add", 7, 5).await;
    system.work();
    eventually("the next change is applied", async || client.balance(7).await == 5).await;
    assert_eq!(system.queues().await.waiting().await, 0);
    system.discard().await;
}
