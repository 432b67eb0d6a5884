//! An import that is killed, stopped, or without its database for a while gives what one that nothing disturbs gives.

use std::time::Duration;

use tokio::time::timeout;

use super::{Rows, balances, entries, many};
use crate::support::{
    proxy::{Weather, detour},
    system::{PATIENCE, System, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_ten_times_and_run_again_gives_the_same_balances() {
    let (text, count) = many(5_000);
    let rows = Rows::new(&text);
    let undisturbed = System::new().await;
    rows.imported(&undisturbed).await;
    let system = System::new().await;
    let total = i64::try_from(count).expect("small");
    let mut rng = fastrand::Rng::with_seed(6);
    let (mut last, mut in_the_middle) = (0, 0);
    for kill in 1..=10 {
        let wanted = last + rng.i64(1..=(total - last) / (12 - kill));
        let import = rows.start(&system);
        eventually("more rows are in the log", async || entries(&system).await >= wanted).await;
        import.end("-KILL").await;
        last = entries(&system).await;
        in_the_middle += i64::from(last < total);
    }
    assert!(in_the_middle >= 8, "{in_the_middle}");
    rows.imported(&system).await;
    assert_eq!(entries(&system).await, total);
    assert_eq!(balances(&system).await, balances(&undisturbed).await);
    undisturbed.finish_without_queues().await;
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_stopped_says_how_far_it_is_and_goes_on_later() {
    let (text, count) = many(5_000);
    let (rows, system) = (Rows::new(&text), System::new().await);
    let import = rows.start(&system);
    eventually("some rows are in the log", async || entries(&system).await > 1_000).await;
    import.signal("-TERM").await;
    let (status, printed) = timeout(PATIENCE, import.ends()).await.expect("an end");
    assert_eq!(status.code(), Some(1), "{printed}");
    let done = entries(&system).await;
    assert!(done < 20_000, "{printed}");
    let told = format!("stopped after {done} of {count} rows; run the same command again to import the rest");
    assert!(printed.contains(&told), "{told} in {printed}");
    let printed = rows.imported(&system).await;
    assert!(printed.contains(&format!("in the log already: {done} rows")), "{printed}");
    assert_eq!(entries(&system).await, 20_000);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_waits_for_a_database_that_is_away() {
    let (text, _) = many(5_000);
    let (rows, mut system) = (Rows::new(&text), System::new().await);
    let (proxy, url) = detour(&system.database.url).await;
    system.node_database_url = Some(url.into());
    let import = rows.start(&system);
    eventually("some rows are in the log", async || entries(&system).await > 1_000).await;
    proxy.refuse();
    import.says("the import waits for PostgreSQL").await;
    assert!(entries(&system).await < 20_000);
    proxy.turn(Weather::Fair);
    let (status, printed) = timeout(PATIENCE, import.ends()).await.expect("an end");
    assert!(status.success() && printed.contains("\n20000 rows, "), "{printed}");
    assert_eq!(entries(&system).await, 20_000);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_user_waits_and_others_do_not() {
    let (text, _) = many(100);
    let (rows, system) = (Rows::new(&text), System::new().await);
    system.execute("insert into user_point (user_id) values ('9')").await;
    let session = system.pool.get().await.expect("a connection");
    let lock = "begin; select from user_point where user_id = '9' for update";
    session.batch_execute(lock).await.expect("locked");
    // The limit of the session would end the transaction.
    session.batch_execute("set local idle_in_transaction_session_timeout = 0").await.expect("set");
    let import = rows.start(&system);
    let told = import.says("rows wait: ").await;
    assert!(told.contains("locked by another session"), "{told}");
    assert_eq!(entries(&system).await, 396);
    session.batch_execute("rollback").await.expect("unlocked");
    let (status, printed) = timeout(Duration::from_secs(30), import.ends()).await.expect("an end");
    assert!(status.success() && printed.contains("applied: 400 rows"), "{printed}");
    system.finish_without_queues().await;
}
