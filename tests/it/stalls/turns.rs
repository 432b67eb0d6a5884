//! More partitions than turns for users whose changes wait: a partition without a turn goes on with its other users.

use point_system::domain::{APART_MAX, Partitions, UserId};

use super::{entries_of, queue_adds};
use crate::support::system::{System, eventually};

/// Twice as many as there are turns.
const PARTITIONS: u16 = 8;

/// A user of each partition, from `first` on.
fn one_of_each(partitions: Partitions, first: i64) -> Vec<i64> {
    let of = |partition| {
        let is_of = |id: &i64| {
            UserId::new("user_id", &id.to_string()).is_ok_and(|id| id.partition(partitions) == partition)
        };
        (first..first + 900).find(is_of).expect("one of many")
    };
    partitions.all().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_turn_goes_on_with_its_other_users() {
    let partitions = Partitions::new(PARTITIONS).expect("valid");
    let mut system = System::with(partitions).await;
    let client = system.serve();
    let (stuck, others) = (one_of_each(partitions, 1), one_of_each(partitions, 1_000));
    queue_adds(&client, stuck.clone()).await;
    let work = system.process("work", &[]);
    system.drain(stuck.len()).await;
    let session = system.database.pool(1).get().await.expect("a connection");
    session.batch_execute("reset all; begin; select from user_point for update").await.expect("locked");
    queue_adds(&client, stuck.clone()).await;
    eventually("all of them wait", async || {
        work.printed().matches("only this user's changes wait").count() == stuck.len()
    })
    .await;
    // Once they are unlocked, each of them takes the database for almost as long as a statement may.
    system
        .execute(
            "create function crawl() returns trigger language plpgsql as $$ begin
                 if new.user_id::bigint < 1000 then perform pg_sleep(4); end if;
                 return new;
             end $$;
             create trigger crawl before insert on log for each row execute function crawl()",
        )
        .await;
    session.batch_execute("rollback").await.expect("unlocked");
    let turns = i64::try_from(APART_MAX).expect("a small number");
    let crawling = "select count(*) from pg_stat_activity \
         where datname = current_database() and wait_event = 'PgSleep'";
    eventually("all turns are taken", async || system.count(crawling).await == turns).await;
    queue_adds(&client, others).await;
    eventually("others are applied", async || entries_of(&system, "user_id::bigint >= 1000").await >= turns)
        .await;
    assert_eq!(entries_of(&system, "user_id::bigint < 1000 and seq > 1").await, 0, "they waited for a turn");
    system.drain(3 * stuck.len()).await;
    assert!(work.end("-TERM").await.success());
    // A statement that takes almost as long as it may can be given up on a busy machine, so that its message comes again.
    system.execute("drop trigger crawl on log").await;
    system.finish_drained().await;
}
