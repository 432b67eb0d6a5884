//! Every flag of every role, with its environment variable. No I/O may enter.

use std::{ffi::OsStr, marker::PhantomData, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Arg, Args, Command, Error, Parser, Subcommand, builder::TypedValueParser, error::ErrorKind};

use crate::{build, postgres::DatabaseUrl, queue::BrokerUrl, queue::QueueNames};

mod access;
mod http;
mod operations;
mod telling;

pub use access::{AccessArgs, KeyRole};
pub use http::HttpArgs;
pub use operations::{AuditArgs, DeadLettersArgs, DeadLettersRole, MigrateArgs, WhichArgs};
pub use telling::{CompletionsArgs, LogFormat, ManArgs, MetricsArgs};

/// The most transactions at once that make sense: far fewer keep a PostgreSQL busy.
const CONCURRENCY_MAX: i64 = 16;

/// Users' points: add and subtract through a queue, exactly once and in order; read at once.
///
/// A deployment has one or more `serve` behind a load balancer, one or more `work`, a RabbitMQ and a
/// PostgreSQL, and runs `migrate` before each new version. `dev` runs it all on this machine.
///
/// Log lines go to standard error; `RUST_LOG` sets their level (error, warn, info, debug), "info" by default.
#[derive(Debug, Parser)]
#[command(version = build::FULL, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What this process is.
    #[command(subcommand)]
    pub role: Role,
    /// What a line of the log looks like.
    #[arg(
        long,
        global = true,
        env = "POINT_SYSTEM_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// What a process is.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Serve the HTTP API: queue changes, read balances.
    Serve(ServeArgs),
    /// Take changes from the queue and apply them to the database.
    Work(WorkArgs),
    /// Bring the database's schema up to this version; safe when several run at once.
    Migrate(MigrateArgs),
    /// Prove that every balance is what its log comes to; safe beside the running service and on a replica.
    Audit(AuditArgs),
    /// Look at what could not be applied, and put it back into the queue or remove it.
    DeadLetters {
        /// What to do.
        #[command(subcommand)]
        role: DeadLettersRole,
    },
    /// Create, list and revoke the keys of the API.
    Key {
        /// What to do.
        #[command(subcommand)]
        role: KeyRole,
    },
    /// Run everything on this machine, on a private PostgreSQL and RabbitMQ, until Ctrl-C.
    Dev(DevArgs),
    /// Print a script that completes our roles and flags in a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, of the whole or of a role: `point-system man serve | man -l -`.
    Man(ManArgs),
}

/// Flags of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Address and port to serve HTTP on.
    #[arg(long, env = "POINT_SYSTEM_LISTEN", default_value = "127.0.0.1:31001", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// How it is served, and to whom.
    #[command(flatten)]
    pub http: HttpArgs,
    /// Where the database is, and the waits.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Flags of `work`.
#[derive(Args, Debug)]
pub struct WorkArgs {
    /// Where the database and the broker are, and the waits.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Flags of `serve` and `work` alike.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// Where the database is.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Where the broker is.
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// How long to wait.
    #[command(flatten)]
    pub patience: PatienceArgs,
    /// Where it tells how it is.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// The most transactions at once, each with a PostgreSQL connection; all workers together use one for each
    /// partition at the most. `serve` has as many again for balances and five for other reads and the API keys;
    /// a node has two more for its readiness and its pulse.
    #[arg(long, env = "POINT_SYSTEM_CONCURRENCY", default_value_t = 4, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=CONCURRENCY_MAX))]
    pub concurrency: u16,
}

/// Where the database is.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// postgres://USER:PASSWORD@HOST:PORT/DATABASE, with ?sslmode=verify-full and perhaps &sslrootcert=FILE
    /// for TLS; without an sslmode the connection is not encrypted. Behind PgBouncer: session pooling.
    #[arg(id = "database-url", long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL",
          value_parser = Discreet::<DatabaseUrl>(PhantomData))]
    pub url: DatabaseUrl,
}

/// Where the broker is.
#[derive(Args, Clone, Debug)]
pub struct BrokerArgs {
    /// amqp://USER:PASSWORD@HOST:PORT/VHOST.
    #[arg(id = "amqp-url", long, env = "AMQP_URL", hide_env_values = true, value_name = "URL",
          value_parser = Discreet::<BrokerUrl>(PhantomData))]
    pub url: BrokerUrl,
    /// What the names of the queues begin with. All nodes of one installation share it.
    #[arg(id = "queue-prefix", long, env = "POINT_SYSTEM_QUEUE_PREFIX", default_value = "point-system",
          value_name = "NAME", value_parser = QueueNames::new)]
    pub names: QueueNames,
}

/// How long to wait.
#[derive(Args, Clone, Debug)]
pub struct PatienceArgs {
    /// How long to wait at the start for a database or a broker that is not there yet, such as "60s".
    #[arg(long, env = "POINT_SYSTEM_STARTUP_TIMEOUT", default_value = "60s", value_name = "TIME",
          value_parser = parse_time)]
    pub startup_timeout: Duration,
    /// How long to finish what is in hand after SIGTERM or Ctrl-C; a second signal ends the process at once.
    #[arg(long, env = "POINT_SYSTEM_SHUTDOWN_TIMEOUT", default_value = "30s", value_name = "TIME",
          value_parser = parse_time)]
    pub shutdown_timeout: Duration,
}

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

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<jiff::SignedDuration>().map_err(|error| error.to_string())?;
    Duration::try_from(time).map_err(|_| "must not be negative".to_owned())
}

/// Reads a value that may hold a secret: the error names the flag and the rule, never the value.
#[derive(Clone)]
struct Discreet<T>(PhantomData<T>);

impl<T: FromStr<Err = String> + Clone + Send + Sync + 'static> TypedValueParser for Discreet<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let parsed = value.to_str().ok_or_else(|| "is not UTF-8".to_owned()).and_then(str::parse);
        parsed.map_err(|rule| {
            let flag = arg.map(ToString::to_string).unwrap_or_default();
            Error::raw(ErrorKind::ValueValidation, format!("{flag} {rule}\n")).with_cmd(command)
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_value_is_refused_by_the_name_of_its_flag_and_not_quoted() {
        let good = ["--database-url=postgres://u:hush@h/d", "--amqp-url=amqp://u:hush@h", "--concurrency=16"];
        let parse = |args: &[&str]| Cli::try_parse_from([&["point-system", "work"], args].concat());
        let parsed = parse(&good).expect("valid");
        assert!(!format!("{parsed:?}").contains("hush"), "{parsed:?}");
        for (place, wrong, flag) in [
            (0, "--database-url=mysql://u:hush@h/d", "--database-url"),
            (1, "--amqp-url=amqp://u:hush@h/a/b", "--amqp-url"),
            (2, "--queue-prefix=a b", "--queue-prefix"),
            (2, "--concurrency=17", "--concurrency"),
            (2, "--startup-timeout=-5s", "--startup-timeout"),
        ] {
            let mut args = good;
            args[place] = wrong;
            let error = parse(&args).expect_err(wrong).to_string();
            assert!(error.contains(flag) && !error.contains("hush"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_value_is_taken_or_refused(value in "(postgres|amqp)?(://)?\\PC{0,40}", place in 0..5usize) {
            let flags = ["database-url", "amqp-url", "queue-prefix", "concurrency", "startup-timeout"];
            let flag = format!("--{}={value}", flags[place]);
            let good = ["--database-url=postgres://u@h/d", "--amqp-url=amqp://h"].into_iter();
            let others = good.filter(|other| !other.starts_with(&format!("--{}=", flags[place])));
            let args = ["point-system", "work"].into_iter().chain(others).chain([flag.as_str()]);
            if let Err(error) = Cli::try_parse_from(args) {
                let named = error.to_string().contains(flags[place]);
                proptest::prop_assert!(named, "{error}");
            }
        }
    }
}
