//! The audit finds all damage, names it, and does not disturb the service.

use std::{collections::HashSet, sync::Arc};

use fastrand::Rng;
use point_system::domain::{AuditLimits, Finding, audit, audit_within};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{add, apply, subtract},
    support::system::{System, eventually},
};

mod damage;
mod holds;
mod kinds;
mod lots;
mod oracle;
mod transfers;

/// How often the database is damaged at random.
const ROUNDS: usize = 40;

/// Twelve users with 1 + 2 + 4 − 3, and a rejected 100: four applied entries and a rejected one each.
async fn filled() -> System {
    let system = System::new().await;
    let service = system.service(4);
    for user in 1..=12 {
        for change in [add(user, 1), add(user, 2), add(user, 4), subtract(user, 100), subtract(user, 3)] {
            apply(&service, &change).await;
        }
    }
    system
}

/// Sets one time for every entry, so that the findings are predictable.
const ONE_TIME: &str =
    "update log set created_at = '2026-11-01Z'; update user_point set updated_at = '2026-11-01Z'";

async fn findings(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    let report = audit(&system.pool, |_, _| {}, |finding| findings.push(finding)).await.expect("a report");
    assert_eq!(report.findings, findings.len() as u64);
    findings.sort_by_key(|finding| {
        (finding.user_id.parse::<i64>().unwrap_or(0), finding.seq.is_none(), finding.seq)
    });
    findings
}

/// The user, the entry and the column of each finding. The user's row counts as entry 0.
async fn places(system: &System) -> Vec<String> {
    let place = |finding: &Finding| {
        format!("{} {} {}", finding.user_id, finding.seq.unwrap_or_default(), finding.column)
    };
    findings(system).await.iter().map(place).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_damage_is_found_and_named() {
    let system = filled().await;
    let client = system.pool.get().await.expect("a connection");
    client.batch_execute(ONE_TIME).await.expect("rewritten");
    assert_eq!(findings(&system).await, []);
    client
        .batch_execute(
            "alter domain points drop constraint points_check;
             alter table log drop constraint log_user_id_request_id_key, drop constraint log_check;
             update log set balance = 8 where user_id = '1' and seq = 3;
             update log set point = 5 where user_id = '2' and seq = 2;
             delete from log where user_id = '3' and seq = 2;
             delete from log where user_id = '4' and seq = 5;
             update log set reject_reason = null where user_id = '5' and seq = 4;
             update log set action = 'subtract' where user_id = '6' and seq = 1;
             update user_point set point = 5 where user_id = '7';
             update user_point set seq = 6 where user_id = '8';
             delete from user_point where user_id = '9';
             delete from log where user_id = '10';
             update log set request_id = (select request_id from log where user_id = '11' and seq = 1)
                 where user_id = '11' and seq = 5;
             update log set balance = -4, change = -11, point = 11 where user_id = '12' and seq = 5;
             update user_point set point = 0 where user_id = '12'",
        )
        .await
        .expect("damaged");
    let found: Vec<String> = findings(&system).await.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "user 1: log entry 3: balance is 8, expected 7",
            "user 1: log entry 4: balance is 7, expected 8",
            "user 2: log entry 2: change is 2, expected 5",
            "user 3: log entry 3: seq is 3, expected 2",
            "user 3: log entry 3: balance is 7, expected 5",
            "user 4: user_point: point is 4, expected 7",
            "user 4: user_point: seq is 5, expected 4",
            "user 5: log entry 4: change is 0, expected -100",
            "user 6: log entry 1: change is 1, expected -1",
            "user 7: user_point: point is 5, expected 4",
            "user 8: user_point: seq is 6, expected 5",
            "user 9: user_point: point is missing, expected 4",
            "user 9: user_point: seq is missing, expected 5",
            "user 9: user_point: updated_at is missing, expected 2026-11-01T00:00:00Z",
            "user 10: user_point: point is 4, expected 0",
            "user 10: user_point: seq is 5, expected 0",
            &format!("user 11: log entry 5: request_id is {}, in 2 entries, expected in one entry", {
                let id = "select request_id::text from log where user_id = '11' and seq = 1";
                client.query_one(id, &[]).await.expect("an id").get::<_, String>(0)
            }),
            "user 12: log entry 5: balance is -4, expected 0 to 9007199254740991",
            "user 12: user_point: point is 0, expected -4",
        ]
    );
    drop(client);
    system.discard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_sum_can_see_is_found_and_named() {
    let system = filled().await;
    for statement in [ONE_TIME, damage::DROP_CONSTRAINTS] {
        system.execute(statement).await;
    }
    system
        .execute(
            r"update log set created_at = '2026-10-31Z' where user_id = '1' and seq = 2;
             update user_point set updated_at = '2026-11-02Z' where user_id = '2';
             update log set action = 'gift' where user_id = '3' and seq = 1;
             update log set reject_reason = E'\x1bpending' where user_id = '4' and seq = 4;
             update log set reject_reason = 'balance_limit' where user_id = '5' and seq = 4;
             update log set point = 1 where user_id = '6' and seq = 4;
             update log set point = 0 where user_id = '7' and seq = 4;
             update log set reason = E'a\tb', requested_at = 'infinity' where user_id = '8' and seq = 1;
             update log set created_at = null where user_id = '9' and seq = 5;
             insert into user_point (user_id) values ('é'); insert into user_point select * from user_point where user_id = '10'",
        )
        .await;
    let found: Vec<String> = findings(&system).await.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "user é: user_point: user_id is é, expected 1 to 64 visible ASCII characters",
            "user 1: log entry 2: created_at is 2026-10-31T00:00:00Z, expected 2026-11-01T00:00:00Z or later",
            "user 2: user_point: updated_at is 2026-11-02T00:00:00Z, expected 2026-11-01T00:00:00Z",
            "user 3: log entry 1: action is gift, expected a known action",
            r"user 4: log entry 4: reject_reason is \u{1b}pending, expected a reason that holds",
            "user 5: log entry 4: reject_reason is balance_limit, expected a reason that holds",
            "user 6: log entry 4: reject_reason is insufficient_points, expected a reason that holds",
            "user 7: log entry 4: point is 0, expected 1 to 9007199254740991",
            "user 7: log entry 4: reject_reason is insufficient_points, expected a reason that holds",
            "user 8: log entry 1: reason is a text with control characters, expected a text without control characters",
            "user 8: log entry 1: requested_at is infinity, expected a time before the year 10000",
            "user 9: log entry 5: created_at is missing, expected a time before the year 10000",
            "user 10: user_point: user_id is in 2 rows, expected in one row",
        ]
    );
    system.discard().await;
}

/// `hashint8extended` and similar functions fold a number to 32 bits: they give 1 and 2^32 the same hash.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_two_to_the_32_is_not_taken_for_one() {
    let system = System::new().await;
    apply(&system.service(1), &add(1, 1)).await;
    system.execute("update user_point set point = 4294967296 where user_id = '1'").await;
    let found: Vec<String> = findings(&system).await.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["user 1: user_point: point is 4294967296, expected 1"]);
    system.discard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_is_found_and_nothing_else() {
    let system = transfers::filled().await;
    system.execute(damage::DROP_CONSTRAINTS).await;
    system
        .execute(
            "create table sound_log as table log; create table sound_user_point as table user_point;
             create index on log (user_id, seq)",
        )
        .await;
    let mut found_any = 0;
    for _ in 0..ROUNDS {
        let seed = fastrand::u64(..);
        let mut rng = Rng::with_seed(seed);
        // In the order in which they were written, or in another order.
        let order = if rng.bool() { "created_at" } else { "md5(request_id::text)" };
        let restored = format!(
            "set synchronous_commit = off; delete from log; delete from user_point; insert into log select * from sound_log order by {order};
             insert into user_point table sound_user_point"
        );
        let damages: Vec<String> = (0..rng.usize(0..4)).map(|_| damage::statement(&mut rng)).collect();
        for statement in [&restored].into_iter().chain(&damages) {
            system.execute(statement).await;
        }
        // Little memory: the log is read several times, and users are examined one by one.
        let little = AuditLimits { users: rng.usize(2..20), early: rng.usize(1..40) };
        let limits = if rng.bool() { little } else { AuditLimits::default() };
        let told = format!("seed {seed}, {limits:?}, {order}, {damages:#?}");
        let mut found = Vec::new();
        let find = |finding: Finding| found.push((finding.user_id, finding.seq, finding.column.to_owned()));
        let report = audit_within(limits, &system.pool, |_, _| {}, find).await;
        let report = report.unwrap_or_else(|error| panic!("{error}: {told}"));
        found.sort();
        let expected = oracle::faults(&system).await;
        assert_eq!(found, expected, "{told}");
        assert_eq!(report.entries, system.count("select count(*) from log").await, "{told}");
        assert_eq!(report.users, system.count("select count(*) from user_point").await, "{told}");
        found_any += usize::from(!found.is_empty());
    }
    assert!((ROUNDS / 3..ROUNDS).contains(&found_any), "{found_any} of {ROUNDS} rounds found something");
    system.discard().await;
}

/// Whether or not there is room for another user's chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_without_entries_that_is_there_twice_is_reported_once() {
    let system = transfers::filled().await;
    system.execute(damage::DROP_CONSTRAINTS).await;
    let twice = "insert into user_point (user_id, point, seq) values ('97', 1, 0), ('97', 1, 0)";
    system.execute(twice).await;
    let expected = oracle::faults(&system).await;
    assert!(!expected.is_empty());
    for users in 2..=20 {
        let mut found = Vec::new();
        let find = |finding: Finding| found.push((finding.user_id, finding.seq, finding.column.to_owned()));
        let limits = AuditLimits { users, early: 40 };
        audit_within(limits, &system.pool, |_, _| {}, find).await.expect("a report");
        found.sort();
        assert_eq!(found, expected, "{users} users at once");
    }
    system.discard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_beside_writers_sees_one_moment_and_stops_nobody() {
    let system = System::new().await;
    let service = Arc::new(system.service(4));
    let mut writers = JoinSet::new();
    let enough = CancellationToken::new();
    for user in 1..=8 {
        let (service, enough) = (Arc::clone(&service), enough.clone());
        writers.spawn(async move {
            let mut written = 0;
            while !enough.is_cancelled() {
                apply(&service, &add(user, 1)).await;
                written += 1;
            }
            written
        });
    }
    let mut seen = HashSet::new();
    eventually("several audits have fallen between the writes", async || {
        let report = audit(&system.pool, |_, _| {}, |finding| panic!("{finding}")).await.expect("a report");
        seen.insert(report.entries);
        seen.len() > 5
    })
    .await;
    enough.cancel();
    let written: i64 = writers.join_all().await.into_iter().sum();
    assert_eq!(system.count("select count(*) from log").await, written, "nobody was stopped");
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_people_and_programs_alike() {
    let system = filled().await;
    let audit = async |arguments: &[&str]| {
        let (status, printed) = system.process("audit", arguments).ends().await;
        (status.code(), printed)
    };
    let (code, printed) = audit(&[]).await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.starts_with("60 entries of 12 users in ") && printed.ends_with(" s: 0 findings"),
        "{printed}"
    );
    let client = system.pool.get().await.expect("a connection");
    client.batch_execute("update user_point set point = 5 where user_id = '7'").await.expect("damaged");
    let (code, printed) = audit(&["--json"]).await;
    assert_eq!(code, Some(1), "{printed}");
    let finding: Value = serde_json::from_str(printed.lines().next().expect("a line")).expect("JSON");
    let expected = r#"{"user_id":"7","seq":null,"column":"point","expected":"4","found":"5"}"#;
    assert_eq!(finding, serde_json::from_str::<Value>(expected).expect("JSON"));
    drop(client);
    system.discard().await;
}
