//! The nodes of the service on a cluster, and what a fault does to the servers below them.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use point_system::local::free_port;
use tokio::time::timeout;

use super::{ClusterServers, faults::Fault, topology::Members};
use crate::support::{
    process::Process,
    system::{System, eventually},
};

/// How long a node is cut off.
const CUT: Duration = Duration::from_secs(10);

/// Three `serve` and two `work`, each of which begins with another node of the broker.
pub struct Site<'a> {
    servers: &'a mut ClusterServers,
    /// The ports of the `serve`.
    pub ports: Vec<u16>,
    processes: Vec<Process>,
    turn: u16,
}

impl<'a> Site<'a> {
    pub async fn start(system: &mut System, servers: &'a mut ClusterServers) -> Self {
        let mut site = Self { servers, ports: Vec::new(), processes: Vec::new(), turn: 0 };
        for first in 0..3 {
            system.node_amqp_url = Some(site.servers.broker.url_from(first));
            let port = free_port().expect("a port");
            let serve = system.process("serve", &["--listen", &format!("127.0.0.1:{port}")]);
            serve.says("server listen at :").await;
            site.ports.push(port);
            site.processes.push(serve);
        }
        for first in 1..3 {
            system.node_amqp_url = Some(site.servers.broker.url_from(first));
            let work = system.process("work", &[]);
            work.says("working on").await;
            site.processes.push(work);
        }
        site
    }

    /// Causes a fault, and waits until all servers are back. Returns when it began.
    pub async fn strike(&mut self, fault: Fault, system: &System) -> Instant {
        self.turn += 1;
        match fault {
            Fault::KillNode | Fault::StopNode | Fault::CutNode => {
                let node = self.leader(system).await;
                let struck = Instant::now();
                match fault {
                    Fault::CutNode => self.cut_off(node).await,
                    _ => self.restart_node(node, fault == Fault::KillNode).await,
                }
                struck
            }
            Fault::RollNodes => {
                let struck = Instant::now();
                for node in 0..3 {
                    self.restart_node(node, false).await;
                }
                struck
            }
            Fault::KillPrimary | Fault::StopPrimary => self.fail_over(fault == Fault::KillPrimary).await,
            Fault::KillStandby => {
                let struck = Instant::now();
                let [standby, _] = self.servers.postgres.standbys();
                let server = &mut self.servers.postgres.servers[standby];
                server.kill().await.expect("killed");
                server.resume().await.expect("PostgreSQL starts");
                self.standbys_follow().await;
                struck
            }
        }
    }

    /// The node that leads a partition: each partition in turn.
    async fn leader(&self, system: &System) -> usize {
        let queue = system.names().partition(self.turn % system.partitions().count());
        let leader = Members::of(&self.servers.broker.nodes[0]).await.leader(&queue);
        leader
            .strip_prefix('r')
            .and_then(|name| name.split('@').next()?.parse::<usize>().ok())
            .expect("a node")
            - 1
    }

    async fn cut_off(&mut self, node: usize) {
        self.servers.broker.cut_off(node).await.expect("cut off");
        // As with a stall, the time is the fault itself.
        timeout(CUT, pending::<()>()).await.ok();
        self.servers.broker.heal(node).await.expect("healed");
        self.is_one_of_three(node).await;
    }

    async fn restart_node(&mut self, node: usize, kill: bool) {
        let broker = &mut self.servers.broker.nodes[node];
        if kill { broker.kill().await } else { broker.stop().await }.expect("RabbitMQ ends");
        broker.resume().await.expect("RabbitMQ starts");
        self.is_one_of_three(node).await;
    }

    /// Waits until the next node may go: without it, every queue would still have a majority.
    async fn is_one_of_three(&self, node: usize) {
        let node = &self.servers.broker.nodes[node];
        let ready =
            async || node.run("rabbitmq-upgrade", &["await_online_quorum_plus_one", "--timeout", "20"]).await;
        eventually("its queues have three members", async || ready().await.is_ok()).await;
    }

    /// Ends the primary, promotes a standby, and lets the old primary come back as a standby.
    async fn fail_over(&mut self, kill: bool) -> Instant {
        let postgres = &mut self.servers.postgres;
        let (old, struck) = (postgres.primary(), Instant::now());
        let server = &mut postgres.servers[old];
        if kill { server.kill().await } else { server.stop().await }.expect("PostgreSQL ends");
        postgres.promote().await.expect("promoted");
        postgres.copy(old).await.expect("a standby");
        self.standbys_follow().await;
        struck
    }

    async fn standbys_follow(&self) {
        let postgres = &self.servers.postgres;
        eventually("two standbys", async || postgres.streaming().await.is_ok_and(|standbys| standbys == 2))
            .await;
    }

    /// Stops the processes. Each must exit with success.
    pub async fn stop(self) {
        for process in self.processes.into_iter().rev() {
            let status = process.end("-TERM").await;
            assert!(status.success(), "a process that was told to stop ended with {status}");
        }
    }
}
