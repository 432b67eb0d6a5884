//! The command `dead-letters set-aside`: it moves one message, says so, and leaves nothing behind that looks like a
//! fault.

use serde_json::Value;

use crate::{
    dead_letters::{dead_letters, declared, has_dead},
    newer::{keeps, worker},
    support::{
        frames::Tampering,
        proxy::{Weather, detour},
        queues::{message, partition},
        servers::OwnServers,
        system::{System, eventually},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_first_message_of_a_partition_that_no_worker_takes_is_set_aside() {
    let mut system = System::new().await;
    let client = system.serve();
    let queues = declared(&system).await;
    let partition = partition(7).to_string();
    let worker = system.process("work", &[]);
    client.queue("add", 7, 1).await;
    system.drain(1).await;
    let set_aside = async |partition: &str| dead_letters(&system, &["set-aside", partition]).await;
    let (status, printed) = set_aside(&partition).await;
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("a worker takes the messages"), "{printed}");
    assert!(worker.end("-TERM").await.success());
    let (status, printed) = set_aside(&partition).await;
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("has no messages; nothing was set aside"), "{printed}");
    let (status, printed) = set_aside("4").await;
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("there is no partition 4: the partitions are 0 to 3"), "{printed}");

    let first = client.queue("add", 7, 2).await;
    let second = client.queue("add", 7, 3).await;
    let (status, printed) = set_aside(&partition).await;
    let expected = format!("set aside from partition {partition}: 1 delta: {first}");
    assert!(status.success() && printed.contains(&expected), "{printed}");
    has_dead(&queues, 1).await;
    system.work();
    system.drain(2).await;
    let (status, printed) = dead_letters(&system, &["redrive", "--all"]).await;
    assert!(status.success() && printed.contains("1 redriven, 0 left"), "{printed}");
    system.drain(3).await;
    assert_eq!(system.ledger().await[&7][1..], [second, first]);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_moved_is_reported_even_if_the_broker_does_not_answer() {
    let mut system = System::new().await;
    let queues = declared(&system).await;
    let [first, second] = ["01", "02"].map(|number| format!("01890a5d-ac96-774b-bcce-b302099a80{number}"));
    for (id, point) in [(&first, 1), (&second, 2)] {
        queues.publish(partition(7), &message(id, 7, point)).await;
    }
    let (broker, amqp_url) = detour(&system.amqp_url).await;
    system.node_amqp_url = Some(amqp_url.into());
    broker.turn(Weather::Tampered(Tampering::NoCloses));
    let partition = partition(7).to_string();
    let (status, printed) = dead_letters(&system, &["set-aside", &partition]).await;
    let expected = format!("set aside from partition {partition}: 1 delta: {first}");
    assert!(status.success() && printed.contains(&expected), "{printed}");
    assert!(printed.contains("check with `dead-letters list`"), "{printed}");
    has_dead(&queues, 1).await;
    system.node_amqp_url = None;
    system.work();
    system.drain(1).await;
    assert_eq!(system.ledger().await[&7], [second]);
    system.finish().await;
}

/// The priority that each worker has subscribed with, by queue.
async fn priorities(servers: &OwnServers) -> Vec<(String, i64)> {
    let list = ["list_consumers", "--quiet", "--formatter", "json", "queue_name", "arguments"];
    let printed = servers.broker.control(&list).await.expect("a list");
    let consumers: Vec<Value> = serde_json::from_str(&printed).expect(&printed);
    let of = |consumer: &Value| {
        // An argument is a list of its name, its type and its value.
        let argument = &consumer["arguments"][0];
        assert_eq!(argument[0], "x-priority", "{printed}");
        (consumer["queue_name"].to_string(), argument[2].as_i64().expect("a number"))
    };
    consumers.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_messages_is_not_silent_and_its_worker_yields_until_the_next_change() {
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let client = system.serve();
    let queues = declared(&system).await;
    let id = client.queue("add", 7, 1).await;
    let old = worker(&system, "1");
    keeps(&old, &[partition(7)]).await;
    let waiting = "select count(*) from partition_pulse where accepted_until > taken_until";
    eventually("the change is told", async || system.count(waiting).await == 1).await;
    let (status, printed) = dead_letters(&system, &["set-aside", &partition(7).to_string()]).await;
    assert!(status.success() && printed.contains(&id), "{printed}");
    assert_eq!(system.count(waiting).await, 0, "the partition would be silent for ever");
    has_dead(&queues, 1).await;

    let mut consumers = Vec::new();
    eventually("the worker has subscribed again", async || {
        consumers = priorities(&servers).await;
        consumers.len() == usize::from(system.partitions().count())
    })
    .await;
    let kept = system.names().partition(partition(7));
    for (queue, priority) in consumers {
        assert_eq!(priority < 0, queue.contains(&kept), "{queue}: {priority}");
    }
    assert!(old.end("-TERM").await.success());
    system.work();
    let (status, printed) = dead_letters(&system, &["redrive", "--all"]).await;
    assert!(status.success(), "{printed}");
    system.drain(1).await;
    assert_eq!(system.ledger().await[&7], [id]);
    system.finish().await;
    servers.stop().await;
}
