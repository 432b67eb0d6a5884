//! The executable itself: load over two workers, a worker killed under load, signals.

use std::process::{ExitStatus, Stdio};

use reqwest::StatusCode;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
};

use crate::{
    client::{Client, Promises, answer, text},
    system::{System, eventually},
};

const USERS: i64 = 200;
const CONNECTIONS: i64 = 32;
const CHANGES_PER_USER: i64 = 20;

impl System {
    /// Starts a role as a process of its own. It ends with the test.
    fn process(&self, role: &str, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_point-system"))
            .arg(role)
            .args(arguments)
            .env("DATABASE_URL", &self.database.url)
            .env("AMQP_URL", &self.amqp_url)
            .env("POINT_SYSTEM_QUEUE_PREFIX", &self.prefix)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the executable")
    }
}

/// Waits for a line of a process's log that has `part`.
async fn logged(process: &mut Child, part: &str) -> String {
    let mut lines = BufReader::new(process.stderr.as_mut().expect("piped")).lines();
    let mut seen = Vec::new();
    while let Some(line) = lines.next_line().await.expect("a log") {
        if line.contains(part) {
            return line;
        }
        seen.push(line);
    }
    panic!("{part:?} was not logged: {seen:#?}");
}

async fn stop(mut process: Child, signal: &str) -> ExitStatus {
    let pid = process.id().expect("running").to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().await.expect("kill").success());
    process.wait().await.expect("an end")
}

/// Each connection has users of its own and adds and subtracts for them in turn; every 202 is noted. A 503
/// is tried again with the same key, as a client should.
async fn load(client: &Client) -> Promises {
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let client = client.clone();
        connections.spawn(async move {
            let users = (1..=USERS).filter(move |user| user % CONNECTIONS == connection);
            let mut promises = Promises::new();
            for change in 0..CHANGES_PER_USER {
                for user in users.clone() {
                    let action = if change % 4 == 3 { "subtract" } else { "add" };
                    let key = format!("{user}-{change}");
                    let request = || client.change(action, user, change + 1).header("Idempotency-Key", &key);
                    let mut answered = answer(request()).await;
                    while answered.0 == StatusCode::SERVICE_UNAVAILABLE {
                        answered = answer(request()).await;
                    }
                    assert_eq!(answered.0, StatusCode::ACCEPTED, "{}", answered.1);
                    promises.entry(user).or_default().push(text(&answered.1["request_id"]));
                }
            }
            promises
        });
    }
    connections.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_apply_every_202_once_and_in_order() {
    let mut system = System::new().await;
    let client = system.serve();
    let workers = [system.process("work", &["--concurrency", "2"]), system.process("work", &[])];
    let promises = load(&client).await;
    system.drain(promises.values().map(Vec::len).sum()).await;
    assert_eq!(system.ledger().await, promises);
    for worker in workers {
        assert!(stop(worker, "-TERM").await.success());
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_under_load_loses_and_doubles_nothing() {
    let mut system = System::new().await;
    let client = system.serve();
    let only = system.process("work", &[]);
    let loading = tokio::spawn({
        let client = client.clone();
        async move { load(&client).await }
    });
    eventually("the worker is in the middle", async || system.count("select count(*) from log").await > 500)
        .await;
    assert!(!stop(only, "-KILL").await.success());
    let next = system.process("work", &[]);
    let promises = loading.await.expect("no panic");
    system.drain(promises.values().map(Vec::len).sum()).await;
    assert_eq!(system.ledger().await, promises);
    assert!(stop(next, "-INT").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_stop_answers_what_it_has_and_ends_well() {
    let system = System::new().await;
    let mut serve = system.process("serve", &["--listen", "127.0.0.1:0"]);
    let line = logged(&mut serve, "server listen at :").await;
    let client = Client::new(&format!("http://127.0.0.1:{}", line.rsplit(':').next().expect("a port")));
    let mut requests = JoinSet::new();
    for user in 1..=50 {
        let request = client.change("add", user, 1);
        requests.spawn(async move { request.send().await.map(|answer| answer.status()) });
    }
    let first = requests.join_next().await.expect("fifty").expect("no panic").expect("an answer");
    assert_eq!(first, StatusCode::ACCEPTED);
    assert!(stop(serve, "-TERM").await.success());
    let answers = requests.join_all().await;
    let promised = answers.iter().filter(|answer| matches!(answer, Ok(StatusCode::ACCEPTED))).count();
    let failed: Vec<_> =
        answers.iter().filter_map(|answer| answer.as_ref().ok()).filter(|s| **s != 202).collect();
    assert!(failed.is_empty(), "{failed:?}");
    // What was promised by the one that has ended is applied by another.
    let mut system = system;
    system.work();
    system.drain(1 + promised).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_process_at_once() {
    let system = System::new().await;
    // No broker: it waits, and would go on so for a minute.
    let mut work = system.process("work", &["--amqp-url", "amqp://127.0.0.1:1"]);
    logged(&mut work, "RabbitMQ at 127.0.0.1:1").await;
    assert!(stop(work, "-TERM").await.success(), "the first signal, while it waits");
    let missing = system.process("work", &["--amqp-url", "amqp://127.0.0.1:1", "--startup-timeout", "1s"]);
    let output = missing.wait_with_output().await.expect("an end");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("gave up after 1 s (--startup-timeout): RabbitMQ at 127.0.0.1:1"), "{log}");
    system.finish_without_queues().await;
}
