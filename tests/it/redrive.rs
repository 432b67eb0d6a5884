//! The targets of redriven messages, and dead letters without room. It has its own servers, whose queues a policy makes
//! small.

use std::collections::BTreeSet;

use point_system::queue::{DeadLetters, Link};
use serde_json::{Value, json};

use crate::{
    dead_letters::{accept, dead_letters, declared, has_dead, list, refuse},
    support::{
        queues::{message, partition},
        servers::OwnServers,
        system::{PATIENCE, System, eventually},
    },
};

/// The number of messages that die while there is room for [`ROOM`]: more than the 32 that the broker moves before it
/// learns of the limit.
const MANY: usize = 100;

/// The number of messages that fit into a queue that a policy makes small.
const ROOM: usize = 3;

/// How soon the broker retries a dead letter that found no room. Its default is 180,000.
const OFFERED_AGAIN_MS: usize = 500;

fn id(number: usize) -> String {
    format!("01890a5d-ac96-774b-bcce-{number:012}")
}

/// A message with an add of 1 for each of `users`.
fn of_users(users: &[i64]) -> String {
    let delta = |(number, user): (usize, &i64)| {
        let message: Value = serde_json::from_str(&message(&id(number), *user, 1)).expect("JSON");
        message["deltas"][0].clone()
    };
    let deltas: Vec<Value> = users.iter().enumerate().map(delta).collect();
    json!({"version": 2, "deltas": deltas}).to_string()
}

/// Two users of one partition, and two of another.
fn two_partitions() -> [i64; 4] {
    let of = |wanted: u16| (1..100).filter(move |user| partition(*user) == wanted);
    let (mut ours, mut others) = (of(0), of(1));
    let mut next = || [ours.next(), others.next()].map(|user| user.expect("among a hundred"));
    let ([a, b], [c, d]) = (next(), next());
    [a, b, c, d]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_delta_goes_to_the_partition_of_its_user_wherever_its_message_died() {
    let mut system = System::new().await;
    system.work();
    let queues = declared(&system).await;
    let users = two_partitions();
    // Like a partition of an installation that has more of them.
    queues.die_in("deltas.13", &message(&id(10), users[0], 1)).await;
    queues.publish(partition(users[0]), &of_users(&users)).await;
    queues.publish_dead(&message(&id(11), users[1], 1)).await;
    has_dead(&queues, 3).await;
    let letters = list(&system).await;
    assert!(letters.iter().all(|letter| letter["redrivable"] == true), "{letters:?}");
    let mut partitions: Vec<_> = letters.iter().map(|letter| letter["partition"].clone()).collect();
    partitions.sort_by_key(Value::as_u64);
    assert_eq!(partitions, [json!(null), json!(partition(users[0])), json!(13)]);

    let (status, printed) = dead_letters(&system, &["redrive", "--all"]).await;
    assert!(status.success() && printed.contains("3 redriven, 0 left"), "{printed}");
    system.drain(6).await;
    assert_eq!(queues.dead().await, 0);
    let ledger: BTreeSet<String> = system.ledger().await.into_values().flatten().collect();
    assert_eq!(ledger, [0, 1, 2, 3, 10, 11].map(id).into());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_redriven_in_part_is_still_a_dead_letter() {
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let queues = declared(&system).await;
    let users = two_partitions();
    queues.publish_dead(&of_users(&users)).await;
    has_dead(&queues, 1).await;
    let full = format!("^{}$", system.names().partition(partition(users[1])));
    let policy = ["set_policy", "--apply-to", "queues", "full", &full, r#"{"max-length":1}"#];
    servers.broker.control(&policy).await.expect("a policy");
    for number in [10, 11] {
        queues.publish(partition(users[1]), &message(&id(number), users[1], 1)).await;
    }
    eventually("the second partition is full", async || queues.waiting().await == 2).await;
    let (status, printed) = dead_letters(&system, &["redrive", "--all"]).await;
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("is full"), "{printed}");
    has_dead(&queues, 1).await;
    assert_eq!(queues.waiting().await, 3, "the first partition has its deltas, in a message");
    servers.broker.control(&["clear_policy", "full"]).await.expect("no policy");
    system.work();
    eventually("the second partition takes deltas again", async || {
        dead_letters(&system, &["redrive", "--all"]).await.0.success()
    })
    .await;
    system.drain(6).await;
    assert_eq!(queues.dead().await, 0);
    assert_eq!(system.count("select count(*) from log").await, 6);
    system.finish_drained().await;
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_partition_without_a_leader_for_a_moment_is_not_taken_for_a_full_one() {
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let queues = declared(&system).await;
    let users = two_partitions();
    queues.publish_dead(&of_users(&users[..2])).await;
    has_dead(&queues, 1).await;
    let link = Link::start(system.node().broker.url, system.names(), "test");
    let mut watch = link.watch();
    watch.ready(PATIENCE).await.expect("a connection");
    let mut letters = DeadLetters::open(&watch).await.expect("opened");
    let letter = letters.next().await.expect("an answer").expect("a dead letter");
    // The second queue stops, and starts again a moment after the first has its message.
    let [first, second] = [0, 1].map(|user| system.names().partition(partition(users[user])));
    let stop = format!(
        "[First, Second] = [{{list_to_atom(\"%2F_\" ++ Q), node()}} || Q <- [\"{first}\", \"{second}\"]],
         Count = fun() -> {{ok, {{_, {{N, _}}}}, _}} = ra:local_query(First, fun rabbit_fifo:query_stat/1), N end,
         Wait = fun W() -> case Count() of 0 -> timer:sleep(10), W(); _ -> timer:sleep(200) end end,
         ok = ra:stop_server(quorum_queues, Second),
         spawn(fun() -> Wait(), ra:restart_server(quorum_queues, Second), ra:trigger_election(Second) end)."
    );
    servers.broker.control(&["eval", &stop]).await.expect("stopped");
    assert_eq!(letters.redrive(letter).await, Ok(()));
    letters.close().await.expect("closed");
    link.close().await;
    assert_eq!(queues.dead().await, 0);
    system.work();
    system.drain(2).await;
    system.finish().await;
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_finds_no_room_waits_in_its_partition_and_is_not_lost() {
    let servers = OwnServers::start().await;
    let again = format!(
        "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, {OFFERED_AGAIN_MS})."
    );
    servers.broker.control(&["eval", &again]).await.expect("a setting");
    let mut system = System::on_own(&servers).await;
    let small = format!("^{}$", system.names().dead_letters());
    let limit = json!({"max-length": ROOM}).to_string();
    let policy = ["set_policy", "--apply-to", "queues", "small", &small, &limit];
    servers.broker.control(&policy).await.expect("a policy");
    refuse(&system).await;
    let worker = system.work();
    let queues = declared(&system).await;
    for number in 0..MANY {
        queues.publish(partition(7), &message(&id(number), 7, 666)).await;
    }
    queues.publish(partition(7), &message(&id(MANY), 7, 1)).await;
    // The messages behind them are not delayed.
    system.drain(1).await;
    eventually("the dead letters are full", async || queues.dead().await as usize >= ROOM).await;
    assert!((queues.dead().await as usize) < MANY, "the limit is not held");
    worker.cancel();
    system.stop().await;

    accept(&system).await;
    system.work();
    let mut commands = 0;
    eventually("all are redriven", async || {
        commands += 1;
        let (status, printed) = dead_letters(&system, &["redrive", "--all"]).await;
        assert!(status.success(), "{printed}");
        usize::try_from(system.count("select count(*) from log").await).expect("few") > MANY
    })
    .await;
    assert!(commands > 1, "all were in the dead letters at once");
    let ledger: Vec<String> = system.ledger().await.into_values().flatten().collect();
    assert_eq!(ledger.len(), MANY + 1);
    assert_eq!(ledger.into_iter().collect::<BTreeSet<_>>(), (0..=MANY).map(id).collect());
    system.finish_drained().await;
    servers.stop().await;
}
