//! Connections to PostgreSQL: the pool, TLS, and the limits of a session. No statement on our tables may
//! enter.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use anyhow::Context;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

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
/// statements is a look-up in an index, whatever its parameters: a plan is made once and kept, and without the last
/// line one that was made while a table was small would go on reading the whole of it.
const SESSION: &str = "set statement_timeout = '5s'; set lock_timeout = '500ms'; \
     set idle_in_transaction_session_timeout = '7s'; \
     set plan_cache_mode = force_generic_plan; \
     set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off";

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

/// A pool of at most `size` connections, none of which is opened yet.
///
/// # Errors
/// Where the root certificates can't be read.
pub fn pool(url: &DatabaseUrl, size: usize) -> anyhow::Result<Pool> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &url.tls {
        Tls::Off => Manager::from_config(url.config.clone(), NoTls, recycling),
        Tls::Verified { root_certificates } => {
            let connector = MakeRustlsConnect::new(tls_config(root_certificates.as_ref())?);
            Manager::from_config(url.config.clone(), connector, recycling)
        }
    };
    let limit = Duration::from_millis(CONNECT_TIMEOUT_MS);
    // The pool's own limits end before its hooks begin.
    let hold_to_session = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        Box::pin(async move {
            let late = |_| HookError::message("no answer to the first statement of a session");
            timeout(limit, client.batch_execute(SESSION)).await.map_err(late)?.map_err(HookError::Backend)
        })
    });
    let limit = Some(limit);
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(limit)
        .create_timeout(limit)
        .recycle_timeout(limit)
        .post_create(hold_to_session)
        .build()
        .context("building the pool")
}

/// Whether PostgreSQL answers, within a moment.
pub async fn answers(pool: &Pool) -> bool {
    let asking = async {
        let client = pool.get().await.ok()?;
        // One that has failed is closed rather than kept.
        let answer = client.simple_query("select 1").await;
        answer.map_err(|_| Object::take(client)).ok()
    };
    let answer = timeout(Duration::from_millis(ANSWER_TIMEOUT_MS), asking).await;
    if answer.is_err() {
        pool.retain(|_, _| false);
    }
    matches!(answer, Ok(Some(_)))
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
