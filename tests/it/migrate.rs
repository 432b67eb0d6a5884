//! `migrate`, as a deploy runs it.

use futures_util::future::join_all;

use crate::{process::Process, servers::Database};

/// The exit code, and what was printed.
async fn migrate(url: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let process = Process::start("migrate", arguments, |command| {
        command.env("DATABASE_URL", url);
    });
    let (status, printed) = process.ends().await;
    (status.code(), printed)
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_migrate_at_once_and_one_applies() {
    let database = Database::empty().await;
    let before = migrate(&database.url, &["--check"]).await;
    assert_eq!(before.0, Some(1), "{}", before.1);
    assert!(before.1.contains("pending: V1__user_point_and_log"), "{}", before.1);
    let outputs = join_all((0..8).map(|_| migrate(&database.url, &[]))).await;
    assert!(outputs.iter().all(|(code, _)| *code == Some(0)), "{outputs:?}");
    let applied = outputs.iter().filter(|(_, printed)| printed.contains("applied V1__user_point_and_log"));
    assert_eq!(applied.count(), 1);
    assert_eq!(migrate(&database.url, &["--check"]).await, (Some(0), "nothing is pending".to_owned()));
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let url = "postgres://app:hush@127.0.0.1:1/points";
    let (code, printed) = migrate(url, &["--startup-timeout", "1s"]).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("127.0.0.1:1/points") && printed.contains("--startup-timeout"), "{printed}");
    assert!(!printed.contains("hush"), "{printed}");
}
