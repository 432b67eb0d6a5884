//! Messages that a worker does not understand: they wait, in order, for a worker that does, or until an operator sets
//! them aside.

use std::time::{Duration, Instant};

use point_system::infra::postgres::Client as Session;
use serde_json::{Value, json};

use crate::{
    dead_letters::{dead_letters, declared, has_dead, list},
    http::refused,
    support::{
        client::{Client, Promises, answer},
        process::Process,
        queues::{Queues, message, partition},
        system::{System, eventually},
    },
};

/// Longer than the 30 s after which a partition counts as silent.
const LONG: Duration = Duration::from_secs(40);

/// The messages behind the one that is not understood.
const BEHIND: usize = 20;

fn id(number: usize) -> String {
    format!("01890a5d-ac96-774b-bcce-{number:012}")
}

/// Starts a worker that understands messages up to a version.
pub fn worker(system: &System, understands: &str) -> Process {
    system.process("work", &["--understands", understands, "--metrics-listen", "127.0.0.1:0"])
}

async fn readiness(worker: &Process) -> Value {
    let address = worker.says("metrics listen at ").await;
    answer(Client::new(&format!("http://{address}")).get("/readyz")).await.1
}

/// Waits until a worker says that it keeps these partitions, in the probe and in the metrics.
pub async fn keeps(worker: &Process, partitions: &[u16]) {
    let what = format!("{partitions:?} wait for a newer worker");
    eventually(&what, async || readiness(worker).await["kept_partitions"] == json!(partitions)).await;
    assert_eq!(readiness(worker).await["state"], "degraded");
    let metrics = worker.metrics().await;
    for partition in partitions {
        let series = format!("point_system_kept_partitions{{partition=\"{partition}\"}} 1\n");
        assert!(metrics.contains(&series), "{metrics}");
    }
    assert_eq!(metrics.matches("point_system_kept_partitions{").count(), 4);
}

/// Publishes messages to the queue of a user, and waits until the broker has them.
async fn publish(queues: &Queues, user: i64, bodies: &[String]) {
    let before = queues.waiting().await as usize;
    for body in bodies {
        queues.publish(partition(user), body).await;
    }
    let all = before + bodies.len();
    eventually("the messages are queued", async || queues.waiting().await as usize == all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_newer_version_waits_for_a_worker_that_understands_it() {
    let mut system = System::new().await;
    let client = system.serve();
    let queues = declared(&system).await;
    let mut promises = vec![client.queue("add", 7, 1).await];
    let newer = message(&id(0), 7, 2).replace("\"version\":2", "\"version\":3");
    publish(&queues, 7, &[newer]).await;
    promises.push(id(0));
    for point in 3..8 {
        promises.push(client.queue("add", 7, point).await);
    }
    let neighbour = (1..100).find(|user| partition(*user) != partition(7)).expect("another");
    let neighbours = vec![client.queue("add", neighbour, 1).await];

    let old = worker(&system, "2");
    old.says("waits for a newer worker: unknown version 3").await;
    keeps(&old, &[partition(7)]).await;
    let (before, all) = (Promises::from([(7, vec![promises[0].clone()])]), Promises::from([(7, promises)]));
    let [before, all] = [before, all].map(|mut ledger| {
        ledger.insert(neighbour, neighbours.clone());
        ledger
    });
    let connections = "point_system_rabbitmq_connections_total{role=\"work\"} 1\n";
    let (began, address) = (Instant::now(), old.says("metrics listen at ").await);
    let listener = Client::new(&format!("http://{address}"));
    eventually("it has waited for long", async || {
        assert_eq!((system.ledger().await, queues.dead().await), (before.clone(), 0));
        for node in [&listener, &client] {
            let state = answer(node.get("/readyz")).await.1;
            assert!(state.get("silent_partitions").is_none(), "{state}");
        }
        began.elapsed() > LONG
    })
    .await;
    assert!(old.printed().matches("looking again in").count() > 2, "{}", old.printed());
    assert!(old.metrics().await.contains(connections), "it has reconnected");

    let new = worker(&system, "3");
    eventually("all is applied in order", async || system.ledger().await == all).await;
    eventually("the old worker has nothing to say", async || readiness(&old).await["state"] == "ready").await;
    let kept = format!("point_system_kept_partitions{{partition=\"{}\"}} 1", partition(7));
    assert!(!old.metrics().await.contains(&kept));
    assert!(new.end("-TERM").await.success());
    client.queue("add", 7, 9).await;
    old.says("the next message is understood again").await;
    system.drain(9).await;
    assert!(old.metrics().await.contains(connections), "it has reconnected");
    assert_eq!(queues.dead().await, 0);
    assert!(old.end("-TERM").await.success());
    system.finish().await;
}

/// A message of two changes, of which the second is not understood: `from` is replaced by `to`. Other messages are
/// before and behind it.
fn around(user: i64, from: &str, to: &str) -> Vec<String> {
    let change = |number| message(&id(number), user, 1);
    let [known, unknown]: [Value; 2] =
        [change(1), change(2).replace(from, to)].map(|message| serde_json::from_str(&message).expect("JSON"));
    let both = json!({"version": 2, "deltas": [known["deltas"][0], unknown["deltas"][0]]}).to_string();
    [change(0), both].into_iter().chain((3..3 + BEHIND).map(change)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_understood_is_not_applied_in_part_and_blocks_its_partition_until_it_is_set_aside()
 {
    let system = System::new().await;
    let queues = declared(&system).await;
    let users = [0, 1].map(|wanted| (1..100).find(|user| partition(*user) == wanted).expect("a user"));
    publish(&queues, users[0], &around(users[0], "\"add\"", "\"grant\"")).await;
    publish(&queues, users[1], &around(users[1], "\"point\":", "\"until\":1,\"point\":")).await;
    let worker = worker(&system, "2");
    keeps(&worker, &[0, 1]).await;
    let ledger = |numbers: Vec<usize>| -> Promises {
        users.map(|user| (user, numbers.iter().copied().map(id).collect())).into()
    };
    assert_eq!(system.ledger().await, ledger(vec![0]));
    assert_eq!(queues.dead().await, 0);

    for (partition, what) in [("0", "unknown action grant"), ("1", "unknown member until")] {
        let (status, printed) = dead_letters(&system, &["set-aside", partition]).await;
        let expected = format!("set aside from partition {partition}: of a newer version: {what}; ");
        assert!(status.success() && printed.contains(&expected), "{printed}");
        assert!(!printed.contains("requested_at"), "a body is shown: {printed}");
    }
    eventually("the messages behind are applied", async || {
        system.ledger().await == ledger([0].into_iter().chain(3..3 + BEHIND).collect())
    })
    .await;
    eventually("all is well", async || readiness(&worker).await["state"] == "ready").await;

    has_dead(&queues, 2).await;
    let mut reasons: Vec<Value> =
        list(&system).await.iter().map(|letter| json!([letter["reason"], letter["redrivable"]])).collect();
    reasons.sort_by_key(Value::to_string);
    assert_eq!(
        reasons,
        [
            json!(["of a newer version: unknown action grant", false]),
            json!(["of a newer version: unknown member until", false])
        ]
    );
    let (status, printed) = dead_letters(&system, &["redrive", "--all"]).await;
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("2 dead letters are of a newer version"), "{printed}");
    assert!(!printed.contains("drop"), "{printed}");
    has_dead(&queues, 2).await;
    assert!(worker.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_row_a_newer_version_wrote_waits_for_a_worker_that_understands_it() {
    let mut system = System::new().await;
    let client = system.serve();
    let queues = declared(&system).await;
    let mut promises = vec![client.queue("add", 7, 1).await];
    system.execute("insert into user_point (user_id, format) values ('7', 3)").await;
    let worker = worker(&system, "2");
    worker.says("waits for a newer worker: the user's row has format 3").await;
    keeps(&worker, &[partition(7)]).await;
    let waited = client.change("add", 7, 5).header("Prefer", "wait");
    refused(waited, 503, "newer-version", None).await;
    promises.push(client.queue("add", 7, 2).await);
    assert_eq!(system.count("select count(*) from log").await, 0, "nothing is decided");
    system.execute("update user_point set format = 0 where user_id = '7'").await;
    system.drain(2).await;
    assert_eq!(system.ledger().await, Promises::from([(7, promises)]));
    assert_eq!(queues.dead().await, 0);
    assert!(worker.end("-TERM").await.success());
    system.finish().await;
}

/// A worker that has applied one change of user 7 and holds the next one, a session that locks the user's row until it is
/// dropped, and the request ids of the two changes.
async fn waiting_user(system: &System, client: &Client) -> (Process, Session, Vec<String>) {
    let mut promises = vec![client.queue("add", 7, 1).await];
    let worker = worker(system, "2");
    system.drain(1).await;
    let session = system.database.pool(1).get().await.expect("a connection");
    let lock = "reset all; begin; select from user_point where user_id = '7' for update";
    session.batch_execute(lock).await.expect("locked");
    promises.push(client.queue("add", 7, 2).await);
    worker.says("only this user's changes wait").await;
    (worker, session, promises)
}

/// Another user of the partition of user 7.
fn neighbour() -> i64 {
    (8..100).find(|user| partition(*user) == partition(7)).expect("a neighbour")
}

async fn waits(worker: &Process) -> bool {
    worker.metrics().await.contains("point_system_waiting_user_seconds{obstacle=\"locked\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_waits_before_a_message_that_is_not_understood_is_named_and_goes_on_at_once() {
    let mut system = System::new().await;
    let client = system.serve();
    let queues = declared(&system).await;
    let (worker, session, mut promises) = waiting_user(&system, &client).await;
    let newer = message(&id(0), 7, 3).replace("\"version\":2", "\"version\":3");
    queues.publish(partition(7), &newer).await;
    promises.push(id(0));
    worker.says("needs a newer worker: unknown version 3").await;
    promises.push(client.queue("add", 7, 4).await);
    let behind = vec![client.queue("add", neighbour(), 1).await];

    let began = Instant::now();
    let address = worker.says("metrics listen at ").await;
    let listener = Client::new(&format!("http://{address}"));
    eventually("it has waited for long", async || {
        for node in [&listener, &client] {
            let state = answer(node.get("/readyz")).await.1;
            assert!(state.get("silent_partitions").is_none(), "{state}");
        }
        assert!(waits(&worker).await, "the user is not named");
        began.elapsed() > LONG
    })
    .await;
    assert_eq!(system.ledger().await, Promises::from([(7, vec![promises[0].clone()])]));
    session.batch_execute("rollback").await.expect("unlocked");
    keeps(&worker, &[partition(7)]).await;
    assert_eq!(system.ledger().await, Promises::from([(7, promises[..2].to_vec())]));
    assert!(worker.metrics().await.contains("point_system_rabbitmq_connections_total{role=\"work\"} 1\n"));

    let new = self::worker(&system, "3");
    system.drain(5).await;
    assert_eq!(system.ledger().await, Promises::from([(7, promises), (neighbour(), behind)]));
    assert_eq!(queues.dead().await, 0);
    assert!(worker.end("-TERM").await.success() && new.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_waits_before_a_user_whose_row_is_newer_goes_on_at_once() {
    let mut system = System::new().await;
    let client = system.serve();
    let queues = declared(&system).await;
    let (worker, session, mut promises) = waiting_user(&system, &client).await;
    let newer = neighbour();
    system.execute(&format!("insert into user_point (user_id, format) values ('{newer}', 3)")).await;
    let behind = vec![client.queue("add", newer, 1).await];
    worker.says("needs a newer worker: the user's row has format 3").await;
    promises.push(client.queue("add", 7, 3).await);
    assert!(waits(&worker).await, "the user is not named");
    session.batch_execute("rollback").await.expect("unlocked");
    keeps(&worker, &[partition(7)]).await;
    assert_eq!(system.ledger().await, Promises::from([(7, promises[..2].to_vec())]));
    system.execute(&format!("update user_point set format = 0 where user_id = '{newer}'")).await;
    system.drain(4).await;
    assert_eq!(system.ledger().await, Promises::from([(7, promises), (newer, behind)]));
    assert_eq!(queues.dead().await, 0);
    assert!(worker.end("-TERM").await.success());
    system.finish().await;
}
