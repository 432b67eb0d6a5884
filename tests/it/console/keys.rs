//! The page of the keys, where there are many.

use super::Visitor;
use crate::{keys::create, support::system::System};

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_come_page_by_page() {
    let mut system = System::new().await;
    let key = create(&system, "olivia", "admin").await;
    system
        .execute(
            "insert into api_key (name, generation, scope, key_hash, revoked_at) \
             select 'k' || n, 1, 'read', sha256(n::text::bytea), \
                 case when n > 150 then now() - make_interval(hours => n) end \
             from generate_series(1, 270) as n",
        )
        .await;
    let visitor = Visitor::signed_in(&system.serve(), &key).await;
    let first = visitor.read("/console/keys").await;
    let buttons = |page: &str| page.matches("data-opens=\"revoke-").count();
    assert_eq!(buttons(&first), 100);
    assert!(first.contains("120 revoked; the last 100 are shown"), "{first}");
    assert!(first.contains(">k151<") && !first.contains(">k251<"), "those that were revoked last");
    let next = first.split('"').find(|part| part.starts_with("/console/keys?after=")).expect("a link");
    let second = visitor.read(next).await;
    assert_eq!(buttons(&second), 51);
    assert!(second.contains(">k150<") && !second.contains("Next keys"), "{second}");
    assert!(second.contains("href=\"/console/keys\">First keys"), "{second}");
    let beyond = visitor.read("/console/keys?after=9999").await;
    assert!(beyond.contains("There are no more active keys.") && beyond.contains("First keys"), "{beyond}");
    system.finish().await;
}
