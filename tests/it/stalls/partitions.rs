//! One partition whose queue can't be used: the other partitions go on. The tests have their own servers, because users
//! and permissions belong to a broker.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use super::{queue_adds, users_of};
use crate::support::{
    client::{Client, answer, is_promised},
    proxy::detour,
    servers::OwnServers,
    system::{PARTITIONS, System, eventually},
};

/// The partition whose queue can't be used.
const BAD: u16 = 0;

/// Twice the confirm timeout of 5 s, and time for a busy machine. One after the other, the messages of the backlog would
/// take twice as long.
const BACKLOG_TIME_MAX: Duration = Duration::from_secs(20);

/// Queues adds for users of the other partitions, one by one, and waits until they are applied.
async fn the_others_go_on(system: &System, client: &Client, first: i64) {
    let users = || (first..first + 200).filter(|user| crate::support::queues::partition(*user) != BAD);
    for user in users() {
        client.queue("add", user, 1).await;
    }
    let applied =
        format!("select count(*) from log where user_id::bigint between {first} and {}", first + 199);
    let expected = i64::try_from(users().count()).expect("a small number");
    eventually("the other partitions are applied", async || system.count(&applied).await >= expected).await;
}

/// Suspends the process of the bad queue, or resumes it.
async fn bad_queue(servers: &OwnServers, system: &System, verb: &str) {
    let name = format!("'%2F_{}'", system.names().partition(BAD));
    servers.broker.control(&["eval", &format!("sys:{verb}({name}).")]).await.expect("done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_may_not_be_read_disturbs_no_other() {
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let client = system.serve();
    client.queue("add", 1, 1).await;
    let control = async |arguments: &[&str]| servers.broker.control(arguments).await.expect("done");
    control(&["add_user", "worker", "secret"]).await;
    // All permissions, except to read from the queue of one partition.
    let readable = format!(r"^{}\..*\.(deltas\.[1-9]|dead-letters)$", system.prefix);
    control(&["set_permissions", "worker", ".*", ".*", &readable]).await;
    let (broker, mut amqp_url) = detour(&system.amqp_url).await;
    amqp_url.set_username("worker").expect("a user");
    amqp_url.set_password(Some("secret")).expect("a password");
    system.node_amqp_url = Some(amqp_url.into());
    let work = system.process("work", &[]);
    for round in 1..=5 {
        the_others_go_on(&system, &client, round * 1_000).await;
    }
    let bad = users_of(BAD, 1).next().expect("a user");
    queue_adds(&client, [bad]).await;
    work.says("subscribing to partition 0").await;
    eventually("it is tried again, and then later", async || {
        work.printed().matches("subscribing to partition 0").count() >= 4
    })
    .await;
    assert_eq!(broker.accepted(), 1, "the connection lasts: {}", work.printed());
    let console = async || {
        let page = client.get("/console").send().await.expect("an answer");
        page.text().await.expect("text")
    };
    let why = "No worker takes changes from partition 0.";
    eventually("the console says so", async || console().await.contains(why)).await;
    control(&["set_permissions", "worker", ".*", ".*", ".*"]).await;
    eventually("the partition is applied", async || client.balance(bad).await >= 1).await;
    assert_eq!(broker.accepted(), 1);
    assert!(work.end("-TERM").await.success());
    system.finish().await;
    servers.stop().await;
}

/// Sends more changes at once than four messages can carry. Together they wait no longer than one: for the confirm of a
/// message, and then for that of another.
async fn a_backlog_is_refused_as_soon_as_one_change(client: &Client, user: i64) {
    let operation = |index| json!({"action": "add", "user_id": user.to_string(), "point": 1, "key": format!("backlog-{index}")});
    let batch = |batch| {
        let operations: Vec<_> = (batch * 1_000..(batch + 1) * 1_000).map(operation).collect();
        client.post("/v1/point/batch").json(&json!({"operations": operations}))
    };
    let began = Instant::now();
    for (status, answer) in join_all((0..4).map(|index| answer(batch(index)))).await {
        assert_eq!(status, 503, "{answer}");
    }
    assert!(began.elapsed() < BACKLOG_TIME_MAX, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_does_not_answer_disturbs_no_other() {
    let servers = OwnServers::start().await;
    let mut system = System::on_own(&servers).await;
    let (broker, amqp_url) = detour(&system.amqp_url).await;
    system.node_amqp_url = Some(amqp_url.into());
    let client = system.serve();
    system.work();
    let bad = users_of(BAD, 1).next().expect("a user");
    queue_adds(&client, 1..=40).await;
    system.drain(40).await;
    let connections = broker.accepted();
    bad_queue(&servers, &system, "suspend").await;
    // Until the bad partition has refused twice. Every other change gets its 202 at once.
    let refused = async |key: &str| {
        let change = client.change("add", bad, 1).header("Idempotency-Key", key);
        let (status, problem) = answer(change).await;
        assert_eq!(status, 503, "{problem}");
    };
    for round in [1, 2] {
        let key = format!("refused-{round}");
        tokio::join!(refused(&key), the_others_go_on(&system, &client, round * 1_000));
    }
    a_backlog_is_refused_as_soon_as_one_change(&client, bad).await;
    assert_eq!(broker.accepted(), connections, "no connection was given up");
    bad_queue(&servers, &system, "resume").await;
    let keyed = || client.change("add", bad, 1).header("Idempotency-Key", "accepted");
    eventually("it takes changes again", async || is_promised(keyed()).await).await;
    let entries = format!("select count(*) from log where user_id = '{bad}'");
    eventually("they are applied", async || system.count(&entries).await >= 2).await;
    the_others_go_on(&system, &client, 3_000).await;
    system.finish_drained().await;
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_while_a_queue_can_not_be_declared_use_the_others() {
    let system = System::new().await;
    system.queues().await.declare_foreign(BAD).await;
    let serve = system.process("serve", &["--listen", "127.0.0.1:0", "--startup-timeout", "15s"]);
    let work = system.process("work", &["--startup-timeout", "15s"]);
    let client = Client::new(&format!("http://127.0.0.1:{}", serve.says("server listen at :").await));
    the_others_go_on(&system, &client, 1_000).await;
    for node in [&serve, &work] {
        node.says("declaring the queues: PRECONDITION_FAILED").await;
    }
    let queue = system.names().partition(BAD);
    let (status, readiness) = answer(client.get("/readyz")).await;
    assert_eq!((status.as_u16(), &readiness["state"]), (200, &json!("degraded")), "{readiness}");
    assert_eq!(readiness["unusable_queues"], json!([queue]), "{readiness}");
    let bad = users_of(BAD, 1).next().expect("a user");
    let keyed = || client.change("add", bad, 1).header("Idempotency-Key", "accepted");
    assert_eq!(answer(keyed()).await.0, 503);
    system.queues().await.delete_partition(BAD).await;
    serve.says(&format!("queue {queue} can be used again")).await;
    eventually("the node is ready", async || answer(client.get("/readyz")).await.1["state"] == "ready").await;
    eventually("the partition takes changes", async || is_promised(keyed()).await).await;
    eventually("and they are applied", async || client.balance(bad).await == 1).await;
    assert!(serve.end("-TERM").await.success() && work.end("-TERM").await.success());
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_use_no_queue_says_why_and_ends() {
    let system = System::new().await;
    let queues = system.queues().await;
    for partition in PARTITIONS.all() {
        queues.declare_foreign(partition).await;
    }
    let (status, printed) = system.process("work", &["--startup-timeout", "5s"]).ends().await;
    assert!(!status.success() && printed.contains("PRECONDITION_FAILED"), "{printed}");
    assert!(printed.contains("gave up after 5 s (--startup-timeout)"), "{printed}");
    system.finish().await;
}
