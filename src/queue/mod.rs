//! RabbitMQ: a connection that reconnects by itself, the publisher and the consumer. Must not contain HTTP or SQL.

use std::{fmt, str::FromStr};

use url::{Host, Url};

mod callbacks;
mod link;
mod session;
mod pauses;
mod progress;
mod wire;
mod pace;
mod names;
mod topology;
mod subscription;
mod delivery;
pub mod consumer;
pub mod publisher;
mod confirm;
pub mod dead_letters;
mod desk;
mod death;
mod set_aside;
mod depth;

pub use consumer::{Consumer, Event};
pub use dead_letters::{DeadLetter, DeadLetters, DeadLettersError};
pub use death::Death;
pub use delivery::{Delivery, Disposition};
pub use depth::{DepthProbe, Depths};
pub use desk::{LetterDesk, LetterId, Settled, Verdict, Which};
pub use link::{Link, LinkWatch};
pub use names::{QueueNames, QueuePrefix};
pub use progress::{Progress, Standing};
pub use publisher::{PARTITION_CAPACITY_MIN, PublishError, Publisher};
pub use set_aside::{SetAside, SetAsideError, is_empty, set_aside};
pub use wire::MESSAGE_VERSION;

/// The longest name: AMQP sends its length as one byte (AMQP 0-9-1 §4.2.5.3).
const NAME_MAX_BYTES: usize = 255;

/// The address of RabbitMQ and our credentials. Its `Display` and `Debug` show the server, never the password.
#[derive(Clone)]
pub struct BrokerUrl {
    host: String,
    port: u16,
    user: String,
    password: String,
    virtual_host: String,
}

impl FromStr for BrokerUrl {
    type Err = String;

    /// Parses `amqp://user:password@host:port/vhost`, with percent-decoding. Without a path, the virtual host is `/`
    /// (RabbitMQ URI specification). The errors never quote the URL.
    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        if url.scheme() != "amqp" {
            return Err("must begin with amqp://".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must not have a query or a fragment".to_owned());
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => format!("[{address}]"),
            None => return Err("must name a host".to_owned()),
        };
        let or =
            |part: Option<&str>, default: &str| part.filter(|p| !p.is_empty()).unwrap_or(default).to_owned();
        let virtual_host = or(url.path().strip_prefix('/'), "%2f");
        if virtual_host.contains('/') {
            return Err("has more than one part in its path: write a / in the virtual host as %2f".to_owned());
        }
        let parts = [or(Some(url.username()), "guest"), or(url.password(), "guest"), virtual_host];
        let [user, password, virtual_host] = parts.map(|part| decode_percents(&part));
        let (user, password, virtual_host) = (user?, password?, virtual_host?);
        Ok(Self { host, port: url.port().unwrap_or(5672), user, password, virtual_host })
    }
}

fn decode_percents(part: &str) -> Result<String, String> {
    let decoded = percent_encoding::percent_decode_str(part).decode_utf8();
    let readable = decoded.ok().filter(|text| text.len() <= NAME_MAX_BYTES);
    readable
        .map(String::from)
        .ok_or_else(|| "has a part that is longer than 255 bytes or not UTF-8".to_owned())
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
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

    fn parts(text: &str) -> [String; 5] {
        let url: BrokerUrl = text.parse().expect(text);
        [url.host, url.port.to_string(), url.user, url.password, url.virtual_host]
    }

    #[test]
    fn a_url_is_read_as_rabbitmqs_specification_says() {
        assert_eq!(parts("amqp://host"), ["host", "5672", "guest", "guest", "/"]);
        assert_eq!(parts("amqp://a%40b:c%2Fd+@[::1]:99/%2fx"), ["[::1]", "99", "a@b", "c/d+", "/x"]);
        assert_eq!(parts("amqp://u:p@10.0.0.1/points"), ["10.0.0.1", "5672", "u", "p", "points"]);
    }

    #[test]
    fn a_wrong_url_is_refused_without_quoting_it() {
        let long = format!("amqp://hush:{}@host", "hush".repeat(64));
        for wrong in [
            "hush",
            "http://u:hush@h",
            "amqp://u:hush@h/a/b",
            "amqp://u:hush@h?x",
            "amqp://u:hush%ff@h",
            &long,
        ] {
            let error = wrong.parse::<BrokerUrl>().expect_err(wrong);
            assert!(!error.contains("hush"), "{error}");
        }
        let shown: BrokerUrl = "amqp://u:hush@h".parse().expect("valid");
        assert_eq!(format!("{shown} {shown:?}"), "h:5672 h:5672");
    }
}
