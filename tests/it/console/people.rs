//! The pages of users and requests in a real browser: what support people do there.

use serde_json::{Value, json};

use super::{browser::Stage, users::path};
use crate::{history::fill, support::client::answer};

async fn change(stage: &Stage, action: &str, members: &Value) -> Value {
    let change = stage.client.send(action, members).bearer_auth(&stage.admin_key).header("Prefer", "wait");
    answer(change).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn people_find_and_correct_users_in_a_real_browser() {
    let Some(stage) = Stage::set().await else { return };
    fill(&stage.system, 4_711, 260).await;
    change(&stage, "add", &json!({"user_id": "alice/coins", "point": 1_000, "reason": "<b>welcome</b>"}))
        .await;
    let hold = change(&stage, "hold", &json!({"user_id": "alice/coins", "point": 200})).await;
    stage.sign_in(&stage.admin_key).await;
    find_and_correct(&stage).await;
    keep_the_place(&stage).await;
    find_the_pages_sound(&stage, &hold).await;
    stage.browser.end().await;
    stage.system.finish().await;
}

/// Two clicks on the button that confirms are one correction.
async fn find_and_correct(stage: &Stage) {
    let browser = &stage.browser;
    stage.open("/console/users").await;
    browser.fill("#id", "alice").await;
    browser.click("form[role=search] button").await;
    browser.wait_for("tbody a").await;
    browser.click("tbody a").await;
    browser.wait_for(".u-wrap canvas").await;
    browser.click(".heading a:nth-child(2)").await;
    browser.wait_for("#point").await;
    browser.fill("#point", "300").await;
    browser.fill("#reason", "sent twice").await;
    browser.click("main form button").await;
    browser.wait_for("#confirm").await;
    let moves = browser.run("return document.querySelector('.figures-of').textContent").await;
    assert_eq!(moves, "800 →  becomes 500");
    browser.run("const confirm = document.getElementById('confirm'); confirm.click(); confirm.click()").await;
    browser.wait_for_text("from 800 to 500.").await;
    stage.is_sound_in_each_look("correct-done", async || ()).await;
    browser.reload().await;
    browser.wait_for_text("from 800 to 500.").await;
    // A browser may show the page as it was, or ask for it again. Either way the form has the same key.
    browser.back().await;
    browser.wait_for("#preview").await;
    browser.run("document.getElementById('confirm')?.click()").await;
    browser
        .until("that it was sent before", async || {
            let page = browser.all_text().await;
            page.contains("This form was sent before") || page.contains("from 800 to 500.")
        })
        .await;
    let user = stage.client.get("/v1/point?id=alice%2Fcoins").bearer_auth(&stage.admin_key);
    let balance = answer(user).await.1;
    assert_eq!((&balance["point"], &balance["seq"]), (&json!(500), &json!(3)), "it counts once");
}

/// Entries arrive as the viewer scrolls. The address follows, so the viewer can reload and come back.
async fn keep_the_place(stage: &Stage) {
    let browser = &stage.browser;
    stage.open("/console/user?id=4711").await;
    let entries = async || browser.run("return document.querySelectorAll('.entry').length").await.as_i64();
    assert_eq!(entries().await, Some(50));
    browser.run("document.getElementById('more').scrollIntoView()").await;
    browser.until("the next entries", async || entries().await > Some(50)).await;
    browser.until("the address", async || browser.path().await.contains("before=")).await;

    stage.open("/console/user?id=4711").await;
    browser.run("document.getElementById('status').value = 'rejected'").await;
    browser.click(".filters button").await;
    browser.until("the filter", async || entries().await == Some(2)).await;
    let place = browser.path().await;
    assert_eq!(place, "/console/user?id=4711&status=rejected#log");
    browser.reload().await;
    assert_eq!((browser.path().await, entries().await), (place.clone(), Some(2)));
    browser.run("document.querySelector('.entry summary').click()").await;
    browser.click(".entry[open] .small.button").await;
    browser.wait_for_text("Show it in the log").await;
    browser.back().await;
    browser.until("the filter again", async || entries().await == Some(2)).await;
    assert_eq!(browser.path().await, place);

    stage.open("/console/user?id=4711&before=101").await;
    browser.run("document.getElementById('from').value = '2026-01-01T00:00:10'").await;
    browser.click(".filters button").await;
    browser.until("the time", async || browser.path().await.contains("&from=")).await;
    let zone = "return new Date('2026-01-01T00:00:10').toISOString()";
    let from = browser.run(zone).await.as_str().expect("text").replace(':', "%3A");
    assert!(browser.path().await.contains(&from), "a time of the viewer's zone, in UTC");
}

/// The pages that need parameters.
fn places(hold: &Value) -> Vec<(&'static str, String)> {
    let hold = hold["request_id"].as_str().expect("text").to_owned();
    let user = ("id", "alice/coins");
    let subtract = [user, ("action", "subtract"), ("point", "300"), ("reason", "sent twice"), ("key", "k-1")];
    vec![
        ("users", path("/console/users", &[("id", "alice")])),
        ("user", path("/console/user", &[user])),
        ("user-entry", path("/console/user", &[user, ("before", "3"), ("open", "1")])),
        ("user-filtered", path("/console/user", &[("id", "4711"), ("status", "rejected")])),
        ("user-unknown", path("/console/user", &[("id", "nobody")])),
        ("correct", path("/console/user/correct", &[user, ("action", "subtract")])),
        ("correct-preview", path("/console/user/correct", &subtract)),
        (
            "correct-refused",
            path(
                "/console/user/correct",
                &[user, ("action", "subtract"), ("point", "9000"), ("reason", "x")],
            ),
        ),
        (
            "correct-release",
            path("/console/user/correct", &[user, ("action", "release"), ("request", &hold)]),
        ),
        ("request", path("/console/request", &[user, ("request", &hold)])),
        ("request-pending", path("/console/request", &[user, ("key", "order-7"), ("actor", "shop")])),
    ]
}

async fn find_the_pages_sound(stage: &Stage, hold: &Value) {
    for (name, place) in places(hold) {
        stage.is_sound_in_each_look(name, async || stage.open(&place).await).await;
    }
}
