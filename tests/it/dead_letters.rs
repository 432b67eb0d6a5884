//! The role `dead-letters`: listing loses nothing, redriving applies once, and a kill in the middle loses nothing.

use std::{collections::BTreeSet, process::ExitStatus};

use point_system::queue::{DeadLetters, Link};
use serde_json::{Value, json};

use crate::support::{
    client::text,
    queues::{Queues, message, partition},
    system::{PATIENCE, System, eventually},
};

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// How often the dead letters are listed: more often than RabbitMQ 4 returns a message by default.
const LOOKS: usize = 30;

/// The number of dead letters that a command redrives before it is killed.
const MANY: usize = 500;

/// Runs the role to its end. Returns its exit status and everything that it printed.
pub async fn dead_letters(system: &System, arguments: &[&str]) -> (ExitStatus, String) {
    system.process("dead-letters", arguments).ends().await
}

/// The queues, once they are declared: an earlier message would get lost.
pub async fn declared(system: &System) -> Queues {
    assert!(list(system).await.is_empty());
    system.queues().await
}

pub async fn list(system: &System) -> Vec<Value> {
    let (status, printed) = dead_letters(system, &["list", "--json"]).await;
    assert!(status.success(), "{printed}");
    printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Makes the database refuse every delta of 666 points.
pub async fn refuse(system: &System) {
    system.execute("alter table log add constraint beast check (point <> 666)").await;
}

pub async fn accept(system: &System) {
    system.execute("alter table log drop constraint beast").await;
}

pub async fn has_dead(queues: &Queues, count: usize) {
    let what = format!("{count} dead letters");
    eventually(&what, async || queues.dead().await as usize == count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_listed_with_its_reason_however_often_one_looks() {
    let mut system = System::new().await;
    refuse(&system).await;
    let client = system.serve();
    system.work();
    let queues = declared(&system).await;
    let stranger = (1..100).find(|user| partition(*user) != partition(7)).expect("another");
    let wrong_version = message(ID, 7, 1).replace("\"version\":2", "\"version\":1");
    for body in ["not JSON", "", &message(ID, 7, 0), &wrong_version, &message(ID, stranger, 1)] {
        queues.publish(partition(7), body).await;
    }
    has_dead(&queues, 5).await;
    let refused = client.queue("add", 7, 666).await;
    has_dead(&queues, 6).await;
    queues.publish_dead("from elsewhere").await;
    queues.publish_dead(&message(ID, 7, 1)).await;
    has_dead(&queues, 8).await;
    let first = list(&system).await;
    let reasons: Vec<String> = first.iter().map(|letter| text(&letter["reason"])).collect();
    let partition_of_stranger = partition(stranger);
    assert_eq!(
        reasons,
        [
            "malformed: not a message of deltas: Syntax error at line 1 column 2",
            "malformed: not a message of deltas: Eof error at line 1 column 0",
            "malformed: point must be a whole number from 1 to 9007199254740991",
            "malformed: unknown version 1",
            &format!("in the wrong partition: user {stranger} belongs to partition {partition_of_stranger}"),
            "refused by the database, or set aside",
            "malformed: not a message of deltas: Syntax error at line 1 column 2",
            "not from a partition",
        ]
    );
    let last = &first[5];
    assert_eq!((&last["message_id"], &last["request_ids"]), (&json!(refused), &json!([refused])), "{last}");
    assert_eq!((&last["partition"], &last["deltas"]), (&json!(partition(7)), &json!(1)), "{last}");
    assert!(last["age_s"].as_i64().is_some_and(|age| age < 600), "{last}");
    let identity = |letters: &[Value]| -> Vec<Value> {
        letters.iter().map(|l| json!([l["position"], l["message_id"], l["died_at"], l["reason"]])).collect()
    };
    for _ in 0..LOOKS {
        assert_eq!(identity(&list(&system).await), identity(&first));
    }
    let (status, shown) = dead_letters(&system, &["show", &refused]).await;
    assert!(status.success() && shown.contains(r#""point":666"#), "{shown}");
    let (_, shown) = dead_letters(&system, &["show", "1"]).await;
    assert!(shown.lines().any(|line| line == "not JSON"), "{shown}");
    let (_, for_people) = dead_letters(&system, &["list"]).await;
    assert!(
        for_people.contains(&format!("refused by the database, or set aside; 1 delta: {refused}")),
        "{for_people}"
    );
    assert_eq!(identity(&list(&system).await), identity(&first));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_redriven_is_applied_once() {
    let mut system = System::new().await;
    refuse(&system).await;
    let client = system.serve();
    system.work();
    let queues = declared(&system).await;
    // The first delta of this message is applied before the second sends the message to the dead letters.
    let applied: Value = serde_json::from_str(&message(ID, 7, 1)).expect("JSON");
    let refused: Value = serde_json::from_str(&message(&ID.replace("01", "02"), 7, 666)).expect("JSON");
    let both = json!({"version": 2, "deltas": [applied["deltas"][0], refused["deltas"][0]]}).to_string();
    for body in [&both, &both, "not JSON"] {
        queues.publish(partition(7), body).await;
    }
    has_dead(&queues, 3).await;
    let named = client.queue("add", 8, 666).await;
    has_dead(&queues, 4).await;
    assert_eq!((client.balance(7).await, client.balance(8).await), (1, 0));

    let (status, printed) = dead_letters(&system, &["redrive", &named]).await;
    assert!(status.success() && printed.contains("1 redriven, 0 left"), "{printed}");
    has_dead(&queues, 4).await;
    assert_eq!(client.balance(8).await, 0, "refused again");
    accept(&system).await;
    let (status, printed) = dead_letters(&system, &["redrive", "4", &named, "nobody", "9"]).await;
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("not found: nobody, 9"), "{printed}");
    eventually("the named one is applied", async || client.balance(8).await == 666).await;
    let (status, printed) = dead_letters(&system, &["redrive", "--all"]).await;
    assert_eq!(status.code(), Some(1), "what can't be read stays: {printed}");
    assert!(printed.contains("2 redriven, 1 left"), "{printed}");
    eventually("both are taken", async || queues.waiting().await == 0).await;
    eventually("the refused one is applied", async || client.balance(7).await == 667).await;
    has_dead(&queues, 1).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redriving_that_is_killed_half_way_loses_and_doubles_nothing() {
    let mut system = System::new().await;
    refuse(&system).await;
    let worker = system.work();
    let queues = declared(&system).await;
    let id = |number: usize| format!("01890a5d-ac96-774b-bcce-{number:012}");
    let all: BTreeSet<String> = (0..MANY).map(id).collect();
    for (number, id) in all.iter().enumerate() {
        let user = 1 + i64::try_from(number % 20).expect("small");
        queues.publish(partition(user), &message(id, user, 666)).await;
    }
    has_dead(&queues, MANY).await;
    worker.cancel();
    accept(&system).await;

    let redrive = system.process("dead-letters", &["redrive", "--all"]);
    // What removes a dead letter is on its way to the broker before the next one is published.
    eventually("two are redriven", async || redrive.printed().matches("redriven ").count() > 1).await;
    assert!(!redrive.end("-KILL").await.success());
    let here = async || (queues.waiting().await + queues.dead().await) as usize;
    eventually("what it held is back", async || here().await >= MANY).await;
    eventually("they may be looked at again", async || dead_letters(&system, &["list"]).await.0.success())
        .await;
    system.work();
    let dead: BTreeSet<String> =
        list(&system).await.iter().map(|letter| text(&letter["request_ids"][0])).collect();
    assert!(!dead.is_empty() && dead.len() < MANY, "{} are left: not half way", dead.len());
    eventually("every message is applied or in the dead letters", async || {
        system.ledger().await.into_values().flatten().chain(dead.clone()).collect::<BTreeSet<_>>() == all
    })
    .await;

    let (status, printed) = dead_letters(&system, &["redrive", "--all"]).await;
    assert!(status.success(), "{printed}");
    system.drain(MANY).await;
    assert_eq!(queues.dead().await, 0);
    let ledger: Vec<String> = system.ledger().await.into_values().flatten().collect();
    assert_eq!(ledger.len(), MANY);
    assert_eq!(ledger.into_iter().collect::<BTreeSet<_>>(), all);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_dropped_unasked() {
    let mut system = System::new().await;
    system.work();
    let queues = declared(&system).await;
    for body in ["one", "two", "three"] {
        queues.publish(partition(7), body).await;
    }
    has_dead(&queues, 3).await;
    let (status, printed) = dead_letters(&system, &["drop", "--all"]).await;
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("--yes"), "{printed}");
    let (status, _) = dead_letters(&system, &["drop", "--yes"]).await;
    assert_eq!(status.code(), Some(2), "neither names nor --all");
    assert_eq!(queues.dead().await, 3);
    let (status, printed) = dead_letters(&system, &["drop", "2", "9", "--yes"]).await;
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("1 dropped") && printed.contains("not found: 9"), "{printed}");
    let (_, shown) = dead_letters(&system, &["show", "2"]).await;
    assert!(shown.lines().any(|line| line == "three"), "{shown}");
    let (status, printed) = dead_letters(&system, &["drop", "--all", "--yes"]).await;
    assert!(status.success() && printed.contains("2 dropped"), "{printed}");
    assert_eq!(queues.dead().await, 0);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_may_look_at_them() {
    let mut system = System::new().await;
    system.work();
    let queues = declared(&system).await;
    queues.publish(partition(7), "not JSON").await;
    has_dead(&queues, 1).await;
    let broker = system.node().broker;
    let link = Link::start(broker.url, system.names(), "test");
    let mut watch = link.watch();
    watch.ready(PATIENCE).await.expect("a connection");
    let mut letters = DeadLetters::open(&watch).await.expect("opened");
    assert!(letters.next().await.expect("an answer").is_some_and(|letter| letter.body == b"not JSON"));
    let (status, printed) = dead_letters(&system, &["drop", "1", "--yes"]).await;
    assert_eq!(status.code(), Some(1), "{printed}");
    let running = "the dead letters are open elsewhere";
    assert!(printed.contains(running), "{printed}");
    let (status, printed) = dead_letters(&system, &["set-aside", "0"]).await;
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains(running) && printed.contains("nothing was set aside"), "{printed}");
    letters.close().await.expect("closed");
    link.close().await;
    assert_eq!(list(&system).await.len(), 1);
    system.finish().await;
}
