//! The console in a real browser: what people do there, and that nothing complains: no script, no policy, no axe.

use std::{fs, path::Path};

use point_system::http::{Method, PAGES};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    dead_letters::{accept, declared, has_dead, refuse},
    keys::create,
    support::{
        browser::{Browser, ENTER},
        client::{Client, answer},
        system::{System, eventually},
    },
};

/// Finds faults of accessibility. `src/http/assets/vendor.sh` takes it from its package.
const AXE: &str = include_str!("vendor/axe-core/axe.min.js");

/// What the tests share: one browser, one installation.
pub struct Stage {
    pub browser: Browser,
    pub system: System,
    pub client: Client,
    pub admin_key: String,
}

impl Stage {
    /// Starts an installation with a worker, or returns `None` where there is no browser.
    pub async fn set() -> Option<Self> {
        let browser = Browser::start().await?;
        let mut system = System::new().await;
        let admin_key = create(&system, "olivia", "admin").await;
        let client = system.serve();
        system.work();
        Some(Self { browser, system, client, admin_key })
    }

    /// Opens a page of the console.
    pub async fn open(&self, path: &str) {
        self.browser.open(&format!("{}{path}", self.client.base())).await;
    }

    pub async fn sign_in(&self, key: &str) {
        self.open("/console/sign-in").await;
        self.browser.fill("#key", key).await;
        self.browser.click("main button[type=submit]").await;
        self.browser.wait_for(".who form").await;
    }

    /// Checks the page that is open: axe finds nothing, nothing is wider than the window, and the browser complains of
    /// nothing.
    pub async fn is_sound(&self, what: &str) {
        let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert!(self.browser.run(wide).await.as_i64() <= Some(0), "{what} scrolls sideways");
        self.browser.run(&format!("if (!window.axe) {{ {AXE} }}")).await;
        let rules = "axe.run({ resultTypes: ['violations'] }).then(found => done(found.violations.map(fault => \
             `${fault.id}: ${fault.help}: ${fault.nodes.map(node => node.html + node.failureSummary).join(' | ')}`)))";
        let faults = self.browser.run_async(rules).await;
        assert_eq!(faults, Value::Array(Vec::new()), "{what}");
        assert_eq!(self.browser.complaints().await, Vec::<String>::new(), "{what}");
    }

    /// Checks the page that is open, and takes a picture of it, in each look.
    pub async fn is_sound_in_each_look(&self, name: &str, open: impl AsyncFn()) {
        for (width, height) in [(1600, 1000), (360, 1400)] {
            for scheme in ["light", "dark"] {
                self.browser.look(width, height, scheme).await;
                open().await;
                let name = format!("{name}-{width}-{scheme}");
                self.is_sound(&name).await;
                self.take_picture(&name).await;
            }
        }
    }

    /// Takes a picture of the page that is open, for people to look at: `target/tmp/console/<name>.png`.
    pub async fn take_picture(&self, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("{name}.png")), self.browser.screenshot().await).expect("written");
    }

    pub async fn end(self) {
        assert_eq!(self.browser.complaints().await, Vec::<String>::new());
        self.browser.end().await;
        self.system.finish().await;
    }
}

/// The pages without parameters.
pub fn pages() -> impl Iterator<Item = &'static str> {
    let pages = PAGES.iter().filter(|page| page.method == Method::Get && page.scope.is_some());
    pages.map(|page| page.path).filter(|path| !path.contains('{') && *path != "/console/live")
}

#[tokio::test(flavor = "multi_thread")]
async fn people_work_with_the_console_in_a_real_browser() {
    let Some(stage) = Stage::set().await else { return };
    enter_and_leave(&stage).await;
    stage.sign_in(&stage.admin_key).await;
    let requests = watch_the_load(&stage).await;
    redrive_a_dead_letter(&stage).await;
    revoke_a_key(&stage).await;
    stage.system.drain(requests + 1).await;
    find_a_user_without_a_mouse(&stage).await;
    refuse_without_the_scope(&stage).await;
    stage.end().await;
}

async fn enter_and_leave(stage: &Stage) {
    let browser = &stage.browser;
    stage.open("/console/keys?x=1").await;
    assert_eq!(browser.path().await, "/console/sign-in?next=%2Fconsole%2Fkeys%3Fx%3D1");
    browser.fill("#key", &format!("ps_{}", "0".repeat(64))).await;
    browser.click("main button[type=submit]").await;
    browser.wait_for_text("This API key is not valid").await;
    // The browser reports the status of the answer, which is right.
    assert!(browser.complaints().await.iter().all(|line| line.contains("401")));
    browser.fill("#key", &stage.admin_key).await;
    browser.click("main button[type=submit]").await;
    browser.wait_for_text("Create a key").await;
    assert_eq!(browser.path().await, "/console/keys?x=1", "the page that was asked for");
    assert_eq!(browser.run("return document.cookie").await, "", "no script can read the key");
    browser.click(".who button").await;
    browser.wait_for("#key").await;
    stage.open("/console").await;
    assert_eq!(browser.path().await, "/console/sign-in");
}

/// Returns how many changes the load has queued.
async fn watch_the_load(stage: &Stage) -> usize {
    let browser = &stage.browser;
    stage.open("/console").await;
    browser.wait_for_text("All is well.").await;
    let figure = async |index: usize| {
        let script = format!("return document.querySelectorAll('#figures strong')[{index}].textContent");
        browser.run(&script).await.as_str().unwrap_or_default().to_owned()
    };
    let enough = CancellationToken::new();
    let running = {
        let (client, enough, key) = (stage.client.clone(), enough.clone(), stage.admin_key.clone());
        tokio::spawn(async move {
            let mut sent = 0;
            while !enough.is_cancelled() {
                let change = client.change("add", 1 + sent % 20, 1).bearer_auth(&key);
                assert_eq!(answer(change).await.0, 202);
                sent += 1;
            }
            usize::try_from(sent).expect("a positive number")
        })
    };
    browser.until("how many changes are accepted", async || figure(0).await != "0").await;
    browser.until("how many changes are applied", async || figure(1).await != "0").await;
    browser
        .until("a chart", async || {
            browser.run("return !!document.querySelector('.u-wrap canvas')").await == true
        })
        .await;
    enough.cancel();
    let sent = running.await.expect("no panic");
    browser.until("that the load is over", async || figure(0).await == "0").await;
    assert_eq!(browser.text("#live").await, "Live");
    sent
}

async fn redrive_a_dead_letter(stage: &Stage) {
    let browser = &stage.browser;
    let queues = declared(&stage.system).await;
    refuse(&stage.system).await;
    let change = stage.client.change("add", 7_777, 666).bearer_auth(&stage.admin_key);
    assert_eq!(answer(change).await.0, 202);
    has_dead(&queues, 1).await;
    accept(&stage.system).await;
    stage.open("/console/dead-letters").await;
    browser.wait_for_text("Refused by the database").await;
    browser.click("[data-opens=drop-1]").await;
    let drop = "#drop-1 [type=submit]";
    assert_eq!(browser.run(&format!("return document.querySelector('{drop}').disabled")).await, true);
    browser.fill("#drop-1-typed", "drop").await;
    assert_eq!(browser.run(&format!("return document.querySelector('{drop}').disabled")).await, false);
    stage.is_sound_in_each_look("dead-letters-drop", async || ()).await;
    browser.click("#drop-1 [data-closes]").await;
    browser.click("article form button").await;
    browser.wait_for_text("1 redriven.").await;
    let balance = async || {
        let read = stage.client.get("/v1/point?id=7777").bearer_auth(&stage.admin_key);
        answer(read).await.1["point"].as_i64()
    };
    eventually("the change is applied", async || balance().await == Some(666)).await;
}

async fn revoke_a_key(stage: &Stage) {
    let browser = &stage.browser;
    stage.open("/console/keys").await;
    browser.fill("#name", "shop").await;
    browser.click("#create button").await;
    browser.wait_for("#new-key").await;
    let key = browser.run("return document.getElementById('new-key').value").await;
    let read = async || {
        let read = stage.client.get("/v1/point?id=7777").bearer_auth(key.as_str().expect("text"));
        answer(read).await.0
    };
    assert_eq!(read().await, 200);
    stage.is_sound_in_each_look("keys-new", async || ()).await;
    browser.click("[data-copies=new-key]").await;
    browser
        .until("a word about the copy", async || browser.text("[data-copies=new-key]").await != "Copy")
        .await;
    assert_eq!(browser.run("return window.getSelection().toString()").await, key);
    stage.open("/console/keys").await;
    browser.click("tbody tr:nth-child(2) [data-opens]").await;
    browser.click("dialog[open] .danger").await;
    browser.wait_for_text("is revoked").await;
    assert_eq!(read().await, 401);
    let place = browser.path().await;
    browser.reload().await;
    assert_eq!(browser.path().await, place);
    browser.click(".menu a[href='/console/dead-letters']").await;
    browser.wait_for_text("There are no dead letters").await;
    browser.back().await;
    browser.wait_for_text("is revoked").await;
    assert_eq!(browser.path().await, place, "the back button");
}

async fn find_a_user_without_a_mouse(stage: &Stage) {
    let browser = &stage.browser;
    stage.open("/console").await;
    browser.tab_to(".menu a[href='/console/users']").await;
    browser.press(ENTER).await;
    browser.wait_for("main input[name=id]").await;
    browser.tab_to("main input[name=id]").await;
    browser.press("7777").await;
    browser.press(ENTER).await;
    browser.wait_for("details.entry").await;
    browser.tab_to("details.entry summary").await;
    browser.press(ENTER).await;
    browser.wait_for("details.entry[open]").await;
    let utc = "const time = document.querySelector('details.entry time'); \
         return time.title === new Date(time.dateTime).toLocaleString(undefined, \
             { dateStyle: 'medium', timeStyle: 'medium', timeZone: 'UTC' }) + ' UTC' ? 'UTC' : time.outerHTML";
    assert_eq!(browser.run(utc).await, "UTC", "the UTC on hover");
    browser.tab_to("details.entry[open] .button").await;
    stage.is_sound("an entry that was opened with the keyboard").await;
}

async fn refuse_without_the_scope(stage: &Stage) {
    let browser = &stage.browser;
    let reader = create(&stage.system, "reader", "read").await;
    let knows = async || answer(stage.client.get("/v1/point?id=7777").bearer_auth(&reader)).await.0 == 200;
    eventually("the node knows the new key", knows).await;
    let offers = "return document.querySelectorAll('main form[method=post], a[href*=\"/console/user/correct\"]').length";
    assert!(browser.run(offers).await.as_i64() > Some(0), "an administrator is offered corrections");
    stage.sign_in(&reader).await;
    stage.open("/console/user?id=7777").await;
    browser.wait_for("details.entry").await;
    assert_eq!(browser.run(offers).await, 0, "a reader is offered no correction");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    stage.open("/console/keys").await;
    browser.wait_for_text("scope").await;
    assert_eq!(browser.run("return document.querySelectorAll('#create').length").await, 0);
    let mut lines = Vec::new();
    let noted = async || {
        lines.extend(browser.complaints().await);
        !lines.is_empty()
    };
    eventually("the browser notes the refusal", noted).await;
    assert!(lines.iter().all(|line| line.contains("403")), "{lines:?}");
}
