//! The URL of RabbitMQ, as its URI specification spells it. Must not contain a connection.

use std::{fmt, ops::RangeInclusive, path::PathBuf, str::FromStr, sync::Arc};

use crate::infra::{
    hosts::{Host, Hosts},
    server_url::ServerUrl,
    tls::{Check, Roots, Tls, is_server_name},
};

/// The longest name: AMQP sends its length as one byte (AMQP 0-9-1 §4.2.5.3).
const NAME_MAX_BYTES: usize = 255;

/// The heartbeat that we ask the broker for, unless the URL says otherwise. If the peer sends nothing for twice this
/// time, the connection is closed.
const HEARTBEAT_S: u16 = 5;

/// The heartbeats that a URL may ask for. A shorter one keeps amqprs busy, and a longer one detects a dead broker late.
const HEARTBEATS_S: RangeInclusive<u16> = 2..=60;

/// The times that a URL may give a host to open a connection.
const CONNECTION_TIMEOUTS_MS: RangeInclusive<u64> = 100..=60_000;

/// The parameters for TLS only.
const OF_TLS: [&str; 5] = ["cacertfile", "certfile", "keyfile", "verify", "server_name_indication"];

/// The addresses of RabbitMQ and our credentials. Its `Display` and `Debug` show the servers, never the password. Clones
/// share what they learn about the hosts.
#[derive(Clone)]
pub struct BrokerUrl {
    pub(super) hosts: Arc<Hosts>,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) virtual_host: String,
    pub(super) heartbeat_s: u16,
    /// The longest that a host may take to open a connection, if the URL says so.
    pub(super) connection_timeout_ms: Option<u64>,
    pub(super) tls: Option<Tls>,
    /// The name that the broker's certificate must have, if it is not that of the host.
    pub(super) server_name: Option<String>,
}

impl FromStr for BrokerUrl {
    type Err = String;

    /// Parses `amqps://user:password@host:port,host:port/vhost?…`. Without a path, the virtual host is `/`. The errors never
    /// quote the URL.
    fn from_str(text: &str) -> Result<Self, String> {
        let url = ServerUrl::parse(text, &[("amqp", 5672), ("amqps", 5671)])?;
        if url.hosts.is_empty() {
            return Err("must name a host".to_owned());
        }
        if url.hosts.iter().any(Host::is_folder) {
            return Err("names the folder of a socket, which RabbitMQ does not have".to_owned());
        }
        let (heartbeat_s, connection_timeout_ms) = limits(&url)?;
        let (tls, server_name) = (tls(&url)?, url.parameter("server_name_indication").map(str::to_owned));
        let or = |part: Option<String>, default: &str| part.unwrap_or_else(|| default.to_owned());
        let parts = [or(url.user, "guest"), or(url.password, "guest"), or(url.path, "/")];
        if parts.iter().any(|part| part.len() > NAME_MAX_BYTES) {
            return Err("has a part that is longer than 255 bytes".to_owned());
        }
        let [user, password, virtual_host] = parts;
        let hosts = Arc::new(Hosts::new(url.hosts));
        Ok(Self { hosts, user, password, virtual_host, heartbeat_s, connection_timeout_ms, tls, server_name })
    }
}

impl BrokerUrl {
    /// The virtual host, which has the queues.
    #[must_use]
    pub fn virtual_host(&self) -> &str {
        &self.virtual_host
    }
}

/// Reads the heartbeat and the time to open a connection. Refuses parameters that we can't honour.
fn limits(url: &ServerUrl) -> Result<(u16, Option<u64>), String> {
    let (mut heartbeat_s, mut timeout) = (HEARTBEAT_S, None);
    for (name, value) in &url.parameters {
        match name.as_str() {
            "heartbeat" => {
                let read = value.parse().ok().filter(|seconds| HEARTBEATS_S.contains(seconds));
                heartbeat_s = read.ok_or("must have a heartbeat of 2 to 60 (seconds)")?;
            }
            "connection_timeout" => {
                let read = value.parse().ok().filter(|ms| CONNECTION_TIMEOUTS_MS.contains(ms));
                let read = read.ok_or("must have a connection_timeout of 100 to 60000 (milliseconds)")?;
                timeout = Some(read);
            }
            "auth_mechanism" if value.eq_ignore_ascii_case("plain") => {}
            "auth_mechanism" => {
                return Err("has an auth_mechanism other than plain, which is not supported".to_owned());
            }
            name if OF_TLS.contains(&name) && url.scheme == "amqps" => {}
            name if OF_TLS.contains(&name) => {
                return Err(format!("has the parameter {name}, which is for amqps://"));
            }
            name => return Err(format!("has the parameter {name}, which is not supported")),
        }
    }
    Ok((heartbeat_s, timeout))
}

/// Reads the parameters of TLS. A broker is always verified.
fn tls(url: &ServerUrl) -> Result<Option<Tls>, String> {
    if url.scheme != "amqps" {
        return Ok(None);
    }
    match url.parameter("verify") {
        None | Some("verify_peer") => {}
        Some("verify_none") => {
            return Err(
                "has verify=verify_none, which is not supported: anybody could pose as the broker, and \
                        get its password"
                    .to_owned(),
            );
        }
        Some(_) => return Err("has a verify other than verify_peer, which is not supported".to_owned()),
    }
    if url.parameter("server_name_indication").is_some_and(|name| !is_server_name(name)) {
        return Err("has a server_name_indication that is neither a name nor an IP address".to_owned());
    }
    let roots = url.parameter("cacertfile").map_or(Roots::System, |file| Roots::File(PathBuf::from(file)));
    let identity = match (url.parameter("certfile"), url.parameter("keyfile")) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return Err("must have both certfile and keyfile, or neither".to_owned()),
    };
    Ok(Some(Tls { check: Check::AuthorityAndName, roots, identity }))
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.hosts, f)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> [String; 4] {
        let url: BrokerUrl = text.parse().expect(text);
        [url.to_string(), url.user, url.password, url.virtual_host]
    }

    #[test]
    fn a_url_is_read_as_rabbitmqs_specification_says() {
        assert_eq!(parts("amqp://host"), ["host:5672", "guest", "guest", "/"]);
        assert_eq!(parts("amqp://a%40b:c%2Fd+@[::1]:99/%2fx"), ["[::1]:99", "a@b", "c/d+", "/x"]);
        assert_eq!(parts("amqp://u:p@10.0.0.1,b:1/points"), ["10.0.0.1:5672,b:1", "u", "p", "points"]);
    }

    #[test]
    fn parameters_are_read_as_rabbitmqs_specification_says() {
        let url: BrokerUrl = "amqps://h?cacertfile=/ca.pem&certfile=/c.pem&keyfile=/k.pem&verify=verify_peer\
             &server_name_indication=broker&heartbeat=20&connection_timeout=1500&auth_mechanism=PLAIN"
            .parse()
            .expect("valid");
        let identity = Some(("/c.pem".into(), "/k.pem".into()));
        let roots = Roots::File("/ca.pem".into());
        assert_eq!(url.tls, Some(Tls { check: Check::AuthorityAndName, roots, identity }));
        assert_eq!((url.to_string().as_str(), url.server_name.as_deref()), ("h:5671", Some("broker")));
        assert_eq!((url.heartbeat_s, url.connection_timeout_ms), (20, Some(1_500)));
        let plain: BrokerUrl = "amqps://h".parse().expect("valid");
        let tls = Tls { check: Check::AuthorityAndName, roots: Roots::System, identity: None };
        assert_eq!((plain.tls, plain.heartbeat_s), (Some(tls), 5));
    }

    #[test]
    fn a_wrong_url_is_refused_without_quoting_it() {
        let long = format!("amqp://hush:{}@host", "hush".repeat(64));
        for (wrong, why) in [
            ("http://u:hush@h", "amqp:// or amqps://"),
            ("amqp://u:hush@h/a/b", "%2f"),
            ("amqp://u:hush@h?verify=verify_peer", "amqps://"),
            ("amqps://u:hush@h?verify=verify_none", "verify=verify_none"),
            ("amqps://u:hush@h?verify=hush", "verify"),
            ("amqps://u:hush@h?certfile=hush", "both certfile and keyfile"),
            ("amqps://u:hush@h?server_name_indication=a%20b", "server_name_indication"),
            ("amqp://u:hush@h?heartbeat=0", "heartbeat"),
            ("amqp://u:hush@h?connection_timeout=hush", "connection_timeout"),
            ("amqp://u:hush@h?auth_mechanism=external", "auth_mechanism"),
            ("amqp://u:hush@h?channel_max=5", "channel_max"),
            ("amqp://u:hush@h?depth=5", "depth"),
            ("amqp://u:hush@/v", "a host"),
            ("amqp://u:hush@%2Frun", "a socket"),
            (&long, "255 bytes"),
        ] {
            let error = wrong.parse::<BrokerUrl>().expect_err(wrong);
            assert!(error.contains(why) && !error.contains("hush"), "{error}");
        }
        let shown: BrokerUrl = "amqp://u:hush@h".parse().expect("valid");
        assert_eq!(format!("{shown} {shown:?}"), "h:5672 h:5672");
    }
}
