//! A headless Chromium that a test drives through chromedriver (W3C `WebDriver`, and the commands of Chromium beside it).

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// The key of an element in an answer (W3C `WebDriver` §12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The longest that a page may take to show what a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keys (W3C `WebDriver` §17.4.2).
pub const TAB: &str = "\u{E004}";
pub const ENTER: &str = "\u{E007}";

/// More stops than any page has before what a test looks for.
const TABS_MAX: usize = 60;

/// A browser with one window. The `WebDriver` libraries support neither the commands beside it nor the browser's log.
pub struct Browser {
    http: reqwest::Client,
    session: String,
    /// The process of the browser.
    pid: u64,
    /// Killed with the browser.
    _driver: Child,
}

/// A driver that is killed leaves its browser behind.
impl Drop for Browser {
    fn drop(&mut self) {
        std::process::Command::new("kill").arg(self.pid.to_string()).stderr(Stdio::null()).status().ok();
    }
}

impl Browser {
    /// Starts a browser, or returns `None` where there is none, and says so.
    ///
    /// Pages move nothing in it, so that colours are never on their way from one to another when axe looks.
    pub async fn start() -> Option<Self> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut driver) = command.kill_on_drop(true).spawn() else {
            eprintln!("SKIPPED: chromedriver is not installed (Debian: chromium and chromium-driver)");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
        let port = loop {
            let line = lines.next_line().await.expect("text").expect("chromedriver says where it listens");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let http = reqwest::Client::new();
        let options = json!({"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--force-device-scale-factor=1", "--hide-scrollbars", "--force-prefers-reduced-motion"]});
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"}}}});
        let base = format!("http://127.0.0.1:{port}/session");
        let started = http.post(&base).json(&wanted).send().await.expect("an answer");
        let started: Value = started.json().await.expect("JSON");
        let session = started["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{started}"));
        let pid =
            started["value"]["capabilities"]["goog:processID"].as_u64().expect("the process of Chromium");
        Some(Self { http, session: format!("{base}/{session}"), pid, _driver: driver })
    }

    /// Ends the browser.
    pub async fn end(self) {
        self.call(Method::DELETE, "", &Value::Null).await;
    }

    async fn try_call(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let mut request = self.http.request(method, format!("{}{path}", self.session));
        if !body.is_null() {
            request = request.json(body);
        }
        let mut answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        let value = answer["value"].take();
        if value["error"].is_string() {
            Err(format!("{path} {body}: {}", value["message"]))
        } else {
            Ok(value)
        }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, path, &body).await
    }

    /// Opens a page and waits until it is loaded.
    pub async fn open(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    pub async fn reload(&self) {
        self.post("/refresh", json!({})).await;
    }

    pub async fn back(&self) {
        self.post("/back", json!({})).await;
    }

    /// The path and the query of the page.
    pub async fn path(&self) -> String {
        let url = self.call(Method::GET, "/url", &Value::Null).await;
        let url = url::Url::parse(url.as_str().expect("text")).expect("a URL");
        url[url::Position::BeforePath..].to_owned()
    }

    /// Runs a script in the page. Returns what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []})).await
    }

    /// As `run`, for a script that calls `done` with its result.
    pub async fn run_async(&self, script: &str) -> Value {
        let script = format!("const done = arguments[arguments.length - 1]; {script}");
        self.post("/execute/async", json!({"script": script, "args": []})).await
    }

    /// A command of the Chrome `DevTools` Protocol.
    pub async fn command(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    async fn find(&self, selector: &str) -> Result<String, String> {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.try_call(Method::POST, "/element", &wanted).await?;
        Ok(found[ELEMENT].as_str().expect("an element").to_owned())
    }

    /// Clicks an element, as soon as the page has it.
    pub async fn click(&self, selector: &str) {
        self.wait_for(selector).await;
        let element = self.find(selector).await.expect(selector);
        self.post(&format!("/element/{element}/click"), json!({})).await;
    }

    /// Types into a field.
    pub async fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector).await.unwrap_or_else(|error| panic!("{error}"));
        self.post(&format!("/element/{element}/clear"), json!({})).await;
        self.post(&format!("/element/{element}/value"), json!({"text": text})).await;
    }

    /// Presses keys, one after the other, on whatever has the focus.
    pub async fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|stroke| json!({"type": stroke, "value": key.to_string()}))
        });
        let strokes: Vec<Value> = strokes.collect();
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]}))
            .await;
    }

    /// Presses Tab until an element has the focus.
    pub async fn tab_to(&self, selector: &str) {
        let has_focus = format!("return document.activeElement.matches({})", json!(selector));
        for _ in 0..TABS_MAX {
            self.press(TAB).await;
            if self.run(&has_focus).await == true {
                return;
            }
        }
        panic!("{} has no {selector} within {TABS_MAX} tabs", self.path().await);
    }

    /// The text of an element, as a person sees it.
    pub async fn text(&self, selector: &str) -> String {
        let element = self.find(selector).await.unwrap_or_else(|error| panic!("{error}"));
        let text = self.call(Method::GET, &format!("/element/{element}/text"), &Value::Null).await;
        text.as_str().expect("text").to_owned()
    }

    /// Everything that the page shows, or nothing while the next page comes.
    pub async fn all_text(&self) -> String {
        let script = json!({"script": "return document.body.innerText", "args": []});
        let text = self.try_call(Method::POST, "/execute/sync", &script).await.unwrap_or_default();
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page has an element.
    pub async fn wait_for(&self, selector: &str) {
        self.until(selector, async || self.find(selector).await.is_ok()).await;
    }

    /// Waits until a text is on the page.
    pub async fn wait_for_text(&self, text: &str) {
        self.until(text, async || self.all_text().await.contains(text)).await;
    }

    pub async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        while !condition().await {
            assert!(
                began.elapsed() < PATIENCE,
                "{} does not show {what}: {}",
                self.path().await,
                self.all_text().await
            );
            looks.tick().await;
        }
    }

    /// What the browser has complained about since the last call: errors and warnings of scripts, requests and policies.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({"type": "browser"})).await;
        let lines = log.as_array().expect("lines").iter();
        let bad = lines.filter(|line| line["level"] == "SEVERE" || line["level"] == "WARNING");
        bad.map(|line| line["message"].to_string()).collect()
    }

    /// Shows pages in a window of this width, in light or dark colours.
    pub async fn look(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.command("Emulation.setEmulatedMedia", scheme).await;
    }

    /// The page as a PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let shot = self.command("Page.captureScreenshot", json!({"captureBeyondViewport": false})).await;
        BASE64_STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("Base64")
    }
}
