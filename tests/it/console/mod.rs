//! The console: what its pages show, to whom, and how they behave in a real browser.

use std::{collections::BTreeSet, fs, path::Path};

use point_system::http::{ENDPOINTS, PAGES};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header::COOKIE, redirect::Policy};
use sha2::{Digest, Sha256};

use crate::support::{client::Client, system::eventually};

mod browser;
mod door;
mod letters;
mod overview;
mod looks;
mod users;
mod corrections;
mod requests;
mod costs;
mod people;
mod help;
mod keys;

/// A browser without scripts: it follows no redirect by itself, and says where its forms come from.
pub struct Visitor {
    http: reqwest::Client,
    base: String,
    cookie: Option<String>,
}

impl Visitor {
    /// Somebody who is not signed in.
    pub fn new(client: &Client) -> Self {
        let http = reqwest::Client::builder().redirect(Policy::none()).build().expect("a client");
        Self { http, base: client.base().to_owned(), cookie: None }
    }

    /// Somebody who has signed in with `key`.
    pub async fn signed_in(client: &Client, key: &str) -> Self {
        let mut visitor = Self::new(client);
        let response = visitor.post("/console/sign-in", &[("key", key)]).send().await.expect("an answer");
        assert_eq!((response.status().as_u16(), header(&response, "Location")), (303, "/console"));
        let cookie = header(&response, "Set-Cookie").split(';').next().expect("a pair");
        visitor.cookie = Some(cookie.to_owned());
        visitor
    }

    /// As `signed_in`, with a key that the node may not know yet.
    pub async fn signed_in_soon(client: &Client, key: &str) -> Self {
        let read =
            async || client.get("/v1/point?id=7").bearer_auth(key).send().await.expect("an answer").status();
        eventually("the key is known", async || read().await != 401).await;
        Self::signed_in(client, key).await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.cookie {
            Some(cookie) => request.header(COOKIE, cookie),
            None => request,
        }
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A form that a page of the console sends.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        self.foreign_post(path, fields).header("Sec-Fetch-Site", "same-origin")
    }

    /// A form that does not say where it comes from.
    pub fn foreign_post(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.request(Method::POST, path).body(body);
        request.header("Content-Type", "application/x-www-form-urlencoded")
    }

    /// The text of a page.
    pub async fn read(&self, path: &str) -> String {
        let (status, text) = shown(self.get(path)).await;
        assert_eq!(status, 200, "{path}: {text}");
        text
    }
}

/// Sends a request. Returns the status and the page.
pub async fn shown(request: RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.expect("an answer");
    (response.status(), response.text().await.expect("text"))
}

pub fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

/// The files that `src/http/assets/vendor.sh` takes from packages.
const VENDORED: [&str; 3] =
    ["src/http/assets/vendor/htmx.org", "src/http/assets/vendor/uplot", "tests/it/console/vendor/axe-core"];

#[test]
fn the_files_of_packages_are_as_they_were_taken() {
    for folder in VENDORED {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let sums = fs::read_to_string(folder.join("SHA256SUMS")).expect("the checksums");
        let mut known: BTreeSet<String> = sums.lines().map(|line| line[66..].to_owned()).collect();
        for line in sums.lines() {
            let bytes = fs::read(folder.join(&line[66..])).expect(line);
            let digits: Vec<String> =
                Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digits.concat(), line[..64], "{line} in {}", folder.display());
        }
        known.insert("SHA256SUMS".to_owned());
        let files = fs::read_dir(&folder).expect("a folder").flatten();
        let files: BTreeSet<String> =
            files.map(|file| file.file_name().into_string().expect("text")).collect();
        assert_eq!(files, known, "{}", folder.display());
    }
}

#[test]
fn the_pages_have_paths_of_their_own() {
    for page in PAGES {
        assert!(page.path.starts_with("/console"), "{}", page.path);
        assert!(!ENDPOINTS.iter().any(|endpoint| endpoint.path == page.path), "{}", page.path);
    }
}
