//! The role `key`: what it prints, and what is stored.

use std::process::Output;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::support::{leaks, system::System};

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

async fn printed(system: &System, arguments: &[&str]) -> String {
    let output = run(system, arguments).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stdout(&output)
}

pub async fn create(system: &System, name: &str, scope: &str) -> String {
    printed(system, &["create", "--name", name, "--scope", scope]).await.trim().to_owned()
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

    let taken = run(&system, &["create", "--name", "shop", "--scope", "read"]).await;
    assert_eq!((taken.status.code(), stdout(&taken).as_str()), (Some(1), ""));
    assert!(String::from_utf8_lossy(&taken.stderr).contains("a key named shop exists"));
    assert!(revoke(&system, "shop").await.starts_with("revoked key 1 (shop)"));
    assert!(revoke(&system, "1").await.starts_with("key 1 (shop) was revoked before, at "));
    for missing in ["shop", "9", "nobody"] {
        assert_eq!(run(&system, &["revoke", missing]).await.status.code(), Some(1), "{missing}");
    }
    assert_ne!(create(&system, "shop", "admin").await, key.trim(), "the name is free again");
    let keys = list(&system).await;
    let said: Vec<Value> = keys
        .iter()
        .map(|key| json!([key["name"], key["scope"], key["last_used_at"], key["revoked_at"].is_string()]))
        .collect();
    assert_eq!(said, [json!(["shop", "write", null, true]), json!(["shop", "admin", null, false])]);
    for wrong in [
        ["--name", "7", "--scope", "read"],
        ["--name", "a b", "--scope", "read"],
        ["--name", "a", "--scope", "root"],
    ] {
        assert_eq!(
            run(&system, &[&["create"], &wrong[..]].concat()).await.status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
    system.finish_without_queues().await;
}
