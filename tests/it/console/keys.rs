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
             select 'k' || n, 1, 'read', sha256(n::text::bytea), case when n > 150 then now() end \
             from generate_series(1, 270) as n",
        )
        .await;
    let visitor = Visitor::signed_in(&system.serve(), &key).await;
    let first = visitor.read("/console/keys").await;
    let buttons = |page: &str| page.matches("data-opens=\"revoke-").count();
    assert_eq!(buttons(&first), 100);
    assert!(first.contains("120 revoked, of which the last 100"), "{first}");
    assert!(first.contains(">k270<") && !first.contains(">k160<"), "the last ones");
    let next = first.split('"').find(|part| part.starts_with("/console/keys?after=")).expect("a link");
    let second = visitor.read(next).await;
    assert_eq!(buttons(&second), 51);
    assert!(second.contains(">k150<") && !second.contains("Next keys"), "{second}");
    system.finish().await;
}
