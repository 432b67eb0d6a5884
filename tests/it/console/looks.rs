//! The look of each page of the console: it is sound at every width and in every colour scheme. The pictures go to
//! `target/tmp/console`, from where `just pictures` copies those of the documents.

use serde_json::json;

use super::browser::{Stage, pages};
use crate::{
    dead_letters::{declared, has_dead, refuse},
    keys::create,
    support::{client::answer, queues::message},
};

/// A quarter of an hour of two nodes with a load that goes up and down.
const HISTORY: &str = "with beats as ( \
         select n, clock_timestamp() - make_interval(secs => (180 - n) * 5 - 2) as beat_at, \
             (2000 + 900 * sin(n / 17.0) + 260 * sin(n / 3.1) + 120 * sin(n * 1.7))::bigint * 5 as done \
         from generate_series(0, 180) as n), \
     counted as (select n, beat_at, sum(done) over (order by n) as done from beats) \
     insert into node_beat (node, beat_at, started_at, accepted, applied, refused, oldest_at, rabbitmq_since, \
         postgresql_since, rabbitmq_up, role, version, kept, depths) \
     select node::uuid, beat_at, clock_timestamp() - interval '3 days', \
         case role when 'serve' then done else 0 end, case role when 'work' then done * 0.985 else 0 end, \
         case role when 'work' then done * 0.015 else 0 end, \
         case role when 'work' then beat_at - (0.8 + 0.5 * sin(n / 9.0)) * interval '1 s' end, \
         clock_timestamp() - interval '3 days', \
         clock_timestamp() - interval '9 days', true, role, '0.1.0', '{}', \
         array(select greatest(0, 14 + 11 * sin(n / (7.0 + p)) + 6 * sin(n * (1.3 + p / 5.0)))::int \
             from generate_series(1, 4) as p) \
     from counted, (values ('01a2ffc2-2f10-7a11-9c5e-51b0a4c7d201', 'serve'), \
         ('01a2ffc2-2f10-7a11-9c5e-51b0a4c7d202', 'work')) as nodes (node, role)";

/// Three weeks of a customer: the action, the points, and the reason.
const PURCHASES: [(&str, i64, &str); 14] = [
    ("add", 500, "welcome"),
    ("add", 240, "order 1042"),
    ("add", 85, "order 1077"),
    ("subtract", 300, "coupon of 3 euros"),
    ("add", 410, "order 1103"),
    ("add", 60, "review of a product"),
    ("subtract", 2_000, "coupon of 20 euros"),
    ("add", 330, "order 1160"),
    ("add", 1_000, "birthday"),
    ("subtract", 1_200, "coupon of 12 euros"),
    ("add", 95, "order 1214"),
    ("add", 720, "order 1260"),
    ("subtract", 500, "coupon of 5 euros"),
    ("add", 145, "order 1301"),
];

/// Days between two of them.
const OVER_DAYS: &str = "update log set created_at = created_at - make_interval(hours => 37 * (14 - seq)::int - 2) \
     where user_id = 'alice/coins' and seq <= 14";

/// The pictures of the documents: name, path, width, height, colours.
const PICTURES: [(&str, &str, u32, u32, &str); 4] = [
    ("console-overview", "/console", 1280, 860, "light"),
    ("console-overview-dark", "/console", 1280, 860, "dark"),
    ("console-user", "/console/user?id=alice%2Fcoins", 1280, 1000, "light"),
    ("console-dead-letters", "/console/dead-letters", 1280, 620, "light"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_sound_in_every_look() {
    let Some(stage) = Stage::set().await else { return };
    let queues = declared(&stage.system).await;
    refuse(&stage.system).await;
    let change = stage.client.change("add", 4_711, 666).bearer_auth(&stage.admin_key);
    assert_eq!(answer(change).await.0, 202);
    has_dead(&queues, 1).await;
    queues.publish_dead("{\"version\": 2, \"deltas\": [").await;
    queues.publish_dead(&message("01890a5d-ac96-774b-bcce-b302099a8057", 8, 5)).await;
    has_dead(&queues, 3).await;
    for (name, scope) in [("shop", "write"), ("support", "write"), ("reports", "read")] {
        create(&stage.system, name, scope).await;
    }
    for (action, point, reason) in PURCHASES {
        let members = json!({"user_id": "alice/coins", "point": point, "reason": reason});
        let change = stage.client.send(action, &members).bearer_auth(&stage.admin_key);
        answer(change.header("Prefer", "wait")).await;
    }
    stage.system.execute(OVER_DAYS).await;
    stage.is_sound_in_each_look("sign-in", async || stage.open("/console/sign-in").await).await;
    stage.sign_in(&stage.admin_key).await;
    stage.system.execute(HISTORY).await;
    for (name, path, width, height, scheme) in PICTURES {
        stage.browser.look(width, height, scheme).await;
        show(&stage, path).await;
        stage.take_picture(name).await;
    }
    for path in pages().chain(["/console/help/operations", "/console/help/size"]) {
        let name = format!("page{}", path.trim_start_matches("/console").replace('/', "-"));
        stage.is_sound_in_each_look(&name, async || show(&stage, path).await).await;
    }
    // Nobody waits for the change: it is a dead letter.
    queues.delete().await;
    stage.browser.end().await;
    stage.system.discard().await;
}

async fn show(stage: &Stage, path: &str) {
    stage.open(path).await;
    if path == "/console" || path.starts_with("/console/user?") {
        stage.browser.wait_for(".u-wrap canvas").await;
    }
}
