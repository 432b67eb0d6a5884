//! Corrections of balances: previewed, confirmed, counted once, refused in words, and only with the scope for it.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    Visitor, header, shown,
    users::{path, settled},
};
use crate::{
    keys::create,
    support::{
        client::{Client, answer, text},
        system::System,
    },
};

const CORRECT: &str = "/console/user/correct";

/// The value of a hidden field.
fn hidden(page: &str, name: &str) -> String {
    let field =
        page.split(&format!(r#"name="{name}" value=""#)).nth(1).unwrap_or_else(|| panic!("{name}: {page}"));
    field.split('"').next().expect("a value").to_owned()
}

/// Sends a correction that was confirmed. Returns the page that the browser is led to.
async fn confirmed(visitor: &Visitor, fields: &[(&str, &str)]) -> String {
    let answer = visitor.post(CORRECT, fields).send().await.expect("an answer");
    let to = header(&answer, "Location").to_owned();
    assert!(answer.status() == 303 && to.starts_with("/console/user?id="), "{} {to}", answer.status());
    visitor.read(&to).await
}

async fn log(client: &Client, key: &str, user: &str) -> Vec<Value> {
    let page = client.get(&path("/v1/point/log", &[("id", user)])).bearer_auth(key);
    answer(page).await.1["entries"].as_array().expect("entries").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_is_previewed_confirmed_and_counts_once_however_often_it_is_sent() {
    let mut system = System::new().await;
    let key = create(&system, "olivia", "write").await;
    let client = system.serve();
    let olivia = Visitor::signed_in(&client, &key).await;
    answer(
        client
            .send("add", &json!({"user_id": "a/b", "point": 1_000}))
            .bearer_auth(&key)
            .header("Prefer", "wait"),
    )
    .await;
    assert!(
        olivia
            .read("/console/user?id=a%2Fb")
            .await
            .contains("/console/user/correct?id=a%2Fb&amp;action=subtract")
    );

    let form = olivia.read("/console/user/correct?id=a%2Fb&action=subtract").await;
    assert!(form.contains("1,000") && !form.contains("Confirm"), "{form}");
    let own = hidden(&form, "key");
    let again = olivia.read("/console/user/correct?id=a%2Fb&action=subtract").await;
    assert_ne!(hidden(&again, "key"), own, "each form has a key of its own");
    assert_eq!(hidden(&form, "actor"), "olivia");
    let filled = [
        ("id", "a/b"),
        ("action", "subtract"),
        ("actor", "olivia"),
        ("key", &own),
        ("point", "300"),
        ("reason", "sent <twice>"),
    ];
    let preview = olivia.read(&path(CORRECT, &filled)).await;
    assert!(preview.contains("1,000</strong>") && preview.contains(">700</strong>"), "{preview}");
    assert!(preview.contains("Confirm: subtract") && hidden(&preview, "key") == own, "{preview}");
    assert_eq!(log(&client, &key, "a/b").await.len(), 1, "a preview changes nothing");

    let pages = join_all((0..4).map(|_| confirmed(&olivia, &filled))).await;
    for page in pages.iter().chain([&confirmed(&olivia, &filled).await]) {
        assert!(page.contains("Done: ") && page.contains("from 1,000 to 700."), "{page}");
    }
    let log = log(&client, &key, "a/b").await;
    let of = |name: &str| log[0][name].clone();
    assert_eq!(
        (log.len(), of("balance"), of("actor"), of("reason")),
        (2, json!(700), json!("olivia"), json!("sent <twice>"))
    );
    let preview = olivia.read(&path(CORRECT, &filled)).await;
    assert!(preview.contains("This form was sent before") && !preview.contains("Confirm"), "{preview}");
    let other = [&filled[..4], &[("point", "301"), ("reason", "x")]].concat();
    assert!(confirmed(&olivia, &other).await.contains("was used before for another change"));

    let oscar = Visitor::signed_in_soon(&client, &create(&system, "oscar", "write").await).await;
    let (status, page) = shown(oscar.post(CORRECT, &filled)).await;
    assert!(status == 400 && page.contains("has changed since the preview"), "{page}");
    assert_eq!(system.count("select count(*) from log where actor = 'oscar'").await, 0);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_refused_is_said_before_and_after() {
    let mut system = System::new().await;
    let client = system.serve();
    let visitor = Visitor::new(&client);
    let add = settled(&client, "add", &json!({"user_id": "7", "point": 100})).await;
    let add = text(&add["request_id"]);
    let nobody = "01890a5d-ac96-774b-bcce-b302099a8057";
    let undo = [("id", "7"), ("action", "reverse"), ("request", &add), ("key", "k1"), ("reason", "x")];
    assert!(confirmed(&visitor, &undo).await.contains("from 100 to 0."));
    for (fields, why) in [
        (
            &[("action", "subtract"), ("point", "5000")][..],
            "The balance is smaller than the points to subtract.",
        ),
        (&[("action", "add"), ("point", "9007199254740991")], ""),
        (&[("action", "add"), ("point", "1")], "The balance of the user would exceed"),
        (&[("action", "reverse"), ("request", &add)], "The request was already reversed, by the request "),
        (
            &[("action", "reverse"), ("request", nobody)],
            "The user has no log entry of the request to reverse.",
        ),
        (&[("action", "release"), ("request", nobody)], "The user has no log entry of the hold."),
    ] {
        let key = format!("{fields:?}").chars().filter(char::is_ascii_alphanumeric).collect::<String>();
        let all = [&[("id", "7"), ("reason", "x"), ("key", key.as_str())][..], fields].concat();
        let preview = visitor.read(&path(CORRECT, &all)).await;
        let done = confirmed(&visitor, &all).await;
        if why.is_empty() {
            assert!(preview.contains("Confirm: add") && done.contains("Done: "), "{preview} {done}");
            continue;
        }
        assert!(preview.contains("It would be refused.") && preview.contains(why), "{fields:?} {preview}");
        assert!(!preview.contains("Confirm"), "{preview}");
        assert!(done.contains("Refused: ") && done.contains(why), "{fields:?} {done}");
    }
    let balance = answer(client.get("/v1/point?id=7")).await.1;
    assert_eq!(balance["point"], 9_007_199_254_740_991_i64);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_are_undone_holds_released_and_what_there_is_is_taken() {
    let mut system = System::new().await;
    let client = system.serve();
    let visitor = Visitor::new(&client);
    let add = settled(&client, "add", &json!({"user_id": "alice", "point": 1_000})).await;
    let gift = settled(&client, "transfer", &json!({"user_id": "alice", "to": "bob", "point": 300})).await;
    let hold = settled(&client, "hold", &json!({"user_id": "alice", "point": 200})).await;
    let [add, gift, hold] = [add, gift, hold].map(|entry| text(&entry["request_id"]));
    let page = visitor.read("/console/user?id=alice").await;
    for (action, request) in [("reverse", &gift), ("reverse", &add), ("release", &hold)] {
        let link = path(CORRECT, &[("id", "alice"), ("action", action), ("request", request)]);
        assert!(page.contains(&link.replace('&', "&amp;")), "{link}: {page}");
    }
    let gift =
        [("id", "alice"), ("action", "reverse"), ("request", &gift), ("reason", "by mistake"), ("key", "a")];
    let preview = visitor.read(&path(CORRECT, &gift)).await;
    for part in ["500</strong>", "800</strong>", ">bob<", "300</strong>", ">0</strong>"] {
        assert!(preview.contains(part), "{part}: {preview}");
    }
    assert!(confirmed(&visitor, &gift).await.contains("from 500 to 800."));
    let begun =
        visitor.read(&path(CORRECT, &[("id", "alice"), ("action", "release"), ("request", &hold)])).await;
    assert!(begun.contains("1,000</strong>") && begun.contains("Enter a reason"), "{begun}");
    assert!(!begun.contains("Confirm"), "each correction has a reason: {begun}");
    let hold = [("id", "alice"), ("action", "release"), ("request", &hold), ("reason", "gone"), ("key", "b")];
    assert!(confirmed(&visitor, &hold).await.contains("from 800 to 1,000."));
    let some = [
        ("id", "alice"),
        ("action", "subtract"),
        ("point", "5000"),
        ("partial", "true"),
        ("reason", "x"),
        ("key", "c"),
    ];
    assert!(visitor.read(&path(CORRECT, &some)).await.contains("1,000 of 5,000 points"));
    assert!(confirmed(&visitor, &some).await.contains("from 1,000 to 0."));
    let new = [("id", "carol"), ("action", "add"), ("point", "5"), ("reason", "x"), ("key", "d")];
    assert!(confirmed(&visitor, &new).await.contains("from 0 to 5."), "the first change creates the user");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_scope_there_are_no_corrections_and_a_form_without_a_reason_does_nothing() {
    let mut system = System::new().await;
    let [reader, writer] =
        [create(&system, "reader", "read").await, create(&system, "writer", "write").await];
    let client = system.serve();
    answer(
        client
            .send("add", &json!({"user_id": "7", "point": 1_000}))
            .bearer_auth(&writer)
            .header("Prefer", "wait"),
    )
    .await;
    let actor = ("actor", "writer");
    let form = [("id", "7"), ("action", "subtract"), ("point", "300"), ("reason", "x"), actor, ("key", "k")];
    let visitor = Visitor::signed_in(&client, &reader).await;
    let page = visitor.read("/console/user?id=7").await;
    assert!(page.contains("1,000") && !page.contains(CORRECT), "{page}");
    for refused in [visitor.post(CORRECT, &form), visitor.get(&path(CORRECT, &form))] {
        let (status, page) = shown(refused).await;
        assert!(status == 403 && page.contains("the scope <strong>write</strong>"), "{page}");
        assert!(page.contains("reader") && page.contains("<strong>read</strong>"), "{page}");
    }
    let visitor = Visitor::signed_in(&client, &writer).await;
    for (name, value, words) in [
        ("reason", "", "Reason is required"),
        ("reason", &"x".repeat(201), "Reason must be"),
        ("point", "", "Points must be a whole number"),
        ("point", "1,5", "Points must be"),
        ("point", "0", "Points must be"),
        ("point", "-1", "Points must be"),
    ] {
        let mut form = form;
        form.iter_mut().filter(|(field, _)| *field == name).for_each(|field| field.1 = value);
        let (status, page) = shown(visitor.get(&path(CORRECT, &form))).await;
        assert!(status == 400 && page.contains(words) && !page.contains("Confirm"), "{name}={value}: {page}");
        assert_eq!(shown(visitor.post(CORRECT, &form)).await.0, 400, "{name}={value}");
    }
    for wrong in [
        &form[..5],
        &[("id", "7"), ("action", "transfer"), ("point", "3"), ("reason", "x"), actor, ("key", "k")],
        &[("id", "7"), ("action", "reverse"), ("request", "7"), ("reason", "x"), actor, ("key", "k")],
        &[("id", "a b"), ("action", "add"), ("point", "3"), ("reason", "x"), actor, ("key", "k")],
    ] {
        assert_eq!(shown(visitor.post(CORRECT, wrong)).await.0, 400, "{wrong:?}");
    }
    assert_eq!(log(&client, &reader, "7").await.len(), 1);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_without_an_answer_is_sent_again_and_counts_once() {
    let mut system = System::new().await;
    let client = system.serve();
    let visitor = Visitor::new(&client);
    settled(&client, "add", &json!({"user_id": "7", "point": 1_000})).await;
    let form =
        [("id", "7"), ("action", "subtract"), ("point", "300"), ("reason", "a \"reason\""), ("key", "k-1")];
    let locked = system.pool.get().await.expect("a connection");
    locked
        .batch_execute("reset all; begin; select from user_point where user_id = '7' for update")
        .await
        .expect("locked");
    let (status, page) = shown(visitor.post(CORRECT, &form)).await;
    assert!(status == 503 && page.contains("Another session has locked this user"), "{page}");
    assert!(
        page.contains("Send it again") && hidden(&page, "key") == "k-1" && hidden(&page, "point") == "300"
    );
    locked.batch_execute("rollback").await.expect("free");
    drop(locked);
    for _ in 0..2 {
        assert!(confirmed(&visitor, &form).await.contains("from 1,000 to 700."));
    }
    assert_eq!(system.count("select count(*) from log").await, 2);
    system.finish().await;
}
