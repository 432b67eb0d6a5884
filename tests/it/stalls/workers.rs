//! A worker that alone loses the database: another worker, whose database answers, takes over.

use super::queue_adds;
use crate::support::{
    client::Promises,
    proxy::{Weather, detour},
    system::{System, eventually},
};

const USERS: std::ops::RangeInclusive<i64> = 1..=40;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_alone_has_lost_the_database_hands_over_and_comes_back() {
    let mut system = System::new().await;
    let client = system.serve();
    let mut promises = Promises::new();
    let mut queue_for_all = async |point| {
        for user in USERS {
            promises.entry(user).or_default().push(client.queue("add", user, point).await);
        }
    };
    let (one, one_url) = detour(&system.database.url).await;
    let (other, other_url) = detour(&system.database.url).await;
    system.node_database_url = Some(one_url.into());
    let first = system.process("work", &[]);
    queue_for_all(1).await;
    system.drain(40).await;
    system.node_database_url = Some(other_url.into());
    let second = system.process("work", &[]);
    second.says("working on").await;

    // The first worker has the partitions. Its database stops answering, and then refuses connections.
    one.turn(Weather::Stalled);
    queue_for_all(2).await;
    system.drain(80).await;
    one.refuse();
    queue_for_all(3).await;
    system.drain(120).await;
    // Now the other way round: the first worker's database is back, and it takes over.
    one.turn(Weather::Fair);
    other.refuse();
    queue_for_all(4).await;
    system.drain(160).await;
    other.turn(Weather::Fair);
    assert_eq!(system.ledger().await, promises);
    for worker in [first, second] {
        assert!(worker.end("-TERM").await.success());
    }
    assert_eq!(system.queues().await.dead().await, 0, "an outage makes no dead letters");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_worker_waits_for_the_database_and_goes_on() {
    let mut system = System::new().await;
    let client = system.serve();
    let (postgres, database_url) = detour(&system.database.url).await;
    system.node_database_url = Some(database_url.into());
    let work = system.process("work", &[]);
    queue_adds(&client, USERS).await;
    system.drain(40).await;
    postgres.refuse();
    queue_adds(&client, USERS).await;
    work.says("its messages go back").await;
    let queues = system.queues().await;
    eventually("they are in the queue", async || queues.waiting().await > 0).await;
    postgres.turn(Weather::Fair);
    system.drain(80).await;
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}
