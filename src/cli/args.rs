//! The flags that several commands share, with their environment variables. Must not contain I/O.

use std::{ffi::OsStr, marker::PhantomData, net::SocketAddr, str::FromStr, time::Duration};

use clap::{Arg, Args, Command, Error, builder::TypedValueParser, error::ErrorKind};

use crate::{
    domain::{Installation, Partitions},
    infra::postgres::DatabaseUrl,
    queue::{BrokerUrl, QueueNames, QueuePrefix},
};

/// The maximum of `--concurrency`. Far fewer transactions keep a PostgreSQL server busy.
pub(super) const CONCURRENCY_MAX: i64 = 16;

/// Flags that `serve` and `work` share.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The broker.
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// The limits at startup and at shutdown.
    #[command(flatten)]
    pub patience: PatienceArgs,
    /// The metrics listener.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Maximum number of concurrent transactions (1 to 16), each on its own PostgreSQL connection. All workers together
    /// run at most one per partition, however many partitions there are. `serve` opens as many connections again for
    /// balances, eight for other reads and the API keys, and three for its readiness check, its pulse and the console.
    /// `work` opens up to five more, for users whose changes wait and for expired points, and two for its readiness check
    /// and its pulse.
    #[arg(long, env = "POINT_SYSTEM_CONCURRENCY", default_value_t = 4, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=CONCURRENCY_MAX))]
    pub concurrency: u16,
}

/// The database.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// PostgreSQL server, as postgres://USER:PASSWORD@HOST:PORT/DATABASE. HOST:PORT may be a list, as in h1:5432,h2:5432;
    /// the host that accepts writes is used. For TLS, append ?sslmode=verify-full and, if needed, &sslrootcert=FILE,
    /// &sslcert=FILE and &sslkey=FILE; without sslmode the connection is not encrypted. A pooler such as PgBouncer must
    /// use session pooling.
    #[arg(id = "database-url", long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL",
          value_parser = Discreet::<DatabaseUrl>(PhantomData))]
    pub url: DatabaseUrl,
}

/// The broker, and the names of the queues.
#[derive(Args, Clone, Debug)]
pub struct BrokerArgs {
    /// RabbitMQ server, as amqp://USER:PASSWORD@HOST:PORT/VHOST. HOST:PORT may be a list, as in h1:5672,h2:5672; the hosts
    /// are tried in this order. amqps:// uses TLS; append ?cacertfile=FILE, &certfile=FILE and &keyfile=FILE as needed.
    #[arg(id = "amqp-url", long, env = "AMQP_URL", hide_env_values = true, value_name = "URL",
          value_parser = Discreet::<BrokerUrl>(PhantomData))]
    pub url: BrokerUrl,
    /// Prefix of the queue names. All nodes of an installation share it. The id of the installation follows it.
    #[arg(
        id = "queue-prefix",
        long,
        env = "POINT_SYSTEM_QUEUE_PREFIX",
        default_value = "point-system",
        value_name = "NAME"
    )]
    pub prefix: QueuePrefix,
}

impl BrokerArgs {
    /// The names of an installation's queues.
    pub(super) fn names(&self, installation: &Installation) -> QueueNames {
        QueueNames::new(&self.prefix, installation)
    }
}

/// The number of partitions of a new installation.
#[derive(Args, Clone, Copy, Debug)]
pub struct PartitionsArgs {
    /// Number of partitions of a new installation: 1, 2, 4, 8, 16, 32 or 64; 4 if not set. It is fixed for the life of
    /// the installation, and another number is refused: a user's changes keep their order only while the user stays in
    /// one partition.
    #[arg(id = "partitions", long = "partitions", env = "POINT_SYSTEM_PARTITIONS", value_name = "N")]
    pub count: Option<Partitions>,
}

/// The limits at startup and at shutdown.
#[derive(Args, Clone, Debug)]
pub struct PatienceArgs {
    /// How long to wait at startup until PostgreSQL, its migrations and RabbitMQ are ready. `serve` waits for RabbitMQ
    /// for at most 15 s, and then serves without it.
    #[arg(long, env = "POINT_SYSTEM_STARTUP_TIMEOUT", default_value = "60s", value_name = "TIME",
          value_parser = parse_time)]
    pub startup_timeout: Duration,
    /// How long the process may take to end after SIGTERM or Ctrl-C: `serve` first keeps serving for --drain-delay, and
    /// then each role finishes work in hand. A second signal ends it immediately.
    #[arg(long, env = "POINT_SYSTEM_SHUTDOWN_TIMEOUT", default_value = "30s", value_name = "TIME",
          value_parser = parse_time)]
    pub shutdown_timeout: Duration,
}

/// The metrics listener.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct MetricsArgs {
    /// Address and port of the metrics listener: /metrics for Prometheus, /livez and /readyz. Without this
    /// flag there is no such listener.
    #[arg(id = "metrics-listen", long, env = "POINT_SYSTEM_METRICS_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
}

/// The longest time that a flag may set.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<jiff::SignedDuration>().map_err(|error| error.to_string())?;
    let time = Duration::try_from(time).map_err(|_| "must not be negative".to_owned())?;
    (time <= TIME_MAX).then_some(time).ok_or_else(|| "must be at most 24h".to_owned())
}

/// As `parse_time`, for a time of at least `least`.
pub(super) fn parse_time_from(least: Duration, text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    (time >= least).then_some(time).ok_or_else(|| format!("must be at least {least:?}"))
}

/// Parses a value that may contain a secret. An error names the flag and the rule, never the value.
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
    use clap::{CommandFactory, Parser};

    use crate::cli::Cli;

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
