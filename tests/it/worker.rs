//! The worker on a real RabbitMQ: redelivery, poison messages and order.

use futures_util::future::join_all;
use point_system::{
    domain::Delta,
    queue::{Link, Publisher},
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    apply::add,
    support::{
        client::{Promises, answer},
        queues::{message, partition},
        system::{PATIENCE, System, eventually},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_delta_changes_nothing() {
    let mut system = System::new().await;
    let client = system.serve();
    let stop = system.work();
    client.queue("add", 7, 1).await;
    system.drain(1).await;
    let queues = system.queues().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for _ in 0..3 {
        queues.publish(partition(7), &message(id, 7, 10)).await;
    }
    client.queue("add", 7, 100).await;
    system.drain(3).await;
    stop.cancel();
    assert_eq!(client.balance(7).await, 111);
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_goes_to_the_dead_letters_and_stops_nothing() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    client.queue("add", 7, 1).await;
    system.drain(1).await;
    let queues = system.queues().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let poison = [
        "not JSON".to_owned(),
        message(id, 7, 0),
        message(id, 7, 1).replace("\"version\":2", "\"version\":1"),
        message(id, (1..100).find(|user| partition(*user) != partition(7)).expect("another"), 1),
    ];
    for body in &poison {
        queues.publish(partition(7), body).await;
    }
    client.queue("add", 7, 2).await;
    system.drain(2).await;
    eventually("four dead letters", async || queues.dead().await == 4).await;
    assert_eq!(queues.dead_letter().await, poison[0], "a dead letter is kept as it came");
    assert_eq!(client.balance(7).await, 3);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_the_database_refuses_goes_to_the_dead_letters_alone() {
    let mut system = System::new().await;
    system.execute("alter table log add check (point <> 666)").await;
    let client = system.serve();
    client.queue("add", 7, 1).await;
    client.queue("add", 7, 666).await;
    client.queue("add", 7, 2).await;
    system.work();
    system.drain(2).await;
    let queues = system.queues().await;
    eventually("a dead letter", async || queues.dead().await == 1).await;
    assert_eq!(client.balance(7).await, 3);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_deltas_are_applied_in_the_order_of_their_202s() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    system.work();
    let mut users = JoinSet::new();
    for user in 1..=40 {
        let client = client.clone();
        users.spawn(async move {
            let mut promised = Vec::new();
            for point in 1..=25 {
                promised.push(client.queue("add", user, point).await);
            }
            (user, promised)
        });
    }
    let promises = users.join_all().await.into_iter().collect();
    system.drain(40 * 25).await;
    assert_eq!(system.ledger().await, promises);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hot_user_is_served_by_large_messages() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let reason = "x".repeat(200);
    let change = || client.post("/v1/point/add").json(&json!({"user_id": 7, "point": 1, "reason": reason}));
    let answers = join_all((0..900).map(|_| answer(change()))).await;
    assert!(answers.iter().all(|(status, _)| status.as_u16() == 202), "{answers:?}");
    system.drain(900).await;
    assert_eq!(client.balance(7).await, 900);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_that_share_a_message_keep_the_order_they_were_handed_in() {
    let mut system = System::new().await;
    let broker = system.node().broker;
    let link = Link::start(broker.url, system.names(), "test");
    let mut watch = link.watch();
    watch.ready(PATIENCE).await.expect("a connection");
    let publisher = Publisher::start(&watch);
    let deltas: Vec<Delta> = (1..=500).map(|point| add(7, point)).collect();
    let results = join_all(deltas.iter().map(|delta| publisher.publish(delta.clone()))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    link.close().await;
    let messages = system.queues().await.waiting().await;
    assert!((1..250).contains(&messages), "{messages} messages: they should share some");
    system.work();
    system.drain(deltas.len()).await;
    let ids = deltas.iter().map(|delta| delta.request_id.to_string()).collect();
    assert_eq!(system.ledger().await, Promises::from([(7, ids)]));
    system.finish().await;
}
