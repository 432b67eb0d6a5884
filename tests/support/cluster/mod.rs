//! A load on a cluster: three nodes of RabbitMQ, a PostgreSQL primary with two synchronous standbys, and nodes of the
//! service, while servers are killed, stopped and cut off by turns. At the end the log must match the clients' record.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::Instant,
};

use point_system::{
    domain::Partitions,
    infra::migrate,
    local::{LocalCluster, LocalReplicas},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    chaos::{Chaos, Report, Strike, clients::Clients, progress::Progress, settled},
    servers::{database, fresh_name, own_folder, versions},
    system::{PATIENCE, System},
};
pub use faults::Fault;
use site::Site;

mod faults;
mod site;
pub mod topology;

/// A private cluster of each kind.
pub struct ClusterServers {
    pub broker: LocalCluster,
    pub postgres: LocalReplicas,
    folder: PathBuf,
    _lock: File,
}

impl ClusterServers {
    pub async fn start() -> Self {
        let (folder, lock) = own_folder();
        let (in_postgres, in_rabbitmq) = (folder.join("postgres"), folder.join("rabbitmq"));
        fs::create_dir(&in_postgres).expect("a folder");
        let started = tokio::try_join!(LocalReplicas::start(&in_postgres), LocalCluster::start(&in_rabbitmq));
        let (postgres, broker) = started.expect("private servers");
        Self { broker, postgres, folder, _lock: lock }
    }

    /// An installation on an empty database. The test itself uses one node of the broker, and the nodes of the service
    /// use all three.
    pub async fn system(&self, partitions: Partitions) -> System {
        let database = database(&self.postgres.url_of("postgres"), &fresh_name(), "template0").await;
        migrate::run(&database.pool(1), PATIENCE).await.expect("migrations");
        let mut system = System::on(database, self.broker.nodes[0].url(), partitions).await;
        system.node_amqp_url = Some(self.broker.url_from(0));
        system
    }

    pub async fn stop(mut self) {
        self.broker.shut_down().await.expect("RabbitMQ stops");
        self.postgres.stop().await.expect("PostgreSQL stops");
        fs::remove_dir_all(self.folder).expect("the folder is ours");
    }
}

/// The users of interest: all, because each partition depends on the same servers.
const ALL: &str = "longest without an applied change, in any partition";

/// Runs the load while the faults strike, or until the time is over, and prints the report. Leaves the servers as they
/// were: all of them up.
pub async fn run(
    servers: &mut ClusterServers,
    chaos: Chaos,
    faults: impl IntoIterator<Item = Fault>,
) -> Report<Fault> {
    let mut system = servers.system(chaos.partitions).await;
    let versions = versions(&system).await;
    topology::set_policies(&system, &servers.broker.nodes[0]).await;
    let mut site = Site::start(&mut system, servers).await;
    let ended = CancellationToken::new();
    let mut clients = Clients::start(chaos, &site.ports, &ended);
    let progress = Progress::watch(system.database.pool(1), chaos);

    let mut strikes = Vec::new();
    let (began, until) = (Instant::now(), Instant::now() + chaos.time);
    for fault in faults.into_iter().take_while(|_| Instant::now() < until) {
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        eprintln!("{left:>5} s left; {fault}");
        let struck = site.strike(fault, &system).await;
        let healed = Instant::now();
        let (accepted_after, applied_after) = clients.probe(&system).await;
        let applied = healed + applied_after;
        let waited = progress.longest_gap(chaos.partitions.all(), struck, applied);
        strikes.push(Strike { fault, struck, healed, accepted_after, applied_after, waited: Some(waited) });
    }
    let struck_for = began.elapsed().as_secs();
    ended.cancel();
    let record = clients.finish().await;
    let (ledger, expired) = settled(&system, &record).await;
    let title = format!("{versions}, three nodes of each, partitions {}, {struck_for} s", chaos.partitions);
    let report = Report::new((title, ALL), (record, &ledger, expired), &strikes);
    // Before the checks of the logs, which may fail.
    println!("{report}");
    site.stop().await;
    system.finish().await;
    report
}
