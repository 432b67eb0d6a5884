//! The URL of PostgreSQL, as libpq spells it. Must not contain a connection.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use anyhow::Context;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio_postgres::{
    Config,
    config::{SslMode, TargetSessionAttrs},
};

use crate::infra::{
    hosts::Hosts,
    server_url::{ServerUrl, read_hosts},
};

/// How long sent data may stay unacknowledged before the kernel closes the connection.
const TCP_USER_TIMEOUT_MS: u64 = 10_000;

/// The pause after which an idle connection is probed.
const KEEPALIVE_IDLE_S: &str = "15";

/// The port of PostgreSQL.
const DEFAULT_PORT: u16 = 5432;

/// The parameters that the driver handles, as libpq has them.
const OF_DRIVER: [&str; 11] = [
    "user",
    "password",
    "dbname",
    "application_name",
    "options",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "channel_binding",
    "target_session_attrs",
];

/// The addresses of PostgreSQL, and our user and password. `Display` and `Debug` name the servers, never the password.
/// Clones share what they learn about the hosts.
#[derive(Clone)]
pub struct DatabaseUrl {
    /// All but the hosts.
    pub(super) config: Config,
    pub(super) hosts: Arc<Hosts>,
    pub(super) tls: Tls,
}

#[derive(Clone)]
pub(super) enum Tls {
    Off,
    Verified { root_certificates: Option<PathBuf> },
}

impl FromStr for DatabaseUrl {
    type Err = String;

    /// Parses `postgres://user:password@host:port,host:port/database?…`. `sslmode` is `disable` (the default), `require`,
    /// `verify-ca` or `verify-full`. The last three all verify the server's certificate and name, against
    /// `sslrootcert` or the system's root certificates. Errors never quote the URL.
    fn from_str(text: &str) -> Result<Self, String> {
        let schemes = [("postgres", DEFAULT_PORT), ("postgresql", DEFAULT_PORT)];
        let url = ServerUrl::parse(text, &schemes)?;
        let (mut mode, mut root_certificates) = ("disable", None);
        let (mut hosts, mut ports) = (None, None);
        let mut pairs = vec![("application_name", "point-system"), ("keepalives_idle", KEEPALIVE_IDLE_S)];
        let of_url = [("user", &url.user), ("password", &url.password), ("dbname", &url.path)];
        pairs.extend(of_url.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
        for (name, value) in &url.parameters {
            match name.as_str() {
                "sslmode" => mode = value,
                "sslrootcert" => root_certificates = Some(PathBuf::from(value)),
                "host" => hosts = Some(value.as_str()),
                "port" => ports = Some(value.as_str()),
                name if OF_DRIVER.contains(&name) => pairs.push((name, value)),
                name => return Err(format!("has the parameter {name}, which is not supported")),
            }
        }
        let (tls, ssl_mode) = match mode {
            "disable" => (Tls::Off, SslMode::Disable),
            "require" | "verify-ca" | "verify-full" => {
                (Tls::Verified { root_certificates }, SslMode::Require)
            }
            _ => {
                return Err("must have an sslmode of disable, require, verify-ca or verify-full".to_owned());
            }
        };
        let hosts = match (hosts, ports) {
            (None, None) => url.hosts,
            (hosts, ports) if url.hosts.is_empty() => hosts_of_parameters(hosts.unwrap_or(""), ports)?,
            _ => return Err("names hosts or ports both before and after its ?".to_owned()),
        };
        let mut config = config(&pairs)?;
        if hosts.is_empty() || config.get_user().is_none() {
            return Err("must name a host and a user".to_owned());
        }
        config.ssl_mode(ssl_mode).tcp_user_timeout(Duration::from_millis(TCP_USER_TIMEOUT_MS));
        Ok(Self { config, hosts: Arc::new(Hosts::new(hosts)), tls })
    }
}

/// Hosts as `host=a,b&port=1,2`: one port is for all hosts.
fn hosts_of_parameters(hosts: &str, ports: Option<&str>) -> Result<Vec<crate::infra::hosts::Host>, String> {
    let names: Vec<&str> = hosts.split(',').collect();
    let ports: Vec<&str> = ports.into_iter().flat_map(|ports| ports.split(',')).collect();
    if ports.len() > 1 && ports.len() != names.len() {
        return Err("must have one port, or one for each host".to_owned());
    }
    let with_port = |(index, name): (usize, &&str)| {
        let port = ports.get(index).or(ports.first()).filter(|port| !port.is_empty());
        let name = if name.contains(':') { format!("[{name}]") } else { (*name).to_owned() };
        port.map_or(name.clone(), |port| format!("{name}:{port}"))
    };
    let list: Vec<String> = names.iter().enumerate().map(with_port).collect();
    read_hosts(&list.join(","), DEFAULT_PORT)
}

/// Reads parameters. Later ones override earlier ones.
fn config(pairs: &[(&str, &str)]) -> Result<Config, String> {
    let mut text = String::new();
    for (name, value) in pairs {
        let pair = format!("{name}='{}' ", value.replace('\\', "\\\\").replace('\'', "\\'"));
        pair.parse::<Config>().map_err(|_| format!("has a value of {name} that is not valid"))?;
        text.push_str(&pair);
    }
    text.parse().map_err(|error: tokio_postgres::Error| format!("is not valid: {error}"))
}

impl DatabaseUrl {
    /// Returns whether every session must be on a server that accepts writes.
    pub(super) fn is_read_write(&self) -> bool {
        self.config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite
    }

    /// Returns whether every session must be on a server that accepts only reads.
    pub(super) fn is_read_only(&self) -> bool {
        self.config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hosts, self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) fn tls_config(root_certificates: Option<&PathBuf>) -> anyhow::Result<ClientConfig> {
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

    fn parsed(text: &str) -> DatabaseUrl {
        text.parse().expect(text)
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        let url = parsed("postgres://app:hush@db.internal:6432,[::1]/points?sslmode=verify-full");
        let shown = "db.internal:6432,[::1]:5432/points";
        assert_eq!(format!("{url} {url:?}"), format!("{shown} {shown}"));
    }

    #[test]
    fn hosts_may_be_named_by_parameters_as_well() {
        for (text, shown) in [
            ("postgres://u@/d?host=a,::1", "a:5432,[::1]:5432/d"),
            ("postgres:///d?user=u&host=a,b&port=1", "a:1,b:1/d"),
            ("postgres:///d?user=u&host=a,b,c&port=1,,3", "a:1,b:5432,c:3/d"),
            ("postgresql://u@%2Frun%2Fpg/d", "/run/pg/d"),
            ("postgresql:///d?user=u&host=/run/pg", "/run/pg/d"),
        ] {
            assert_eq!(parsed(text).to_string(), shown);
        }
    }

    #[test]
    fn parameters_reach_the_driver_as_they_are_meant() {
        let url = parsed("postgres://a%27%5C%20b:p@h/d?application_name=till%201&connect_timeout=2");
        assert_eq!(url.config.get_user(), Some("a'\\ b"));
        assert_eq!(url.config.get_application_name(), Some("till 1"));
        assert_eq!(url.config.get_connect_timeout(), Some(&Duration::from_secs(2)));
        assert_eq!(parsed("postgres://a@h/d").config.get_application_name(), Some("point-system"));
    }

    #[test]
    fn a_wrong_url_is_refused_without_quoting_it() {
        for (wrong, why) in [
            ("hush", "postgres://"),
            ("mysql://app:hush@db/points", "postgres://"),
            ("postgres://app:hush@db/points?sslmode=hush", "sslmode"),
            ("postgres://app:hush@db/points?sslcrl=hush", "sslcrl"),
            ("postgres://app:hush@db/points?connect_timeout=hush", "connect_timeout"),
            ("postgres://app:hush@db:port/points", "port"),
            ("postgres://:hush@db/points", "a user"),
            ("postgres://app:hush@/points", "a host"),
            ("postgres://app:hush@db/points?host=hush", "before and after"),
            ("postgres://app:hush@/points?host=a,b&port=1,2,3", "one port"),
        ] {
            let error = wrong.parse::<DatabaseUrl>().expect_err(wrong);
            assert!(error.contains(why) && !error.contains("hush"), "{error}");
        }
    }
}
