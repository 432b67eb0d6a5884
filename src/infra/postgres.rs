//! Connections to PostgreSQL: URLs, pools, TLS, and session settings. Must not contain statements on our tables.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use anyhow::Context;
use deadpool_postgres::{
    Client, ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolBuilder, PoolError,
    RecyclingMethod, Runtime,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage, SimpleQueryRow, config::TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

mod fitness;

pub use fitness::{Unfit, check};

/// The longest wait for a free connection, and for a new one.
const CONNECT_TIMEOUT_MS: u64 = 3_000;

/// The longest wait for the answer to a probe.
const ANSWER_TIMEOUT_MS: u64 = 2_000;

/// How long sent data may stay unacknowledged before the kernel closes the connection.
const TCP_USER_TIMEOUT_MS: u64 = 10_000;

/// The pause after which an idle connection is probed.
const KEEPALIVE_IDLE_MS: u64 = 15_000;

/// The settings of every session.
///
/// The third timeout is a second longer than the store's limit for a transaction. A client that leaves a transaction
/// open for longer has abandoned it or is gone, and its users are locked meanwhile.
///
/// Each of our statements looks up an index, whatever its parameters. So a plan is made once and kept. The planner
/// settings keep it on the index: a plan that was made while a table was small would go on reading the whole table.
///
/// The last settings override what a role or a database may set and we rely on: READ COMMITTED, and commits that
/// survive a crash and, if the server has synchronous standbys, a failover. `remote_write` and `remote_apply` survive
/// as much, so they stay. The last answer says whether the session can write.
const SESSION: &str = "set statement_timeout = '5s'; set lock_timeout = '500ms'; \
     set idle_in_transaction_session_timeout = '7s'; \
     set plan_cache_mode = force_generic_plan; \
     set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
     set default_transaction_isolation = 'read committed'; \
     select set_config('synchronous_commit', 'on', false) \
         where current_setting('synchronous_commit') in ('off', 'local'); \
     show transaction_read_only";

/// The error of a session that must write and can't.
const READ_ONLY: &str = "the server is read-only: is it a standby?";

/// The address of PostgreSQL, and our user and password. `Display` and `Debug` name the server, never the password.
#[derive(Clone)]
pub struct DatabaseUrl {
    config: Config,
    tls: Tls,
}

#[derive(Clone)]
enum Tls {
    Off,
    Verified { root_certificates: Option<PathBuf> },
}

impl FromStr for DatabaseUrl {
    type Err = String;

    /// Parses `postgres://user:password@host:port/database?…`. `sslmode` is `disable` (the default), `require`,
    /// `verify-ca` or `verify-full`. The last three all verify the server's certificate and name, against
    /// `sslrootcert` or the system's root certificates. Errors never quote the URL.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err("must begin with postgres://".to_owned());
        }
        let (mut mode, mut root_certificates, mut rest) = ("disable".to_owned(), None, Vec::new());
        for (key, value) in url.query_pairs().into_owned() {
            match key.as_str() {
                "sslmode" => mode = value,
                "sslrootcert" => root_certificates = Some(PathBuf::from(value)),
                _ => rest.push((key, value)),
            }
        }
        let (tls, driver_mode) = match mode.as_str() {
            "disable" => (Tls::Off, "disable"),
            "require" | "verify-ca" | "verify-full" => (Tls::Verified { root_certificates }, "require"),
            _ => {
                return Err("must have an sslmode of disable, require, verify-ca or verify-full".to_owned());
            }
        };
        rest.push(("sslmode".to_owned(), driver_mode.to_owned()));
        url.query_pairs_mut().clear().extend_pairs(rest);
        let mut config: Config =
            url.as_str().parse().map_err(|error: tokio_postgres::Error| format!("is not valid: {error}"))?;
        if config.get_hosts().is_empty() || config.get_user().is_none() {
            return Err("must name a host and a user".to_owned());
        }
        config
            .application_name("point-system")
            .connect_timeout(Duration::from_millis(CONNECT_TIMEOUT_MS))
            .tcp_user_timeout(Duration::from_millis(TCP_USER_TIMEOUT_MS))
            .keepalives_idle(Duration::from_millis(KEEPALIVE_IDLE_MS));
        Ok(Self { config, tls })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<String> = self.config.get_hosts().iter().zip(self.ports()).map(server).collect();
        write!(f, "{}/{}", servers.join(","), self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl DatabaseUrl {
    fn ports(&self) -> impl Iterator<Item = u16> {
        self.config.get_ports().iter().copied().chain(std::iter::repeat(5432))
    }
}

fn server((host, port): (&tokio_postgres::config::Host, u16)) -> String {
    match host {
        tokio_postgres::config::Host::Tcp(name) => format!("{name}:{port}"),
        #[cfg(unix)]
        tokio_postgres::config::Host::Unix(folder) => folder.display().to_string(),
    }
}

/// Returns a pool of at most `size` connections that can write. It opens them on demand. A session on a read-only
/// server (a standby, or `default_transaction_read_only`) is an error.
///
/// # Errors
/// The root certificates can't be read.
pub fn pool(url: &DatabaseUrl, size: usize) -> anyhow::Result<Pool> {
    let mut url = url.clone();
    // Of several hosts, use the one that accepts writes, wherever it is in the list.
    let any = url.config.get_target_session_attrs() == TargetSessionAttrs::Any;
    if any && url.config.get_hosts().len() > 1 {
        url.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    open(&url, size, true)
}

/// Returns a pool for reads only, which may be on a replica.
///
/// # Errors
/// As [`pool`].
pub fn reading_pool(url: &DatabaseUrl, size: usize) -> anyhow::Result<Pool> {
    open(url, size, false)
}

fn open(url: &DatabaseUrl, size: usize, writes: bool) -> anyhow::Result<Pool> {
    let limit = Duration::from_millis(CONNECT_TIMEOUT_MS);
    // The limits of the pool do not cover its hooks.
    let hold_to_session = Hook::async_fn(move |client: &mut ClientWrapper, _| {
        Box::pin(async move {
            let late = |_| HookError::message("no answer to the first statement of a session");
            let setting_up = timeout(limit, client.simple_query(SESSION));
            let answers = setting_up.await.map_err(late)?.map_err(HookError::Backend)?;
            if writes && !is_writable(&answers) {
                return Err(HookError::message(READ_ONLY));
            }
            Ok(())
        })
    });
    builder(url, size)?.post_create(hold_to_session).build().context("building the pool")
}

/// Returns a builder of pools that leave the settings of a session to the server.
fn builder(url: &DatabaseUrl, size: usize) -> anyhow::Result<PoolBuilder> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &url.tls {
        Tls::Off => Manager::from_config(url.config.clone(), NoTls, recycling),
        Tls::Verified { root_certificates } => {
            let connector = MakeRustlsConnect::new(tls_config(root_certificates.as_ref())?);
            Manager::from_config(url.config.clone(), connector, recycling)
        }
    };
    let limit = Some(Duration::from_millis(CONNECT_TIMEOUT_MS));
    Ok(Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(limit)
        .create_timeout(limit)
        .recycle_timeout(limit))
}

/// Returns the last row of `answers`.
fn last_row(answers: &[SimpleQueryMessage]) -> Option<&SimpleQueryRow> {
    answers.iter().rev().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// Whether the last of `answers`, which is that to `show transaction_read_only`, is "off".
fn is_writable(answers: &[SimpleQueryMessage]) -> bool {
    last_row(answers).and_then(|row| row.get(0)) == Some("off")
}

/// Whether PostgreSQL accepts writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It accepts writes.
    Writable,
    /// It accepts only reads, as a standby does.
    ReadOnly,
    /// It did not answer in time.
    Nothing,
}

/// Asks PostgreSQL whether it accepts writes.
pub async fn ask(pool: &Pool) -> Answer {
    let asking = async {
        let client: Client = match pool.get().await {
            Ok(client) => client,
            Err(PoolError::PostCreateHook(HookError::Message(why))) if why == READ_ONLY => {
                return Answer::ReadOnly;
            }
            Err(_) => return Answer::Nothing,
        };
        let answer = match client.simple_query("show transaction_read_only").await {
            Ok(answers) if is_writable(&answers) => return Answer::Writable,
            Ok(_) => Answer::ReadOnly,
            Err(_) => Answer::Nothing,
        };
        // Close a connection that can't do its work.
        drop(Object::take(client));
        answer
    };
    timeout(Duration::from_millis(ANSWER_TIMEOUT_MS), asking).await.unwrap_or_else(|_| {
        pool.retain(|_, _| false);
        Answer::Nothing
    })
}

fn tls_config(root_certificates: Option<&PathBuf>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match root_certificates {
        Some(file) => {
            for certificate in CertificateDer::pem_file_iter(file)
                .with_context(|| format!("reading sslrootcert {}", file.display()))?
            {
                roots.add(certificate?)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let url: DatabaseUrl =
            "postgres://app:hush@db.internal:6432/points?sslmode=verify-full".parse().expect("valid");
        assert_eq!(format!("{url} {url:?}"), "db.internal:6432/points db.internal:6432/points");
    }

    #[test]
    fn a_wrong_url_is_refused_without_quoting_it() {
        for wrong in [
            "hush",
            "mysql://app:hush@db/points",
            "postgres://app:hush@db/points?sslmode=prefer",
            "postgres://app:hush@db/points?no_such_option=hush",
            "postgres://app:hush@db:port/points",
        ] {
            let error = wrong.parse::<DatabaseUrl>().expect_err(wrong);
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
