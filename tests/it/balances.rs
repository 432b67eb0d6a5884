//! Reads of many balances: by ids and by prefix, and the cost of a page.

use point_system::domain::{Balance, BalancesQuery, UserId, UserIdPrefix};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use crate::{
    apply,
    http::refused,
    support::{
        client::{Client, answer, text},
        plans::{Explained, blocks},
        system::System,
    },
    user_ids::encoded,
};

/// Gives each of the users that a query selects a point. The audit at the end of the test proves that the apply path
/// could have written that.
async fn fill(system: &System, ids: &str) {
    let sql = format!(
        "insert into user_point (user_id, point, seq, updated_at) select id, 1, 1, '2026-01-01Z' from ({ids}) as of (id); \
         insert into log (user_id, seq, request_id, action, point, change, balance, fingerprint, requested_at, created_at) \
             select user_id, 1, gen_random_uuid(), 'add', 1, 1, 1, 0, updated_at, updated_at from user_point"
    );
    system.execute(&sql).await;
}

fn path_of(ids: &[impl AsRef<str>]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("id={}", encoded(id.as_ref()))).collect();
    format!("/v1/points?{}", ids.join("&"))
}

fn ids_of(page: &Value) -> Vec<String> {
    page["points"].as_array().expect("points").iter().map(|balance| text(&balance["user_id"])).collect()
}

/// The ids on all pages of a query.
async fn listed(client: &Client, query: &str) -> Vec<String> {
    let pages = client.pages(&format!("/v1/points?{query}")).await;
    assert!(pages.iter().all(|page| page["unknown"] == json!([])), "{query}");
    pages.iter().flat_map(ids_of).collect()
}

/// Byte by byte.
fn sorted<T: Ord + Clone>(ids: &[T]) -> Vec<T> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_are_read_at_once_in_the_order_of_the_request() {
    let mut system = System::new().await;
    let client = system.serve();
    let visible: String = ('!'..='~').collect();
    let ids = ["a&b=c+d%2F#?", "7", "07", &visible[..64], &visible[64..], "alice/coins", "%25", r#"\"{}[],"#];
    let mut balances = Vec::new();
    for (id, point) in ids.iter().zip(1..) {
        let change = client.post("/v1/point/add").json(&json!({"user_id": id, "point": point}));
        let (status, entry) = answer(change.header("Prefer", "wait")).await;
        assert_eq!((status.as_u16(), &entry["user_id"]), (200, &json!(id)), "{entry}");
        let (_, balance) = answer(client.get(&format!("/v1/point?id={}", encoded(id)))).await;
        assert_eq!((&balance["user_id"], &balance["point"]), (&json!(id), &json!(point)));
        balances.push(balance);
    }
    balances.reverse();
    let reversed: Vec<&str> = ids.iter().rev().copied().collect();
    let (status, read) = answer(client.get(&path_of(&reversed))).await;
    assert_eq!((status.as_u16(), read), (200, json!({"points": balances, "unknown": []})));
    let some = ["8", "7", "alice/", "ALICE/COINS", "alice/coins", "~"];
    let (_, read) = answer(client.get(&path_of(&some))).await;
    assert_eq!(ids_of(&read), ["7", "alice/coins"]);
    assert_eq!(read["unknown"], json!(["8", "alice/", "ALICE/COINS", "~"]));
    // The longest query: each character of an id takes three bytes.
    let longest: Vec<String> = (100..200).map(|number| format!("{}{number}", "%".repeat(61))).collect();
    let (status, read) = answer(client.get(&path_of(&longest))).await;
    assert_eq!((status.as_u16(), read), (200, json!({"points": [], "unknown": longest})));
    for id in ids {
        let expected: Vec<&str> = sorted(&ids).into_iter().filter(|other| other.starts_with(id)).collect();
        assert_eq!(listed(&client, &format!("prefix={}", encoded(id))).await, expected);
    }
    let head = client.head("/v1/points?prefix=&limit=1").send().await.expect("an answer");
    let link = head.headers()["link"].to_str().expect("text").to_owned();
    assert_eq!(link, format!("</v1/points?prefix=&limit=1&after={}>; rel=\"next\"", encoded(&visible[..64])));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_query_of_many_balances_is_refused_by_the_name_of_its_fault() {
    let mut system = System::new().await;
    let client = system.serve();
    let ids = (0..101).map(|id| format!("id={id}")).collect::<Vec<_>>().join("&");
    for (query, field) in [
        ("", "id"),
        ("limit=5", "id"),
        ("id=", "id"),
        ("id=1&id=a%20b", "id"),
        ("id=1&id=2&id=1", "id"),
        ("id=a/b&id=a%2Fb", "id"),
        (&ids, "id"),
        ("id=1&prefix=", "prefix"),
        ("id=1&after=1", "after"),
        ("id=1&limit=1", "limit"),
        ("id=1&at=2026-11-01T00:00:00Z", "at"),
        ("prefix=a%20b", "prefix"),
        ("prefix=%C3%A9", "prefix"),
        ("prefix=a&prefix=b", "prefix"),
        ("prefix=&after=", "after"),
        ("prefix=&after=%7F", "after"),
        ("prefix=&limit=0", "limit"),
        ("prefix=&limit=1001", "limit"),
        ("prefix=&before=1", "before"),
    ] {
        refused(client.get(&format!("/v1/points?{query}")), 400, "invalid-field", Some(field)).await;
    }
    assert_eq!(answer(client.get(&format!("/v1/points?{}", &ids[5..]))).await.0, 200, "100 ids");
    system.finish().await;
}

/// Compares the answers with a list in memory.
#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_prefix_have_each_of_its_users_once_and_in_order() {
    let mut system = System::new().await;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut any = |pattern: &str| {
        let texts = prop::string::string_regex(pattern).expect("a pattern");
        texts.new_tree(&mut runner).expect("a text").current()
    };
    let longest = "~".repeat(64);
    let made: Vec<String> = (0..300).map(|_| any(r"[!%_\\~Aa/]{1,4}")).chain([longest.clone()]).collect();
    let mut ids = sorted(&made);
    ids.dedup();
    fill(&system, &format!("values ('{}')", ids.join("'), ('"))).await;
    // A user whose first change is not written yet.
    system.execute("insert into user_point (user_id) values ('%new')").await;
    let service = system.service(1);
    for round in 0..300 {
        let prefix = if round == 0 { longest.clone() } else { any(r"[!%_\\~Aa/]{0,3}") };
        let after = if round % 2 == 0 { None } else { Some(any(r"[!%_\\~Aa/]{1,4}")) };
        let limit = 1 + round % 7;
        let matching =
            ids.iter().filter(|id| id.starts_with(&prefix) && after.as_ref().is_none_or(|after| *id > after));
        let matching: Vec<&String> = matching.collect();
        let query = BalancesQuery {
            prefix: UserIdPrefix::new("prefix", &prefix).expect("valid"),
            after: after.map(|after| UserId::new("after", &after).expect("valid")),
            limit: u16::try_from(limit).expect("small"),
        };
        let page = service.balances_page(query.clone()).await.expect("a page");
        let found: Vec<&str> = page.balances.iter().map(|balance| balance.user_id.as_str()).collect();
        assert_eq!(found, matching[..limit.min(matching.len())], "{query:?}");
        let next = matching.get(limit).map(|_| matching[limit - 1].as_str());
        assert_eq!(page.next.as_ref().map(UserId::as_str), next, "{query:?}");
    }
    let client = system.serve();
    assert_eq!(listed(&client, "prefix=&limit=13").await, ids);
    assert_eq!(listed(&client, "prefix=").await, ids, "50 a page by default");
    assert_eq!(listed(&client, "limit=1000&prefix").await, ids);
    for prefix in ["%", "_", "\\", "~", "~~", "%_\\", "a/", "A", "b"] {
        let expected: Vec<String> = ids.iter().filter(|id| id.starts_with(prefix)).cloned().collect();
        assert_eq!(
            listed(&client, &format!("prefix={}&limit=2", encoded(prefix))).await,
            expected,
            "{prefix}"
        );
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_balances_of_a_request_are_of_one_moment() {
    const ROUNDS: i64 = 300;
    let system = System::new().await;
    let service = system.service(2);
    let users = [1, 2].map(|user| UserId::new("id", &user.to_string()).expect("valid"));
    let points = |found: &[Option<Balance>]| -> Vec<i64> {
        found.iter().map(|found| found.as_ref().map_or(0, |balance| balance.point)).collect()
    };
    let write = async {
        for _ in 0..ROUNDS {
            // In one transaction.
            let results =
                service.apply_deltas(vec![apply::add(1, 1), apply::add(2, 1)]).await.expect("an answer");
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
    };
    let read = async {
        let mut reads = 0;
        loop {
            let found = points(&service.balances(users.to_vec()).await.expect("an answer"));
            assert_eq!(found[0], found[1], "read {reads}");
            if found[0] == ROUNDS {
                break reads;
            }
            reads += 1;
        }
    };
    let ((), reads) = tokio::join!(write, read);
    assert!(reads > 10, "{reads} reads met the changes");
    system.finish_without_queues().await;
}

/// Among 100,000 users, half of whom have the prefix and who were created in no order.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_balances_reads_its_part_of_the_index_and_no_more() {
    const PAGE: u64 = 50;
    let system = System::new().await;
    let explained = Explained::start(&system).await;
    let paths = ["", "&after=alice/025000", "&after=alice/049990", "&after=aaa", "&after=bob"];
    let page =
        async |prefix: &str, rest: &str| explained.plans(&format!("/v1/points?prefix={prefix}{rest}")).await;
    // The plan of a session is kept from its first page on, so it is made for an empty table.
    page("", "").await;
    fill(
        &system,
        "select case when n % 2 = 0 then 'alice/' else 'bob/' end || lpad((n / 2)::text, 6, '0') \
         from generate_series(0, 99999) n order by md5(n::text)",
    )
    .await;
    for analyzed in [false, true] {
        if analyzed {
            system.execute("analyze user_point").await;
        }
        for rest in paths {
            for prefix in ["", "alice/", "nobody/"] {
                let plans = page(prefix, rest).await;
                let name = format!("{prefix:?} {rest:?}, analyzed: {analyzed}: {plans}");
                assert!(plans.contains("Index Scan using user_point_pkey on user_point"), "{name}");
                assert!(!plans.contains("Sort"), "{name}");
                // Each user is in a block of its own, and the index has three levels.
                assert!((1..=PAGE + 10).contains(&blocks(&plans)), "{name}");
            }
        }
    }
    explained.end().await;
    system.finish().await;
}
