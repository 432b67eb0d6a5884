//! The page of a request: what became of it, by its id or by the key of its sender.

use serde_json::json;

use super::{Visitor, shown, users::path};
use crate::{
    keys::create,
    support::{
        client::{answer, text},
        system::System,
    },
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_by_its_id_or_by_its_actor_and_its_key() {
    let mut system = System::new().await;
    let [shop, support] = [create(&system, "shop", "write").await, create(&system, "support", "read").await];
    let client = system.serve();
    let visitor = Visitor::signed_in(&client, &support).await;
    let send = |action: &str, point: i64, key: &str| {
        let change = client.send(action, &json!({"user_id": "a?b#c", "point": point, "reason": "order"}));
        let change =
            change.bearer_auth(&shop).header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-00"));
        change.header("Prefer", "wait").header("Idempotency-Key", key.to_owned())
    };
    let added = text(&answer(send("add", 1_000, "order-7")).await.1["request_id"]);
    answer(send("subtract", 5_000, "order-8")).await;
    let find = async |query: &[(&str, &str)]| {
        visitor.read(&path("/console/request", &[&[("id", "a?b#c")][..], query].concat())).await
    };
    for query in [
        &[("request", added.as_str())][..],
        &[("actor", "shop"), ("key", "order-7")],
        &[("actor", "shop"), ("key", "\"order-7\"")],
    ] {
        let page = find(query).await;
        assert!(page.contains(">applied<") && page.contains(&added) && page.contains("+1,000"), "{page}");
        assert!(page.contains(TRACE), "{page}");
        let place = "/console/user?id=a%3Fb%23c&amp;before=2&amp;open=1#entry-1";
        assert!(page.contains(place), "{page}");
        let log = visitor.read(&place.replace("&amp;", "&")).await;
        assert!(log.contains(r#"<li id="entry-1"><details class="entry" open>"#), "{log}");
    }
    let rejected = find(&[("actor", "shop"), ("key", "order-8")]).await;
    assert!(rejected.contains(">rejected<"), "{rejected}");
    assert!(rejected.contains("The balance is smaller than the points to subtract."), "{rejected}");
    for query in [
        &[("actor", "support"), ("key", "order-7")][..],
        &[("key", "order-7")],
        &[("actor", "shop"), ("key", "order-9")],
        &[("request", "01890a5d-ac96-774b-bcce-b302099a8057")],
    ] {
        let page = find(query).await;
        assert!(page.contains("Pending or unknown.") && !page.contains("dead letter<"), "{page}");
    }
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operations_of_a_batch_are_found_by_its_key_and_what_is_queued_is_pending() {
    let mut system = System::new().await;
    let client = system.serve();
    let visitor = Visitor::new(&client);
    let operation = |point: i64| json!({"action": "add", "user_id": "7", "point": point});
    let batch = client.post("/v1/point/batch").header("Idempotency-Key", "payday");
    let batch = batch.json(&json!({"operations": [operation(11), operation(22)]}));
    assert_eq!(answer(batch).await.0, 202);
    let payday = path("/console/request", &[("id", "7"), ("key", "payday")]);
    let pending = visitor.read(&payday).await;
    assert!(pending.contains("Pending or unknown."), "{pending}");
    system.work();
    system.drain(2).await;
    let page = visitor.read(&payday).await;
    assert!(page.contains("+11") && page.contains("+22") && !page.contains("Pending"), "{page}");
    assert!(visitor.read("/console/request").await.contains("Idempotency-Key"));
    for wrong in ["id=7&request=7", "id=7&key=%C3%A9", "id=a%20b&key=7", "id=7&key=7&actor=%20%C3%A9"] {
        assert_eq!(shown(visitor.get(&format!("/console/request?{wrong}"))).await.0, 400, "{wrong}");
    }
    system.finish_drained().await;
}
