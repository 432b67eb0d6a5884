//! The role `migrate`, as a deployment runs it.

use futures_util::future::join_all;
use point_system::infra::{
    migrate,
    postgres::{Client, Pool},
};
use refinery::Migration;

use crate::support::{
    process::{Process, run},
    servers::Database,
    system::{PATIENCE, System, eventually},
};

/// Enough for a second attempt at a locked table.
const SHORT_PATIENCE: &str = "5s";

async fn migrate(url: &str, arguments: &[&str]) -> (Option<i32>, String) {
    run("migrate", arguments, url).await
}

/// Our migrations and another one.
fn migrations_and(sql: &str) -> Vec<Migration> {
    let more = Migration::unapplied("V1000__more", sql).expect("a migration");
    [migrate::migrations(), vec![more]].concat()
}

/// An `alter table` locks out all other sessions, so it waits for every session that uses the table.
fn migrations_that_lock() -> Vec<Migration> {
    migrations_and("alter table user_point add column note text; alter table log add column note text")
}

/// A transaction that uses the tables and stays open.
async fn in_use(database: &Database) -> Client {
    let open = database.pool(1).get().await.expect("a connection");
    open.batch_execute("set idle_in_transaction_session_timeout = 0").await.expect("set");
    open.batch_execute("begin; select from user_point; select from log").await.expect("begun");
    open
}

const WAITING: &str = "select count(*) from pg_stat_activity \
     where datname = current_database() and wait_event_type = 'Lock' and query like 'alter table%'";

const ADVISORY_LOCKS: &str = "select count(*) from pg_locks where locktype = 'advisory' \
     and database = (select oid from pg_database where datname = current_database())";

async fn count(pool: &Pool, query: &str) -> i64 {
    pool.get().await.expect("a connection").query_one(query, &[]).await.expect(query).get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_migrate_at_once_and_one_applies() {
    let database = Database::empty().await;
    let before = migrate(&database.url, &["--check"]).await;
    assert_eq!(before.0, Some(1), "{}", before.1);
    assert!(before.1.contains("pending: V1__ledger_and_keys"), "{}", before.1);
    let outputs = join_all((0..8).map(|_| migrate(&database.url, &[]))).await;
    assert!(outputs.iter().all(|(code, _)| *code == Some(0)), "{outputs:?}");
    let made = outputs.iter().filter(|(_, printed)| printed.contains("made installation"));
    assert_eq!(made.count(), 1);
    let applied = outputs.iter().filter(|(_, printed)| printed.contains("applied V1__ledger_and_keys"));
    assert_eq!(applied.count(), 1);
    assert_eq!(migrate(&database.url, &["--check"]).await, (Some(0), "nothing is pending".to_owned()));
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let url = "postgres://app:hush@127.0.0.1:1/points";
    let (code, printed) = migrate(url, &["--startup-timeout", "1s"]).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("127.0.0.1:1/points") && printed.contains("--startup-timeout"), "{printed}");
    assert!(!printed.contains("hush"), "{printed}");
}

/// The service goes on while a migration waits for an open transaction, however long that takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_a_table_lets_the_service_go_on() {
    let mut system = System::new().await;
    let client = system.serve();
    let open = in_use(&system.database).await;
    let pool = system.database.pool(2);
    let migrating =
        tokio::spawn(async move { migrate::apply(&pool, &migrations_that_lock(), PATIENCE * 10).await });
    for changes in 1..=3 {
        eventually("the migration waits", async || system.count(WAITING).await > 0).await;
        let key = format!("change {changes}");
        eventually("a change is applied", async || {
            let change = client.change("add", 7, 1).header("Prefer", "wait").header("Idempotency-Key", &key);
            change.send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        assert_eq!(client.balance(7).await, changes);
    }
    assert!(!migrating.is_finished(), "the transaction is still open");
    open.batch_execute("rollback").await.expect("ended");
    assert_eq!(migrating.await.expect("no panic").expect("migrations"), ["V1000__more"]);
    assert_eq!(system.count("select count(note) from log").await, 0);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_locks_a_table_is_named_and_waited_for() {
    let database = Database::empty().await;
    let open = database.pool(1).get().await.expect("a connection");
    let begin = "set idle_in_transaction_session_timeout = 0; set application_name = 'a report'; \
         create table refinery_schema_history ( \
             version int4 primary key, name varchar(255), applied_on varchar(255), checksum varchar(255)); \
         begin; lock table refinery_schema_history";
    for statement in begin.split("; ") {
        open.batch_execute(statement).await.expect(statement);
    }
    let pid: i32 = open.query_one("select pg_backend_pid()", &[]).await.expect("a number").get(0);
    let named = format!("a table is locked by session {pid} (a report, in its transaction for ");

    let (code, printed) = migrate(&database.url, &["--startup-timeout", SHORT_PATIENCE]).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(
        printed.contains("gave up after 5 s (--startup-timeout): ") && printed.contains(&named),
        "{printed}"
    );

    let process = Process::start("migrate", &[], |command| {
        command.env("DATABASE_URL", &database.url);
    });
    process.says(&named).await;
    open.batch_execute("rollback").await.expect("ended");
    let (status, printed) = process.ends().await;
    assert!(status.success() && printed.contains("applied V1__ledger_and_keys"), "{printed}");
    database.drop().await;
}

/// The lock remains neither in a connection that others get, nor in one that was dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_or_is_given_up_leaves_no_lock() {
    let database = Database::migrated().await;
    let (pool, others) = (database.pool(1), database.pool(1));
    let broken = migrations_and("create table half (); select 1 / 0");
    assert!(migrate::apply(&pool, &broken, PATIENCE).await.is_err());
    assert_eq!(count(&others, ADVISORY_LOCKS).await, 0);
    assert_eq!(count(&others, "select count(*) from pg_tables where tablename = 'half'").await, 0);

    let open = in_use(&database).await;
    let migrations = migrations_that_lock();
    tokio::select! {
        result = migrate::apply(&pool, &migrations, PATIENCE) => panic!("{result:?}"),
        () = eventually("it waits", async || count(&others, WAITING).await > 0) => {}
    }
    eventually("the lock is free", async || count(&others, ADVISORY_LOCKS).await == 0).await;
    open.batch_execute("rollback").await.expect("ended");
    assert_eq!(migrate::apply(&pool, &migrations, PATIENCE).await.expect("migrations"), ["V1000__more"]);
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_encoding_is_refused_by_every_role_that_writes() {
    let database = Database::encoded("LATIN1").await;
    for (role, arguments) in [("migrate", &[][..]), ("serve", &["--listen", "127.0.0.1:0"]), ("work", &[])] {
        let (code, printed) = run(role, arguments, &database.url).await;
        assert_eq!(code, Some(1), "{role}: {printed}");
        let told = printed.contains("the encoding of the database is LATIN1: it must be UTF8");
        assert!(told && !printed.contains("trying again"), "{role}: {printed}");
    }
    database.drop().await;
}
