//! The harness: an installation for each test. Every test ends with `finish`, which audits the whole database.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use point_system::{
    cli::{
        self, AccessArgs, BrokerArgs, DatabaseArgs, HttpArgs, MessageArgs, MetricsArgs, NodeArgs,
        PatienceArgs,
    },
    domain::{Installation, Partitions, Patience, PointService, audit},
    infra::{
        migrate,
        postgres::{Client as Session, Pool},
    },
    queue::QueueNames,
};
use tokio::{process::Command, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{
    client::{Client, Promises, REQUESTED},
    leaks,
    process::Process,
    queues::Queues,
    servers::{Database, OwnServers, database, servers},
};

/// The longest that a condition may take to become true.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The number of partitions of an installation, unless a test chooses another.
pub const PARTITIONS: Partitions = Partitions::DEFAULT;

/// The pauses between two looks at a condition.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(10);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Waits for `condition`, and fails the test if it does not become true. The longer it waits, the less often it looks.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    let mut looks = tokio::time::interval(LOOK_PAUSE_MIN);
    while !condition().await {
        let waited = started.elapsed();
        assert!(waited < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        looks.reset_after((waited / 20).clamp(LOOK_PAUSE_MIN, LOOK_PAUSE_MAX));
        looks.tick().await;
    }
}

/// An installation: its own database and queues, and the roles that a test starts.
pub struct System {
    pub database: Database,
    pub amqp_url: String,
    pub prefix: String,
    pub installation: Installation,
    pub pool: Pool,
    /// The URL that the nodes use for the database, if it differs from the test's.
    pub node_database_url: Option<String>,
    pub node_amqp_url: Option<String>,
    /// Whether its servers go away with the test.
    is_on_own: bool,
    roles: Vec<(CancellationToken, JoinHandle<anyhow::Result<()>>)>,
}

impl System {
    pub async fn new() -> Self {
        Self::with(PARTITIONS).await
    }

    /// An installation with this many partitions.
    pub async fn with(partitions: Partitions) -> Self {
        Self::on(Database::migrated().await, servers().await.amqp_url.clone(), partitions).await
    }

    /// An installation on servers that the test may stop.
    pub async fn on_own(servers: &OwnServers) -> Self {
        Self::on_own_with(servers, PARTITIONS).await
    }

    /// As `on_own`, with this many partitions.
    pub async fn on_own_with(servers: &OwnServers, partitions: Partitions) -> Self {
        let database = database(&servers.postgres.url(), "own", "template0").await;
        migrate::run(&database.pool(1), PATIENCE).await.expect("migrations");
        Self { is_on_own: true, ..Self::on(database, servers.broker.url(), partitions).await }
    }

    /// An installation on this database and broker.
    pub async fn on(database: Database, amqp_url: String, partitions: Partitions) -> Self {
        leaks::watch();
        let pool = database.pool(4);
        let (installation, _) = Installation::make(&pool, partitions).await.expect("an installation");
        let (prefix, roles, is_on_own) = (database.name.clone(), Vec::new(), false);
        let (node_database_url, node_amqp_url) = (None, None);
        Self {
            database,
            amqp_url,
            prefix,
            installation,
            pool,
            node_database_url,
            node_amqp_url,
            is_on_own,
            roles,
        }
    }

    /// The names of its queues.
    pub fn names(&self) -> QueueNames {
        QueueNames::new(&self.prefix.parse().expect("a valid prefix"), &self.installation)
    }

    pub fn partitions(&self) -> Partitions {
        self.installation.partitions
    }

    pub fn node(&self) -> NodeArgs {
        let (database_url, amqp_url) = self.node_urls();
        NodeArgs {
            database: DatabaseArgs { url: database_url.parse().expect("a valid URL") },
            broker: BrokerArgs {
                url: amqp_url.parse().expect("a valid URL"),
                prefix: self.prefix.parse().expect("a valid prefix"),
            },
            patience: PatienceArgs { startup_timeout: PATIENCE, shutdown_timeout: PATIENCE },
            metrics: MetricsArgs::default(),
            concurrency: 4,
        }
    }

    fn node_urls(&self) -> (&str, &str) {
        let database_url = self.node_database_url.as_ref().unwrap_or(&self.database.url);
        (database_url, self.node_amqp_url.as_ref().unwrap_or(&self.amqp_url))
    }

    pub fn service(&self, concurrency: usize) -> PointService {
        PointService::start(self.database.pool(concurrency), concurrency, &Patience::Caller)
    }

    /// Starts `serve` on a free port.
    pub fn serve(&mut self) -> Client {
        self.serve_with(AccessArgs::default())
    }

    /// As `serve`, with options for access.
    pub fn serve_with(&mut self, access: AccessArgs) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client = Client::new(&format!("http://{}", listener.local_addr().expect("bound")));
        let (node, stop) = (self.node(), CancellationToken::new());
        let http = HttpArgs { access, ..HttpArgs::default() };
        let role = {
            let stop = stop.clone();
            async move { cli::serve(listener, &node, (http, Duration::ZERO), stop).await }
        };
        self.roles.push((stop, tokio::spawn(role)));
        client
    }

    /// Starts a worker. Returns the token that stops it.
    pub fn work(&mut self) -> CancellationToken {
        self.work_with(MessageArgs::default())
    }

    /// As `work`, with options for messages.
    pub fn work_with(&mut self, messages: MessageArgs) -> CancellationToken {
        let (node, stop) = (self.node(), CancellationToken::new());
        let role = {
            let stop = stop.clone();
            async move { cli::work(&node, messages, stop).await }
        };
        self.roles.push((stop.clone(), tokio::spawn(role)));
        stop
    }

    /// Starts a role as a separate process.
    pub fn process(&self, role: &str, arguments: &[&str]) -> Process {
        self.process_with_log(role, arguments, "info")
    }

    /// As `process`, with log levels in the format of `RUST_LOG`.
    pub fn process_with_log(&self, role: &str, arguments: &[&str], log: &str) -> Process {
        Process::start(role, arguments, |command| self.set_up(command, log))
    }

    /// As `process`, with a limit of open files.
    pub fn process_with_descriptors(&self, role: &str, arguments: &[&str], descriptors: usize) -> Process {
        Process::start_limited(descriptors, role, arguments, |command| self.set_up(command, "info"))
    }

    pub fn set_up(&self, command: &mut Command, log: &str) {
        let (database_url, amqp_url) = self.node_urls();
        command.env("DATABASE_URL", database_url).env("AMQP_URL", amqp_url);
        command.env("POINT_SYSTEM_QUEUE_PREFIX", &self.prefix).env("RUST_LOG", log);
    }

    pub async fn queues(&self) -> Queues {
        Queues::connect(&self.amqp_url, self.names()).await
    }

    /// A connection without the limits of the service: a test may read a whole table.
    async fn client(&self) -> Session {
        let client = self.pool.get().await.expect("a connection");
        client.batch_execute("reset all").await.expect("reset");
        client
    }

    /// The number that a query returns.
    pub async fn count(&self, query: &str) -> i64 {
        let client = self.client().await;
        client.query_one(query, &[]).await.expect(query).get(0)
    }

    /// The rows that a query returns.
    pub async fn rows(&self, query: &str) -> Vec<tokio_postgres::Row> {
        self.client().await.query(query, &[]).await.expect(query)
    }

    /// Runs a statement.
    pub async fn execute(&self, statement: &str) {
        self.client().await.batch_execute(statement).await.expect(statement);
    }

    /// Waits until the log has this many entries.
    pub async fn drain(&self, entries: usize) {
        let expected = i64::try_from(entries).expect("a small number");
        let what = format!("{entries} entries in the log");
        eventually(&what, async || self.count("select count(*) from log").await >= expected).await;
    }

    /// Each user's request ids, in the order of the log.
    pub async fn ledger(&self) -> Promises {
        let query = format!(
            "select user_id::bigint, request_id::text from log where {REQUESTED} order by user_id, seq"
        );
        let mut ledger = Promises::new();
        for row in self.rows(&query).await {
            ledger.entry(row.get(0)).or_default().push(row.get(1));
        }
        ledger
    }

    /// Stops the roles, one after the other.
    pub async fn stop(&mut self) {
        for (stop, role) in self.roles.drain(..) {
            stop.cancel();
            role.await.expect("no panic").expect("a clean end");
        }
    }

    /// Stops the roles, audits the database, and checks that no delta is left in a queue: a message that a worker did
    /// not ack would be back there. Also checks that no log of any test has an API key so far.
    pub async fn finish(mut self) {
        self.stop().await;
        self.audit().await;
        let queues = self.queues().await;
        assert_eq!(queues.waiting().await, 0, "deltas left in the queues");
        // Soon after a restart, a RabbitMQ 3.10.8 that deletes such queues can crash (rabbit_fifo_dlx, mended later).
        if !self.is_on_own {
            queues.delete().await;
        }
        leaks::have_neither();
        self.discard().await;
    }

    /// As `finish`, but first lets workers empty the queues, including duplicates. The broker does not count messages
    /// that a worker holds. They are back in the queue once it has stopped, and the next worker takes them.
    pub async fn finish_drained(mut self) {
        let queues = self.queues().await;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            eventually("nothing is left in the queues", async || queues.waiting().await == 0).await;
            self.stop().await;
            if queues.waiting().await == 0 {
                break;
            }
            self.work();
        }
        self.finish().await;
    }

    /// As `finish`, for a test without queues.
    pub async fn finish_without_queues(self) {
        self.audit().await;
        leaks::have_neither();
        self.discard().await;
    }

    /// Removes the database of a test that has damaged it, without an audit.
    pub async fn discard(self) {
        self.pool.close();
        self.database.drop().await;
    }

    /// Checks that the whole database is sound.
    pub async fn audit(&self) {
        audit(&self.pool, |_, _| {}, |finding| panic!("{finding}")).await.expect("a report");
    }
}
