//! The faults of the chaos, and what they affect: processes, servers, and the networks between them.

use std::{
    fmt, fs,
    time::{Duration, Instant, SystemTime},
};

use point_system::domain::Partitions;
use tokio::process::Command;

use super::{Chaos, clients::Clients, neighbours::any_partition, progress::Progress};
use crate::support::{
    process::Process,
    proxy::{Proxy, detour},
    servers::OwnServers,
    system::{System, eventually},
};

/// The shortest and the longest stall. The longest exceeds every limit of the service.
const STALL_MS: std::ops::Range<u64> = 500..9_000;

/// The file in which RabbitMQ lists its quorum queues. RabbitMQ writes it up to a second after a declaration. If it is
/// killed before, it loses the queues that are not listed (docs/faults.md).
const QUORUM_QUEUES: &str = "rabbitmq/data/point_system@localhost/quorum/point_system@localhost/names.dets";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillServe,
    KillWork,
    DeployWork,
    RestartBroker,
    KillBroker,
    CutBroker,
    HalveBroker,
    StallBroker,
    RestartPostgres,
    KillPostgres,
    TerminateBackends,
    CutPostgres,
    StallPostgres,
    RedeclareQueue,
    LockRow,
    SlowDatabase,
    ForbidQueue,
    SetBackClock,
}

impl Fault {
    pub const ALL: [Self; 18] = [
        Self::KillServe,
        Self::KillWork,
        Self::DeployWork,
        Self::RestartBroker,
        Self::KillBroker,
        Self::CutBroker,
        Self::HalveBroker,
        Self::StallBroker,
        Self::RestartPostgres,
        Self::KillPostgres,
        Self::TerminateBackends,
        Self::CutPostgres,
        Self::StallPostgres,
        Self::RedeclareQueue,
        Self::LockRow,
        Self::SlowDatabase,
        Self::ForbidQueue,
        Self::SetBackClock,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KillServe => "serve killed (SIGKILL), started again",
            Self::KillWork => "a worker killed (SIGKILL), another started",
            Self::DeployWork => "a worker added, another stopped (SIGTERM)",
            Self::RestartBroker => "RabbitMQ stopped and started",
            Self::KillBroker => "RabbitMQ killed (SIGKILL) and started",
            Self::CutBroker => "connections to RabbitMQ cut",
            Self::HalveBroker => "connections to RabbitMQ half open",
            Self::StallBroker => "network to RabbitMQ stalled",
            Self::RestartPostgres => "PostgreSQL stopped and started",
            Self::KillPostgres => "PostgreSQL killed (SIGKILL) and started",
            Self::TerminateBackends => "PostgreSQL sessions terminated",
            Self::CutPostgres => "connections to PostgreSQL cut",
            Self::StallPostgres => "network to PostgreSQL stalled",
            Self::RedeclareQueue => "a queue deleted and declared again by an operator",
            Self::LockRow => "a user's row locked for 20 s",
            Self::SlowDatabase => "PostgreSQL too slow for its batches for 15 s",
            Self::ForbidQueue => "one queue without permission for 8 s",
            Self::SetBackClock => "PostgreSQL's clock set back by an hour for 10 s",
        })
    }
}

/// The users that a fault concerns.
#[derive(Clone, Copy, Debug)]
pub enum Concern {
    Everybody,
    Partition(u16),
    OneUser,
}

impl Concern {
    /// The partitions of users that it does not concern.
    pub fn others(self, partitions: Partitions) -> impl Iterator<Item = u16> {
        partitions.all().filter(move |partition| match self {
            Self::Everybody => false,
            Self::Partition(concerned) => *partition != concerned,
            Self::OneUser => true,
        })
    }
}

/// The nodes and servers that faults affect. The nodes reach the servers through the proxies.
pub struct Site {
    pub(super) servers: OwnServers,
    pub(super) to_broker: Proxy,
    to_postgres: Proxy,
    listen: String,
    serve: Option<Process>,
    workers: Vec<Process>,
}

impl Site {
    pub async fn start(system: &mut System, servers: OwnServers, port: u16) -> Self {
        let (to_broker, amqp_url) = detour(&system.amqp_url).await;
        let (to_postgres, database_url) = detour(&system.database.url).await;
        system.node_amqp_url = Some(amqp_url.into());
        system.node_database_url = Some(database_url.into());
        let listen = format!("127.0.0.1:{port}");
        let mut site = Self { servers, to_broker, to_postgres, listen, serve: None, workers: Vec::new() };
        site.start_serve(system).await;
        for _ in 0..2 {
            site.start_worker(system).await;
        }
        let names = system.names();
        let names: Vec<_> = system.partitions().all().map(|partition| names.partition(partition)).collect();
        let file = site.servers.folder.join(QUORUM_QUEUES);
        eventually("RabbitMQ has its queues on disk", async || {
            let written = fs::read(&file).expect("RabbitMQ's list");
            let written = String::from_utf8_lossy(&written);
            names.iter().all(|name| written.contains(name))
        })
        .await;
        site
    }

    /// Waits until RabbitMQ has written its list of queues after a time.
    pub(super) async fn has_queues_on_disk(&self, since: SystemTime) {
        let listed = self.servers.folder.join(QUORUM_QUEUES);
        let written = || fs::metadata(&listed).and_then(|file| file.modified()).expect("RabbitMQ's list");
        eventually("RabbitMQ has its queues on disk", async || written() > since).await;
    }

    async fn start_serve(&mut self, system: &System) {
        let serve = system.process("serve", &["--listen", &self.listen]);
        serve.says("server listen at :").await;
        self.serve = Some(serve);
    }

    async fn start_worker(&mut self, system: &System) {
        let worker = system.process("work", &[]);
        worker.says("working on").await;
        self.workers.push(worker);
    }

    /// Causes a fault and waits for its end. Returns the users that it concerns, and when it began.
    pub async fn strike(
        &mut self,
        fault: Fault,
        (system, chaos): (&System, &Chaos),
        (clients, progress): (&mut Clients, &Progress),
        rng: &mut fastrand::Rng,
    ) -> (Concern, Instant) {
        let struck = Instant::now();
        match fault {
            Fault::RedeclareQueue => {
                let partition = any_partition(chaos.partitions, rng);
                self.redeclare_queue(partition, system, clients).await;
                return (Concern::Partition(partition), Instant::now());
            }
            Fault::LockRow => {
                self.lock_row(rng.i64(1..=chaos.users), system, progress).await;
                return (Concern::OneUser, struck);
            }
            Fault::ForbidQueue => {
                let partition = any_partition(chaos.partitions, rng);
                self.forbid_queue(partition, system).await;
                return (Concern::Partition(partition), struck);
            }
            Fault::SlowDatabase => self.slow_database(system).await,
            Fault::SetBackClock => self.set_back_clock(system).await,
            other => self.strike_all(other, system, rng).await,
        }
        (Concern::Everybody, struck)
    }

    async fn strike_all(&mut self, fault: Fault, system: &System, rng: &mut fastrand::Rng) {
        let pause = Duration::from_millis(rng.u64(STALL_MS));
        match fault {
            Fault::KillServe => {
                self.serve.take().expect("running").end("-KILL").await;
                self.start_serve(system).await;
            }
            Fault::KillWork => {
                self.workers.swap_remove(rng.usize(..self.workers.len())).end("-KILL").await;
                self.start_worker(system).await;
            }
            Fault::DeployWork => {
                self.start_worker(system).await;
                let status = self.workers.remove(0).end("-TERM").await;
                assert!(status.success(), "a worker that was told to stop ended with {status}");
            }
            Fault::RestartBroker => self.restart_broker().await,
            Fault::KillBroker => {
                kill(&self.servers.folder.join("rabbitmq/rabbitmq.pid")).await;
                self.restart_broker().await;
            }
            Fault::CutBroker => self.to_broker.cut(),
            Fault::HalveBroker => self.to_broker.halve(),
            Fault::StallBroker => self.to_broker.stall(pause).await,
            Fault::RestartPostgres => self.restart_postgres().await,
            Fault::KillPostgres => {
                kill(&self.servers.folder.join("postgres/data/postmaster.pid")).await;
                self.restart_postgres().await;
            }
            Fault::TerminateBackends => terminate(system).await,
            Fault::CutPostgres => self.to_postgres.cut(),
            Fault::StallPostgres => self.to_postgres.stall(pause).await,
            Fault::RedeclareQueue
            | Fault::LockRow
            | Fault::SlowDatabase
            | Fault::ForbidQueue
            | Fault::SetBackClock => unreachable!("{fault} is no fault of a process, a server or a network"),
        }
    }

    async fn restart_broker(&mut self) {
        self.servers.broker.stop().await.expect("RabbitMQ stops");
        self.servers.broker.resume().await.expect("RabbitMQ starts");
    }

    async fn restart_postgres(&mut self) {
        self.servers.postgres.stop().await.expect("PostgreSQL stops");
        self.servers.postgres.resume().await.expect("PostgreSQL starts");
    }

    /// Stops the processes. Each must exit with success.
    pub async fn stop(self) -> OwnServers {
        for process in self.workers.into_iter().chain(self.serve) {
            let status = process.end("-TERM").await;
            assert!(status.success(), "a process that was told to stop ended with {status}");
        }
        self.servers
    }
}

/// Kills the server whose process id is the first line of a file.
async fn kill(pid_file: &std::path::Path) {
    let text = fs::read_to_string(pid_file).expect("a pid file");
    let pid = text.lines().next().expect("a pid").trim();
    assert!(Command::new("kill").args(["-KILL", pid]).status().await.expect("kill").success());
}

async fn terminate(system: &System) {
    let client = system.pool.get().await.expect("a connection");
    let others = "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()";
    client.execute(others, &[]).await.expect("terminated");
}
