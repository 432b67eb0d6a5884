//! Reads of the log: pages, times, past balances, and the cost of each.

use jiff::Timestamp;
use point_system::domain::{HistoryQuery, PAGE_MAX, POINTS_MAX, PointService, Status, UserId};
use proptest::test_runner::{Config, TestRunner};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    apply,
    http::refused,
    support::{
        client::{Client, answer, text},
        plans::{Explained, blocks},
        system::System,
    },
};

/// Writes `entries`, one second apart from 2026 on. Each is an add of 1, except that every hundredth is a rejected add
/// of more than fits. The audit at the end of the test proves that the apply path could have written them.
pub async fn fill(system: &System, user: i64, entries: i64) {
    let sql = format!(
        "insert into user_point (user_id, point, seq, updated_at) \
             values ('{user}', {entries} - {entries} / 100, {entries}, \
             timestamptz '2026-01-01Z' + ({entries} - 1) * interval '1 s'); \
         insert into log (user_id, seq, request_id, action, point, change, reject_reason, balance, fingerprint, \
             requested_at, created_at) \
             select '{user}', s, gen_random_uuid(), 'add', \
             case when s % 100 = 0 then {POINTS_MAX} else 1 end, \
             case when s % 100 = 0 then 0 else 1 end, \
             case when s % 100 = 0 then 'balance_limit' end, s - s / 100, 0, t, t \
         from generate_series(1, {entries}) s, \
             lateral (select timestamptz '2026-01-01Z' + (s - 1) * interval '1 s') as at (t)"
    );
    system.execute(&sql).await;
}

fn seqs(page: &Value) -> Vec<i64> {
    let entries = page["entries"].as_array().expect("entries").iter();
    entries.map(|entry| entry["seq"].as_i64().expect("a number")).collect()
}

async fn pages(client: &Client, path: &str) -> Vec<Vec<i64>> {
    client.pages(path).await.iter().map(seqs).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_page_by_page_newest_first() {
    let mut system = System::new().await;
    let client = system.serve();
    let mut expected = Vec::new();
    for (action, point) in [("add", 5), ("subtract", 9), ("add", 7), ("subtract", 2)] {
        let (_, entry) = answer(client.change(action, 7, point).header("Prefer", "wait")).await;
        expected.insert(0, entry["request_id"].clone());
    }
    let (status, log) = answer(client.get("/v1/point/log?id=7")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(seqs(&log), [4, 3, 2, 1]);
    let entries = log["entries"].as_array().expect("entries");
    let ids: Vec<Value> = entries.iter().map(|entry| entry["request_id"].clone()).collect();
    assert_eq!(ids, expected);
    let of = |index: usize, names: [&str; 4]| names.map(|name| entries[index][name].clone());
    let names = ["status", "reject_reason", "balance", "point"];
    assert_eq!(of(0, names), [json!("applied"), json!(null), json!(10), json!(2)]);
    assert_eq!(of(2, names), [json!("rejected"), json!("insufficient_points"), json!(5), json!(9)]);

    assert_eq!(pages(&client, "/v1/point/log?id=7&limit=2").await, [[4, 3], [2, 1]]);
    assert_eq!(pages(&client, "/v1/point/log?id=7&limit=3").await, [vec![4, 3, 2], vec![1]]);
    assert_eq!(pages(&client, "/v1/point/log?before=3&id=7&limit=1").await, [[2], [1]]);
    assert_eq!(pages(&client, "/v1/point/log?id=8").await, [[0; 0]], "of a user who was never seen");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_by_time_and_status() {
    let mut system = System::new().await;
    let client = system.serve();
    fill(&system, 7, 250).await;
    let log = async |rest: &str| pages(&client, &format!("/v1/point/log?id=7&limit=3&{rest}")).await.concat();
    assert_eq!(log("status=rejected").await, [200, 100]);
    assert_eq!(log("status=rejected&before=200").await, [100]);
    let applied = log("status=applied&before=250").await;
    assert_eq!((applied.len(), applied.contains(&100)), (247, false));
    let minute = "from=2026-01-01T00:01:00Z&to=2026-01-01T00:01:04Z";
    assert_eq!(log(minute).await, [64, 63, 62, 61], "from is the first, to is past the last");
    assert_eq!(log("from=2026-01-01T00:01:00.000000001Z&to=2026-01-01T00:01:02Z").await, [62]);
    assert_eq!(log("from=2026-01-01T00:01:00Z&to=2026-01-01T00:01:02.000000001Z").await, [63, 62, 61]);
    assert_eq!(log("from=2026-01-01T01:01:00%2B01:00&to=2026-01-01T00:01:02Z").await, [62, 61]);
    assert_eq!(log("to=2026-01-01T00:00:02Z").await, [2, 1]);
    assert_eq!(log("to=2026-01-01T00:00:00Z").await, [0; 0]);
    assert_eq!(log("from=2027-01-01T00:00:00Z").await, [0; 0]);
    assert_eq!(log("from=2026-01-01T00:02:00Z&to=2026-01-01T00:01:00Z").await, [0; 0]);
    assert_eq!(log("status=rejected&from=2026-01-01T00:01:40Z").await, [200]);
    system.finish().await;
}

/// The user's balance, without what is held, which a balance of the past does not say.
async fn balance(client: &Client) -> Value {
    let mut balance = answer(client.get("/v1/point?id=7")).await.1;
    assert_eq!(balance.as_object_mut().expect("an object").remove("held"), Some(json!(0)));
    balance
}

#[tokio::test(flavor = "multi_thread")]
async fn the_balance_of_the_past_is_what_was_read_then() {
    let mut system = System::new().await;
    let client = system.serve();
    let mut read = Vec::new();
    for point in 1..=9 {
        answer(client.change("add", 7, point).header("Prefer", "wait")).await;
        read.push(balance(&client).await);
    }
    for balance in &read {
        let at = text(&balance["updated_at"]);
        assert_eq!(answer(client.get(&format!("/v1/point?id=7&at={at}"))).await.1, *balance);
        let later: Timestamp = at.parse().expect("a time");
        let before = Timestamp::from_microsecond(later.as_microsecond() - 1).expect("a time");
        let earlier = client.get(&format!("/v1/point?id=7&at={before}"));
        if balance["seq"] == 1 {
            let problem = refused(earlier, 404, "unknown-user", None).await;
            assert!(text(&problem["detail"]).ends_with("at that time"), "{problem}");
        } else {
            let seq = balance["seq"].as_i64().expect("a number") - 1;
            assert_eq!(answer(earlier).await.1["seq"], seq);
        }
    }
    let future = answer(client.get("/v1/point?id=7&at=9999-01-01T00:00:00Z")).await;
    assert_eq!(future.1, read[8], "what is not past yet is what is now");
    refused(client.get("/v1/point?id=8&at=2026-11-01T00:00:00Z"), 404, "unknown-user", None).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_times_never_go_back_whatever_the_clock_does() {
    let mut system = System::new().await;
    let client = system.serve();
    fill(&system, 7, 3).await;
    let ahead = "update user_point set updated_at = '2099-01-01Z' where user_id = '7'";
    let ahead = format!("{ahead}; update log set created_at = '2099-01-01Z' where user_id = '7' and seq = 3");
    system.execute(&ahead).await;
    let (_, entry) = answer(client.change("add", 7, 1).header("Prefer", "wait")).await;
    assert_eq!(entry["created_at"], "2099-01-01T00:00:00Z");
    // A user whose times are ahead does not affect other users in the same transaction.
    let together = vec![apply::add(7, 1), apply::add(8, 1)];
    let outcomes = system.service(1).apply_deltas(together).await.expect("an answer");
    let times = outcomes.into_iter().map(|outcome| outcome.expect("applied").entry.created_at);
    let [held, free] = times.collect::<Vec<_>>().try_into().expect("two");
    assert!(held.to_string().starts_with("2099") && free <= Timestamp::now(), "{held} {free}");
    let at = async |time: &str| answer(client.get(&format!("/v1/point?id=7&at={time}"))).await.1;
    assert_eq!(at("2098-12-31T23:59:59Z").await["seq"], 2);
    assert_eq!(at("2099-01-01T00:00:00Z").await, balance(&client).await);
    system.finish().await;
}

/// Compares the domain's answers with a list in memory.
#[tokio::test(flavor = "multi_thread")]
async fn any_question_to_the_log_is_answered_as_a_list_would() {
    let system = System::new().await;
    let service = system.service(1);
    for (user, entries) in [(1, 1), (2, 2), (3, 317)] {
        fill(&system, user, entries).await;
    }
    let rng = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut any = |range: std::ops::Range<i64>| {
        use proptest::strategy::{Strategy, ValueTree};
        range.new_tree(&mut runner).expect("a number").current()
    };
    for _ in 0..300 {
        let (user, len) = [(1, 1), (2, 2), (3, 317), (4, 0)][usize::try_from(any(0..4)).expect("small")];
        let statuses = [None, Some(Status::Applied), Some(Status::Rejected)];
        let (from, to, before) = (any(-3..330), any(-3..330), any(1..330));
        let second =
            |second: i64| "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("a time").as_second() + second;
        let time = |at: i64| Timestamp::from_second(second(at)).expect("a time");
        let query = HistoryQuery {
            user_id: UserId::new("id", &user.to_string()).expect("positive"),
            limit: u16::try_from(any(1..7)).expect("small"),
            before: (before % 2 == 0).then_some(before),
            from: (from % 2 == 0).then(|| time(from)),
            to: (to % 3 == 0).then(|| time(to)),
            status: statuses[usize::try_from(any(0..3)).expect("small")],
            action: None,
        };
        let matching: Vec<i64> = (1..=len)
            .rev()
            .filter(|seq| query.before.is_none_or(|before| *seq < before))
            .filter(|seq| query.from.is_none_or(|from| time(seq - 1) >= from))
            .filter(|seq| query.to.is_none_or(|to| time(seq - 1) < to))
            .filter(|seq| query.status.is_none_or(|status| (status == Status::Rejected) == (seq % 100 == 0)))
            .collect();
        let limit = usize::from(query.limit);
        let page = service.history(query.clone()).await.expect("a page");
        let found: Vec<i64> = page.entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(found, matching[..limit.min(matching.len())], "{query:?}");
        assert_eq!(page.next, matching.get(limit).map(|_| matching[limit - 1]), "{query:?}");
        let balance = service.balance_at(query.user_id, time(from)).await.expect("an answer");
        let expected = (from >= 0 && len > 0).then(|| (from + 1).min(len));
        assert_eq!(balance.map(|balance| balance.seq), expected, "user {user} at {from}");
    }
    system.finish_without_queues().await;
}

/// The most consecutive rejections that a read of applied entries searches.
const APPLIED_SCAN_MAX: i64 = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_applied_entries_looks_through_a_bounded_part_of_the_log() {
    let system = System::new().await;
    fill(&system, 7, 25_099).await;
    let refusals = format!(
        "update log set point = {POINTS_MAX}, change = 0, reject_reason = 'balance_limit', balance = 50 \
         where seq > 50; update user_point set point = 50"
    );
    system.execute(&refusals).await;
    let service: PointService = system.service(1);
    let mut query = HistoryQuery {
        user_id: UserId::new("id", &7.to_string()).expect("positive"),
        limit: PAGE_MAX,
        before: None,
        from: None,
        to: None,
        status: Some(Status::Applied),
        action: None,
    };
    let (mut sizes, mut nexts) = (Vec::new(), Vec::new());
    loop {
        let page = service.history(query.clone()).await.expect("a page");
        sizes.push(page.entries.len());
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
        nexts.extend(page.next);
    }
    assert_eq!(sizes, [0, 0, 50]);
    assert_eq!(nexts, [25_100 - APPLIED_SCAN_MAX, 25_100 - 2 * APPLIED_SCAN_MAX]);
    system.finish_without_queues().await;
}

/// Counts the blocks that each statement of a request touches, as PostgreSQL reports them (`auto_explain`).
#[tokio::test(flavor = "multi_thread")]
async fn a_page_costs_the_same_in_a_long_log_as_in_a_short_one() {
    let system = System::new().await;
    // The size of the log is known, and the values of its columns are not. Without autovacuum, that stays so.
    system.execute("alter table log set (autovacuum_enabled = off)").await;
    fill(&system, 10, 10).await;
    fill(&system, 11, 100_000).await;
    system.execute("vacuum log").await;
    let explained = Explained::start(&system).await;
    let blocks = async |path: &str| {
        // A statement that is not prepared yet, and blocks that were never read, cost more.
        let mut of_requests = Vec::new();
        for _ in 0..3 {
            of_requests.push(blocks(&explained.plans(path).await));
        }
        of_requests.into_iter().min().expect("three")
    };
    let short = blocks("/v1/point/log?id=10").await;
    assert!((1..=8).contains(&short), "{short} blocks");
    for query in ["", "&before=50000", "&before=9", "&status=applied", "&limit=1"] {
        let long = blocks(&format!("/v1/point/log?id=11{query}")).await;
        assert!(long <= short + 4, "{long} blocks for {query:?}, {short} in a short log");
    }
    // Each of these entries is in a different block.
    let rejected = blocks("/v1/point/log?id=11&limit=10&status=rejected").await;
    assert!(rejected <= short + 11, "{rejected} blocks");
    // 18 look-ups of 4 blocks, and the rest of the last one.
    let at = blocks("/v1/point?id=11&at=2026-01-01T12:00:00Z").await;
    assert!((17..=20 * 4).contains(&at), "{at} blocks");
    explained.end().await;
    system.finish().await;
}
