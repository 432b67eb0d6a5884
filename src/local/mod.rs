//! A private PostgreSQL and a private RabbitMQ as child processes, for `dev`, the tests and the benches. Each has its
//! own loopback ports and data folder. Must not contain anything that touches a server that already runs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::infra::postgres;
use process::{Owner, Process};

mod process;
mod programs;
mod rabbitmq;
mod cluster;
mod replicas;

pub use cluster::LocalCluster;
pub use process::free_port;
pub use rabbitmq::LocalRabbitMq;
pub use replicas::LocalReplicas;

/// The user and the database of the private PostgreSQL, which trusts every local user.
const NAME: &str = "point_system";

/// A private PostgreSQL. It ends with this process, however this process ends.
pub struct LocalPostgres {
    folder: PathBuf,
    owner: Owner,
    port: u16,
    /// Settings besides those of every private PostgreSQL.
    settings: Vec<String>,
    process: Option<Process>,
}

impl LocalPostgres {
    /// Starts it in `folder`, with the data of earlier runs.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start; the error has the end of its log.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        Self::start_with(folder, Vec::new()).await
    }

    async fn start_with(folder: &Path, settings: Vec<String>) -> anyhow::Result<Self> {
        let mut server = Self::prepare(folder, settings)?;
        server.create_cluster()?;
        server.resume().await?;
        server.create_database().await?;
        Ok(server)
    }

    /// A server that has no data yet.
    fn prepare(folder: &Path, settings: Vec<String>) -> anyhow::Result<Self> {
        let owner = Owner::find()?;
        owner.create_folder(folder)?;
        Ok(Self { folder: folder.canonicalize()?, owner, port: free_port()?, settings, process: None })
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

    /// Kills it (SIGKILL).
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
    /// As [`LocalPostgres::start`].
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(programs::postgres()?.join("postgres"));
        command.current_dir(&self.folder).arg("-D").arg(self.cluster());
        let common = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.port),
            "unix_socket_directories=".to_owned(),
            "max_connections=300".to_owned(),
            // PostgreSQL's defaults suit very small machines. It takes this memory only as it uses it.
            "shared_buffers=512MB".to_owned(),
            "max_wal_size=4GB".to_owned(),
        ];
        for setting in common.iter().chain(&self.settings) {
            command.args(["-c", setting]);
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
