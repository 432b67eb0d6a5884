//! An HTTP client of the service, and its own record of the acknowledged changes.

use std::collections::HashMap;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header::LINK};
use serde_json::{Value, json};

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    pub fn new(base: &str) -> Self {
        Self { http: reqwest::Client::new(), base: base.to_owned() }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base))
    }

    pub fn head(&self, path: &str) -> RequestBuilder {
        self.http.head(format!("{}{path}", self.base))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base))
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub fn change(&self, action: &str, user: i64, point: i64) -> RequestBuilder {
        self.send(action, &json!({"user_id": user, "point": point}))
    }

    /// A change with these members.
    pub fn send(&self, action: &str, members: &Value) -> RequestBuilder {
        self.post(&format!("/v1/point/{action}")).json(members)
    }

    /// Queues a change and returns its request id.
    pub async fn queue(&self, action: &str, user: i64, point: i64) -> String {
        let (status, body) = answer(self.change(action, user, point)).await;
        assert_eq!(status, 202, "{body}");
        assert_eq!(body["status"], "pending");
        text(&body["request_id"])
    }

    /// Follows the links from one page to the next, beginning at a path, and returns the pages.
    pub async fn pages(&self, path: &str) -> Vec<Value> {
        let (mut pages, mut next) = (Vec::new(), Some(path.to_owned()));
        while let Some(path) = next {
            let response = self.get(&path).send().await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            next = response.headers().get(LINK).map(|link| {
                let link = link.to_str().expect("text");
                let target = link.strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
                target.unwrap_or_else(|| panic!("{link}")).to_owned()
            });
            pages.push(body(response).await);
        }
        pages
    }

    /// A user's balance, or 0 for an unknown user.
    pub async fn balance(&self, user: i64) -> i64 {
        let (status, body) = answer(self.get(&format!("/v1/point?id={user}"))).await;
        match status.as_u16() {
            200 => body["point"].as_i64().expect("a number"),
            404 => 0,
            _ => panic!("{status} {body}"),
        }
    }
}

/// Sends a request. Returns the status and the JSON of the answer.
pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("an answer");
    (response.status(), body(response).await)
}

/// Sends a keyed change. Returns whether it is promised: queued, or decided since an earlier attempt.
pub async fn is_promised(request: RequestBuilder) -> bool {
    let (status, answered) = answer(request).await;
    assert!([200, 202, 409, 503].contains(&status.as_u16()), "{status}: {answered}");
    status != 503
}

pub async fn body(response: Response) -> Value {
    let text = response.text().await.expect("a body");
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

pub fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The changes that a client got acknowledged: for each user, the request ids in the order of their 202s.
pub type Promises = HashMap<i64, Vec<String>>;

/// The condition for entries that their users requested. It excludes expiry, holds that end by time, and points that
/// come from another user.
pub const REQUESTED: &str = "actor is distinct from 'system:expiry' and (counterparty is null or reject_reason is not null \
     or (action = 'transfer') = (change < 0))";
