//! Reads the URL of a server: a user, a list of hosts, a path and parameters. Must not contain what a path or a parameter
//! means, or an error that quotes the URL.

use super::hosts::Host;

/// A URL in parts, without percent-encoding.
#[derive(Clone)]
pub struct ServerUrl {
    /// The part before `://`.
    pub scheme: String,
    /// The user, unless it is missing or empty.
    pub user: Option<String>,
    /// The password, unless it is missing or empty.
    pub password: Option<String>,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The path without its first `/`, unless it is missing or empty.
    pub path: Option<String>,
    /// The parameters, in the order of the URL.
    pub parameters: Vec<(String, String)>,
}

impl ServerUrl {
    /// Parses `scheme://user:password@host:port,host:port/path?name=value&…`. Each scheme has its default port.
    ///
    /// # Errors
    /// The rule that the URL breaks, readable after the name of a flag.
    pub fn parse(text: &str, schemes: &[(&str, u16)]) -> Result<Self, String> {
        let split = text.split_once("://");
        let known =
            split.and_then(|(scheme, rest)| Some((schemes.iter().find(|known| known.0 == scheme)?, rest)));
        let Some(((scheme, port), rest)) = known else {
            let starts: Vec<String> = schemes.iter().map(|(scheme, _)| format!("{scheme}://")).collect();
            return Err(format!("must begin with {}", starts.join(" or ")));
        };
        if rest.contains('#') {
            return Err("must not have a fragment: write a # as %23".to_owned());
        }
        if rest.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
            return Err("must not have spaces or line ends".to_owned());
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        if path.contains('/') {
            return Err("has more than one part in its path: write a / as %2f".to_owned());
        }
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let some = |part| Ok::<_, String>(Some(decoded(part)?).filter(|part| !part.is_empty()));
        Ok(Self {
            scheme: (*scheme).to_owned(),
            user: some(user)?,
            password: some(password)?,
            hosts: read_hosts(hosts, *port)?,
            path: some(path)?,
            parameters: parameters(query)?,
        })
    }

    /// Returns the value of a parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Reads `host:port,host:port`. An IPv6 address is in brackets. The port may be missing.
///
/// # Errors
/// As [`ServerUrl::parse`].
pub fn read_hosts(list: &str, default_port: u16) -> Result<Vec<Host>, String> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    list.split(',').map(|host| read_host(host, default_port)).collect()
}

fn read_host(text: &str, default_port: u16) -> Result<Host, String> {
    let wrong = || "has a host that is neither a name nor an IP address (IPv6 in brackets)".to_owned();
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or_else(wrong)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
        let port = if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) };
        (address.to_owned(), port)
    } else {
        let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        let name = decoded(name)?;
        let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&letter);
        if name.is_empty() || !(name.starts_with('/') || name.chars().all(is_of_name)) {
            return Err(wrong());
        }
        (name, port)
    };
    let port = port.map_or(Ok(default_port), |port| {
        let number = port.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| "has a port that is not a number from 1 to 65535".to_owned())
    })?;
    Ok(Host { name, port })
}

fn parameters(query: &str) -> Result<Vec<(String, String)>, String> {
    let mut parameters: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        // What follows a stray "?" in a password must not be shown, so a name has to look like one.
        let named = pair.split_once('=').filter(|(name, _)| {
            !name.is_empty()
                && name.chars().all(|letter| letter.is_ascii_lowercase() || "_-".contains(letter))
        });
        let (name, value) =
            named.ok_or("has something other than name=value after its ?: write a ? as %3f")?;
        if parameters.iter().any(|(other, _)| other == name) {
            return Err(format!("has the parameter {name} twice"));
        }
        parameters.push((name.to_owned(), decoded(value)?));
    }
    Ok(parameters)
}

fn decoded(part: &str) -> Result<String, String> {
    let text = percent_encoding::percent_decode_str(part).decode_utf8();
    let text = text.ok().filter(|text| !text.contains('\0'));
    text.map(String::from).ok_or_else(|| "has a part that is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ServerUrl, String> {
        ServerUrl::parse(text, &[("amqp", 5672), ("amqps", 5671)])
    }

    fn hosts(text: &str) -> Vec<String> {
        parsed(text).expect(text).hosts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_host_has_its_port_or_the_default_of_the_scheme() {
        assert_eq!(
            hosts("amqps://u:p@a:1,b,[::1]:2,[fe80::1]/v?x=y"),
            ["a:1", "b:5671", "[::1]:2", "[fe80::1]:5671"]
        );
        assert_eq!(hosts("amqp://%2Frun%2Fpostgresql,10.0.0.1"), ["/run/postgresql", "10.0.0.1:5672"]);
        assert!(hosts("amqp:///v").is_empty());
    }

    #[test]
    fn every_part_is_decoded_and_may_be_missing() {
        let url = parsed("amqp://a%40b:c%2Fd+@h/%2fx?name=va+l%26ue&other=").expect("valid");
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("a@b"), Some("c/d+")));
        assert_eq!(url.path.as_deref(), Some("/x"));
        let [name, other] = &url.parameters[..] else { panic!("{:?}", url.parameters) };
        assert_eq!((name.1.as_str(), other.1.as_str()), ("va+l&ue", ""));
        let url = parsed("amqp://:@h/").expect("valid");
        assert_eq!((url.user, url.password, url.path), (None, None, None));
    }

    #[test]
    fn a_wrong_url_is_refused_without_quoting_it() {
        for (wrong, why) in [
            ("hush", "must begin with amqp:// or amqps://"),
            ("http://u:hush@h", "must begin with amqp:// or amqps://"),
            ("amqp://u:hu#sh@h", "fragment"),
            ("amqp://u:hush@h ", "spaces"),
            ("amqp://u:hu/sh@h", "port"),
            ("amqp://u:hu?sh@h", "port"),
            ("amqp://u:1?hush@h/v", "write a ? as %3f"),
            ("amqp://u:hush@h/a/b", "write a / as %2f"),
            ("amqp://u:hush@h,,i", "has a host"),
            ("amqp://u:hush@[::1", "has a host"),
            ("amqp://u:hush@[::1]5", "has a host"),
            ("amqp://u:hush@[hush]", "has a host"),
            ("amqp://u:hush@::1", "has a host"),
            ("amqp://u:hush@h:0", "port"),
            ("amqp://u:hush@h:65536", "port"),
            ("amqp://u:hush%ff@h", "UTF-8"),
            ("amqp://u:hush@h?x", "name=value"),
            ("amqp://u:hush@h?heartbeat=hush&heartbeat=5", "has the parameter heartbeat twice"),
        ] {
            let error = parsed(wrong).err().expect(wrong);
            assert!(error.contains(why) && !error.contains("hush"), "{wrong}: {error}");
        }
    }
}
