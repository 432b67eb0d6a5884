//! The URL of PostgreSQL, as libpq spells it. Must not contain a connection.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use tokio_postgres::{
    Config,
    config::{SslMode, TargetSessionAttrs},
};

use crate::infra::{
    hosts::{Host, Hosts},
    server_url::{ServerUrl, read_hosts},
    tls::{Check, Roots, Tls},
};

/// How long sent data may stay unacknowledged before the kernel closes the connection.
const TCP_USER_TIMEOUT_MS: u64 = 10_000;

/// The pause after which an idle connection is probed.
const KEEPALIVE_IDLE_S: &str = "15";

/// The port of PostgreSQL.
const DEFAULT_PORT: u16 = 5432;

/// The parameters of libpq that the driver handles.
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
    pub(super) tls: Option<Tls>,
}

impl FromStr for DatabaseUrl {
    type Err = String;

    /// Parses `postgres://user:password@host:port,host:port/database?…`. Errors never quote the URL.
    fn from_str(text: &str) -> Result<Self, String> {
        let schemes = [("postgres", DEFAULT_PORT), ("postgresql", DEFAULT_PORT)];
        let url = ServerUrl::parse(text, &schemes)?;
        let (mut hosts, mut ports) = (None, None);
        let mut pairs = vec![("application_name", "point-system"), ("keepalives_idle", KEEPALIVE_IDLE_S)];
        let of_url = [("user", &url.user), ("password", &url.password), ("dbname", &url.path)];
        pairs.extend(of_url.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
        for (name, value) in &url.parameters {
            match name.as_str() {
                "sslmode" | "sslrootcert" | "sslcert" | "sslkey" => {}
                "host" => hosts = Some(value.as_str()),
                "port" => ports = Some(value.as_str()),
                name if OF_DRIVER.contains(&name) => pairs.push((name, value)),
                name => return Err(format!("has the parameter {name}, which is not supported")),
            }
        }
        let (ssl_mode, tls) = encryption(&url)?;
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

/// Reads `sslmode` and the files that belong to it. Weaker modes than libpq's are never used; `require` is stronger: it
/// verifies all that `verify-full` does.
fn encryption(url: &ServerUrl) -> Result<(SslMode, Option<Tls>), String> {
    let file = |name| url.parameter(name).filter(|file| !file.is_empty());
    let identity = match (file("sslcert"), file("sslkey")) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return Err("must have both sslcert and sslkey, or neither".to_owned()),
    };
    let roots = match file("sslrootcert") {
        Some("system") | None => Roots::System,
        Some(file) => Roots::File(file.into()),
    };
    let (mode, check) = match url.parameter("sslmode").unwrap_or("disable") {
        "disable" => {
            let unused = ["sslrootcert", "sslcert", "sslkey"].into_iter().find(|name| file(name).is_some());
            let needs = |name| format!("has {name}, which needs an sslmode: add sslmode=verify-full");
            return unused.map_or(Ok((SslMode::Disable, None)), |name| Err(needs(name)));
        }
        "allow" => return Err("has sslmode=allow, which is not supported: use prefer".to_owned()),
        "prefer" if file("sslrootcert").is_some() => {
            return Err("has sslrootcert, but sslmode=prefer verifies nothing: use verify-full".to_owned());
        }
        "prefer" => (SslMode::Prefer, Check::Nothing),
        "verify-ca" if roots == Roots::System => {
            return Err("has sslmode=verify-ca, which needs the file of an authority in sslrootcert: the \
                        system's authorities sign for everybody"
                .to_owned());
        }
        "verify-ca" => (SslMode::Require, Check::Authority),
        "require" | "verify-full" => (SslMode::Require, Check::AuthorityAndName),
        _ => {
            let modes = "disable, prefer, require, verify-ca or verify-full";
            return Err(format!("must have an sslmode of {modes}"));
        }
    };
    Ok((mode, Some(Tls { check, roots, identity })))
}

/// Hosts as `host=a,b&port=1,2`: one port is for all hosts.
fn hosts_of_parameters(hosts: &str, ports: Option<&str>) -> Result<Vec<Host>, String> {
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
    fn each_sslmode_checks_what_it_says_and_require_checks_all() {
        let read = |parameters: &str| {
            let url = parsed(&format!("postgres://a@h/d?{parameters}"));
            (url.config.get_ssl_mode(), url.tls)
        };
        let tls = |check, roots| Some(Tls { check, roots, identity: None });
        let file = || Roots::File("/ca.pem".into());
        assert_eq!(read(""), (SslMode::Disable, None));
        assert_eq!(read("sslmode=prefer"), (SslMode::Prefer, tls(Check::Nothing, Roots::System)));
        let verified = Check::AuthorityAndName;
        for mode in ["require", "verify-full"] {
            assert_eq!(read(&format!("sslmode={mode}")), (SslMode::Require, tls(verified, Roots::System)));
            let with_file = format!("sslmode={mode}&sslrootcert=/ca.pem");
            assert_eq!(read(&with_file), (SslMode::Require, tls(verified, file())));
            let with_system = format!("sslmode={mode}&sslrootcert=system");
            assert_eq!(read(&with_system), (SslMode::Require, tls(verified, Roots::System)));
        }
        let by_authority = read("sslmode=verify-ca&sslrootcert=/ca.pem");
        assert_eq!(by_authority, (SslMode::Require, tls(Check::Authority, file())));
        let identity =
            read("sslmode=verify-full&sslcert=/c.pem&sslkey=/k.pem").1.and_then(|tls| tls.identity);
        assert_eq!(identity, Some(("/c.pem".into(), "/k.pem".into())));
    }

    #[test]
    fn a_wrong_url_is_refused_without_quoting_it() {
        for (wrong, why) in [
            ("hush", "postgres://"),
            ("mysql://app:hush@db/points", "postgres://"),
            ("postgres://app:hush@db/points?sslmode=hush", "sslmode"),
            ("postgres://app:hush@db/points?sslmode=allow", "sslmode=allow"),
            ("postgres://app:hush@db/points?sslmode=verify-ca", "needs the file"),
            ("postgres://app:hush@db/points?sslmode=verify-ca&sslrootcert=system", "needs the file"),
            ("postgres://app:hush@db/points?sslmode=prefer&sslrootcert=hush", "verifies nothing"),
            ("postgres://app:hush@db/points?sslrootcert=hush", "needs an sslmode"),
            ("postgres://app:hush@db/points?sslmode=require&sslcert=hush", "both sslcert and sslkey"),
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
