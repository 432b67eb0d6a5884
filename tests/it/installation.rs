//! The installation: it is made once, its number of partitions stays, and it shares no queue with another.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use point_system::domain::Partitions;
use serde_json::{Value, json};

use crate::{
    dead_letters::{dead_letters, has_dead, list},
    support::{
        client::answer,
        load::Load,
        process::run,
        servers::Database,
        system::{System, eventually},
    },
};

const LOAD: Load = Load { users: 40, changes_per_user: 10, connections: 16 };

/// The most operations of a batch.
const BATCH: i64 = 1_000;

/// The row of the installation, without the time.
async fn installation(database: &Database) -> (String, i32, i16) {
    let client = database.pool(1).get().await.expect("a connection");
    let row = client.query_one("select id, epoch, partitions from installation", &[]).await.expect("one row");
    (row.get(0), row.get(1), row.get(2))
}

async fn execute(database: &Database, statement: &str) {
    database.pool(1).get().await.expect("a connection").batch_execute(statement).await.expect(statement);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused_and_changes_nothing() {
    let database = Database::empty().await;
    let migrate = async |arguments: &[&str]| run("migrate", arguments, &database.url).await;
    let (code, printed) = migrate(&["--partitions", "8"]).await;
    assert!(code == Some(0) && printed.contains("its number of partitions is 8, for good"), "{printed}");
    let made = installation(&database).await;
    assert_eq!((made.1, made.2), (0, 8));
    assert!(printed.contains(&format!("made installation {}", made.0)), "{printed}");

    // As if a migration were pending: it is not even begun.
    execute(&database, "create table history as select * from refinery_schema_history").await;
    execute(&database, "delete from refinery_schema_history").await;
    for arguments in [&["--partitions", "4"][..], &["--check", "--partitions", "4"]] {
        let (code, printed) = migrate(arguments).await;
        assert_eq!(code, Some(1), "{printed}");
        let why = "the installation has 8 partitions and can't have 4: a user's changes keep their order only while";
        assert!(printed.contains(why), "{printed}");
    }
    execute(&database, "insert into refinery_schema_history select * from history").await;
    for kept in [&[][..], &["--partitions", "8"]] {
        assert_eq!(migrate(kept).await, (Some(0), "nothing to apply".to_owned()));
    }
    assert_eq!(installation(&database).await, made);
    let (code, printed) = migrate(&["--partitions", "3"]).await;
    assert!(code == Some(2) && printed.contains("must be 1, 2, 4, 8, 16, 32 or 64"), "{printed}");
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partitions_are_known_before_a_migration_that_the_row_needs() {
    let database = Database::empty().await;
    let migrate = async |arguments: &[&str]| run("migrate", arguments, &database.url).await;
    let (code, printed) = migrate(&["--partitions", "8"]).await;
    assert_eq!(code, Some(0), "{printed}");
    // As if a pending migration were to add the other columns that this version reads.
    execute(&database, "alter table installation rename epoch to era").await;
    assert_eq!(migrate(&["--check"]).await, (Some(0), "nothing is pending".to_owned()));
    for arguments in [&["--partitions", "4"][..], &["--check", "--partitions", "4"]] {
        let (code, printed) = migrate(arguments).await;
        assert!(code == Some(1) && printed.contains("has 8 partitions and can't have 4"), "{printed}");
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_migrations_at_once_make_one_installation() {
    let database = Database::empty().await;
    let asked = ["2", "16", "2", "16", "2", "16"];
    let migrate = async |count| run("migrate", &["--partitions", count], &database.url).await;
    let outputs = join_all(asked.map(migrate)).await;
    let (id, _, partitions) = installation(&database).await;
    let made = outputs.iter().filter(|(_, printed)| printed.contains(&format!("made installation {id}")));
    assert_eq!(made.count(), 1, "{outputs:?}");
    for (count, (code, printed)) in asked.iter().zip(&outputs) {
        let expected = i32::from(*count != partitions.to_string());
        assert_eq!(*code, Some(expected), "--partitions {count}, it has {partitions}: {printed}");
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_an_installation_says_what_to_run_and_ends() {
    let (empty, migrated) = (Database::empty().await, Database::migrated().await);
    let roles = [("serve", &["--listen", "127.0.0.1:0"][..]), ("work", &[]), ("dead-letters", &["list"])];
    for (role, arguments) in roles {
        let arguments = [arguments, &["--startup-timeout", "1s"]].concat();
        for (database, why) in [
            (
                &empty.url[..],
                "migrations are pending (V1__ledger_and_keys, V2__trace): run `point-system migrate`",
            ),
            (&migrated.url, "there is no installation yet: run `point-system migrate`"),
            ("postgres://app@127.0.0.1:1/points", "error connecting to server"),
        ] {
            let (code, printed) = run(role, &arguments, database).await;
            assert_eq!(code, Some(1), "{role}: {printed}");
            let told = printed.contains(why) && printed.contains("gave up after 1 s (--startup-timeout)");
            assert!(told && printed.contains("PostgreSQL at "), "{role}: {printed}");
        }
    }
    let pending = run("migrate", &["--check"], &migrated.url).await;
    assert!(pending.0 == Some(1) && pending.1.contains("pending: the installation"), "{pending:?}");
    empty.drop().await;
    migrated.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_waits_for_the_first_migrate_goes_on_after_it() {
    let system = System::new().await;
    system.execute("create table kept as select * from installation; delete from installation").await;
    let work = system.process("work", &["--metrics-listen", "127.0.0.1:0"]);
    work.says("there is no installation yet").await;
    assert!(work.metrics().await.contains(r#"point_system_ready{role="work"} 0"#));
    system.execute("insert into installation select * from kept").await;
    work.says(&format!("working on 4 partitions of installation {}", system.installation.id)).await;
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_with_one_broker_and_one_prefix_share_no_queue() {
    let (mut ours, mut theirs) = (System::new().await, System::new().await);
    theirs.prefix.clone_from(&ours.prefix);
    let (our_client, their_client) = (ours.serve(), theirs.serve());
    theirs.work();
    for point in 1..=20 {
        our_client.queue("add", point, 1).await;
        their_client.queue("add", point, 100).await;
    }
    theirs.drain(20).await;
    let (our_queues, their_queues) = (ours.queues().await, theirs.queues().await);
    assert_eq!(ours.ledger().await.len(), 0, "nobody works for us yet");
    assert_eq!(their_client.balance(7).await, 100);

    their_queues.publish(0, "not JSON").await;
    has_dead(&their_queues, 1).await;
    assert_eq!((list(&ours).await.len(), our_queues.dead().await), (0, 0));
    let (status, printed) = dead_letters(&theirs, &["drop", "--all", "--yes"]).await;
    assert!(status.success() && printed.contains("1 dropped"), "{printed}");

    ours.work();
    ours.drain(20).await;
    assert_eq!(our_client.balance(7).await, 1);
    let names = |system: &System| -> BTreeSet<String> {
        let names = system.names();
        system.partitions().all().map(|p| names.partition(p)).chain([names.dead_letters()]).collect()
    };
    assert!(names(&ours).is_disjoint(&names(&theirs)));
    theirs.finish().await;
    ours.finish().await;
}

/// Starts nodes with `count` partitions, and checks that the flow keeps its promises.
async fn the_flow_works_with(count: u16) {
    let mut system = System::with(Partitions::new(count).expect("valid")).await;
    let client = system.serve();
    // An idle node has room for the largest batch of one user, whatever its partition.
    let add = json!({"action": "add", "user_id": 1_000, "point": 1});
    let operations: Vec<Value> = (0..BATCH).map(|_| add.clone()).collect();
    let batch = client.post("/v1/point/batch").json(&json!({"operations": operations}));
    let (status, problem) = answer(batch).await;
    assert_eq!(status, 202, "{problem}");
    let work = |concurrency: &'static str| {
        system.process("work", &["--concurrency", concurrency, "--metrics-listen", "127.0.0.1:0"])
    };
    let (first, second) = (work("1"), work("16"));
    for worker in [&first, &second] {
        worker.says(&format!("working on {count} partitions")).await;
    }
    let promises = LOAD.run(&client).await;
    // Its partitions go to the other worker, with what it had not acked.
    assert!(!first.end("-KILL").await.success());
    let batch = usize::try_from(BATCH).expect("a small number");
    system.drain(LOAD.changes() + batch).await;
    let mut ledger = system.ledger().await;
    assert_eq!(ledger.remove(&1_000).map(|ids| ids.len()), Some(batch));
    assert_eq!(ledger, promises, "{count} partitions");
    let series = |name: &str, metrics: &str| metrics.matches(&format!("\n{name}{{partition=")).count();
    eventually("every partition has its metrics", async || {
        let metrics = second.metrics().await;
        let names = ["point_system_queue_consumers", "point_system_oldest_delta_age_seconds"];
        names.iter().all(|name| series(name, &metrics) == usize::from(count))
    })
    .await;
    let most = r#"point_system_pool_connections_max{role="work"} 21"#;
    assert!(second.metrics().await.contains(most), "16, four and one, whatever the number of partitions");
    assert!(second.end("-TERM").await.success());
    // What the first worker had committed and not acked comes again.
    system.finish_drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flow_keeps_its_promises_with_one_partition() {
    the_flow_works_with(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flow_keeps_its_promises_with_eight_partitions() {
    the_flow_works_with(8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flow_keeps_its_promises_with_64_partitions() {
    the_flow_works_with(64).await;
}
