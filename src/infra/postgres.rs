//! Connections to PostgreSQL: the pools, TLS, and what a session is set to. Must not contain statements on our
//! tables.

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

/// The longest wait for a connection: for a free one, and for a new one.
const CONNECT_TIMEOUT_MS: u64 = 3_000;

/// The longest that a server may take to show that it is there.
const ANSWER_TIMEOUT_MS: u64 = 2_000;

/// How long data that was sent may stay unacknowledged before the kernel gives the connection up.
const TCP_USER_TIMEOUT_MS: u64 = 10_000;

/// The pause after which an idle connection is probed.
const KEEPALIVE_IDLE_MS: u64 = 15_000;

/// What every session holds itself to. The third limit is a second over the store's for a transaction: whoever
/// leaves one open for longer has given it up or is gone, and meanwhile its users are locked. Each of our
/// statements is a look-up in an index, whatever its parameters: a plan is made once and kept, and without the
/// planner lines one that was made while a table was small would go on reading the whole of it.
///
/// What a role or a database may be set to otherwise and we rely on comes last: READ COMMITTED, and commits that
/// survive a crash and, where the server has synchronous standbys, a failover. `remote_write` and `remote_apply`
/// survive as much, so they stay. The last answer tells whether the session can write.
const SESSION: &str = "set statement_timeout = '5s'; set lock_timeout = '500ms'; \
     set idle_in_transaction_session_timeout = '7s'; \
     set plan_cache_mode = force_generic_plan; \
     set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
     set default_transaction_isolation = 'read committed'; \
     select set_config('synchronous_commit', 'on', false) \
         where current_setting('synchronous_commit') in ('off', 'local'); \
     show transaction_read_only";

/// Why a session that must write is given up.
const READ_ONLY: &str = "the server is read-only: is it a standby?";

/// Where PostgreSQL is and who we are there. Its `Display` and `Debug` name the server, never the password.
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

    /// Reads `postgres://user:password@host:port/database?…`. `sslmode` is `disable` (the default) or
    /// `require`, `verify-ca`, `verify-full`, which all verify the server's certificate and name, with
    /// `sslrootcert` or else the system's root certificates. The errors never quote the URL.
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
                return Err(
                    "has an sslmode other than disable, require, verify-ca and verify-full".to_owned()
                );
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

/// A pool of at most `size` connections that can write, none of which is opened yet. A session on a server that
/// can't be written to (a standby, or `default_transaction_read_only`) is an error.
///
/// # Errors
/// Where the root certificates can't be read.
pub fn pool(url: &DatabaseUrl, size: usize) -> anyhow::Result<Pool> {
    let mut url = url.clone();
    // Of several hosts, the one that can be written to, wherever it is in the list.
    let any = url.config.get_target_session_attrs() == TargetSessionAttrs::Any;
    if any && url.config.get_hosts().len() > 1 {
        url.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    open(&url, size, true)
}

/// The same for reading alone, on a replica as well.
///
/// # Errors
/// As [`pool`].
pub fn reading_pool(url: &DatabaseUrl, size: usize) -> anyhow::Result<Pool> {
    open(url, size, false)
}

fn open(url: &DatabaseUrl, size: usize, writes: bool) -> anyhow::Result<Pool> {
    let limit = Duration::from_millis(CONNECT_TIMEOUT_MS);
    // The pool's own limits end before its hooks begin.
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

/// A pool whose sessions are as the server makes them.
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

/// The last row of some answers.
fn last_row(answers: &[SimpleQueryMessage]) -> Option<&SimpleQueryRow> {
    answers.iter().rev().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// Whether the last of the answers, to `show transaction_read_only`, is no.
fn is_writable(answers: &[SimpleQueryMessage]) -> bool {
    last_row(answers).and_then(|row| row.get(0)) == Some("off")
}

/// What PostgreSQL says when it is asked whether it can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It can.
    Writable,
    /// It can be read alone, as a standby can.
    ReadOnly,
    /// It did not answer within a moment.
    Nothing,
}

/// Asks PostgreSQL whether it can be written to.
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
        // One that can't do its work is closed rather than kept.
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
