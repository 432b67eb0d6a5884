//! The drill: PostgreSQL is lost in the middle of a load, and restored from a base backup and an archive.

use std::time::Duration;

use point_system::{infra::migrate, local::LocalPostgres};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::{
    archive::Archived,
    chaos::Verdict,
    client::{Client, Promises},
    load::{Load, send_again},
    process::Process,
    servers::{database, open_folder, servers},
    system::{PARTITIONS, PATIENCE, System, eventually},
};

const LOAD: Load = Load { users: 40, changes_per_user: i64::MAX, connections: 2 };

const WENT_BACK: &str = "PostgreSQL has lost committed changes: partition ";

/// How the log differs from the clients' record, once nothing is left to apply.
async fn verdict(system: &System, promises: &Promises) -> Verdict {
    let queues = system.queues().await;
    eventually("the queues are empty", async || queues.waiting().await == 0).await;
    // The broker does not count what a worker holds.
    let mut before = -1;
    let mut since = Instant::now();
    eventually("nothing more is applied", async || {
        let now = system.count("select count(*) from log").await;
        if now != before {
            (before, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_secs(2)
    })
    .await;
    Verdict::of(promises, &system.ledger().await)
}

async fn went_back(node: &Process) -> bool {
    let metrics = node.metrics().await;
    assert!(metrics.contains("\npoint_system_database_went_back "), "{metrics}");
    metrics.contains("\npoint_system_database_went_back 1\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_from_the_archive_loses_nothing_and_one_to_an_earlier_time_is_told() {
    let folder = open_folder();
    let folder = folder.path().join("postgres");
    let postgres = LocalPostgres::start(&folder).await.expect("PostgreSQL starts");
    let database = database(&postgres.url(), "own", "template0").await;
    migrate::run(&database.pool(1), PATIENCE).await.expect("migrations");
    let system = System::on(database, servers().await.amqp_url.clone(), PARTITIONS).await;
    let mut archived = Archived::start(postgres, &folder).await;
    let metrics = ["--metrics-listen", "127.0.0.1:0"];
    let serve = system.process("serve", &[&["--listen", "127.0.0.1:0"], &metrics[..]].concat());
    let work = system.process("work", &metrics);
    let client = Client::new(&format!("http://127.0.0.1:{}", serve.says("server listen at :").await));

    let enough = CancellationToken::new();
    let loading = tokio::spawn({
        let (client, enough) = (client.clone(), enough.clone());
        async move { LOAD.run_until(&client, &enough).await }
    });
    eventually("changes are applied", async || system.count("select count(*) from log").await > 200).await;
    let earlier = archived.ask("select clock_timestamp()").await.expect("a time");
    let seen = format!("select count(*) from partition_pulse where accepted_until > '{earlier}'");
    eventually("the nodes have seen later changes", async || system.count(&seen).await > 0).await;
    archived.lose().await;
    let lost_at = Instant::now();
    archived.restore(None).await;
    let restored_after = lost_at.elapsed();
    let applied = system.count("select count(*) from log").await;
    eventually("the worker goes on", async || system.count("select count(*) from log").await > applied).await;
    let applied_after = lost_at.elapsed();
    enough.cancel();
    let promises = loading.await.expect("no panic");
    assert_eq!(verdict(&system, &promises).await, Verdict::default());
    system.audit().await;
    assert!(!went_back(&serve).await && !went_back(&work).await, "nothing is lost");

    archived.lose().await;
    archived.restore(Some(&earlier)).await;
    eventually("the nodes notice", async || went_back(&serve).await || went_back(&work).await).await;
    let told = async || [serve.printed(), work.printed()].concat().contains(WENT_BACK);
    eventually("the log says so", told).await;
    let verdict_then = verdict(&system, &promises).await;
    let all = promises.values().map(Vec::len).sum::<usize>();
    assert_eq!(verdict_then, Verdict { lost: verdict_then.lost, ..Verdict::default() });
    assert!((1..all).contains(&verdict_then.lost), "{verdict_then:?}");
    // What is left is consistent, so the audit has nothing to say.
    system.audit().await;
    send_again(&client, &promises).await;
    assert_eq!(verdict(&system, &promises).await, Verdict::default());
    println!(
        "{all} promises: PostgreSQL back {restored_after:.1?} after its loss, a change applied after {applied_after:.1?}; \
         lost 0; to an earlier time: {} lost, and told; sent again: lost 0",
        verdict_then.lost
    );
    assert!(work.end("-TERM").await.success() && serve.end("-TERM").await.success());
    system.finish().await;
    archived.postgres.stop().await.expect("PostgreSQL stops");
}
