//! What the pages of a user cost: the rows that PostgreSQL reads for them, in a short log and in a long one.

use std::sync::LazyLock;

use point_system::domain::{Action, HistoryQuery, UserId};
use regex::Regex;

use super::Visitor;
use crate::{
    history::fill,
    support::{
        plans::{Explained, blocks},
        system::System,
    },
};

/// The most entries that a search for one action reads at once.
const ACTION_SCAN_MAX: i64 = 5_000;

/// The rows that the nodes of all plans have read, those included that a filter has removed.
fn rows(plans: &str) -> u64 {
    static ROWS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"rows=(\d+)(?:\.\d+)? loops=(\d+)\)|Rows Removed by \w+: (\d+)").expect("valid")
    });
    let number = |found: Option<regex::Match<'_>>| {
        found.map_or(1, |text| text.as_str().parse::<u64>().expect("a number"))
    };
    ROWS.captures_iter(plans)
        .map(|found| match found.get(3) {
            Some(removed) => number(Some(removed)),
            None => number(found.get(1)) * number(found.get(2)),
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_many_entries_costs_no_more_than_one_with_some() {
    let system = System::new().await;
    fill(&system, 10, 10).await;
    fill(&system, 11, 2_000).await;
    fill(&system, 12, 100_000).await;
    // Most users have few entries. PostgreSQL must not take that for a reason to read all entries of any user.
    system
        .execute(
            "insert into user_point (user_id, point, seq) \
                 select (1000 + i)::text, 3, 3 from generate_series(1, 30000) as i; \
             insert into log (user_id, seq, request_id, action, point, change, balance, fingerprint, \
                 requested_at, created_at) \
                 select (1000 + i)::text, s, gen_random_uuid(), 'add', 1, 1, s, 0, now(), now() \
                 from generate_series(1, 30000) as i, generate_series(1, 3) as s; \
             analyze user_point, log",
        )
        .await;
    let explained = Explained::start(&system).await;
    let cost = async |path: &str| {
        let mut costs = Vec::new();
        for _ in 0..2 {
            let plans = explained.plans(path).await;
            costs.push((rows(&plans), blocks(&plans)));
        }
        costs.into_iter().min().expect("two")
    };
    let (few, _) = cost("/console/user?id=10").await;
    assert!((10..100).contains(&few), "{few} rows");
    let (some, blocks_of_some) = cost("/console/user?id=11").await;
    assert!(some < 2_000, "{some} rows");
    for query in
        ["", "&status=rejected", "&before=50000", "&range=day", "&range=year", "&from=2026-01-01T10:00:00Z"]
    {
        let (long, blocks) = cost(&format!("/console/user?id=12{query}")).await;
        assert!(long < some + 300, "{long} rows for {query:?}, {some} in a shorter log");
        assert!(
            blocks < blocks_of_some + 500,
            "{blocks} blocks for {query:?}, {blocks_of_some} in a shorter log"
        );
    }
    let bound = u64::try_from(ACTION_SCAN_MAX).expect("positive");
    for query in ["&action=subtract", "&action=subtract&status=rejected", "&action=subtract&status=applied"] {
        let (rows, _) = cost(&format!("/console/user?id=12{query}")).await;
        assert!(rows < bound + some + 300, "{rows} rows for {query:?}");
    }
    explained.end().await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_matches_nothing_searches_a_bounded_part_and_says_how_far() {
    let mut system = System::new().await;
    fill(&system, 7, 12_345).await;
    let service = system.service(1);
    let user_id = UserId::new("id", "7").expect("valid");
    let mut query = HistoryQuery {
        user_id,
        limit: 10,
        before: None,
        from: None,
        to: None,
        status: None,
        action: Some(Action::Hold),
    };
    let mut nexts = Vec::new();
    loop {
        let page = service.history(query.clone()).await.expect("a page");
        assert!(page.entries.is_empty());
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
        nexts.extend(page.next);
    }
    assert_eq!(nexts, [12_346 - ACTION_SCAN_MAX, 12_346 - 2 * ACTION_SCAN_MAX]);
    drop(service);
    let visitor = Visitor::new(&system.serve());
    let page = visitor.read("/console/user?id=7&action=hold").await;
    assert!(
        page.contains("Searched back to entry 7,346, of ") && page.contains("Search further back"),
        "{page}"
    );
    assert!(
        page.contains("before=7346") && page.contains(r#"hx-trigger="click""#),
        "it goes on when asked: {page}"
    );
    let last = visitor.read("/console/user?id=7&action=hold&before=2346").await;
    assert!(last.contains("No further entry matches the filter") && !last.contains("Searched"), "{last}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_has_every_entry_of_a_short_range_and_a_sample_of_a_long_one() {
    let mut system = System::new().await;
    fill(&system, 7, 90).await;
    fill(&system, 8, 10_000).await;
    let visitor = Visitor::new(&system.serve());
    let points = async |path: &str| {
        let page = visitor.read(path).await;
        let course = page.split(r#"data-course=""#).nth(1).and_then(|rest| rest.split('"').next());
        let course: Vec<[i64; 2]> = serde_json::from_str(course.expect("a chart")).expect("JSON");
        (course, page)
    };
    let (short, page) = points("/console/user?id=7").await;
    let balances: Vec<i64> = short.iter().map(|[_, balance]| *balance).collect();
    assert_eq!(balances, (1..=90).chain([90]).collect::<Vec<_>>(), "and the balance until now");
    assert!(short.is_sorted() && page.contains("The chart shows every entry of the range."), "{page}");
    let (long, page) = points("/console/user?id=8").await;
    assert_eq!((long.len(), long[0][1], long[199][1], long[200][1]), (201, 1, 9_900, 9_900));
    assert!(page.contains("200 of 10,000 entries, at equal intervals"), "{page}");
    let (recent, _) = points("/console/user?id=8&range=day").await;
    assert_eq!(recent.len(), 2, "one balance since the beginning of the range: the last before it");
    let day = recent[1][0] - recent[0][0] - 24 * 3_600_000;
    assert!((0..60_000).contains(&day), "from a day ago until now");
    system.finish().await;
}
