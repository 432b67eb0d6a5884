//! `migrate`, as a deploy runs it.

use std::process::Output;

use tokio::{process::Command, task::JoinSet};

use crate::servers::Database;

async fn migrate(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_point-system"));
    command.arg("migrate").args(arguments).env("DATABASE_URL", url);
    command.output().await.expect("the executable")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_migrate_at_once_and_one_applies() {
    let database = Database::empty().await;
    let before = migrate(&database.url, &["--check"]).await;
    assert_eq!(before.status.code(), Some(1), "{}", text(&before));
    assert!(text(&before).contains("V1__user_point_and_log"), "{}", text(&before));
    let mut processes = JoinSet::new();
    for _ in 0..8 {
        let url = database.url.clone();
        processes.spawn(async move { migrate(&url, &[]).await });
    }
    let outputs = processes.join_all().await;
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    let applied = outputs.iter().filter(|output| text(output).contains("applied V1__user_point_and_log"));
    assert_eq!(applied.count(), 1);
    let after = migrate(&database.url, &["--check"]).await;
    assert!(after.status.success(), "{}", text(&after));
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let url = "postgres://app:hush@127.0.0.1:1/points";
    let output = migrate(url, &["--startup-timeout", "1s"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("127.0.0.1:1/points"), "{}", text(&output));
    assert!(
        text(&output).contains("--startup-timeout") && !text(&output).contains("hush"),
        "{}",
        text(&output)
    );
}
