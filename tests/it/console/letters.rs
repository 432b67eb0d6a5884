//! Dead letters and API keys in the console, and hostile texts on its pages.

use super::{Visitor, header, shown};
use crate::{
    dead_letters::{declared, has_dead, refuse},
    keys::{create, list},
    support::{
        client::answer,
        queues::message,
        system::{System, eventually},
    },
};

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Texts that break a page which does not escape them.
pub const HOSTILE: [&str; 8] = [
    "<script>document.title='hit'</script>",
    "<img src=x onerror=\"document.title='hit'\">",
    "\"><svg onload=document.title='hit'>",
    "' onmouseover='document.title=1",
    "</textarea></title></style></pre><h1>hit",
    "javascript:document.title='hit'",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    "\u{202e}hit\u{2028}hit\u{0}hit\u{ffff}",
];

/// Fails if a page has markup of a hostile text.
pub fn is_harmless(page: &str) {
    for part in ["<script>document", "<img src=x", "<svg onload", "<h1>hit"] {
        assert!(!page.contains(part), "{part} in {page}");
    }
}

/// The ids of the letters on the page.
fn ids(page: &str) -> Vec<String> {
    let fields = page.split(r#"name="letter" value=""#).skip(1);
    let ids = fields.map(|rest| rest.split('"').next().expect("a value").to_owned());
    let mut ids: Vec<String> = ids.filter(|id| id != "all").collect();
    ids.dedup();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_shown_as_text_redriven_and_dropped() {
    let mut system = System::new().await;
    let client = system.serve();
    system.work();
    let queues = declared(&system).await;
    refuse(&system).await;
    client.queue("add", 7, 666).await;
    has_dead(&queues, 1).await;
    for hostile in HOSTILE {
        queues.publish_dead(hostile).await;
    }
    queues.publish_dead(&message(ID, 8, 5)).await;
    has_dead(&queues, 2 + HOSTILE.len()).await;
    let visitor = Visitor::new(&client);
    let page = visitor.read("/console/dead-letters").await;
    is_harmless(&page);
    assert!(page.contains("Refused by the database") && page.contains("&lt;script&gt;document"), "{page}");
    assert_eq!(queues.dead().await as usize, 2 + HOSTILE.len(), "looking changes nothing");

    let ids = ids(&page);
    assert_eq!(ids.len(), 2 + HOSTILE.len());
    let settle = async |letter: &str, verdict: &str, typed: &str| {
        let form = [("letter", letter), ("verdict", verdict), ("typed", typed)];
        let response = visitor.post("/console/dead-letters", &form).send().await.expect("an answer");
        let target = header(&response, "Location").to_owned();
        (response.status().as_u16(), target)
    };
    let stray = ids.last().expect("the last");
    let done = "/console/dead-letters?verdict=redrive&done=1&left=0";
    assert_eq!(settle(stray, "redrive", "").await, (303, done.to_owned()));
    eventually("the change is applied", async || client.balance(8).await == 5).await;
    assert!(visitor.read(done).await.contains("1 redriven."));
    assert_eq!(settle(stray, "redrive", "").await.1, "/console/dead-letters?verdict=redrive&done=0&left=0");
    assert_eq!(settle(&ids[1], "drop", "").await.0, 400, "a drop must be typed");
    assert_eq!(settle(&ids[1], "drop", "drop").await.1, "/console/dead-letters?verdict=drop&done=1&left=0");
    has_dead(&queues, HOSTILE.len()).await;
    let all = settle("all", "redrive", "").await.1;
    assert_eq!(all, format!("/console/dead-letters?verdict=redrive&done=1&left={}", HOSTILE.len() - 1));
    has_dead(&queues, HOSTILE.len()).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dead_letters_come_page_by_page() {
    let mut system = System::new().await;
    let visitor = Visitor::new(&system.serve());
    let queues = declared(&system).await;
    for number in 0..60 {
        queues.publish_dead(&format!("letter {number}")).await;
    }
    has_dead(&queues, 60).await;
    let first = visitor.read("/console/dead-letters").await;
    assert!(first.contains("60 in all, oldest first; 1 to 50 are shown"), "{first}");
    assert!(first.contains("letter 49") && !first.contains("letter 50"));
    let next = first.split('"').find(|part| part.contains("?skip=")).expect("a link");
    let second = visitor.read(next).await;
    assert!(second.contains("51 to 60 are shown") && second.contains("letter 59"), "{second}");
    assert!(!second.contains("letter 49") && !second.contains("Next dead letters"), "{second}");
    let beyond = visitor.read("/console/dead-letters?skip=60").await;
    assert!(beyond.contains("There are no more dead letters.") && beyond.contains("First dead"), "{beyond}");
    system.discard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_created_shown_once_and_revoked() {
    let mut system = System::new().await;
    let key = create(&system, "admin", "admin").await;
    let client = system.serve();
    let admin = Visitor::signed_in(&client, &key).await;
    let (status, page) = shown(admin.post("/console/keys", &[("name", "shop"), ("scope", "write")])).await;
    assert_eq!(status, 200);
    let secret =
        page.split('"').find(|part| part.starts_with("ps_") && part.len() == 67).expect("a key").to_owned();
    let (status, _) = answer(client.change("add", 7, 1).bearer_auth(&secret)).await;
    assert_eq!(status, 202, "this node knows it at once");
    let page = admin.read("/console/keys").await;
    assert!(page.contains("shop") && !page.contains(&secret));
    for (name, status, why) in [
        ("shop", 409, "has been used before"),
        ("7up", 400, "The name must"),
        (HOSTILE[0], 400, "The name must"),
    ] {
        let (found, page) = shown(admin.post("/console/keys", &[("name", name), ("scope", "write")])).await;
        assert!(found == status && page.contains(why), "{found} {page}");
        is_harmless(&page);
    }
    let id = list(&system).await[1]["id"].to_string();
    let revoked = admin.post("/console/keys/revoke", &[("id", &id)]).send().await.expect("an answer");
    assert_eq!(
        (revoked.status().as_u16(), header(&revoked, "Location")),
        (303, &*format!("/console/keys?revoked={id}"))
    );
    assert_eq!(answer(client.change("add", 7, 1).bearer_auth(&secret)).await.0, 401);
    assert!(admin.read(&format!("/console/keys?revoked={id}")).await.contains("is revoked"));
    assert_eq!(shown(admin.post("/console/keys/revoke", &[("id", "99")])).await.0, 404);
    system.work();
    system.drain(1).await;
    system.finish().await;
}
