//! Random and hostile input: it never causes a panic or a 500, and never appears in a log.

use proptest::{
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use crate::support::{
    client::Client,
    system::{System, eventually},
};

/// The number of requests of each kind.
const CASES: usize = 600;

/// Part of every body, key and query. It must never appear in a log.
const SECRET: &str = "hush4711";

#[derive(Debug)]
struct Request {
    path: &'static str,
    query: String,
    media_type: &'static str,
    key: Option<Vec<u8>>,
    prefer: Option<&'static str>,
    body: Vec<u8>,
}

/// Bytes, JSON of any shape, and bodies that are nearly valid.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..64).prop_map(|mut bytes| {
        bytes.extend(SECRET.bytes());
        bytes
    });
    let leaf = select(vec![
        "0",
        "-1",
        "1",
        "1.5",
        "1e400",
        "9007199254740992",
        "null",
        "true",
        "{}",
        "[[]]",
        r#""hush4711""#,
        r#""\u0000""#,
        r#""\ud800""#,
    ]);
    let value = (leaf.clone(), leaf, any::<bool>());
    let field = select(vec![
        "user_id",
        "point",
        "reason",
        "metadata",
        "request",
        "partial",
        "hush4711",
        "user_id\\u0000",
        "",
    ]);
    let object = prop::collection::vec((field, value), 0..5).prop_map(|fields| {
        let fields = fields.iter().map(|(name, (value, other, nest))| {
            if *nest { format!(r#""{name}":[{value},{other}]"#) } else { format!(r#""{name}":{value}"#) }
        });
        format!("{{{}}}", fields.collect::<Vec<_>>().join(",")).into_bytes()
    });
    let nearly = ("-?[0-9]{1,20}", "-?[0-9]{1,20}", "\\PC{0,210}").prop_map(|(user, point, reason)| {
        serde_json::json!({"reason": format!("{SECRET}{reason}")}).to_string().replacen(
            '{',
            &format!(r#"{{"user_id":{user},"point":{point},"#),
            1,
        )
    });
    prop_oneof![bytes, object, nearly.prop_map(String::into_bytes)]
}

fn any_request() -> impl Strategy<Value = Request> {
    let media_type = select(vec![
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON;x",
        "text/plain",
        ";",
        "",
    ]);
    let key = prop::option::of(prop::collection::vec(0x20..=0xffu8, 0..300));
    let prefer = prop::option::of(select(vec![
        "wait=1",
        "wait=0;x",
        "wait=-",
        ",,;=",
        "respond-async, wait=\"1\"",
        "return",
    ]));
    let path = select(vec![
        "/v1/point/add",
        "/v1/point/subtract",
        "/v1/point/reverse",
        "/v1/point/batch",
        "/v1/point",
        "/v1/points",
        "/v1/point/log",
        "/v1/point/request/01890a5d-ac96-774b-bcce-b302099a8057",
        "/v1/point/request/%00",
        "/v1/point/",
        "/",
        "//",
        "/%00",
    ]);
    let query = prop_oneof![
        "(\\?[a-z%&=+0-9\u{e9}]{0,30})?",
        "\\?id=[0-9]{1,2}(&(at|from|to)=[-+0-9]{0,7}-0[0-9]-[0-3][0-9]T[0-3][0-9]:[0-9]{2}(Z|-[0-9]{2}))?",
        "\\?(id=[!-~]{0,3}&){0,3}(id|prefix|after|limit)=[!-~]{0,64}",
        "\\?id=[0-9]{1,20}(&(limit|before)=-?[0-9]{1,20}|&status=(applied|rejected|\u{e9})){0,2}",
    ];
    (path, query, media_type, key, prefer, any_body()).prop_map(
        |(path, query, media_type, key, prefer, body)| Request { path, query, media_type, key, prefer, body },
    )
}

/// Sends a request. Returns the status, or `None` if the HTTP client itself refuses to send it.
async fn send(client: &Client, request: &Request, post: bool) -> Option<u16> {
    let path = format!("{}{}", request.path, request.query);
    let mut sending = if post { client.post(&path).body(request.body.clone()) } else { client.get(&path) };
    sending = sending.header(CONTENT_TYPE, request.media_type);
    if let Some(key) = &request.key {
        let value = HeaderValue::from_bytes(&[SECRET.as_bytes(), key].concat()).ok()?;
        sending = sending.header("Idempotency-Key", value);
    }
    if let Some(prefer) = request.prefer {
        sending = sending.header("Prefer", prefer);
    }
    let answer = match sending.send().await {
        Ok(answer) => answer,
        Err(error) if error.is_builder() => return None,
        Err(error) => panic!("{error} for {request:?}"),
    };
    let status = answer.status().as_u16();
    let media_type = answer.headers().get(CONTENT_TYPE).map(|value| value.as_bytes().to_vec());
    assert!(status < 500, "{status} for {request:?}");
    if status >= 400 {
        assert_eq!(media_type.as_deref(), Some(&b"application/problem+json"[..]), "{status} for {request:?}");
    }
    Some(status)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_is_answered_and_stays_out_of_the_log() {
    let mut system = System::new().await;
    let serve = system.process_with_log("serve", &["--listen", "127.0.0.1:0"], "trace");
    let worker = system.process_with_log("work", &[], "point_system=trace");
    let client = Client::new(&format!("http://127.0.0.1:{}", serve.says("server listen at :").await));
    // Every run sends the same requests, so that a failure can be reproduced.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for case in 0..2 * CASES {
        let request = any_request().new_tree(&mut runner).expect("a request").current();
        if let Some(status) = send(&client, &request, case % 2 == 0).await {
            *statuses.entry(status).or_default() += 1;
        }
    }
    for status in [200, 202, 400, 404, 405, 415] {
        assert!(statuses.contains_key(&status), "no {status} among {statuses:?}");
    }
    // The audit proves that every entry in the log follows the rules.
    system.work();
    client.queue("add", 1, 1).await;
    eventually("it is applied", async || client.balance(1).await > 0).await;
    for (process, name) in [(serve, "serve"), (worker, "work")] {
        let printed = process.printed();
        assert!(process.end("-TERM").await.success(), "{name} did not end well");
        assert!(!printed.contains("panicked"), "{name} panicked");
        let told = printed.lines().find(|line| line.contains(SECRET));
        assert_eq!(told, None, "{name} told");
    }
    system.finish_drained().await;
}
