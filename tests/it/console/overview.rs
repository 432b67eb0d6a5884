//! The overview: it shows the installation, costs the same for a hundred viewers as for one, and says what is wrong.

use std::{collections::BTreeSet, time::Instant};

use futures_util::future::join_all;
use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use super::{Visitor, shown};
use crate::keys::{create, revoke};
use crate::support::{
    proxy::{Weather, detour},
    system::{PATIENCE, System, eventually},
};

const VIEWERS: usize = 100;

/// A worker that held a change for seven seconds while seven thousand messages waited in a partition, and has ended.
const WAITED: &str = "insert into node_beat (node, beat_at, started_at, accepted, applied, refused, oldest_at, \
         rabbitmq_since, postgresql_since, rabbitmq_up, role, version, kept, depths) \
     select '01a2ffc2-2f10-7a11-9c5e-51b0a4c7d201', at, at, 0, 0, 0, at - interval '7 s', at, at, true, 'work', '0', '{}', '{0,7000,null,5}' \
     from generate_series(now() - interval '800 s', now() - interval '780 s', interval '5 s') as at";

/// A viewer's stream of events.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(visitor: &Visitor) -> Self {
        let response = visitor.get("/console/live").send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        Self { response, text: String::new() }
    }

    /// The next event, or `None` if the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event =
                    event.strip_prefix("data: ").map(|data| serde_json::from_str(data).expect("JSON"));
                let rest = rest.to_owned();
                self.text = rest;
                if event.is_some() {
                    return event;
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("a sign of life").ok()??;
            self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
    }
}

/// How often the table of the beats was read and cleaned.
async fn scans(system: &System) -> i64 {
    system
        .count("select seq_scan + coalesce(idx_scan, 0) from pg_stat_user_tables where relname = 'node_beat'")
        .await
}

/// How often it was read and cleaned while as many viewers as there are streams got two pictures. All get the same ones.
async fn cost(system: &System, streams: &mut [Stream]) -> i64 {
    let next = async |stream: &mut Stream| stream.next().await.expect("an event")["at"].as_i64();
    let mut first = Vec::new();
    for stream in streams.iter_mut() {
        first.push(next(stream).await);
    }
    // A picture may have been taken while they were opened.
    let latest = first.iter().max().copied().flatten();
    for (stream, mut at) in streams.iter_mut().zip(first) {
        while at < latest {
            at = next(stream).await;
        }
    }
    let before = scans(system).await;
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        seen.extend(join_all(streams.iter_mut().map(next)).await);
    }
    assert_eq!(seen.len(), 2, "everybody sees the same: {seen:?}");
    scans(system).await - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_viewers_cost_as_much_as_one_and_hold_up_no_shutdown() {
    let mut system = System::new().await;
    let visitor = Visitor::new(&system.serve());
    system.work();
    let mut streams = vec![Stream::open(&visitor).await];
    let one = cost(&system, &mut streams).await;
    streams.extend(join_all((1..VIEWERS).map(|_| Stream::open(&visitor))).await);
    let hundred = cost(&system, &mut streams).await;
    println!("{one} scans for one viewer, {hundred} for {VIEWERS}");
    // The beats of the nodes come when they come.
    assert!(one > 0 && hundred <= 2 * one + 10, "{one} scans for one viewer, {hundred} for {VIEWERS}");

    let stopped = Instant::now();
    system.stop().await;
    assert!(stopped.elapsed() < PATIENCE / 4, "{:?}", stopped.elapsed());
    let ends = join_all(streams.iter_mut().map(Stream::next)).await;
    assert!(ends.iter().all(Option::is_none));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_counts_all_processes_and_says_what_is_wrong() {
    let mut system = System::new().await;
    let (proxy, url) = detour(&system.database.url).await;
    system.node_database_url = Some(url.to_string());
    let client = system.serve();
    let visitor = Visitor::new(&client);
    let (page, alone) = (async || visitor.read("/console").await, "No worker is running.");
    eventually("the page misses the workers", async || page().await.contains(alone)).await;
    client.queue("add", 7, 1_000).await;
    client.queue("subtract", 7, 5_000).await;
    let waited = ": at most 2 in the last 15 minutes";
    eventually("the page shows how many wait", async || page().await.contains(waited)).await;
    let stop = system.work();
    system.drain(2).await;
    eventually("all is well", async || page().await.contains("All is well.")).await;
    let told = async || {
        let sums = "select max(accepted)::text || ',' || max(applied)::text || ',' || max(refused)::text as sums from node_beat";
        system.rows(sums).await[0].get::<_, String>("sums")
    };
    eventually("the processes tell what they counted", async || told().await == "2,1,1").await;
    assert!(page().await.contains("work ") && page().await.contains("serve "));

    let key = create(&system, "olivia", "admin").await;
    let olivia = Visitor::signed_in_soon(&client, &key).await;
    let visitor = &olivia;
    let page = async || visitor.read("/console").await;
    let mut stream = Stream::open(visitor).await;
    system.execute(WAITED).await;
    loop {
        let event = stream.next().await.expect("an event");
        if event["history"].as_array().expect("points").iter().any(|point| point[4] == 7.0) {
            let partitions = event["regions"][2][1].as_str().expect("text");
            assert!(partitions.contains("partition 1: at most 7,000 in the last 15 minutes"), "{partitions}");
            assert!(partitions.contains("partition 3: at most 5 in the last 15 minutes"), "{partitions}");
            break;
        }
    }
    proxy.refuse();
    loop {
        let event = stream.next().await.expect("an event");
        if event["regions"][0][1].as_str().expect("text").contains("PostgreSQL has been unreachable since") {
            break;
        }
    }
    assert!(page().await.contains("nothing is lost"));
    let (status, keys) = shown(visitor.get("/console/keys")).await;
    assert!(status == 503 && keys.contains("PostgreSQL can't be reached"), "{status} {keys}");
    proxy.turn(Weather::Fair);
    eventually("all is well again", async || page().await.contains("All is well.")).await;
    revoke(&system, "olivia").await;
    while stream.next().await.is_some() {}
    stop.cancel();
    system.finish().await;
}
