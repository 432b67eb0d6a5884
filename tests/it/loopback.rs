//! Without keys, a service on loopback serves clients on this machine, but no web pages or proxies.

use point_system::{access::Anonymous, cli::AccessArgs};
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use crate::{
    http::refused,
    keys::create,
    support::{
        client::{Client, answer, text},
        system::{System, eventually},
    },
};

/// Headers that a page of another site, or a proxy, adds.
pub const FOREIGN: [(&str, &str); 20] = [
    ("Host", "evil.example"),
    ("Host", "evil.example:31001"),
    ("Host", "localhost.evil.example"),
    ("Host", "127.0.0.1.evil.example"),
    ("Host", "128.0.0.1"),
    ("Host", "[::2]:31001"),
    ("Host", "notlocalhost"),
    ("Origin", "http://evil.example:31001"),
    ("Origin", "https://localhost.evil.example"),
    ("Origin", "null"),
    ("Origin", "file://"),
    ("Sec-Fetch-Site", "cross-site"),
    ("Forwarded", "for=192.0.2.1"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-Host", "points.example"),
    ("X-Forwarded-Proto", "https"),
    ("Via", "1.1 proxy"),
    ("X-Real-Ip", "192.0.2.1"),
    ("True-Client-Ip", "192.0.2.1"),
    ("Cf-Connecting-Ip", "192.0.2.1"),
];

/// Headers that a client on this machine may send.
const LOCAL: [(&str, &str); 10] = [
    ("Host", "localhost"),
    ("Host", "LOCALHOST:31001"),
    ("Host", "points.localhost:8080"),
    ("Host", "127.0.0.1"),
    ("Host", "127.1.2.3:80"),
    ("Host", "[::1]"),
    ("Host", "[::1]:31001"),
    ("Origin", "http://localhost:31001"),
    ("Origin", "http://127.0.0.1:3000"),
    ("Sec-Fetch-Site", "same-origin"),
];

/// A change, a read and a batch, each with an additional header.
fn requests(client: &Client, (name, value): (&str, &str)) -> [RequestBuilder; 3] {
    let batch = serde_json::json!({"operations": [{"action": "add", "user_id": 7, "point": 1}]});
    [
        client.change("add", 7, 1),
        client.get("/v1/point/log?id=7"),
        client.post("/v1/point/batch").json(&batch),
    ]
    .map(|request| request.header(name, value))
}

async fn is_refused(client: &Client, header: (&str, &str)) -> Value {
    let mut problem = Value::Null;
    for request in requests(client, header) {
        problem = refused(request, 403, "loopback-only", Some(header.0)).await;
        assert!(text(&problem["detail"]).contains("key create"), "{problem}");
    }
    problem
}

async fn is_served(client: &Client, header: (&str, &str)) {
    for request in requests(client, header) {
        let (status, answer) = answer(request).await;
        assert!(status.is_success(), "{header:?}: {answer}");
    }
}

/// Sends a request as raw bytes and returns the answer.
async fn raw(client: &Client, request: &str) -> String {
    let address = client.base().strip_prefix("http://").expect("a scheme");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_and_a_proxy_get_nothing_from_a_keyless_loopback_service() {
    let mut system = System::new().await;
    let client = system.serve();
    eventually("it serves", async || client.get("/ping").send().await.is_ok()).await;
    for header in FOREIGN {
        is_refused(&client, header).await;
        for open in ["/", "/ping", "/livez", "/docs", "/openapi.json", "/problems/loopback-only"] {
            assert_eq!(answer(client.get(open).header(header.0, header.1)).await.0, 200, "{open} is open");
        }
    }
    let target =
        "GET http://evil.example/v1/point?id=7 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let none = "GET /v1/point?id=7 HTTP/1.0\r\n\r\n";
    for request in [target, none] {
        let answer = raw(&client, request).await;
        assert!(
            answer.contains(" 403 ") && answer.contains("/problems/loopback-only"),
            "{request}: {answer}"
        );
    }
    assert_eq!(system.queues().await.waiting().await, 0, "a refused request reached the queue");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_on_this_machine_needs_no_key() {
    let mut system = System::new().await;
    let client = system.serve();
    for header in LOCAL {
        is_served(&client, header).await;
    }
    let target =
        "GET http://localhost:1/v1/point/log?id=7 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(raw(&client, target).await.contains(" 200 "), "an absolute target that is ours");
    let url = format!("{}/v1/point/add", client.base());
    let body = r#"{"user_id":7,"point":1}"#;
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", &url, "-H", "Content-Type: application/json", "-d", body])
        .output()
        .await
        .expect("curl");
    let printed = String::from_utf8_lossy(&curl.stdout).into_owned();
    assert!(printed.contains(r#""status":"pending""#), "{curl:?}");
    system.work();
    system.drain(2 * LOCAL.len() + 1).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_or_a_word_of_the_operator_lets_a_proxy_in() {
    let mut system = System::new().await;
    let serve = |system: &mut System, allow_anonymous| {
        system.serve_with(AccessArgs { allow_anonymous, rate_limit: None })
    };
    // Created first, so that every node knows the key from its start.
    let key = create(&system, "shop", "write").await;
    let [open, guarded] = [Anonymous::Everyone, Anonymous::Loopback].map(|who| serve(&mut system, who));
    let keyed = system.serve();
    for header in FOREIGN {
        is_served(&open, header).await;
        is_refused(&guarded, header).await;
        for client in [&keyed, &guarded] {
            for request in requests(client, header) {
                let (status, answer) = answer(request.bearer_auth(&key)).await;
                assert!(status.is_success(), "{header:?}: {answer}");
            }
        }
    }
    for header in LOCAL {
        is_served(&guarded, header).await;
    }
    system.work();
    system.drain(2 * (3 * FOREIGN.len() + LOCAL.len())).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_may_reach_is_a_warning_if_loopback_names_need_no_key() {
    let system = System::new().await;
    let allowed = ["--allow-anonymous=loopback", "--listen"];
    for (listen, warns) in [("0.0.0.0:0", true), ("[::]:0", true), ("127.0.0.1:0", false)] {
        let serve = system.process("serve", &[&allowed[..], &[listen]].concat());
        serve.says("server listen at :").await;
        serve.signal("-TERM").await;
        let (status, log) = serve.ends().await;
        assert!(status.success(), "{log}");
        let warning = log.lines().find(|line| line.contains("is not a loopback address"));
        let is_right = match warning {
            Some(line) => {
                line.contains("WARN") && line.contains("make sure that only this machine can reach the port")
            }
            None => !warns,
        };
        assert!(is_right && warning.is_some() == warns, "{listen}: {log}");
    }
    system.finish().await;
}
