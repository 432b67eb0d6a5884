//! API keys: what each allows, what is stored of it, and that every node refuses a revoked key.

use std::time::{Duration, Instant};

use point_system::{access::Anonymous, cli::AccessArgs};
use reqwest::{
    RequestBuilder, Response, StatusCode,
    header::{DATE, HeaderMap, WWW_AUTHENTICATE},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    keys::{create, list, revoke, rotate},
    support::{
        client::{Client, answer, body},
        process::Process,
        servers::OwnServers,
        system::{System, eventually},
    },
};

/// A key that does not exist.
const UNKNOWN: &str = "ps_0000000000000000000000000000000000000000000000000000000000000000";

/// The longest that a node may take to refuse a revoked key.
const REVOCATION_LIMIT: Duration = Duration::from_secs(5);

async fn sent(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

async fn status(request: RequestBuilder) -> StatusCode {
    sent(request).await.status()
}

fn read(client: &Client, key: &str) -> RequestBuilder {
    client.get("/v1/point?id=1").bearer_auth(key)
}

async fn refused(client: &Client, key: &str) -> bool {
    status(read(client, key)).await == 401
}

/// Starts `serve` as a process, with a client.
async fn serve(system: &System, arguments: &[&str]) -> (Process, Client) {
    let serve = system.process("serve", arguments);
    let port = serve.says("server listen at :").await;
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    (serve, client)
}

fn challenge(response: &Response) -> Option<&str> {
    response.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().expect("ASCII"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lets_in_to_what_its_scope_says_and_no_further() {
    let mut system = System::new().await;
    let mut keys = Vec::new();
    for scope in ["read", "write", "admin"] {
        keys.push(create(&system, scope, scope).await);
    }
    let client = system.serve();
    for path in ["/", "/ping"] {
        assert_eq!(status(client.get(path)).await, 200, "{path} is open");
    }
    assert_eq!(status(client.get("/v1/pointless")).await, 404);
    let requests = |key: &str| {
        [client.get("/v1/point?id=1"), client.change("add", 1, 2), client.change("subtract", 1, 1)]
            .map(|request| request.bearer_auth(key))
    };
    for (key, statuses) in [(0, [404, 403, 403]), (1, [404, 202, 202]), (2, [404, 202, 202])] {
        for (request, expected) in requests(&keys[key]).into_iter().zip(statuses) {
            let response = sent(request).await;
            assert_eq!(response.status(), expected);
            if expected == 403 {
                let needed = r#"Bearer realm="point-system", error="insufficient_scope", scope="write""#;
                assert_eq!(challenge(&response), Some(needed));
                assert_eq!(body(response).await["type"], "/problems/insufficient-scope");
            } else {
                assert_eq!(challenge(&response), None);
            }
        }
    }
    let upper = client.get("/v1/point?id=1").header("Authorization", format!("bEARER  {}", keys[0]));
    assert_eq!(status(upper).await, 404, "the scheme in any case");
    let request_path = format!("/v1/point/request/{}?id=1", Uuid::nil());
    let holds = "/v1/point/holds?id=1";
    let paths = ["/v1/point?id=1", "/v1/points?id=1", "/v1/point/log?id=1", holds, &request_path];
    let changes = ["add", "subtract", "reverse", "transfer", "hold", "capture", "release", "batch"];
    let changes = changes.map(|name| format!("/v1/point/{name}"));
    for change in &changes {
        assert_eq!(status(client.post(change).bearer_auth(&keys[0])).await, 403, "{change}");
    }
    let reads = paths.map(|path| client.get(path));
    for request in reads.into_iter().chain(changes.map(|path| client.post(&path))) {
        for request in [request.try_clone().expect("no stream"), request.basic_auth("user", Some("word"))] {
            let response = sent(request).await;
            assert_eq!(response.status(), 401);
            assert_eq!(challenge(&response), Some(r#"Bearer realm="point-system""#), "no error: no key");
            assert_eq!(body(response).await["type"], "/problems/unauthorized");
        }
    }
    let longer = format!("{}0", keys[0]);
    for wrong in [UNKNOWN, "", "x", &keys[0][1..], &keys[0].to_uppercase(), &longer] {
        let response = sent(read(&client, wrong)).await;
        assert_eq!(response.status(), 401, "{wrong}");
        let expected = r#"Bearer realm="point-system", error="invalid_token""#;
        assert_eq!(challenge(&response), Some(expected), "{wrong}");
    }
    system.work();
    system.drain(4).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_and_one_that_never_was_get_the_same_answer() {
    let mut system = System::new().await;
    let key = create(&system, "shop", "read").await;
    let client = system.serve();
    assert_eq!(status(read(&client, &key)).await, 404);
    revoke(&system, "shop").await;
    eventually("it is refused", async || refused(&client, &key).await).await;
    let all_of = async |request: RequestBuilder| -> (StatusCode, HeaderMap, Value) {
        let mut response = sent(request).await;
        assert!(response.headers_mut().remove(DATE).is_some());
        (response.status(), response.headers().clone(), body(response).await)
    };
    let add = |key: &str| client.change("add", 1, 1).bearer_auth(key);
    let wrong_method = |key: &str| client.post("/v1/point?id=1").bearer_auth(key);
    assert_eq!(all_of(read(&client, &key)).await, all_of(read(&client, UNKNOWN)).await);
    assert_eq!(all_of(add(&key)).await, all_of(add(UNKNOWN)).await);
    assert_eq!(all_of(wrong_method(&key)).await, all_of(wrong_method(UNKNOWN)).await);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_by_every_node_within_five_seconds() {
    let system = System::new().await;
    let [keep, lose] = [create(&system, "keep", "write").await, create(&system, "lose", "write").await];
    let listen = ["--listen", "127.0.0.1:0"];
    let (first, one) = serve(&system, &listen).await;
    let (second, other) = serve(&system, &listen).await;
    let late = create(&system, "late", "read").await;
    for client in [&one, &other] {
        assert_eq!(status(read(client, &lose)).await, 404);
        eventually("a new key is taken", async || !refused(client, &late).await).await;
    }
    revoke(&system, "lose").await;
    let revoked = Instant::now();
    for client in [&one, &other] {
        eventually("it is refused", async || refused(client, &lose).await).await;
        assert!(revoked.elapsed() < REVOCATION_LIMIT, "{:?}", revoked.elapsed());
        assert_eq!(status(read(client, &keep)).await, 404, "the others are not");
    }
    for node in [first, second] {
        assert!(node.end("-TERM").await.success());
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_keys_of_a_rotation_are_taken_until_the_old_one_is_revoked() {
    let mut system = System::new().await;
    let old = create(&system, "shop", "read").await;
    let client = system.serve();
    let new = rotate(&system, "shop").await;
    eventually("the new key is taken", async || !refused(&client, &new).await).await;
    for key in [&old, &new] {
        assert_eq!(status(read(&client, key)).await, 404);
        assert_eq!(status(client.change("add", 1, 1).bearer_auth(key)).await, 403, "the scope of the name");
    }
    revoke(&system, "1").await;
    eventually("the old key is refused", async || refused(&client, &old).await).await;
    assert_eq!(status(read(&client, &new)).await, 404, "the new one is not");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_only_this_machine_is_served() {
    let system = System::new().await;
    let (node, local) = serve(&system, &["--listen", "127.0.0.1:0"]).await;
    assert_eq!(status(local.get("/v1/point?id=1")).await, 404);
    assert!(refused(&local, UNKNOWN).await, "a wrong key is wrong where none is needed, too");

    let for_all = ["--listen", "0.0.0.0:0"];
    let unprotected = system.process("serve", &for_all);
    unprotected.says("is not a loopback address").await;
    let (ended, log) = unprotected.ends().await;
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(log.contains("--allow-anonymous") && log.contains("key create"), "{log}");

    let key = create(&system, "first", "read").await;
    let anonymous = async |client: &Client| status(client.get("/v1/point?id=1")).await;
    eventually("the first key ends it", async || anonymous(&local).await == 401).await;
    assert_eq!(status(read(&local, &key)).await, 404);
    let (protected, client) = serve(&system, &for_all).await;
    assert_eq!(anonymous(&client).await, 401);
    assert_eq!(status(read(&client, &key)).await, 404);
    revoke(&system, "1").await;
    for client in [&local, &client] {
        eventually("it is refused", async || refused(client, &key).await).await;
        assert_eq!(anonymous(client).await, 401, "revoking the last key opens nothing");
    }
    let (open, client) = serve(&system, &[&for_all[..], &["--allow-anonymous"]].concat()).await;
    assert_eq!(anonymous(&client).await, 404);
    assert!(refused(&client, &key).await && refused(&client, UNKNOWN).await);
    for node in [node, protected, open] {
        assert!(node.end("-TERM").await.success());
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_outlive_an_outage_of_postgresql() {
    let mut servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let key = create(&system, "shop", "write").await;
    let (node, client) = serve(&system, &["--listen", "127.0.0.1:0"]).await;
    system.work();
    let add = || client.change("add", 7, 1).bearer_auth(&key);
    assert_eq!(status(add()).await, 202);
    servers.postgres.stop().await.expect("PostgreSQL stops");
    node.says("the API keys stay as they are known").await;
    assert_eq!(status(add()).await, 202, "the key is known");
    assert!(refused(&client, UNKNOWN).await);
    assert_eq!(status(client.change("add", 7, 1)).await, 401);
    assert_eq!(status(read(&client, &key)).await, 503);
    servers.postgres.resume().await.expect("PostgreSQL starts");
    node.says("the API keys can be read again").await;
    system.drain(2).await;
    revoke(&system, "shop").await;
    eventually("a revoked key is refused again", async || refused(&client, &key).await).await;
    assert!(node.end("-TERM").await.success());
    system.finish().await;
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_use_of_a_key_is_kept() {
    let mut system = System::new().await;
    let (used, unused) = (create(&system, "used", "read").await, create(&system, "unused", "read").await);
    assert_ne!(used, unused);
    let client = system.serve_with(AccessArgs { allow_anonymous: Anonymous::Everyone, rate_limit: None });
    assert_eq!(status(client.get("/v1/point?id=1")).await, 404);
    assert_eq!(status(read(&client, &used)).await, 404);
    // A rotation does not hide that the old key is still in use.
    rotate(&system, "used").await;
    eventually("it is written down", async || list(&system).await[0]["last_used_at"].is_string()).await;
    for other in [1, 2] {
        assert_eq!(list(&system).await[other]["last_used_at"], Value::Null);
    }
    let before = "update api_key set last_used_at = now() - interval '1 hour' where id = 1";
    system.execute(before).await;
    // A node that stops records a use of a key that is not recorded yet.
    assert_eq!(status(read(&client, &used)).await, 404);
    system.stop().await;
    let recent = "select count(*) from api_key where last_used_at > now() - interval '1 minute'";
    assert_eq!(system.count(recent).await, 1);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_in_a_log_at_any_level() {
    let system = System::new().await;
    let key = create(&system, "shop", "read").await;
    let serve = system.process_with_log("serve", &["--listen", "127.0.0.1:0"], "trace");
    let client = Client::new(&format!("http://127.0.0.1:{}", serve.says("server listen at :").await));
    assert_eq!(status(read(&client, &key)).await, 404);
    assert_eq!(status(client.change("add", 1, 1).bearer_auth(&key)).await, 403);
    assert!(refused(&client, UNKNOWN).await);
    for misplaced in [format!("/v1/point?id=1&access_token={key}"), format!("/v1/point/{key}")] {
        let (_, problem) = answer(client.get(&misplaced).bearer_auth(&key)).await;
        assert!(!problem.to_string().contains(&key), "{problem}");
    }
    let log = serve.printed();
    assert!(log.contains("TRACE"), "{log}");
    assert!(serve.end("-TERM").await.success());
    // `finish` also checks what was printed so far.
    system.finish().await;
}
