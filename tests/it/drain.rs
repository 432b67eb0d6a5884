//! A `serve` that is told to stop: load balancers learn of it before the port closes.

use std::time::{Duration, Instant};

use reqwest::header::CONNECTION;

use crate::support::{
    client::{Client, answer, body},
    process::Process,
    system::{System, eventually},
};

/// How long the node of the first test keeps serving.
const DELAY: Duration = Duration::from_secs(6);

/// The longest that its probe may take to fail.
const AT_ONCE: Duration = Duration::from_millis(1_500);

async fn serving(system: &System, arguments: &[&str]) -> (Process, Client) {
    let serve = system.process("serve", &[&["--listen", "127.0.0.1:0"], arguments].concat());
    let port = serve.says("server listen at :").await;
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    eventually("it is ready", async || answer(client.get("/readyz")).await.0 == 200).await;
    (serve, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_stop_fails_its_probe_at_once_and_serves_until_the_delay_is_over() {
    let mut system = System::new().await;
    let (serve, client) = serving(&system, &["--drain-delay", "6s"]).await;
    let response = client.change("add", 7, 1).send().await.expect("an answer");
    assert!(!response.headers().contains_key(CONNECTION), "a connection is kept: {response:?}");
    let told = Instant::now();
    serve.signal("-TERM").await;
    eventually("the probe fails", async || answer(client.get("/readyz")).await.0 == 503).await;
    assert!(told.elapsed() < AT_ONCE, "{:?}", told.elapsed());
    let mut promised = 1;
    while promised == 1 || told.elapsed() < DELAY / 3 {
        // Each answer closes its connection, so each request opens a new one.
        let response = client.change("add", 7, 1).send().await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()[CONNECTION]),
            (202, &"close".parse().expect("text"))
        );
        promised += 1;
        let response = client.get("/readyz").send().await.expect("an answer");
        assert_eq!(response.status(), 503);
        let problem = body(response).await;
        assert_eq!(problem["state"], "stopping");
        assert!(problem["detail"].as_str().expect("text").starts_with("draining: "), "{problem}");
    }
    let (status, log) = serve.ends().await;
    assert!(status.success() && told.elapsed() >= DELAY, "{status} after {:?}", told.elapsed());
    assert!(log.contains("still serving for 6000 ms (--drain-delay)"), "{log}");
    system.work();
    system.drain(promised).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_drain_at_once() {
    let system = System::new().await;
    let (serve, _) = serving(&system, &["--drain-delay", "20s"]).await;
    let told = Instant::now();
    serve.signal("-TERM").await;
    serve.says("still serving").await;
    assert_eq!(serve.end("-TERM").await.code(), Some(130));
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_delay_that_leaves_no_time_to_end_is_refused() {
    let system = System::new().await;
    let arguments = ["--listen", "127.0.0.1:0", "--drain-delay", "2s", "--shutdown-timeout", "2s"];
    let (status, log) = system.process("serve", &arguments).ends().await;
    assert_eq!(status.code(), Some(1), "{log}");
    let why = "--drain-delay (2000 ms) must be shorter than --shutdown-timeout (2000 ms), which includes it";
    assert!(log.contains(why), "{log}");
    system.finish_without_queues().await;
}
