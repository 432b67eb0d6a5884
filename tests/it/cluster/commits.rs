//! Commits that wait for a standby: one whose answer was lost, and those of an old primary.

use super::servers;
use crate::support::{
    client::{Client, answer},
    cluster::ClusterServers,
    system::{PARTITIONS, System, eventually},
};

/// The transactions of workers that wait for a standby. Other commits, such as those of the pulse, are part of their
/// statements.
const WAITING: &str =
    "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query = 'commit'";

async fn waiting(system: &System) -> i64 {
    system.count(WAITING).await
}

/// Terminates all commits that wait for a standby. While there is an old one, no other is begun.
async fn terminate(system: &System) {
    let all = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'";
    system.execute(all).await;
}

/// Nodes on the servers, after user 1 has got 1,000 points.
async fn with_a_balance(servers: &ClusterServers) -> (System, Client) {
    let mut system = servers.system(PARTITIONS).await;
    let client = system.serve();
    system.work();
    client.queue("add", 1, 1_000).await;
    system.drain(1).await;
    (system, client)
}

/// Makes an old primary a standby of the new one.
async fn follow_again(servers: &mut ClusterServers, old: usize) {
    servers.postgres.copy(old).await.expect("a standby");
    eventually("two standbys", async || {
        servers.postgres.streaming().await.is_ok_and(|standbys| standbys == 2)
    })
    .await;
}

/// A session that is terminated while its commit waits for a standby leaves the commit visible, but only on this server.
/// The worker has no answer and applies the change again. It finds the request in the log, so there is nothing to write
/// there. If that attempt ended at once, the message would be acked, and a failover would then lose the change. It waits
/// as well, because its transaction locks and writes the user's row and commits: it has a place in the WAL behind the
/// first one, and a standby that confirms it has both. A transaction that only read the log, or rolled back because there
/// was nothing to add, would not wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_nobody_heard_of_is_repeated_until_a_standby_has_it() {
    let mut servers = servers().await;
    let (system, client) = with_a_balance(&servers).await;

    for standby in servers.postgres.standbys() {
        servers.postgres.servers[standby].stop().await.expect("stopped");
    }
    let request = client.queue("subtract", 1, 300).await;
    eventually("the commit waits for a standby", async || waiting(&system).await == 1).await;
    let logged = format!("select count(*) from log where request_id = '{request}'");
    assert_eq!(system.count(&logged).await, 0, "what waits is not visible");

    terminate(&system).await;
    eventually("the commit is visible", async || system.count(&logged).await == 1).await;
    eventually("the next attempt waits as well", async || {
        let is_waiting = waiting(&system).await == 1;
        if !is_waiting {
            terminate(&system).await;
        }
        is_waiting
    })
    .await;

    let old = servers.postgres.primary();
    servers.postgres.servers[old].kill().await.expect("killed");
    for standby in servers.postgres.standbys() {
        servers.postgres.servers[standby].resume().await.expect("PostgreSQL starts");
    }
    servers.postgres.promote().await.expect("promoted");
    system.drain(2).await;
    assert_eq!(system.count(&logged).await, 1, "it is applied on the new primary");
    assert_eq!(client.balance(1).await, 700);
    follow_again(&mut servers, old).await;
    system.finish().await;
}

/// Nothing tells a node that this server is no longer the primary, except that its commits wait. A node that only reads
/// would show its balances for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_still_answers_is_left_for_the_new_one() {
    let mut servers = servers().await;
    let (system, client) = with_a_balance(&servers).await;
    assert_eq!(client.balance(1).await, 1_000);

    let old = servers.postgres.primary();
    servers.postgres.promote().await.expect("promoted");
    client.queue("subtract", 1, 300).await;
    eventually("reads come from the new primary", async || {
        answer(client.get("/v1/point?id=1")).await.1["point"].as_i64() == Some(700)
    })
    .await;
    servers.postgres.servers[old].kill().await.expect("killed");
    follow_again(&mut servers, old).await;
    system.finish().await;
}
