//! The search for users, the page of a user and its log, and hostile texts on them.

use serde_json::{Value, json};

use super::{
    Visitor, header,
    letters::{HOSTILE, is_harmless},
    shown,
};
use crate::{
    history::fill,
    support::{
        client::{Client, answer, text},
        system::System,
    },
};

/// A change that has been decided.
pub async fn settled(client: &Client, action: &str, members: &Value) -> Value {
    answer(client.send(action, members).header("Prefer", "wait")).await.1
}

/// A path with encoded parameters.
pub fn path(path: &str, query: &[(&str, &str)]) -> String {
    format!("{path}?{}", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish())
}

/// The numbers of the entries on a page, in its order.
fn seqs(page: &str) -> Vec<i64> {
    let ids = page.split(r#"id="entry-"#).skip(1);
    ids.map(|rest| rest.split('"').next().and_then(|seq| seq.parse().ok()).expect("a number")).collect()
}

/// Where the link to older entries leads.
fn older(page: &str) -> Option<String> {
    let (before, _) = page.split_once(r#"" hx-get="#)?;
    Some(before.rsplit('"').next().expect("an address").replace("&amp;", "&"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_found_by_an_id_or_its_beginning() {
    let mut system = System::new().await;
    let client = system.serve();
    let visitor = Visitor::new(&client);
    let odd = ["a?b#c", "..", "%2E%2E", "a&b=c", "a+b", "<script>", "\"'>", "//evil.example", "\\"];
    for id in ["alice/coins", "alice/gems", "alice"].iter().chain(&odd) {
        settled(&client, "add", &json!({"user_id": id, "point": 1_234})).await;
    }
    let page = visitor.read("/console/users?id=alice").await;
    let places: Vec<_> =
        [">alice<", ">alice/coins<", ">alice/gems<"].map(|id| page.find(id)).into_iter().collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{page}");
    assert!(page.contains("1,234") && page.contains("exact") && !page.contains("evil"), "{page}");
    assert!(visitor.read("/console/users?id=nobody").await.contains("No user id begins with"));
    for id in odd.into_iter().chain(["alice/gems"]) {
        let found = visitor.get(&path("/console/users", &[("id", id)])).send().await.expect("an answer");
        let to = header(&found, "Location").to_owned();
        assert_eq!(
            (found.status().as_u16(), to.as_str()),
            (303, path("/console/user", &[("id", id)]).as_str())
        );
        let page = visitor.read(&to).await;
        let escaped =
            id.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        assert!(page.contains(&format!(r#"<h1 class="mono">{escaped}</h1>"#)), "{id}: {page}");
        assert_eq!(seqs(&page), [1]);
    }
    let (status, page) = shown(visitor.get("/console/users?id=a%20b")).await;
    assert!(status == 400 && page.contains("visible ASCII"), "{page}");
    let nobody = visitor.read("/console/user?id=nobody").await;
    assert!(nobody.contains("This user has no entries") && nobody.contains("action=add"), "{nobody}");
    let lost = visitor.get("/console/user").send().await.expect("an answer");
    assert_eq!((lost.status().as_u16(), header(&lost, "Location")), (303, "/console/users"));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_are_listed_page_by_page() {
    let mut system = System::new().await;
    let visitor = Visitor::new(&system.serve());
    system
        .execute(
            "insert into user_point (user_id, point, seq) select 'u' || n, 1, 1 from generate_series(100, 219) n; \
             insert into log (user_id, seq, request_id, action, point, change, balance, fingerprint, requested_at, \
                 created_at) select user_id, 1, gen_random_uuid(), 'add', 1, 1, 1, 0, updated_at, updated_at from user_point",
        )
        .await;
    let (mut next, mut ids) = (Some("/console/users?id=u".to_owned()), Vec::new());
    while let Some(place) = next {
        let page = visitor.read(&place).await;
        let links = page.split(r#"<a class="mono" href="/console/user?id="#).skip(1);
        ids.extend(links.map(|rest| rest.split('"').next().expect("an id").to_owned()));
        let button = page.split_once(r#"<a class="button" href=""#).map(|(_, rest)| rest);
        next = button.map(|rest| rest.split('"').next().expect("an address").replace("&amp;", "&"));
    }
    assert_eq!(ids, (100..220).map(|n| format!("u{n}")).collect::<Vec<_>>());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_filtered_and_read_to_its_beginning_without_scripts() {
    let mut system = System::new().await;
    let visitor = Visitor::new(&system.serve());
    fill(&system, 7, 250).await;
    let page = visitor.read("/console/user?id=7").await;
    for part in ["248", "points", "Balance over time", "<canvas", "250"] {
        assert_eq!(page.contains(part), part != "<canvas", "{part}: {page}");
    }
    let all = async |query: &str| {
        let (mut next, mut found) = (Some(format!("/console/user?id=7{query}")), Vec::new());
        let mut last = String::new();
        while let Some(path) = next {
            last = visitor.read(&path).await;
            found.push(seqs(&last));
            next = older(&last);
        }
        (found, last)
    };
    let (pages, last) = all("").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [50; 5]);
    assert_eq!(pages.concat(), (1..=250).rev().collect::<Vec<_>>());
    assert!(
        last.contains("This is the beginning of the log") && last.contains("Back to the newest"),
        "{last}"
    );

    assert_eq!(all("&status=rejected").await.0, [[200, 100]]);
    assert_eq!(all("&status=applied&action=add").await.0.concat().len(), 248);
    let (none, page) = all("&action=subtract&range=day").await;
    assert!(none == [[0; 0]] && page.contains("No further entry matches the filter"), "{page}");
    assert!(page.contains(r#"<option value="subtract" selected>"#) && page.contains("All entries"), "{page}");
    let minute = "&from=2026-01-01T00:01:00Z&to=2026-01-01T00:01:04";
    let (found, page) = all(minute).await;
    assert_eq!(found, [[64, 63, 62, 61]]);
    assert!(page.contains(r#"value="2026-01-01T00:01:04""#), "{page}");
    for wrong in ["status=x", "action=x", "from=x", "to=%2B2026-01-01T00:00:00Z", "range=x"] {
        let (status, page) = shown(visitor.get(&format!("/console/user?id=7&{wrong}"))).await;
        assert_eq!(status, 400, "{wrong}: {page}");
    }
    let more = visitor.get("/console/user?id=7&before=201").header("HX-Request", "true");
    let (status, part) = shown(more).await;
    assert!(status == 200 && !part.contains("<html") && seqs(&part)[0] == 200, "{part}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_shows_all_that_it_has() {
    let mut system = System::new().await;
    let client = system.serve();
    let visitor = Visitor::new(&client);
    let until = "2099-01-01T00:00:00Z";
    let members = json!({"user_id": "alice", "point": 1_000, "expires_at": until, "reason": "welcome",
        "metadata": {"order": 7}});
    let add = settled(&client, "add", &members).await;
    let gift = settled(&client, "transfer", &json!({"user_id": "alice", "to": "bob", "point": 300})).await;
    let hold = settled(&client, "hold", &json!({"user_id": "alice", "point": 200})).await;
    settled(&client, "subtract", &json!({"user_id": "alice", "point": 5_000, "partial": false})).await;
    let undo = settled(&client, "reverse", &json!({"user_id": "alice", "request": gift["request_id"]})).await;
    let page = visitor.read("/console/user?id=alice&open=2").await;
    assert_eq!(seqs(&page), [5, 4, 3, 2, 1]);
    for entry in [&add, &gift, &hold, &undo] {
        assert!(page.contains(&text(&entry["request_id"])), "{entry} {page}");
    }
    for part in [
        "welcome",
        "{&quot;order&quot;:7}",
        "Expires at",
        "Of these expire",
        "Other user",
        "/console/user?id=bob",
        "Refers to",
        "Held until",
        "The balance is smaller than the points to subtract.",
        "a caller without a key",
        "1 hold",
        "Open holds",
        "Expires next",
        "5,000</span> asked",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let open = page.split(r#"<details class="entry" open>"#).collect::<Vec<_>>();
    assert!(
        open.len() == 2 && open[0].ends_with(r#"id="entry-2">"#),
        "only the one that was asked for is open"
    );
    let bob = visitor.read("/console/user?id=bob").await;
    assert!(bob.contains(" from ") && !bob.contains("Reverse…"), "the sender undoes a transfer: {bob}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_of_users_and_requests_are_shown_as_text() {
    let mut system = System::new().await;
    let client = system.serve();
    let visitor = Visitor::new(&client);
    for hostile in HOSTILE {
        let plain: String = hostile.chars().filter(|letter| !letter.is_control()).collect();
        let id: String = plain.chars().filter(char::is_ascii_graphic).collect();
        let (plain, id) = (plain.as_str(), id.as_str());
        let metadata = json!({ plain: plain });
        let members = json!({"user_id": id, "point": 1_000, "reason": plain, "metadata": metadata});
        let added = settled(&client, "add", &members).await;
        let request = added["request_id"].as_str().expect("an id");
        let begun = [("id", id), ("action", "subtract"), ("reason", plain)];
        let wrong = [&begun[..], &[("point", plain), ("key", plain)]].concat();
        let fine = [&begun[..], &[("point", "1")]].concat();
        for (place, query) in [
            ("/console/users", &[("id", id), ("after", "!")][..]),
            ("/console/user", &[("id", id)]),
            ("/console/user", &[("id", id), ("done", request), ("range", "day")]),
            ("/console/user", &[("id", id), ("status", plain)]),
            ("/console/user/correct", &wrong),
            ("/console/user/correct", &fine),
            ("/console/user/correct", &[("id", id), ("action", "reverse"), ("request", request)]),
            ("/console/request", &[("id", id), ("request", request)]),
            ("/console/request", &[("id", id), ("key", id), ("actor", "shop")]),
            ("/console/request", &[("id", id), ("request", hostile)]),
        ] {
            let (status, page) = shown(visitor.get(&path(place, query))).await;
            assert!([200, 400].contains(&status.as_u16()), "{place} {query:?} {status} {page}");
            is_harmless(&page);
        }
        let page = visitor.read(&path("/console/user", &[("id", id)])).await;
        let escaped = |text: &str| {
            text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
        };
        assert!(page.contains(&escaped(plain)) && page.contains(&escaped(&metadata.to_string())), "{page}");
    }
    system.finish().await;
}
