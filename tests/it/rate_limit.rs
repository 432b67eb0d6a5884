//! Rate limits: how often a key or an address may call, and the answer beyond that.

use std::net::{IpAddr, Ipv4Addr};

use point_system::{access::Anonymous, cli::AccessArgs};
use reqwest::{RequestBuilder, Response, header::RETRY_AFTER};

use crate::{
    keys::{create, rotate},
    support::{
        client::{Client, body},
        system::{System, eventually},
    },
};

fn limited(rate: &str) -> AccessArgs {
    AccessArgs { allow_anonymous: Anonymous::Everyone, rate_limit: Some(rate.parse().expect("valid")) }
}

async fn sent(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().expect("ASCII"))
}

fn read(client: &Client) -> RequestBuilder {
    client.get("/v1/point?id=1")
}

/// Sends a request that must be refused, and returns the seconds to wait.
async fn refusal(request: RequestBuilder) -> u32 {
    let response = sent(request).await;
    assert_eq!(response.status(), 429);
    let after: u32 = header(&response, RETRY_AFTER.as_str()).expect("a header").parse().expect("a number");
    assert_eq!(header(&response, "RateLimit"), Some(format!("\"default\";r=0;t={after}").as_str()));
    assert_eq!(header(&response, "RateLimit-Policy"), Some("\"default\";q=3;w=60"));
    assert_eq!(body(response).await["type"], "/problems/rate-limited");
    after
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_sends_more_than_it_may_is_told_so_and_alone_in_that() {
    let mut system = System::new().await;
    let [one, other] = [create(&system, "one", "read").await, create(&system, "other", "write").await];
    let client = system.serve_with(limited("3/m"));
    let answers =
        [(read(&client), 404), (client.change("add", 1, 1), 403), (client.post("/v1/point?id=1"), 405)];
    for ((request, status), left) in answers.into_iter().zip([2, 1, 0]) {
        let response = sent(request.bearer_auth(&one)).await;
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "RateLimit"), Some(format!("\"default\";r={left};t=20").as_str()));
        assert_eq!(header(&response, "RateLimit-Policy"), Some("\"default\";q=3;w=60"));
    }
    for _ in 0..3 {
        assert!((1..=20).contains(&refusal(read(&client).bearer_auth(&one)).await));
    }
    assert_eq!(sent(client.change("add", 1, 1).bearer_auth(&other)).await.status(), 202, "another key");
    assert_eq!(sent(read(&client)).await.status(), 404, "no key");
    for open in ["/", "/ping"] {
        let response = sent(client.get(open).bearer_auth(&one)).await;
        assert_eq!((response.status().as_u16(), header(&response, "RateLimit")), (200, None), "{open}");
    }
    let wrong = sent(read(&client).bearer_auth("ps_wrong")).await;
    assert_eq!((wrong.status().as_u16(), header(&wrong, "RateLimit")), (401, None));
    system.work();
    system.drain(1).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_one_name_share_its_limit() {
    let mut system = System::new().await;
    let old = create(&system, "shop", "read").await;
    let new = rotate(&system, "shop").await;
    let client = system.serve_with(limited("3/m"));
    for (key, left) in [(&old, 2), (&new, 1), (&old, 0)] {
        let response = sent(read(&client).bearer_auth(key)).await;
        assert_eq!(response.status(), 404);
        assert_eq!(header(&response, "RateLimit"), Some(format!("\"default\";r={left};t=20").as_str()));
    }
    for key in [&old, &new] {
        refusal(read(&client).bearer_auth(key)).await;
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_each_address_is_counted_by_itself() {
    let mut system = System::new().await;
    let client = system.serve_with(limited("3/m"));
    for _ in 0..3 {
        let claimed = read(&client).header("X-Forwarded-For", "192.0.2.1");
        assert_eq!(sent(claimed).await.status(), 404);
    }
    refusal(read(&client).header("X-Forwarded-For", "192.0.2.2")).await;
    let neighbour = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    let neighbour = reqwest::Client::builder().local_address(neighbour).build().expect("a client");
    assert_eq!(sent(neighbour.get(format!("{}/v1/point?id=1", client.base()))).await.status(), 404);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_waits_is_served_again() {
    let mut system = System::new().await;
    let client = system.serve_with(limited("1/s"));
    let (one, other) = tokio::join!(sent(read(&client)), sent(read(&client)));
    let mut statuses = [one.status(), other.status()].map(|status| status.as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [404, 429]);
    eventually("a second has passed", async || sent(read(&client)).await.status() == 404).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_limited_unless_told_so() {
    let mut system = System::new().await;
    let client = system.serve();
    for _ in 0..50 {
        let response = sent(read(&client)).await;
        assert_eq!((response.status().as_u16(), header(&response, "RateLimit-Policy")), (404, None));
    }
    system.finish().await;
}
