//! A slow database: the service adapts to its pace.

use std::time::Instant;

use super::queue_adds;
use crate::support::system::{PATIENCE, System, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_too_slow_for_a_batch_gets_smaller_ones() {
    const ADDS: i64 = 8_000;
    let mut system = System::new().await;
    // A transaction of a thousand deltas takes as long as a statement may.
    system
        .execute(
            "create function crawl() returns trigger language plpgsql as $$ begin
                 perform pg_sleep(0.005);
                 return new;
             end $$;
             create trigger crawl before insert on log for each row execute function crawl()",
        )
        .await;
    let client = system.serve();
    queue_adds(&client, 1..=ADDS).await;
    let work = system.process("work", &[]);
    // How long all of them take depends on the machine.
    let entries = async || system.count("select count(*) from log").await;
    let mut applied = 0;
    while applied < ADDS {
        eventually("more is applied", async || entries().await > applied).await;
        applied = entries().await;
    }
    system.drain(usize::try_from(ADDS).expect("a small number")).await;
    work.says("PostgreSQL takes too long").await;
    // Once the database is fast again, the transactions grow again.
    system.execute("drop trigger crawl on log").await;
    queue_adds(&client, 1..=ADDS).await;
    system.drain(usize::try_from(2 * ADDS).expect("a small number")).await;
    assert!(work.end("-TERM").await.success());
    assert_eq!(system.queues().await.dead().await, 0, "a slow database makes no dead letters");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_slow_by_itself_holds_up_nobody_else() {
    let mut system = System::new().await;
    system
        .execute(
            "create function crawl() returns trigger language plpgsql as $$ begin
                 if new.user_id = '1' and exists (select from pg_class where relname = 'slow') then
                     perform pg_sleep(60);
                 end if;
                 return new;
             end $$;
             create table slow ();
             create trigger crawl before insert on log for each row execute function crawl()",
        )
        .await;
    let client = system.serve();
    queue_adds(&client, 1..=40).await;
    let work = system.process("work", &["--concurrency", "1"]);
    let others = "select count(*) from log where user_id::bigint > 1";
    eventually("all others are applied", async || system.count(others).await == 39).await;
    assert_eq!(client.balance(1).await, 0);
    // The slow delta is tried again, and shares no transaction with later deltas.
    let (mut alone, mut together) = slow_transactions(&work.printed());
    let (tried, shared) = (alone + 1, together);
    let mut promised = 39;
    let began = Instant::now();
    while alone < tried {
        assert!(began.elapsed() < PATIENCE, "{}", work.printed());
        queue_adds(&client, (2..=1_000).cycle().take(4_000)).await;
        promised += 4_000;
        (alone, together) = slow_transactions(&work.printed());
    }
    assert_eq!(together, shared, "{}", work.printed());
    eventually("all others are applied", async || system.count(others).await == promised).await;
    system.execute("drop table slow").await;
    eventually("the slow one is applied", async || client.balance(1).await == 1).await;
    assert!(work.end("-TERM").await.success());
    system.finish().await;
}

/// The number of transactions that were too slow: of one delta, and of more.
fn slow_transactions(printed: &str) -> (usize, usize) {
    let all = printed.matches("it was a transaction of ").count();
    let alone = printed.matches("it was a transaction of 1 deltas").count();
    (alone, all - alone)
}
