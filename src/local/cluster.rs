//! A private RabbitMQ cluster of three nodes. Must not contain anything about our queues.

use std::{fmt::Write, fs, os::unix::fs::PermissionsExt, path::Path};

use tokio::try_join;
use uuid::Uuid;

use super::{
    process::{Owner, Process, free_port},
    rabbitmq::{LocalRabbitMq, start_epmd},
};

/// The settings of every node. A node without a majority stops serving, and nodes notice within seconds that another one
/// no longer answers.
const SETTINGS: &str = "cluster_partition_handling = pause_minority
net_ticktime = 5
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.target_cluster_size_hint = 3
";

/// The names of the nodes.
const NODES: [&str; 3] = ["r1", "r2", "r3"];

/// A private RabbitMQ cluster of three nodes, and the port mapper that they share. All end with this process.
pub struct LocalCluster {
    /// The nodes. Each can be stopped, killed and started again.
    pub nodes: [LocalRabbitMq; 3],
    epmd: Process,
}

impl LocalCluster {
    /// Starts three nodes in `folder` and waits until they have formed the cluster.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or a node does not start; the error has the end of its log.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let owner = Owner::find()?;
        owner.create_folder(folder)?;
        let (home, epmd_port) = (folder.canonicalize()?, free_port()?);
        let epmd = start_epmd(owner, &home, epmd_port).await?;
        let mut configuration = SETTINGS.to_owned();
        for (number, node) in (1..).zip(NODES) {
            writeln!(configuration, "cluster_formation.classic_config.nodes.{number} = {node}@localhost")?;
        }
        let node = |name: &str| {
            let place = (home.clone(), epmd_port);
            let mut node = LocalRabbitMq::prepare(owner, (&folder.join(name), name), place)?;
            node.configuration.clone_from(&configuration);
            anyhow::Ok(node)
        };
        let [mut one, mut two, mut three] = [node(NODES[0])?, node(NODES[1])?, node(NODES[2])?];
        // Nodes that start at once would each make one.
        let cookie = home.join(".erlang.cookie");
        fs::write(&cookie, Uuid::now_v7().simple().to_string())?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        owner.give(&cookie)?;
        try_join!(one.resume(), two.resume(), three.resume())?;
        one.control(&["await_online_nodes", "3", "--timeout", "60"]).await?;
        Ok(Self { nodes: [one, two, three], epmd })
    }

    /// The URL that lists every node, beginning with one of them.
    #[must_use]
    pub fn url_from(&self, first: usize) -> String {
        let nodes = self.nodes.iter().cycle().skip(first).take(self.nodes.len());
        let hosts: Vec<String> = nodes.map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("amqp://guest:guest@{}", hosts.join(","))
    }

    /// Separates a node from the others, as a broken network would: they do not answer each other.
    ///
    /// # Errors
    /// `rabbitmqctl` fails.
    pub async fn cut_off(&self, node: usize) -> anyhow::Result<()> {
        let cut = format!(
            "[begin erlang:set_cookie(N, wrong), erlang:disconnect_node(N) end || N <- {}].",
            self.others(node)
        );
        self.nodes[node].control(&["eval", &cut]).await.map(drop)
    }

    /// Undoes [`LocalCluster::cut_off`].
    ///
    /// # Errors
    /// `rabbitmqctl` fails.
    pub async fn heal(&self, node: usize) -> anyhow::Result<()> {
        let heal = format!(
            "[begin erlang:set_cookie(N, erlang:get_cookie()), net_kernel:connect_node(N) end || N <- {}].",
            self.others(node)
        );
        self.nodes[node].control(&["eval", &heal]).await.map(drop)
    }

    /// The other nodes, as Erlang writes a list.
    fn others(&self, node: usize) -> String {
        let others =
            self.nodes.iter().map(|other| &other.node).filter(|other| **other != self.nodes[node].node);
        format!("[{}]", others.map(|other| format!("'{other}'")).collect::<Vec<_>>().join(","))
    }

    /// Stops the nodes and the port mapper.
    ///
    /// # Errors
    /// Waiting for a process fails.
    pub async fn shut_down(mut self) -> anyhow::Result<()> {
        let [one, two, three] = &mut self.nodes;
        try_join!(one.stop(), two.stop(), three.stop())?;
        self.epmd.stop().await
    }
}
