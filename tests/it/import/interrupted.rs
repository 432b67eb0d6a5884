//! An import that is killed, stopped, or without its database for a while gives what one that nothing disturbs gives.

use std::time::Duration;

use point_system::infra::postgres::Client;
use tokio::time::timeout;

use super::{Rows, balances, entries, many};
use crate::support::{
    proxy::{Weather, detour},
    system::{PATIENCE, System, eventually},
};

/// The users of a file, and the rows that they have together.
const USERS: i64 = 5_000;
const TOTAL: i64 = 4 * USERS;

/// A file of rows, and an empty installation.
async fn before_the_import() -> (Rows, System) {
    let (text, count) = many(usize::try_from(USERS).expect("small"));
    assert_eq!(TOTAL, i64::try_from(count).expect("small"));
    (Rows::new(&text), System::new().await)
}

/// Creates and locks the users after this one, so that an import can't end before `rollback`, however fast it is. The
/// import creates the users before. Returns the session that has the locks, and how many rows can be applied.
async fn locked_after(system: &System, user: i64) -> (Client, i64) {
    system.execute("delete from user_point where seq = 0").await;
    let users = format!("insert into user_point (user_id) select generate_series({user} + 1, {USERS})::text");
    system.execute(&users).await;
    let session = system.pool.get().await.expect("a connection");
    // The limit of the session would end the transaction.
    let locks = format!(
        "begin; set local idle_in_transaction_session_timeout = 0;
         select from user_point where user_id::int > {user} for update"
    );
    session.batch_execute(&locks).await.expect("locked");
    (session, 4 * user)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_ten_times_and_run_again_gives_the_same_balances() {
    let (rows, system) = before_the_import().await;
    let undisturbed = System::new().await;
    rows.imported(&undisturbed).await;
    let mut rng = fastrand::Rng::with_seed(6);
    let mut last = 0;
    for kill in 1..=10 {
        let (session, most) = locked_after(&system, USERS * kill / 11).await;
        let wanted = rng.i64(last + 1..=most);
        let import = rows.start(&system);
        eventually("more rows are in the log", async || entries(&system).await >= wanted).await;
        import.end("-KILL").await;
        last = entries(&system).await;
        assert!(last <= most, "{last} of {most}");
        session.batch_execute("rollback").await.expect("unlocked");
    }
    rows.imported(&system).await;
    assert_eq!(entries(&system).await, TOTAL);
    assert_eq!(balances(&system).await, balances(&undisturbed).await);
    undisturbed.finish_without_queues().await;
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_stopped_says_how_far_it_is_and_goes_on_later() {
    let (rows, system) = before_the_import().await;
    let (session, most) = locked_after(&system, USERS / 2).await;
    let import = rows.start(&system);
    eventually("some rows are in the log", async || entries(&system).await > 1_000).await;
    import.signal("-TERM").await;
    let (status, printed) = timeout(PATIENCE, import.ends()).await.expect("an end");
    assert_eq!(status.code(), Some(1), "{printed}");
    session.batch_execute("rollback").await.expect("unlocked");
    let done = entries(&system).await;
    assert!(done <= most, "{printed}");
    let told = format!("stopped after {done} of {TOTAL} rows; run the same command again to import the rest");
    assert!(printed.contains(&told), "{told} in {printed}");
    let printed = rows.imported(&system).await;
    assert!(printed.contains(&format!("in the log already: {done} rows")), "{printed}");
    assert_eq!(entries(&system).await, TOTAL);
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_waits_for_a_database_that_is_away() {
    let (rows, mut system) = before_the_import().await;
    let (proxy, url) = detour(&system.database.url).await;
    system.node_database_url = Some(url.into());
    let (session, most) = locked_after(&system, USERS / 2).await;
    let import = rows.start(&system);
    eventually("some rows are in the log", async || entries(&system).await > 1_000).await;
    proxy.refuse();
    import.says("the import waits for PostgreSQL").await;
    session.batch_execute("rollback").await.expect("unlocked");
    assert!(entries(&system).await <= most);
    proxy.turn(Weather::Fair);
    let (status, printed) = timeout(PATIENCE, import.ends()).await.expect("an end");
    assert!(status.success() && printed.contains(&format!("\n{TOTAL} rows, ")), "{printed}");
    assert_eq!(entries(&system).await, TOTAL);
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
