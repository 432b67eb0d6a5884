//! Connections: each request has its deadlines, and idle connections leave room for the next client.

use std::{thread::available_parallelism, time::Duration};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::support::{
    client::{Client, answer},
    system::{PATIENCE, System, eventually},
};

const PING: &[u8] = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n";

const HEAD_OF_STREAM: &[u8] = b"HEAD /console/live HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// An unfinished head, which a slow client sends byte by byte.
const ENDLESS_HEAD: &[u8] = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nX-Endless: ";

/// The pause between two bytes of a slow client.
const DRIP_MS: u64 = 500;

/// Longer than the 5 s after which many servers close, and far below the time that the test sets.
const IDLE_S: u64 = 6;

/// The number of answers, of half a megabyte each.
const LARGE_ANSWERS: usize = 100;

/// The descriptors of a small process on one core, and of each further core.
const DESCRIPTORS: usize = 300;
const DESCRIPTORS_PER_CORE: usize = 8;

/// Fewer than any `serve` needs.
const DESCRIPTORS_TOO_FEW: usize = 100;

/// A raw connection.
struct Raw(TcpStream);

impl Raw {
    async fn open(port: &str) -> Self {
        Self(TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("a connection"))
    }

    /// Sends a request and reads its answer. Returns `None` if the server has closed the connection.
    async fn asks(&mut self, request: &[u8]) -> Option<String> {
        self.0.write_all(request).await.ok()?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"pong") {
            let mut part = [0; 1024];
            let read = timeout(PATIENCE, self.0.read(&mut part)).await.expect("an answer or an end").ok()?;
            if read == 0 {
                return None;
            }
            answer.extend_from_slice(&part[..read]);
        }
        Some(String::from_utf8(answer).expect("text"))
    }

    /// Waits until the server has closed the connection.
    async fn ends(&mut self) {
        let mut rest = Vec::new();
        // A reset also ends the connection.
        timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("an end of the connection").ok();
    }

    /// Sends a byte now and then, as long as the server accepts them.
    async fn drips(mut self) {
        let mut pause = interval(Duration::from_millis(DRIP_MS));
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let bytes = ENDLESS_HEAD.iter().chain(std::iter::repeat(&b'x'));
        let mut sent = Box::pin(async {
            for byte in bytes {
                pause.tick().await;
                if self.0.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        });
        timeout(PATIENCE, &mut sent).await.expect("an end of the connection");
    }
}

fn port(client: &Client) -> String {
    client.base().rsplit(':').next().expect("a port").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_head_of_a_connection_has_a_deadline() {
    let mut system = System::new().await;
    let client = system.serve();
    eventually("it serves", async || client.get("/ping").send().await.is_ok()).await;
    let port = port(&client);
    let again = async || {
        let mut raw = Raw::open(&port).await;
        for _ in 0..2 {
            assert!(raw.asks(PING).await.expect("an answer").starts_with("HTTP/1.1 200 OK"));
        }
        raw
    };
    let silent = async {
        let mut raw = again().await;
        raw.0.write_all(b"G").await.expect("sent");
        raw.ends().await;
    };
    let slow = async { again().await.drips().await };
    let first = async { Raw::open(&port).await.drips().await };
    let nothing = async { Raw::open(&port).await.ends().await };
    tokio::join!(silent, slow, first, nothing);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_kept_as_long_as_the_flag_says_and_no_longer() {
    let system = System::new().await;
    let serve = async |keep_alive: &str| {
        let node = system.process("serve", &["--listen", "127.0.0.1:0", "--keep-alive", keep_alive]);
        let port = node.says("server listen at :").await;
        (node, port)
    };
    let ((patient, patient_port), (hasty, hasty_port)) = tokio::join!(serve("40s"), serve("900ms"));
    let kept = async {
        let mut raw = Raw::open(&patient_port).await;
        raw.asks(PING).await.expect("an answer");
        let closed = timeout(Duration::from_secs(IDLE_S), raw.0.read_u8()).await;
        assert!(closed.is_err(), "closed while idle: {closed:?}");
        raw.asks(PING).await.expect("an answer on the same connection");
    };
    let closed = async {
        let mut raw = Raw::open(&hasty_port).await;
        let answer = raw.asks(PING).await.expect("an answer").to_lowercase();
        assert!(!answer.contains("connection: close"), "900 ms are not none: {answer}");
        raw.ends().await;
    };
    // A body that no handler reads must not keep its connection open either.
    let unread = async {
        let mut raw = Raw::open(&hasty_port).await;
        let request = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        raw.asks(request).await.expect("an answer");
        raw.ends().await;
    };
    tokio::join!(kept, closed, unread);
    for node in [patient, hasty] {
        assert!(node.end("-TERM").await.success());
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_take_its_answers_is_given_up() {
    let system = System::new().await;
    let arguments = ["--listen", "127.0.0.1:0", "--keep-alive", "900ms", "--metrics-listen", "127.0.0.1:0"];
    let serve = system.process("serve", &arguments);
    let listener = Client::new(&format!("http://{}", serve.says("metrics listen at ").await));
    let port = serve.says("server listen at :").await;
    let mut raw = Raw::open(&port).await;
    let request = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // More than the buffers between client and server hold.
    raw.0.write_all(&request.repeat(LARGE_ANSWERS)).await.expect("sent");
    raw.0.readable().await.expect("the first of it");
    eventually("its connection is closed", async || {
        let (_, metrics) = answer(listener.get("/metrics")).await;
        sample(&metrics, "point_system_http_connections") == Some(0.0)
    })
    .await;
    drop(raw);
    assert!(serve.end("-TERM").await.success());
    system.finish().await;
}

/// A stream of events has no end, and a `HEAD` gets none of it. So nothing would show that the client has left.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_the_head_of_a_stream_ends() {
    let mut system = System::new().await;
    let client = system.serve();
    let mut raw = Raw::open(client.base().rsplit(':').next().expect("a port")).await;
    let answer = raw.asks(&[HEAD_OF_STREAM, PING].concat()).await.expect("two answers");
    assert!(answer.contains("text/event-stream") && answer.matches("200 OK").count() == 2, "{answer}");
    drop(raw);
    system.finish().await;
}

/// The value of a metric of the API's listener.
fn sample(metrics: &Value, name: &str) -> Option<f64> {
    let series = format!(r#"{name}{{listener="api"}} "#);
    metrics.as_str().expect("text").lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_full_of_sockets_serves_the_next_client_and_its_operators() {
    let system = System::new().await;
    // On one server each connection begins another request. On the other they stay idle.
    tokio::join!(is_filled(&system, b"G"), is_filled(&system, b""));
    system.finish().await;
}

/// Fills a small `serve` with connections that have had an answer and then send `rest`. Checks that the next client and
/// the operators are still served.
async fn is_filled(system: &System, rest: &[u8]) {
    let descriptors = DESCRIPTORS + DESCRIPTORS_PER_CORE * available_parallelism().map_or(1, usize::from);
    let arguments = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    let serve = system.process_with_descriptors("serve", &arguments, descriptors);
    let listener = Client::new(&format!("http://{}", serve.says("metrics listen at ").await));
    let port = serve.says("server listen at :").await;
    let strangers = join_all((0..descriptors - 10).map(|_| async {
        let mut raw = Raw::open(&port).await;
        // Some are closed at once.
        if raw.asks(PING).await.is_some() {
            raw.0.write_all(rest).await.ok();
        }
        raw
    }));
    let strangers = timeout(PATIENCE, strangers).await.expect("each has an answer or an end");
    let alive = timeout(PATIENCE, answer(listener.get("/livez"))).await.expect("an answer in time");
    assert_eq!(alive.0, 200, "the metrics listener is not full");
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    eventually("another client is served", async || {
        let sent = timeout(Duration::from_secs(IDLE_S), client.get("/ping").send()).await;
        sent.is_ok_and(|answered| answered.is_ok_and(|response| response.status() == 200))
    })
    .await;
    let (_, metrics) = answer(listener.get("/metrics")).await;
    let refused = sample(&metrics, "point_system_http_connections_refused_total");
    assert!(refused.is_some_and(|refused| refused > 0.0), "{metrics}");
    let log = serve.printed();
    assert!(log.contains("connections are open") && !log.contains("open files"), "{log}");
    drop(strangers);
    assert!(serve.end("-TERM").await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_may_open_too_few_files_says_so_at_the_start() {
    let system = System::new().await;
    let serve = system.process_with_descriptors("serve", &["--listen", "127.0.0.1:0"], DESCRIPTORS_TOO_FEW);
    let (status, log) = serve.ends().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("(ulimit -n) is 100; at least"), "{log}");
    system.finish_without_queues().await;
}
