//! The command `dev`: runs `migrate`, `serve` and `work` in one process, on private servers. Must not
//! contain a copy of what a role does.

use std::{
    env,
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{
    BrokerArgs, DatabaseArgs, HttpArgs, MessageArgs, MetricsArgs, NodeArgs, PartitionsArgs, PatienceArgs,
    migrate::migrated, serve::serve, start, work::work,
};
use crate::{
    infra::{migrate, postgres},
    local::{LocalPostgres, LocalRabbitMq},
};

/// Maximum number of concurrent transactions.
const CONCURRENCY: u16 = 4;

/// How long the roles wait for their servers at startup, and how long they finish work in hand at shutdown.
const PATIENCE_S: u64 = 30;

/// Flags of `dev`.
#[derive(Args, Debug)]
pub struct DevArgs {
    /// Address and port to serve HTTP on.
    #[arg(long, env = "POINT_SYSTEM_LISTEN", default_value = "127.0.0.1:31001", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// How HTTP is served, and to whom.
    #[command(flatten)]
    pub http: HttpArgs,
    /// Folder for the data of the private servers. The default is point-system in `$XDG_DATA_HOME` or
    /// ~/.local/share. For root it is /var/lib/point-system, because the servers then run as another user.
    #[arg(long, env = "POINT_SYSTEM_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// The number of partitions of a new installation.
    #[command(flatten)]
    pub partitions: PartitionsArgs,
    /// The metrics listener.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Delete the data of earlier runs first.
    #[arg(long)]
    pub fresh: bool,
}

/// Runs until `stop` is cancelled. The servers keep their data.
///
/// # Errors
/// A server or a role failed to start, or failed later.
pub(super) async fn run(args: DevArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = start::listen("--listen", args.listen)?;
    let folder = args.data_dir.map_or_else(usual_folder, Ok)?;
    let _lock = lock(&folder)?;
    if args.fresh {
        for servers in [postgres_folder(&folder), rabbitmq_folder(&folder)] {
            forget(&servers)?;
        }
    }
    log::info!("starting a private PostgreSQL and a private RabbitMQ in {}", folder.display());
    let (postgres_folder, rabbitmq_folder) = (postgres_folder(&folder), rabbitmq_folder(&folder));
    let servers = async {
        tokio::try_join!(LocalPostgres::start(&postgres_folder), LocalRabbitMq::start(&rabbitmq_folder))
    };
    let Some(servers) = stop.run_until_cancelled(servers).await else { return Ok(()) };
    let (mut database, broker) = servers?;
    let node = node(&database, &broker)?;
    // One metrics listener serves the metrics of the whole process.
    let first = NodeArgs { metrics: args.metrics, ..node.clone() };
    let result = async {
        let pool = postgres::pool(&node.database.url, 1)?;
        let migrated = migrated(&pool, args.partitions.count, node.patience.startup_timeout).await;
        for line in migrated.map_err(|error| name_the_data(error, &folder))? {
            log::info!("{line}");
        }
        println!("{}", welcome(&listener.local_addr()?.to_string(), &database, &broker, &folder));
        // If one role fails, the other ends.
        let fail = |_: &anyhow::Error| stop.cancel();
        let serving = async {
            serve(listener, &first, (args.http, Duration::ZERO), stop.clone()).await.inspect_err(fail)
        };
        let working = async { work(&node, MessageArgs::default(), stop.clone()).await.inspect_err(fail) };
        let (served, worked) = tokio::join!(serving, working);
        served.and(worked)
    }
    .await;
    log::info!("stopping the private servers");
    broker.shut_down().await?;
    database.stop().await?;
    result
}

/// Names the folder to remove if another version wrote its data: before a release, the schema changes.
fn name_the_data(error: anyhow::Error, folder: &Path) -> anyhow::Error {
    if !migrate::is_of_another_version(&error) {
        return error;
    }
    error.context(format!(
        "the data in {} was written by another version of point-system: remove that folder, or start with --fresh, which \
         deletes the data",
        folder.display()
    ))
}

fn node(database: &LocalPostgres, broker: &LocalRabbitMq) -> anyhow::Result<NodeArgs> {
    let wait = Duration::from_secs(PATIENCE_S);
    Ok(NodeArgs {
        database: DatabaseArgs { url: database.url().parse().map_err(anyhow::Error::msg)? },
        broker: BrokerArgs {
            url: broker.url().parse().map_err(anyhow::Error::msg)?,
            prefix: "point-system".parse().map_err(anyhow::Error::msg)?,
        },
        patience: PatienceArgs { startup_timeout: wait, shutdown_timeout: wait },
        metrics: MetricsArgs::default(),
        concurrency: CONCURRENCY,
    })
}

/// Returns `$XDG_DATA_HOME/point-system` or its default (XDG Base Directory Specification). The user of the servers
/// can't reach /root, so root gets another folder.
fn usual_folder() -> anyhow::Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("HOME").context("HOME is not set: name a folder with --data-dir")?;
    if home == Path::new("/root") {
        return Ok(PathBuf::from("/var/lib/point-system"));
    }
    Ok(set("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("point-system"))
}

fn postgres_folder(folder: &Path) -> PathBuf {
    folder.join("postgres")
}

fn rabbitmq_folder(folder: &Path) -> PathBuf {
    folder.join("rabbitmq")
}

/// Ensures that one `dev` at a time uses the folder.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let named = || format!("--data-dir {}", folder.display());
    fs::create_dir_all(folder).with_context(named)?;
    let file = File::create(folder.join("lock")).with_context(named)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!("{}: another `point-system dev` is using it", named()),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(named),
    }
}

fn forget(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("--fresh: removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn welcome(address: &str, database: &LocalPostgres, broker: &LocalRabbitMq, folder: &Path) -> String {
    let url = format!("http://{address}");
    let change = |name: &str, body: &str| {
        format!("curl {url}/v1/point/{name} -H 'Content-Type: application/json' -d '{body}'")
    };
    let add = change("add", r#"{"user_id":"1","point":1000,"reason":"welcome"}"#);
    let subtract = change("subtract", r#"{"user_id":"1","point":300}"#);
    format!(
        "\npoint-system is ready at {url}\n\n  \
         {add}\n  \
         {subtract}\n  \
         curl '{url}/v1/point?id=1'\n  \
         curl '{url}/v1/point/log?id=1'\n  \
         curl {url}/\n  \
         curl {url}/ping\n\n\
         In a browser: {url}/console\n\n\
         PostgreSQL  {}\n\
         RabbitMQ    {}\n\
         data        {} (--fresh deletes it)\n\
         Stop with Ctrl-C.\n",
        database.url(),
        broker.url(),
        folder.display(),
    )
}
