//! A node that is told to stop in the middle of an outage.

use std::time::{Duration, Instant};

use crate::support::{
    client::Promises,
    process::Process,
    proxy::{Weather, detour},
    system::{System, eventually},
};

/// The shutdown timeout of the nodes, and how much longer they may take on a busy machine.
const SHUTDOWN: &str = "900ms";
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_while_the_database_is_away_gives_everything_back() {
    let mut system = System::new().await;
    let client = system.serve();
    let (postgres, database_url) = detour(&system.database.url).await;
    system.node_database_url = Some(database_url.into());
    let work = system.process("work", &[]);
    let mut promises = vec![client.queue("add", 7, 1).await];
    system.drain(1).await;
    postgres.refuse();
    for point in 2..10 {
        promises.push(client.queue("add", 7, point).await);
    }
    work.says("trying again").await;
    assert!(work.end("-TERM").await.success(), "an outage is no reason to fail");
    postgres.turn(Weather::Fair);
    system.work();
    system.drain(promises.len()).await;
    assert_eq!(system.ledger().await, Promises::from([(7, promises)]));
    assert_eq!(system.queues().await.dead().await, 0, "an outage makes no dead letters");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_ends_in_time_while_the_broker_accepts_and_says_nothing() {
    let mut system = System::new().await;
    let (broker, amqp_url) = detour(&system.amqp_url).await;
    system.node_amqp_url = Some(amqp_url.into());
    for (role, arguments) in [("work", &[][..]), ("serve", &["--listen", "127.0.0.1:0"])] {
        let arguments = &[arguments, &["--shutdown-timeout", SHUTDOWN]].concat();
        // At the start, and in the middle of its work.
        broker.turn(Weather::Stalled);
        let before = broker.accepted();
        let starting = system.process(role, arguments);
        eventually("it has connected", async || broker.accepted() > before).await;
        ends_in_time(starting).await;
        broker.turn(Weather::Fair);
        let working = system.process(role, arguments);
        working.says(if role == "work" { "working on" } else { "server listen at :" }).await;
        broker.turn(Weather::Stalled);
        ends_in_time(working).await;
        broker.turn(Weather::Fair);
    }
    system.finish_drained().await;
}

async fn ends_in_time(node: Process) {
    let told = Instant::now();
    assert!(node.end("-TERM").await.success());
    assert!(told.elapsed() < SHUTDOWN_LIMIT, "{:?}", told.elapsed());
}
