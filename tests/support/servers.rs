//! The servers of the tests: one private PostgreSQL and one private RabbitMQ for all tests, and a database for each
//! test.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use point_system::{
    infra::{
        migrate,
        postgres::{self, Pool},
    },
    local::{LocalPostgres, LocalRabbitMq},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::support::system::{PATIENCE, System};

/// The servers of this test run. They end with the process.
pub struct Servers {
    database_url: String,
    pub amqp_url: String,
    own: Option<OwnServers>,
}

impl Servers {
    /// The broker, if this test run has started it.
    pub fn broker(&self) -> Option<&LocalRabbitMq> {
        self.own.as_ref().map(|own| &own.broker)
    }
}

/// Private servers, and the lock that shows other runs that their folder is in use.
pub struct OwnServers {
    pub postgres: LocalPostgres,
    pub broker: LocalRabbitMq,
    pub folder: PathBuf,
    _log: BrokerLog,
    _lock: File,
}

impl OwnServers {
    pub async fn start() -> Self {
        let (folder, lock) = own_folder();
        let (in_postgres, in_rabbitmq) = (folder.join("postgres"), folder.join("rabbitmq"));
        let started =
            tokio::try_join!(LocalPostgres::start(&in_postgres), LocalRabbitMq::start(&in_rabbitmq));
        let (postgres, broker) = started.expect("private servers");
        Self { postgres, broker, _log: BrokerLog(in_rabbitmq), folder, _lock: lock }
    }

    pub async fn stop(mut self) {
        self.broker.shut_down().await.expect("RabbitMQ stops");
        self.postgres.stop().await.expect("PostgreSQL stops");
        fs::remove_dir_all(self.folder).expect("the folder is ours");
    }
}

/// Prints the end of a broker's log if the test fails, because the log is in the folder of the servers.
struct BrokerLog(PathBuf);

impl Drop for BrokerLog {
    fn drop(&mut self) {
        const LINES: usize = 100;
        if std::thread::panicking() {
            let log = fs::read_to_string(self.0.join("rabbitmq.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "the end of RabbitMQ's log:\n{}",
                lines[lines.len().saturating_sub(LINES)..].join("\n")
            );
        }
    }
}

const FOLDER_PREFIX: &str = "point-system-test-";

/// A folder for servers, and the lock that shows other runs that it is in use.
pub fn own_folder() -> (PathBuf, File) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    sweep();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{FOLDER_PREFIX}{}-{count}", std::process::id());
    // The folder has another name until it is locked, so that no other run takes it for an abandoned one.
    let unlocked = env::temp_dir().join(format!("new-{name}"));
    fs::create_dir_all(&unlocked).expect("a temporary folder");
    let lock = File::create(unlocked.join("lock")).expect("a lock file");
    lock.try_lock().expect("a folder of our own");
    let folder = env::temp_dir().join(name);
    fs::rename(unlocked, &folder).expect("a name of our own");
    (folder, lock)
}

/// Removes the folders of runs that have ended, cleanly or not.
fn sweep() {
    let entries = fs::read_dir(env::temp_dir()).expect("a temporary folder").flatten();
    for folder in entries.map(|entry| entry.path()) {
        let ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOLDER_PREFIX));
        if ours && is_left(&folder) {
            fs::remove_dir_all(&folder).ok();
        }
    }
}

/// Returns whether a run has ended, and its servers as well: alone, or the members of a cluster.
fn is_left(folder: &Path) -> bool {
    let logs = ["lock", "postgres/postgres.log", "rabbitmq/rabbitmq.log"].map(str::to_owned);
    let member =
        |number| [format!("postgres/s{number}/postgres.log"), format!("rabbitmq/r{number}/rabbitmq.log")];
    let logs = logs.into_iter().chain((1..=3).flat_map(member)).map(|name| folder.join(name));
    logs.filter_map(|log| File::open(log).ok()).all(|log| log.try_lock().is_ok())
}

/// Starts the servers once. `POINT_SYSTEM_TEST_DATABASE_URL` and `POINT_SYSTEM_TEST_AMQP_URL` name running servers to
/// use instead. The tests create their own databases and queues there.
pub async fn servers() -> &'static Servers {
    static SERVERS: OnceCell<Servers> = OnceCell::const_new();
    let start = async || {
        let named = ["POINT_SYSTEM_TEST_DATABASE_URL", "POINT_SYSTEM_TEST_AMQP_URL"].map(env::var);
        let servers = if let [Ok(database_url), Ok(amqp_url)] = named {
            Servers { database_url, amqp_url, own: None }
        } else {
            let own = OwnServers::start().await;
            Servers { database_url: own.postgres.url(), amqp_url: own.broker.url(), own: Some(own) }
        };
        let template = database(&servers.database_url, TEMPLATE, "template0").await;
        migrate::run(&template.pool(1), PATIENCE).await.expect("migrations");
        servers
    };
    SERVERS.get_or_init(start).await
}

const TEMPLATE: &str = "point_system_test_template";

/// A database for one test.
pub struct Database {
    pub url: String,
    pub name: String,
    server: String,
}

impl Database {
    /// A fresh database without tables.
    pub async fn empty() -> Self {
        database(&servers().await.database_url, &fresh_name(), "template0").await
    }

    /// A fresh database with our tables, and no installation yet.
    pub async fn migrated() -> Self {
        database(&servers().await.database_url, &fresh_name(), TEMPLATE).await
    }

    /// A fresh database with another encoding than UTF-8.
    pub async fn encoded(encoding: &str) -> Self {
        let template = format!("template0 encoding '{encoding}' locale 'C'");
        database(&servers().await.database_url, &fresh_name(), &template).await
    }

    pub fn pool(&self, size: usize) -> Pool {
        postgres::pool(&self.url.parse().expect("a valid URL"), size).expect("a pool")
    }

    /// A pool of the server's default database.
    pub fn server(&self) -> Pool {
        postgres::pool(&self.server.parse().expect("a valid URL"), 1).expect("a pool")
    }

    pub async fn drop(self) {
        let client = self.server().get().await.expect("a connection");
        // A busy disk may take longer than the limits of the service.
        client.batch_execute("reset all").await.expect("reset");
        client.batch_execute(&format!("drop database {} with (force)", self.name)).await.expect("dropped");
    }
}

pub async fn database(server: &str, name: &str, template: &str) -> Database {
    let pool = postgres::pool(&server.parse().expect("a valid URL"), 1).expect("a pool");
    let client = pool.get().await.expect("a connection");
    client.batch_execute("reset all").await.expect("reset");
    client.batch_execute(&format!("drop database if exists {name}")).await.expect("dropped");
    client.batch_execute(&format!("create database {name} template {template}")).await.expect("created");
    // A URL that lists several hosts is none to the `url` crate.
    let (address, options) =
        server.split_once('?').map_or((server, None), |(address, of)| (address, Some(of)));
    let (hosts, _) = address.rsplit_once('/').expect("a valid URL");
    let options = options.map(|options| format!("?{options}")).unwrap_or_default();
    Database { url: format!("{hosts}/{name}{options}"), name: name.to_owned(), server: server.to_owned() }
}

/// The versions of the servers of an installation.
pub async fn versions(system: &System) -> String {
    let postgres: String = system.rows("show server_version").await[0].get(0);
    let rabbitmq = system.queues().await.server_version().await;
    format!("PostgreSQL {postgres}, RabbitMQ {rabbitmq}")
}

pub fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("point_system_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A temporary folder that the user of the servers can reach.
pub fn open_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("point-system-open-").tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("open");
    folder
}
