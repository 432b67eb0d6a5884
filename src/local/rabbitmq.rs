//! A private RabbitMQ, alone or as a node of a cluster. Must not contain anything about our queues.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::bail;
use tokio::net::TcpStream;

use super::{
    process::{Owner, Process, free_port},
    programs,
};

/// A private RabbitMQ, with the port mapper that Erlang needs. Both end with this process.
pub struct LocalRabbitMq {
    folder: PathBuf,
    owner: Owner,
    pub(super) node: String,
    /// The text of its `rabbitmq.conf`.
    pub(super) configuration: String,
    /// The folder of the cookie, by which nodes recognise each other.
    home: PathBuf,
    pub(super) port: u16,
    distribution_port: u16,
    epmd_port: u16,
    process: Option<Process>,
    /// The nodes of a cluster share one, which is not theirs.
    epmd: Option<Process>,
}

impl LocalRabbitMq {
    /// Starts it in `folder`, with the messages of earlier runs.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or does not start; the error has the end of its log.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let owner = Owner::find()?;
        owner.create_folder(folder)?;
        let home = folder.canonicalize()?;
        let epmd_port = free_port()?;
        let epmd = start_epmd(owner, &home, epmd_port).await?;
        let mut server = Self::prepare(owner, (folder, "point_system"), (home, epmd_port))?;
        server.epmd = Some(epmd);
        server.resume().await?;
        Ok(server)
    }

    /// A node that has not started yet, and its home and port mapper.
    pub(super) fn prepare(
        owner: Owner,
        (folder, node): (&Path, &str),
        (home, epmd_port): (PathBuf, u16),
    ) -> anyhow::Result<Self> {
        owner.create_folder(folder)?;
        Ok(Self {
            folder: folder.canonicalize()?,
            owner,
            node: format!("{node}@localhost"),
            configuration: String::new(),
            home,
            port: free_port()?,
            distribution_port: free_port()?,
            epmd_port,
            process: None,
            epmd: None,
        })
    }

    /// The URL, with the default user and virtual host.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// Stops the broker.
    ///
    /// # Errors
    /// Waiting for its process fails.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    /// Kills the broker (SIGKILL).
    ///
    /// # Errors
    /// Waiting for its process fails.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Starts it again, on the same port.
    ///
    /// # Errors
    /// As [`LocalRabbitMq::start`].
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let folder = |name: &str| self.folder.join(name);
        std::fs::write(folder("enabled_plugins"), "[].\n")?;
        // RabbitMQ reads these files instead of the machine's settings, which are for another node.
        std::fs::write(folder("rabbitmq.conf"), &self.configuration)?;
        std::fs::write(folder("rabbitmq-env.conf"), "")?;
        let mut command = Command::new(programs::rabbitmq()?.join("rabbitmq-server"));
        self.settle_in(&mut command);
        let (log, port) = (self.folder.join("rabbitmq.log"), self.port);
        let answers = async || answers(port).await;
        self.process = Some(Process::start("RabbitMQ", &command, "TERM", log, self.owner, answers).await?);
        Ok(())
    }

    /// Runs `rabbitmqctl` as the user and in the environment of this broker. Returns what it printed.
    ///
    /// # Errors
    /// `rabbitmqctl` fails; the error has what it printed.
    pub async fn control(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run("rabbitmqctl", arguments).await
    }

    /// As [`LocalRabbitMq::control`], with another of RabbitMQ's programs.
    ///
    /// # Errors
    /// The program fails; the error has what it printed.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.owner.command(programs::rabbitmq()?.join(program), &self.folder);
        self.settle_in(command.args(arguments));
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if !output.status.success() {
            bail!("{program} failed: {printed}");
        }
        Ok(printed)
    }

    /// Sets the environment of RabbitMQ's programs, in which they find this node and no other.
    fn settle_in(&self, command: &mut Command) {
        let folder = |name: &str| self.folder.join(name);
        command
            .current_dir(&self.folder)
            .env("HOME", &self.home)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", folder("rabbitmq-env.conf"))
            .env("RABBITMQ_CONFIG_FILE", folder("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder("enabled_plugins"))
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder("data"))
            .env("RABBITMQ_LOG_BASE", &self.folder)
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", folder("rabbitmq.pid"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
            )
            // With this, the script becomes the broker instead of its parent.
            .env("RUNNING_UNDER_SYSTEMD", "true");
    }

    /// Stops the broker and the port mapper.
    ///
    /// # Errors
    /// Waiting for a process fails.
    pub async fn shut_down(mut self) -> anyhow::Result<()> {
        self.stop().await?;
        match self.epmd.take() {
            Some(epmd) => epmd.stop().await,
            None => Ok(()),
        }
    }
}

/// Starts Erlang's port mapper.
pub(super) async fn start_epmd(owner: Owner, folder: &Path, port: u16) -> anyhow::Result<Process> {
    let mut command = Command::new(programs::epmd(&programs::rabbitmq()?)?);
    command.current_dir(folder).args(["-address", "127.0.0.1", "-port", &port.to_string()]);
    Process::start("epmd", &command, "TERM", folder.join("epmd.log"), owner, async || answers(port).await)
        .await
}

async fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    matches!(tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address)).await, Ok(Ok(_)))
}
