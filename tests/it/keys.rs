//! The role `key`: what it prints, and what is stored.

use std::process::Output;

use futures_util::future::join_all;
use point_system::access::{self, AccessError, KeyName, Scope};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::support::{
    leaks,
    system::{System, eventually},
};

/// Runs the role `key` to its end. Its standard output is for the caller alone; its standard error is a log.
async fn run(system: &System, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_point-system"));
    command.arg("key").args(arguments).env("DATABASE_URL", &system.database.url).env("RUST_LOG", "trace");
    let output = command.output().await.expect("the executable");
    String::from_utf8_lossy(&output.stderr).lines().for_each(leaks::see);
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Runs the role `key`, which must fail and print nothing for its caller. Returns its exit status and its complaint.
async fn refused(system: &System, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(system, arguments).await;
    assert_eq!(stdout(&output), "", "{arguments:?}");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

async fn printed(system: &System, arguments: &[&str]) -> String {
    let output = run(system, arguments).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stdout(&output)
}

pub async fn create(system: &System, name: &str, scope: &str) -> String {
    printed(system, &["create", "--name", name, "--scope", scope]).await.trim().to_owned()
}

pub async fn rotate(system: &System, name: &str) -> String {
    printed(system, &["rotate", name]).await.trim().to_owned()
}

pub async fn revoke(system: &System, key: &str) -> String {
    printed(system, &["revoke", key]).await
}

pub async fn list(system: &System) -> Vec<Value> {
    let printed = printed(system, &["list", "--json"]).await;
    printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_and_kept_as_a_hash() {
    let system = System::new().await;
    let output = run(&system, &["create", "--name", "shop", "--scope", "write"]).await;
    let key = stdout(&output);
    let secret = key.strip_prefix("ps_").and_then(|key| key.strip_suffix('\n')).expect("the key alone");
    assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains(secret));

    let client = system.pool.get().await.expect("a connection");
    let row = client.query_one("select api_key::text, key_hash from api_key", &[]).await.expect("one row");
    assert!(!row.get::<_, String>(0).contains(secret));
    let hash = Sha256::digest(key.trim());
    assert_eq!(row.get::<_, Vec<u8>>(1), hash.to_vec());
    drop(client);
    let listed = printed(&system, &["list"]).await;
    assert!(listed.contains("shop  write") && !listed.contains(secret), "{listed}");

    assert!(revoke(&system, "shop").await.starts_with("revoked key 1 (shop)"));
    assert!(revoke(&system, "1").await.starts_with("key 1 (shop) was already revoked at "));
    for missing in ["shop", "9", "nobody"] {
        assert_eq!(run(&system, &["revoke", missing]).await.status.code(), Some(1), "{missing}");
    }
    assert_ne!(create(&system, "other", "admin").await, key.trim());
    assert_eq!(kept(&system).await, [json!([1, "shop", "write", true]), json!([2, "other", "admin", false])]);
    for wrong in [
        ["--name", "7", "--scope", "read"],
        ["--name", "a b", "--scope", "read"],
        ["--name", "system:expiry", "--scope", "read"],
        ["--name", "a", "--scope", "root"],
    ] {
        let (status, _) = refused(&system, &[&["create"], &wrong[..]].concat()).await;
        assert_eq!(status, Some(2), "{wrong:?}");
    }
    system.finish_without_queues().await;
}

/// A row of a newer version, or one that was changed by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_can_not_be_read_is_refused_and_keeps_no_other_from_being_revoked() {
    let mut system = System::new().await;
    let (newer, shop) = (create(&system, "newer", "write").await, create(&system, "shop", "write").await);
    let client = system.serve();
    let status = async |key: &str| {
        let asked = client.get("/v1/point?id=7").bearer_auth(key).send().await;
        asked.expect("an answer").status().as_u16()
    };
    assert_eq!((status(&newer).await, status(&shop).await), (404, 404), "no such user");
    let change = "alter table api_key drop constraint api_key_scope_check; \
         update api_key set scope = 'newer' where name = 'newer'";
    system.execute(change).await;
    eventually("the unreadable key is refused", async || status(&newer).await == 401).await;
    assert_eq!(status(&shop).await, 404, "the other key is accepted");
    system.execute("update api_key set revoked_at = now() where name = 'shop'").await;
    eventually("the revoked key is refused", async || status(&shop).await == 401).await;
    system.finish().await;
}

/// The number, name and scope of every key, and whether it is revoked.
async fn kept(system: &System) -> Vec<Value> {
    let row = |key: &Value| json!([key["id"], key["name"], key["scope"], key["revoked_at"].is_string()]);
    list(system).await.iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_used_is_never_given_to_another_actor() {
    let system = System::new().await;
    create(&system, "shop", "write").await;
    let again = ["create", "--name", "shop", "--scope", "read"];
    for is_revoked in [false, true] {
        let (status, complaint) = refused(&system, &again).await;
        assert_eq!(status, Some(1), "{complaint}");
        assert!(complaint.contains("the name shop has been used before"), "{complaint}");
        assert!(complaint.contains("choose another name"), "{complaint}");
        assert!(complaint.contains("`point-system key rotate shop`"), "{complaint}");
        assert_eq!(kept(&system).await, [json!([1, "shop", "write", is_revoked])]);
        revoke(&system, "1").await;
    }
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_adds_a_key_of_the_same_scope_and_only_the_key_that_is_meant_is_revoked() {
    let system = System::new().await;
    let (status, complaint) = refused(&system, &["rotate", "shop"]).await;
    assert!(status == Some(1) && complaint.contains("no key was ever named shop"), "{complaint}");
    assert_eq!(refused(&system, &["rotate", "system:expiry"]).await.0, Some(2));
    let old = create(&system, "shop", "read").await;
    let rotated = run(&system, &["rotate", "shop"]).await;
    let (new, told) = (stdout(&rotated), String::from_utf8_lossy(&rotated.stderr));
    assert!(new.starts_with("ps_") && new.lines().count() == 1 && new.trim() != old, "the key alone");
    assert!(told.contains("created key 2 (shop, read)"), "{told}");
    assert!(
        told.contains("key 1 stays active until you revoke it with `point-system key revoke 1`"),
        "{told}"
    );

    for command in [["rotate", "shop"], ["revoke", "shop"]] {
        let (status, complaint) = refused(&system, &command).await;
        assert_eq!(status, Some(1), "{complaint}");
        let expected = "shop has two active keys, 1 and 2: revoke one of them by its number";
        assert!(complaint.contains(expected), "{complaint}");
    }
    assert_eq!(kept(&system).await, [json!([1, "shop", "read", false]), json!([2, "shop", "read", false])]);
    assert!(revoke(&system, "1").await.starts_with("revoked key 1 (shop)"));
    assert!(revoke(&system, "shop").await.starts_with("revoked key 2 (shop)"), "the only active key");

    let rotated = run(&system, &["rotate", "shop"]).await;
    let told = String::from_utf8_lossy(&rotated.stderr);
    assert!(told.contains("created key 3 (shop, read)") && !told.contains("stays active"), "{told}");
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_create_or_rotate_a_name_at_once_one_does() {
    let system = System::new().await;
    let name: KeyName = "shop".parse().expect("valid");
    let created = join_all((0..8).map(|_| access::create(&system.pool, &name, Scope::Write))).await;
    let created: Vec<AccessError> = created.into_iter().filter_map(Result::err).collect();
    assert_eq!(created, vec![AccessError::NameUsed("shop".to_owned()); 7]);
    let rotated = join_all((0..8).map(|_| access::rotate(&system.pool, &name))).await;
    let rotated: Vec<AccessError> = rotated.into_iter().filter_map(Result::err).collect();
    let ids: Vec<i64> = list(&system).await.iter().filter_map(|key| key["id"].as_i64()).collect();
    let ids = <[i64; 2]>::try_from(ids).expect("two keys");
    assert_eq!(rotated, vec![AccessError::TwoActive { name: "shop".to_owned(), ids }; 7]);
    system.finish_without_queues().await;
}
