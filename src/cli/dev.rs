//! All roles in one process, on private servers: the real flow with one command. No second way of doing
//! what a role does may enter.

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
    BrokerArgs, DatabaseArgs, HttpArgs, MetricsArgs, NodeArgs, PatienceArgs, serve::serve, start, work::work,
};
use crate::{
    infra::{migrate, postgres},
    local::{LocalPostgres, LocalRabbitMq},
    queue::QueueNames,
};

/// Transactions at once.
const CONCURRENCY: u16 = 4;

/// How long the roles wait for servers that have just started, and to finish what is in hand.
const PATIENCE_S: u64 = 30;

/// Flags of `dev`.
#[derive(Args, Debug)]
pub struct DevArgs {
    /// Address and port to serve HTTP on.
    #[arg(long, env = "POINT_SYSTEM_LISTEN", default_value = "127.0.0.1:31001", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// How it is served, and to whom.
    #[command(flatten)]
    pub http: HttpArgs,
    /// Where the private servers keep their data. By default point-system in `$XDG_DATA_HOME` or
    /// ~/.local/share, or for root /var/lib/point-system: the servers then run as another user.
    #[arg(long, env = "POINT_SYSTEM_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Where it tells how it is.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Forget the data of earlier runs.
    #[arg(long)]
    pub fresh: bool,
}

/// Runs until `stop` is cancelled; the servers' data stay.
///
/// # Errors
/// What kept a server or a role from starting.
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
    // One process, one listener for both roles' metrics.
    let first = NodeArgs { metrics: args.metrics, ..node.clone() };
    let result = async {
        let pool = postgres::pool(&node.database.url, 1)?;
        for name in migrate::run(&pool, node.patience.startup_timeout).await? {
            log::info!("applied {name}");
        }
        println!("{}", welcome(&listener.local_addr()?.to_string(), &database, &broker, &folder));
        // A role that fails ends the other.
        let fail = |_: &anyhow::Error| stop.cancel();
        let serving = async { serve(listener, &first, args.http, stop.clone()).await.inspect_err(fail) };
        let working = async { work(&node, stop.clone()).await.inspect_err(fail) };
        let (served, worked) = tokio::join!(serving, working);
        served.and(worked)
    }
    .await;
    log::info!("stopping the private servers");
    broker.shut_down().await?;
    database.stop().await?;
    result
}

fn node(database: &LocalPostgres, broker: &LocalRabbitMq) -> anyhow::Result<NodeArgs> {
    let wait = Duration::from_secs(PATIENCE_S);
    Ok(NodeArgs {
        database: DatabaseArgs { url: database.url().parse().map_err(anyhow::Error::msg)? },
        broker: BrokerArgs {
            url: broker.url().parse().map_err(anyhow::Error::msg)?,
            names: QueueNames::new("point-system").map_err(anyhow::Error::msg)?,
        },
        patience: PatienceArgs { startup_timeout: wait, shutdown_timeout: wait },
        metrics: MetricsArgs::default(),
        concurrency: CONCURRENCY,
    })
}

/// `$XDG_DATA_HOME/point-system` or its default (XDG Base Directory Specification); for root a folder that
/// the user of the servers can reach, as /root is not.
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

/// One `dev` at a time in a folder.
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
    let add = change("add", r#"{"user_id":1,"point":1000,"reason":"welcome"}"#);
    let subtract = change("subtract", r#"{"user_id":1,"point":300}"#);
    format!(
        "\npoint-system is ready at {url}\n\n  \
         {add}\n  \
         {subtract}\n  \
         curl '{url}/v1/point?id=1'\n  \
         curl '{url}/v1/point/log?id=1'\n  \
         curl {url}/\n  \
         curl {url}/ping\n\n\
         PostgreSQL  {}\n\
         RabbitMQ    {}\n\
         data        {} (--fresh forgets it)\n\
         stop with Ctrl-C\n",
        database.url(),
        broker.url(),
        folder.display(),
    )
}
