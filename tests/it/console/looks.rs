//! The look of each page of the console: it is sound at every width and in every colour scheme. The pictures go to
//! `target/tmp/console`, from where `just pictures` copies those of the documents.

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
     insert into node_beat (node, beat_at, started_at, accepted, applied, refused, rabbitmq_since, postgresql_since, \
         rabbitmq_up, role, version, kept) \
     select node::uuid, beat_at, clock_timestamp() - interval '3 days', \
         case role when 'serve' then done else 0 end, case role when 'work' then done * 0.985 else 0 end, \
         case role when 'work' then done * 0.015 else 0 end, clock_timestamp() - interval '3 days', \
         clock_timestamp() - interval '9 days', true, role, '0.1.0', '{}' \
     from counted, (values ('01a2ffc2-2f10-7a11-9c5e-51b0a4c7d201', 'serve'), \
         ('01a2ffc2-2f10-7a11-9c5e-51b0a4c7d202', 'work')) as nodes (node, role)";

/// The pictures of the documents: name, path, width, height, colours.
const PICTURES: [(&str, &str, u32, u32, &str); 3] = [
    ("console-overview", "/console", 1280, 860, "light"),
    ("console-overview-dark", "/console", 1280, 860, "dark"),
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
    stage.is_sound_in_each_look("sign-in", async || stage.open("/console/sign-in").await).await;
    stage.sign_in(&stage.admin_key).await;
    stage.system.execute(HISTORY).await;
    for (name, path, width, height, scheme) in PICTURES {
        stage.browser.look(width, height, scheme).await;
        show(&stage, path).await;
        stage.take_picture(name).await;
    }
    for path in pages().chain(["/console/help/operations"]) {
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
    if path == "/console" {
        stage.browser.wait_for(".u-wrap canvas").await;
    }
}
