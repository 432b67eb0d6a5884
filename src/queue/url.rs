//! The URL of RabbitMQ, as its URI specification spells it. Must not contain a connection.

use std::{fmt, str::FromStr, sync::Arc};

use crate::infra::{hosts::Hosts, server_url::ServerUrl};

/// The longest name: AMQP sends its length as one byte (AMQP 0-9-1 §4.2.5.3).
const NAME_MAX_BYTES: usize = 255;

/// The addresses of RabbitMQ and our credentials. Its `Display` and `Debug` show the servers, never the password. Clones
/// share what they learn about the hosts.
#[derive(Clone)]
pub struct BrokerUrl {
    pub(super) hosts: Arc<Hosts>,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) virtual_host: String,
}

impl FromStr for BrokerUrl {
    type Err = String;

    /// Parses `amqp://user:password@host:port,host:port/vhost`, with percent-decoding. Without a path, the virtual host is
    /// `/` (RabbitMQ URI specification). The errors never quote the URL.
    fn from_str(text: &str) -> Result<Self, String> {
        let url = ServerUrl::parse(text, &[("amqp", 5672)])?;
        if let Some((name, _)) = url.parameters.first() {
            return Err(format!("has the parameter {name}, which is not supported"));
        }
        if url.hosts.is_empty() {
            return Err("must name a host".to_owned());
        }
        if url.hosts.iter().any(crate::infra::hosts::Host::is_folder) {
            return Err("names the folder of a socket, which RabbitMQ does not have".to_owned());
        }
        let or = |part: Option<String>, default: &str| part.unwrap_or_else(|| default.to_owned());
        let parts = [or(url.user, "guest"), or(url.password, "guest"), or(url.path, "/")];
        if parts.iter().any(|part| part.len() > NAME_MAX_BYTES) {
            return Err("has a part that is longer than 255 bytes".to_owned());
        }
        let [user, password, virtual_host] = parts;
        Ok(Self { hosts: Arc::new(Hosts::new(url.hosts)), user, password, virtual_host })
    }
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
    fn a_wrong_url_is_refused_without_quoting_it() {
        let long = format!("amqp://hush:{}@host", "hush".repeat(64));
        for (wrong, why) in [
            ("http://u:hush@h", "amqp://"),
            ("amqp://u:hush@h/a/b", "%2f"),
            ("amqp://u:hush@h?verify=hush", "verify"),
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
