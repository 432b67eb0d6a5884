//! The executable: load over two workers, a worker killed under load, and signals.

use reqwest::StatusCode;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{
    client::{Client, Promises},
    load::Load,
    process::Process,
    system::{System, eventually},
};

/// The most workers that join two others. The chance that none of them ranks highest for any of four partitions is then
/// 1 in 6,000.
const JOINING_MAX: usize = 6;

const LOAD: Load = Load { users: 200, changes_per_user: 20, connections: 32 };

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_apply_every_202_once_and_in_order() {
    let mut system = System::new().await;
    let client = system.serve();
    let workers = [system.process("work", &["--concurrency", "2"]), system.process("work", &[])];
    let promises = LOAD.run(&client).await;
    system.drain(LOAD.changes()).await;
    assert_eq!(system.ledger().await, promises);
    for worker in workers {
        assert!(worker.end("-TERM").await.success());
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_under_load_loses_and_doubles_nothing() {
    let mut system = System::new().await;
    let client = system.serve();
    let only = system.process("work", &[]);
    let loading = tokio::spawn({
        let client = client.clone();
        async move { LOAD.run(&client).await }
    });
    eventually("the worker is in the middle", async || system.count("select count(*) from log").await > 500)
        .await;
    assert!(!only.end("-KILL").await.success());
    let next = system.process("work", &[]);
    let promises = loading.await.expect("no panic");
    system.drain(LOAD.changes()).await;
    assert_eq!(system.ledger().await, promises);
    assert!(next.end("-INT").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_stop_answers_what_it_has_and_ends_well() {
    let system = System::new().await;
    // Until the delay is over, it reads what is on its way. Without a delay, it closes connections that it has not read.
    let serve = system.process("serve", &["--listen", "127.0.0.1:0", "--drain-delay", "2s"]);
    let port = serve.says("server listen at :").await;
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    let mut requests = JoinSet::new();
    for user in 1..=50 {
        let request = client.change("add", user, 1);
        requests.spawn(async move { request.send().await.map(|answer| answer.status()) });
    }
    let first = requests.join_next().await.expect("fifty").expect("no panic").expect("an answer");
    assert_eq!(first, StatusCode::ACCEPTED);
    assert!(serve.end("-TERM").await.success());
    for answer in requests.join_all().await {
        assert_eq!(answer.expect("an answer"), StatusCode::ACCEPTED);
    }
    // Another process applies the changes that the ended one has acknowledged.
    let mut system = system;
    system.work();
    system.drain(50).await;
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_process_at_once() {
    let system = System::new().await;
    // Without a broker it waits, and would wait for a minute.
    let work = system.process("work", &["--amqp-url", "amqp://127.0.0.1:1"]);
    work.says("RabbitMQ at 127.0.0.1:1").await;
    assert!(work.end("-TERM").await.success(), "the first signal, while it waits");
    let missing = system.process("work", &["--amqp-url", "amqp://127.0.0.1:1", "--startup-timeout", "1s"]);
    let (status, log) = missing.ends().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("gave up after 1 s (--startup-timeout): RabbitMQ at 127.0.0.1:1"), "{log}");
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_before_its_commit_has_acked_nothing() {
    let mut system = System::new().await;
    let client = system.serve();
    let only = system.process("work", &[]);
    let mut promises = vec![client.queue("add", 7, 1).await];
    system.drain(1).await;
    // Its next transaction writes its entries, and waits for us before it commits.
    system
        .execute(
            "create function wait() returns trigger language plpgsql as $$ begin
                 perform pg_advisory_xact_lock(1);
                 return null;
             end $$;
             create trigger wait after insert on log for each statement execute function wait()",
        )
        .await;
    let session = system.pool.get().await.expect("a connection");
    let lock = "reset all; begin; select pg_advisory_xact_lock(1)";
    session.batch_execute(lock).await.expect("locked");
    for point in 2..5 {
        promises.push(client.queue("add", 7, point).await);
    }
    let waiting = "select count(*) from pg_stat_activity \
         where datname = current_database() and wait_event_type = 'Lock'";
    eventually("the worker is within its transaction", async || system.count(waiting).await > 0).await;
    assert!(!only.end("-KILL").await.success());
    session.batch_execute("rollback").await.expect("rolled back");
    drop(session);
    system.work();
    system.drain(promises.len()).await;
    assert_eq!(system.ledger().await, Promises::from([(7, promises)]));
    system.finish().await;
}

/// RabbitMQ 4 moves each partition to the worker that ranks highest. RabbitMQ 3 leaves it in place. Order and failover
/// hold on both.
#[tokio::test(flavor = "multi_thread")]
async fn workers_that_come_and_go_keep_the_order_and_share_what_the_broker_lets_them() {
    let mut system = System::new().await;
    let client = system.serve();
    let worker = || system.process_with_log("work", &[], "info,point_system::worker=debug");
    let has_applied = |worker: &Process| worker.printed().contains("applied request_id");
    let progresses = async || {
        let now = system.count("select count(*) from log").await;
        eventually("more is applied", async || system.count("select count(*) from log").await > now + 200)
            .await;
    };
    let first = worker();
    let enough = CancellationToken::new();
    let loading = tokio::spawn({
        let (client, enough) = (client.clone(), enough.clone());
        async move { Load { changes_per_user: i64::MAX, ..LOAD }.run_until(&client, &enough).await }
    });
    progresses().await;
    let (second, third) = (worker(), worker());
    let mut more = Vec::new();
    let version = system.queues().await.server_version().await;
    if version.starts_with("3.") {
        for joined in [&second, &third] {
            joined.says("working on").await;
        }
        progresses().await;
        assert!(!has_applied(&second) && !has_applied(&third), "RabbitMQ {version} moved a partition");
    } else {
        // A hash of a worker's name decides for which partitions it ranks highest. There may be none.
        let shared = |more: &[Process]| [&second, &third].into_iter().chain(more).any(has_applied);
        while !shared(&more) && more.len() < JOINING_MAX {
            let joined = worker();
            joined.says("working on").await;
            more.push(joined);
            progresses().await;
        }
        eventually("one that joined has a share", async || shared(&more)).await;
    }
    assert!(first.end("-TERM").await.success());
    progresses().await;
    // It had acked every change that it had applied, so no worker gets them again.
    for heir in [&second, &third].into_iter().chain(&more) {
        assert!(!heir.printed().contains("already in the log"), "{}", heir.printed());
    }
    second.end("-KILL").await;
    progresses().await;
    let fourth = worker();
    fourth.says("working on").await;
    progresses().await;
    enough.cancel();
    let promises = loading.await.expect("no panic");
    system.drain(promises.values().map(Vec::len).sum()).await;
    assert_eq!(system.ledger().await, promises);
    for worker in [third, fourth].into_iter().chain(more) {
        assert!(worker.end("-TERM").await.success());
    }
    system.finish().await;
}
