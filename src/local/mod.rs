//! A private PostgreSQL and a private RabbitMQ as child processes, for `dev`, the tests and the benches. Each has its
//! own loopback ports and data folder. Must not contain anything that touches a server that already runs.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::net::TcpStream;

use crate::infra::postgres;
use process::{Owner, Process, free_port};

mod process;
mod programs;

/// The user and the database of the private PostgreSQL, which trusts every local user.
const NAME: &str = "point_system";

/// A private PostgreSQL. It ends with this process, however this process ends.
pub struct LocalPostgres {
    folder: PathBuf,
    owner: Owner,
    port: u16,
    process: Option<Process>,
}

impl LocalPostgres {
    /// Starts it in `folder`, with the data of earlier runs.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start; the error has the end of its log.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let owner = Owner::find()?;
        owner.create_folder(folder)?;
        let mut server = Self { folder: folder.canonicalize()?, owner, port: free_port()?, process: None };
        server.create_cluster()?;
        server.resume().await?;
        server.create_database().await?;
        Ok(server)
    }

    /// The URL of the database `point_system`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(NAME)
    }

    /// A command that runs one of PostgreSQL's programs, such as `pg_basebackup`, as the user and in the folder of this
    /// server.
    ///
    /// # Errors
    /// PostgreSQL is not installed.
    pub fn program(&self, name: &str) -> anyhow::Result<Command> {
        // The folder may have links to the server only; the other programs are beside the file itself.
        let server = programs::postgres()?.join("postgres").canonicalize()?;
        Ok(self.owner.command(server.with_file_name(name), &self.folder))
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://{NAME}@127.0.0.1:{}/{database}", self.port)
    }

    /// Stops it, in PostgreSQL's "fast" mode.
    ///
    /// # Errors
    /// Waiting for its process fails.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    /// Starts it again, on the same port.
    ///
    /// # Errors
    /// As [`LocalPostgres::start`].
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(programs::postgres()?.join("postgres"));
        command.current_dir(&self.folder).arg("-D").arg(self.cluster());
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            "unix_socket_directories=".to_owned(),
            "max_connections=300".to_owned(),
            // PostgreSQL's defaults suit very small machines. It takes this memory only as it uses it.
            "shared_buffers=512MB".to_owned(),
            "max_wal_size=4GB".to_owned(),
        ] {
            command.args(["-c", &setting]);
        }
        let log = self.folder.join("postgres.log");
        let url = self.url_of("postgres").parse().map_err(anyhow::Error::msg)?;
        let pool = postgres::reading_pool(&url, 1)?;
        let answers = async || pool.get().await.is_ok();
        self.process = Some(Process::start("PostgreSQL", &command, "INT", log, self.owner, answers).await?);
        Ok(())
    }

    fn cluster(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Runs `initdb` in another folder and renames that, so that an interrupted run leaves no half-made cluster.
    fn create_cluster(&self) -> anyhow::Result<()> {
        if self.cluster().exists() {
            return Ok(());
        }
        let fresh = self.folder.join("data.new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh)?;
        }
        let output = self
            .owner
            .command(programs::postgres()?.join("initdb"), &self.folder)
            .args(["--username", NAME, "--auth=trust", "--encoding=UTF8", "--no-locale", "--pgdata"])
            .arg(&fresh)
            .output()
            .context("running initdb")?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::fs::rename(fresh, self.cluster()).context("renaming the new cluster")
    }

    async fn create_database(&self) -> anyhow::Result<()> {
        let url = self.url_of("postgres").parse().map_err(anyhow::Error::msg)?;
        let client = postgres::pool(&url, 1)?.get().await?;
        let known = "select 1 from pg_database where datname = $1";
        if client.query_opt(known, &[&NAME]).await?.is_none() {
            client.batch_execute(&format!("create database {NAME}")).await?;
        }
        Ok(())
    }
}

/// A private RabbitMQ, with the port mapper that Erlang needs. Both end with this process.
pub struct LocalRabbitMq {
    folder: PathBuf,
    owner: Owner,
    port: u16,
    distribution_port: u16,
    epmd_port: u16,
    process: Option<Process>,
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
        let [port, distribution_port, epmd_port] = [free_port()?, free_port()?, free_port()?];
        let folder = folder.canonicalize()?;
        let mut server =
            Self { folder, owner, port, distribution_port, epmd_port, process: None, epmd: None };
        let epmd = programs::epmd(&programs::rabbitmq()?)?;
        let mut command = Command::new(epmd);
        command.current_dir(&server.folder).args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()]);
        let log = server.folder.join("epmd.log");
        let answers = async || answers(epmd_port).await;
        server.epmd = Some(Process::start("epmd", &command, "TERM", log, owner, answers).await?);
        server.resume().await?;
        Ok(server)
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

    /// Starts it again, on the same port.
    ///
    /// # Errors
    /// As [`LocalRabbitMq::start`].
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let folder = |name: &str| self.folder.join(name);
        std::fs::write(folder("enabled_plugins"), "[].\n")?;
        // RabbitMQ reads these files instead of the machine's settings, which are for another node.
        std::fs::write(folder("rabbitmq.conf"), "")?;
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
        let mut command = self.owner.command(programs::rabbitmq()?.join("rabbitmqctl"), &self.folder);
        self.settle_in(command.args(arguments));
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if !output.status.success() {
            bail!("rabbitmqctl failed: {printed}");
        }
        Ok(printed)
    }

    /// Sets the environment of RabbitMQ's programs, in which they find this node and no other.
    fn settle_in(&self, command: &mut Command) {
        let folder = |name: &str| self.folder.join(name);
        command
            .current_dir(&self.folder)
            .env("HOME", &self.folder)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", folder("rabbitmq-env.conf"))
            .env("RABBITMQ_CONFIG_FILE", folder("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder("enabled_plugins"))
            .env("RABBITMQ_NODENAME", "point_system@localhost")
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

async fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    matches!(tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address)).await, Ok(Ok(_)))
}
