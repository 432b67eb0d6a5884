//! The harness: one private PostgreSQL and one private RabbitMQ for all tests, a database and a queue prefix
//! for each. Every test ends with `finish`, which audits the whole database.

use std::{
    env,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use deadpool_postgres::Pool;
use point_system::{
    config::{BrokerArgs, DatabaseArgs, NodeArgs, PatienceArgs},
    domain::{Patience, PointService},
    local::{LocalPostgres, LocalRabbitMq},
    migrate, postgres,
    queue::QueueNames,
    roles,
};
use tokio::{sync::OnceCell, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, Promises},
    queues::Queues,
};

/// The longest that a condition may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `condition`, and fails the test where it does not come true.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        looks.tick().await;
    }
}

/// The servers of this test run. They end with the process.
struct Servers {
    database_url: String,
    amqp_url: String,
    _own: Option<OwnServers>,
}

/// Private servers, and the lock that tells later runs that their folder is in use.
pub struct OwnServers {
    pub postgres: LocalPostgres,
    pub broker: LocalRabbitMq,
    folder: PathBuf,
    _lock: File,
}

impl OwnServers {
    pub async fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("{FOLDER_PREFIX}{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let lock = File::create(folder.join("lock")).expect("a lock file");
        lock.try_lock().expect("a folder of our own");
        let (in_postgres, in_rabbitmq) = (folder.join("postgres"), folder.join("rabbitmq"));
        let started =
            tokio::try_join!(LocalPostgres::start(&in_postgres), LocalRabbitMq::start(&in_rabbitmq));
        let (postgres, broker) = started.expect("private servers");
        Self { postgres, broker, folder, _lock: lock }
    }

    pub async fn stop(mut self) {
        self.broker.shut_down().await.expect("RabbitMQ stops");
        self.postgres.stop().await.expect("PostgreSQL stops");
        fs::remove_dir_all(self.folder).expect("the folder is ours");
    }
}

const FOLDER_PREFIX: &str = "point-system-test-";

/// Removes the folders of runs that ended, however they did.
fn sweep() {
    let entries = fs::read_dir(env::temp_dir()).expect("a temporary folder").flatten();
    for folder in entries.map(|entry| entry.path()) {
        let ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOLDER_PREFIX));
        if ours && is_left(&folder) {
            fs::remove_dir_all(&folder).ok();
        }
    }
}

fn is_left(folder: &Path) -> bool {
    let logs = ["lock", "postgres/postgres.log", "rabbitmq/rabbitmq.log"].map(|name| folder.join(name));
    logs.iter().filter_map(|log| File::open(log).ok()).all(|log| log.try_lock().is_ok())
}

/// Starts the servers once. `POINT_SYSTEM_TEST_DATABASE_URL` and `POINT_SYSTEM_TEST_AMQP_URL` name running
/// ones instead; the databases and queues that the tests make there are theirs alone.
async fn servers() -> &'static Servers {
    static SERVERS: OnceCell<Servers> = OnceCell::const_new();
    let start = async || {
        let named = ["POINT_SYSTEM_TEST_DATABASE_URL", "POINT_SYSTEM_TEST_AMQP_URL"].map(env::var);
        let servers = if let [Ok(database_url), Ok(amqp_url)] = named {
            Servers { database_url, amqp_url, _own: None }
        } else {
            let own = OwnServers::start().await;
            Servers { database_url: own.postgres.url(), amqp_url: own.broker.url(), _own: Some(own) }
        };
        let template = database(&servers.database_url, TEMPLATE, "template0").await;
        migrate::run(&template.pool(1), PATIENCE).await.expect("migrations");
        servers
    };
    SERVERS.get_or_init(start).await
}

const TEMPLATE: &str = "point_system_test_template";

/// A database of its own.
pub struct Database {
    pub url: String,
    name: String,
    server: String,
}

impl Database {
    /// A fresh database without tables.
    pub async fn empty() -> Self {
        database(&servers().await.database_url, &fresh_name(), "template0").await
    }

    /// A fresh database with our tables.
    pub async fn migrated() -> Self {
        database(&servers().await.database_url, &fresh_name(), TEMPLATE).await
    }

    pub fn pool(&self, size: usize) -> Pool {
        postgres::pool(&self.url.parse().expect("a valid URL"), size).expect("a pool")
    }

    pub async fn drop(self) {
        let pool = postgres::pool(&self.server.parse().expect("a valid URL"), 1).expect("a pool");
        let client = pool.get().await.expect("a connection");
        client.batch_execute(&format!("drop database {} with (force)", self.name)).await.expect("dropped");
    }
}

async fn database(server: &str, name: &str, template: &str) -> Database {
    let pool = postgres::pool(&server.parse().expect("a valid URL"), 1).expect("a pool");
    let client = pool.get().await.expect("a connection");
    client.batch_execute(&format!("drop database if exists {name}")).await.expect("dropped");
    client.batch_execute(&format!("create database {name} template {template}")).await.expect("created");
    let mut url = url::Url::parse(server).expect("a valid URL");
    url.set_path(name);
    Database { url: url.into(), name: name.to_owned(), server: server.to_owned() }
}

fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("point_system_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// An installation: a database and queues of its own, and the roles that a test starts.
pub struct System {
    pub database: Database,
    pub amqp_url: String,
    pub prefix: String,
    pub pool: Pool,
    roles: Vec<(CancellationToken, JoinHandle<anyhow::Result<()>>)>,
}

impl System {
    pub async fn new() -> Self {
        Self::on(Database::migrated().await, servers().await.amqp_url.clone())
    }

    /// An installation on servers that the test may stop.
    pub async fn on_own(servers: &OwnServers) -> Self {
        let database = database(&servers.postgres.url(), "own", "template0").await;
        migrate::run(&database.pool(1), PATIENCE).await.expect("migrations");
        Self::on(database, servers.broker.url())
    }

    fn on(database: Database, amqp_url: String) -> Self {
        let pool = database.pool(4);
        Self { pool, prefix: database.name.clone(), database, amqp_url, roles: Vec::new() }
    }

    pub fn node(&self) -> NodeArgs {
        NodeArgs {
            database: DatabaseArgs { url: self.database.url.parse().expect("a valid URL") },
            broker: BrokerArgs {
                url: self.amqp_url.parse().expect("a valid URL"),
                names: QueueNames::new(&self.prefix).expect("a valid name"),
            },
            patience: PatienceArgs { startup_timeout: PATIENCE, shutdown_timeout: PATIENCE },
            concurrency: 4,
        }
    }

    pub fn service(&self, lanes: usize) -> PointService {
        PointService::start(self.database.pool(lanes), lanes, &Patience::Caller)
    }

    /// Starts `serve` on a port of its own.
    pub fn serve(&mut self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let client = Client::new(&format!("http://{}", listener.local_addr().expect("bound")));
        let (node, stop) = (self.node(), CancellationToken::new());
        let role = {
            let stop = stop.clone();
            async move { roles::serve(listener, &node, stop).await }
        };
        self.roles.push((stop, tokio::spawn(role)));
        client
    }

    /// Starts a worker; returns what stops it.
    pub fn work(&mut self) -> CancellationToken {
        let (node, stop) = (self.node(), CancellationToken::new());
        let role = {
            let stop = stop.clone();
            async move { roles::work(&node, stop).await }
        };
        self.roles.push((stop.clone(), tokio::spawn(role)));
        stop
    }

    pub async fn queues(&self) -> Queues {
        Queues::connect(&self.amqp_url, &self.prefix).await
    }

    /// A number that a query gives.
    pub async fn count(&self, query: &str) -> i64 {
        let client = self.pool.get().await.expect("a connection");
        client.query_one(query, &[]).await.expect(query).get(0)
    }

    /// Waits until the log has `entries`.
    pub async fn drain(&self, entries: usize) {
        let expected = i64::try_from(entries).expect("a small number");
        let what = format!("{entries} entries in the log");
        eventually(&what, async || self.count("select count(*) from log").await >= expected).await;
    }

    /// Each user's request ids, in the order of the log.
    pub async fn ledger(&self) -> Promises {
        let client = self.pool.get().await.expect("a connection");
        let rows = client.query("select user_id, request_id::text from log order by user_id, seq", &[]).await;
        let mut ledger = Promises::new();
        for row in rows.expect("the log") {
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

    /// Stops the roles, audits the database, and sees that no delta is left in a queue: what a worker took
    /// and did not ack would be back there.
    pub async fn finish(mut self) {
        self.stop().await;
        assert_eq!(audit(&self.pool).await, Vec::<String>::new(), "users whose ledger is broken");
        let queues = self.queues().await;
        assert_eq!(queues.waiting().await, 0, "deltas left in the queues");
        queues.delete().await;
        self.pool.close();
        self.database.drop().await;
    }

    /// The same for a test without queues.
    pub async fn finish_without_queues(self) {
        assert_eq!(audit(&self.pool).await, Vec::<String>::new(), "users whose ledger is broken");
        self.pool.close();
        self.database.drop().await;
    }
}

/// The users whose balance is not what their log comes to, or whose log has a gap or a break.
pub async fn audit(pool: &Pool) -> Vec<String> {
    const AUDIT: &str = "
        with entry as (
            select user_id, seq, balance, status,
                lag(balance, 1, 0::bigint) over w as before, row_number() over w as place,
                case status when 'rejected' then 0 else case action when 'add' then point else -point end end
                    as change
            from log window w as (partition by user_id order by seq)
        ), ledger as (
            select user_id, sum(change) as point, max(seq) as seq,
                bool_and(seq = place and balance = before + change and balance >= 0) as intact
            from entry group by user_id
        )
        select coalesce(u.user_id, l.user_id)::text from user_point u full join ledger l using (user_id)
        where l.intact is distinct from true or u.point is distinct from l.point or u.seq is distinct from l.seq";
    let client = pool.get().await.expect("a connection");
    // A ledger is read whole: the session's preference for indexes is not for this.
    client.batch_execute("reset all").await.expect("reset");
    client.query(AUDIT, &[]).await.expect("audit").iter().map(|row| row.get(0)).collect()
}
