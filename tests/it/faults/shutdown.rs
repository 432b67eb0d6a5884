//! A node that is told to stop in the middle of an outage.

use crate::{
    client::Promises,
    proxy::{Weather, detour},
    system::System,
};

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
