//! Faults on the way to PostgreSQL, and in it.

use std::time::{Duration, Instant};

use super::{PROBE, Rig, queued, timed};
use crate::support::{
    proxy::Weather,
    system::{System, eventually},
};

/// The longest that a reader waits to learn that the database does not answer.
const REFUSAL_LIMIT: Duration = Duration::from_secs(8);

/// The longest that users stay locked after the node of their transaction has vanished.
const ABANDONED_LIMIT: Duration = Duration::from_secs(12);

impl Rig {
    async fn execute(&self, sql: &str) {
        let client = self.system.pool.get().await.expect("a connection");
        client.batch_execute(sql).await.expect(sql);
    }

    /// Ends all other sessions in the test's database.
    async fn terminate_sessions(&self) {
        self.system.pool.retain(|_, _| false);
        self.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
    }

    /// Reads a balance. Returns the status of the answer, and the time until it came.
    async fn read(&self) -> (u16, Duration) {
        timed(self.client.get("/v1/point?id=1")).await
    }

    /// Waits until reads are answered and more deltas are applied.
    async fn is_whole_again(&self) {
        let ended = Instant::now();
        eventually("a read", async || self.read().await.0 == 200).await;
        eprintln!("a read after {:?}", ended.elapsed());
        self.recovers("applied again").await;
    }

    /// Checks that reads are refused in time, while changes are still queued.
    async fn refuses_reads_and_takes_changes(&self) {
        let (status, after) = self.read().await;
        eprintln!("a read got {status} after {after:?}");
        assert!(status == 503 && after < REFUSAL_LIMIT, "{status} after {after:?}");
        let waited = timed(self.client.change("add", PROBE, 1).header("Prefer", "wait")).await;
        eprintln!("a waited-for change got {} after {:?}", waited.0, waited.1);
        let (status, after) = queued(&self.client, PROBE).await;
        assert!(status == 202 && after < Duration::from_secs(1), "{status} after {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_sessions_lose_and_double_nothing() {
    let rig = Rig::start().await;
    for _ in 0..5 {
        rig.terminate_sessions().await;
        rig.is_whole_again().await;
    }
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_database_that_break_anywhere_lose_and_double_nothing() {
    let rig = Rig::start().await;
    // From the first byte to some transactions. Each connection breaks at a random place, but the result must be the
    // same.
    for limit in [1, 200, 1_000, 3_000, 4_000, 6_000, 9_000, 20_000] {
        let before = rig.postgres.accepted();
        rig.postgres.turn(Weather::CutAfter(limit));
        rig.postgres.cut();
        eventually("some connections", async || rig.postgres.accepted() >= before + 8).await;
    }
    rig.postgres.turn(Weather::Fair);
    rig.is_whole_again().await;
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_costs_readers_seconds_and_writers_nothing() {
    let rig = Rig::start().await;
    rig.postgres.turn(Weather::Stalled);
    rig.refuses_reads_and_takes_changes().await;
    rig.refuses_reads_and_takes_changes().await;
    rig.postgres.turn(Weather::Fair);
    rig.is_whole_again().await;
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_falls_silent_at_the_start_of_a_session_is_given_up_too() {
    let rig = Rig::start().await;
    // The first exchange, such as the password's, succeeds. Then no statement is answered.
    rig.postgres.turn(Weather::StalledAfter(1));
    rig.postgres.cut();
    rig.refuses_reads_and_takes_changes().await;
    rig.refuses_reads_and_takes_changes().await;
    // The silent connections stay silent: new connections are needed.
    rig.postgres.halve();
    rig.postgres.turn(Weather::Fair);
    rig.is_whole_again().await;
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_only_we_still_hold_are_given_up() {
    let rig = Rig::start().await;
    rig.postgres.halve();
    rig.is_whole_again().await;
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_has_no_connection_left_is_waited_for() {
    let system = System::new().await;
    let (server, role) = (system.database.server(), system.prefix.clone());
    let on_server = async |sql: &str| {
        server.get().await.expect("a connection").batch_execute(sql).await.expect(sql);
    };
    on_server(&format!("create role {role} login password '{role}'")).await;
    let tables = system.pool.get().await.expect("a connection");
    tables
        .batch_execute(&format!("grant all on all tables in schema public to {role}"))
        .await
        .expect("granted");
    drop(tables);

    let rig = Rig::start_on(system, Some(&role)).await;
    on_server(&format!("alter role {role} connection limit 0")).await;
    rig.terminate_sessions().await;
    rig.refuses_reads_and_takes_changes().await;
    on_server(&format!("alter role {role} connection limit -1")).await;
    rig.is_whole_again().await;
    rig.keeps_its_promises().await;
    on_server(&format!("drop role {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_a_vanished_node_left_open_is_ended_before_long() {
    let rig = Rig::start().await;
    let open = "select count(*) from pg_stat_activity \
         where datname = current_database() and state = 'idle in transaction'";
    rig.postgres.turn(Weather::Slow(Duration::from_millis(20)));
    eventually("a transaction is caught in the middle", async || rig.system.count(open).await > 0).await;
    rig.postgres.turn(Weather::Stalled);
    rig.postgres.strand();
    rig.postgres.turn(Weather::Fair);
    let vanished = Instant::now();
    eventually("no transaction is left", async || rig.system.count(open).await == 0).await;
    eprintln!("no transaction is left after {:?}", vanished.elapsed());
    assert!(vanished.elapsed() < ABANDONED_LIMIT, "{:?}", vanished.elapsed());
    rig.is_whole_again().await;
    rig.keeps_its_promises().await;
}

/// SQLSTATEs of temporary failures: the first two ask for a retry, and the others are states of the server.
const PASSING: [(&str, &str); 7] = [
    ("40001", "serialization failure"),
    ("40P01", "deadlock detected"),
    ("55P03", "lock not available"),
    ("57014", "query canceled, as by statement_timeout"),
    ("53100", "disk full"),
    ("53200", "out of memory"),
    ("53300", "too many connections"),
];

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_pass_are_tried_again_until_they_have_passed() {
    let rig = Rig::start().await;
    for (state, what) in PASSING {
        // A sequence keeps its count even if the transaction is rolled back.
        rig.execute(&format!(
            "create sequence failures;
             create or replace function fail() returns trigger language plpgsql as $$ begin
                 if nextval('failures') <= 12 then raise exception '{what}' using errcode = '{state}'; end if;
                 return null;
             end $$;
             create trigger fail after insert on log for each statement execute function fail()"
        ))
        .await;
        let failed = "select last_value from failures";
        eventually(what, async || rig.system.count(failed).await > 12).await;
        rig.recovers(what).await;
        rig.execute("drop trigger fail on log; drop sequence failures").await;
    }
    rig.keeps_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_for_long_delays_its_users_only() {
    let rig = Rig::start().await;
    let first = rig.client.change("add", PROBE, 1).header("Prefer", "wait");
    assert_eq!(timed(first).await.0, 200);
    let session = rig.system.pool.get().await.expect("a connection");
    session.batch_execute("reset all; begin").await.expect("begun");
    let lock = "select from user_point where user_id in ('1', $1) order by user_id for update";
    assert_eq!(session.execute(lock, &[&PROBE.to_string()]).await.expect("locked"), 2);
    let waited = timed(rig.client.change("add", PROBE, 1).header("Prefer", "wait")).await;
    eprintln!("a change behind a lock got {} after {:?}", waited.0, waited.1);
    assert_eq!(waited.0, 503);
    assert_eq!(rig.read().await.0, 200, "a reader waits for no lock");
    session.batch_execute("rollback").await.expect("rolled back");
    drop(session);
    rig.recovers("applied after the lock").await;
    rig.keeps_its_promises().await;
}
