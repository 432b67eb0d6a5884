//! A private PostgreSQL primary with two synchronous standbys. Must not contain anything about our tables.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{time::sleep, try_join};

use super::{LocalPostgres, NAME, process::POLL_MS};
use crate::infra::postgres;

/// The names of the servers, by which a primary knows its standbys.
const NAMES: [&str; 3] = ["s1", "s2", "s3"];

/// Each of the three may become the primary. It then waits for one of the other two with every commit. The command has
/// no effect on a standby.
const WAIT_FOR_ONE: &str = "alter system set synchronous_standby_names = 'ANY 1 (s1, s2, s3)'";

const RELOAD: &str = "select pg_reload_conf()";

/// Promotes a standby, and waits for it.
const PROMOTE: &str = "select pg_promote(true, 30)::int::bigint as number";

/// How much of the primary's log a standby has, in bytes.
const RECEIVED: &str =
    "select (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0')::bigint as number";

/// The longest that a standby may take to leave its primary.
const LEAVE_TIMEOUT_MS: u64 = 30_000;

const FOLLOW_NOBODY: &str = "alter system set primary_conninfo = ''";

/// Whether a standby is connected to a primary.
const RECEIVING: &str = "select count(*) as number from pg_stat_wal_receiver";

const STREAMING: &str = "select count(*) as number from pg_stat_replication where state = 'streaming'";

/// A private PostgreSQL primary and two synchronous standbys. They end with this process.
pub struct LocalReplicas {
    /// The servers. Each can be stopped, killed and started again.
    pub servers: [LocalPostgres; 3],
    primary: usize,
}

impl LocalReplicas {
    /// Starts the three in `folder`.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or a server does not start; the error has the end of its log.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        // A standby that has lost its primary looks for the next one five times a second, and finds what it lacks there.
        let settings = ["wal_retrieve_retry_interval=200ms", "wal_keep_size=1GB"].map(str::to_owned);
        let place = |number: usize| folder.join(NAMES[number]);
        let primary = LocalPostgres::start_with(&place(0), settings.to_vec()).await?;
        let standby = |number: usize| LocalPostgres::prepare(&place(number), settings.to_vec());
        let mut replicas = Self { servers: [primary, standby(1)?, standby(2)?], primary: 0 };
        replicas.servers[0].execute(WAIT_FOR_ONE).await?;
        for number in replicas.standbys() {
            replicas.copy(number).await?;
        }
        replicas.servers[0].execute(RELOAD).await?;
        Ok(replicas)
    }

    /// The number of the primary.
    #[must_use]
    pub fn primary(&self) -> usize {
        self.primary
    }

    /// The numbers of the other two.
    #[must_use]
    pub fn standbys(&self) -> [usize; 2] {
        [(self.primary + 1) % 3, (self.primary + 2) % 3]
    }

    /// The URL of a database that lists every server, whichever is the primary.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let hosts = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        format!("postgres://{NAME}@{}/{database}", hosts.collect::<Vec<_>>().join(","))
    }

    /// Promotes the standby that has received the most: one of the two may lack commits that the other has confirmed.
    /// The other one follows it. Before, both leave the old primary: if it is not down, its commits wait from now on.
    ///
    /// # Errors
    /// A standby does not answer, or can't be promoted.
    pub async fn promote(&mut self) -> anyhow::Result<()> {
        let [one, two] = self.standbys();
        for standby in [one, two] {
            self.servers[standby].execute(FOLLOW_NOBODY).await?;
            self.servers[standby].execute(RELOAD).await?;
            let began = Instant::now();
            while self.servers[standby].number(RECEIVING).await? > 0 {
                if began.elapsed() > Duration::from_millis(LEAVE_TIMEOUT_MS) {
                    bail!("a standby did not leave the old primary in time");
                }
                sleep(Duration::from_millis(POLL_MS)).await;
            }
        }
        let received = try_join!(self.servers[one].number(RECEIVED), self.servers[two].number(RECEIVED))?;
        let (next, other) = if received.0 >= received.1 { (one, two) } else { (two, one) };
        if self.servers[next].number(PROMOTE).await? == 0 {
            bail!("the standby was not promoted in time");
        }
        self.primary = next;
        let follow = format!("alter system set primary_conninfo = '{}'", self.address_for(other));
        self.servers[other].execute(&follow).await?;
        self.servers[other].execute(RELOAD).await
    }

    /// Makes a server that is down a standby of the primary, with a fresh copy of its data.
    ///
    /// # Errors
    /// `pg_basebackup` fails, or the server does not start.
    pub async fn copy(&mut self, number: usize) -> anyhow::Result<()> {
        let address = self.address_for(number);
        let server = &mut self.servers[number];
        let data = server.cluster();
        if data.exists() {
            std::fs::remove_dir_all(&data).context("removing the old data")?;
        }
        let mut command = server.program("pg_basebackup")?;
        command
            .args(["--write-recovery-conf", "--checkpoint=fast", "--dbname", &address, "--pgdata"])
            .arg(&data);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        if !output.status.success() {
            bail!("pg_basebackup failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        server.resume().await
    }

    /// The number of standbys that receive everything from the primary.
    ///
    /// # Errors
    /// The primary does not answer.
    pub async fn streaming(&self) -> anyhow::Result<i64> {
        self.servers[self.primary].number(STREAMING).await
    }

    /// The address of the primary for one of its standbys.
    fn address_for(&self, standby: usize) -> String {
        let port = self.servers[self.primary].port;
        format!("host=127.0.0.1 port={port} user={NAME} application_name={}", NAMES[standby])
    }

    /// Stops the three.
    ///
    /// # Errors
    /// Waiting for a process fails.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        // The primary waits for its standbys, so that they have all of its log.
        self.servers[self.primary].stop().await?;
        for standby in self.standbys() {
            self.servers[standby].stop().await?;
        }
        Ok(())
    }
}

impl LocalPostgres {
    /// Runs a command, on a primary or on a standby.
    async fn execute(&self, command: &str) -> anyhow::Result<()> {
        let url = self.url_of("postgres").parse().map_err(anyhow::Error::msg)?;
        Ok(postgres::reading_pool(&url, 1)?.get().await?.batch_execute(command).await?)
    }

    /// The number that a query returns, on a primary or on a standby.
    async fn number(&self, query: &str) -> anyhow::Result<i64> {
        let url = self.url_of("postgres").parse().map_err(anyhow::Error::msg)?;
        let client = postgres::reading_pool(&url, 1)?.get().await?;
        // A promotion may take longer than the statements of the service.
        client.batch_execute("reset all").await?;
        Ok(client.query_one(query, &[]).await?.try_get("number")?)
    }
}
