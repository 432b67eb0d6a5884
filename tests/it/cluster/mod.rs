//! Three nodes of RabbitMQ and three of PostgreSQL: whichever fails, no promise breaks. `just cluster` runs it for as long
//! as you like.

use std::{sync::LazyLock, time::Duration};

use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use crate::support::{
    chaos::{Chaos, Verdict},
    cluster::{ClusterServers, Fault, run},
    system::PARTITIONS,
};

mod commits;
mod topology;

/// The servers, which one test after the other has for itself.
async fn servers() -> MappedMutexGuard<'static, ClusterServers> {
    static SERVERS: LazyLock<Mutex<Option<ClusterServers>>> = LazyLock::new(Mutex::default);
    let mut servers = SERVERS.lock().await;
    if servers.is_none() {
        *servers = Some(ClusterServers::start().await);
    }
    MutexGuard::map(servers, |servers| servers.as_mut().expect("started"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_node_fails_no_promise_breaks() {
    let mut servers = servers().await;
    let time = Duration::from_secs(120);
    let size = Chaos { time, seed: 0, connections: 8, users: 64, partitions: PARTITIONS };
    let faults = [Fault::KillNode, Fault::KillPrimary];
    let report = run(&mut servers, size, faults).await;
    assert_eq!(report.verdict, Verdict::default(), "{report}");
    assert!(faults.iter().all(|fault| report.strikes(*fault) == 1), "{report}");
}
