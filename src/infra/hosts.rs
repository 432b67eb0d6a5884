//! The hosts of a server, and the order in which they are tried. Must not contain a protocol.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{net::lookup_host, time::timeout};

/// The limit for resolving the names of hosts, if others may have an answer, or an earlier answer is known.
const RESOLVE_TIMEOUT_MS: u64 = 1_000;

/// The limit for resolving the only host for the first time. Resolvers ask the second name server after 5 s
/// (resolv.conf(5)).
const RESOLVE_ALONE_TIMEOUT_MS: u64 = 10_000;

/// A host as a URL names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// A name, an IP address, or the folder of a socket, which begins with `/`.
    pub name: String,
    /// Its port.
    pub port: u16,
}

impl Host {
    /// Returns whether this is the folder of a socket.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.name.starts_with('/')
    }

    /// Returns the addresses that the name has now.
    async fn addresses(&self, limit_ms: u64) -> Resolved {
        if self.is_folder() {
            return Ok(vec![None]);
        }
        if let Ok(address) = self.name.parse() {
            return Ok(vec![Some(address)]);
        }
        let looking = lookup_host((self.name.as_str(), self.port));
        match timeout(Duration::from_millis(limit_ms), looking).await {
            Ok(Ok(found)) => Ok(found.map(|address| Some(address.ip())).collect()),
            Ok(Err(error)) => Err(Unresolved { why: error.to_string(), is_late: false }),
            Err(_) => {
                let why = format!("its name was not resolved within {limit_ms} ms");
                Err(Unresolved { why, is_late: true })
            }
        }
    }
}

/// The addresses of a host: `None` for a folder.
type Resolved = Result<Vec<Option<IpAddr>>, Unresolved>;

/// Why a name has no address now.
#[derive(Debug)]
struct Unresolved {
    why: String,
    /// Whether no name server has answered.
    is_late: bool,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            folder if self.is_folder() => f.write_str(folder),
            address if address.contains(':') => write!(f, "[{address}]:{}", self.port),
            name => write!(f, "{name}:{}", self.port),
        }
    }
}

/// One of the addresses of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub host: Host,
    /// The address, or `None` for a folder.
    pub address: Option<IpAddr>,
}

impl Place {
    /// The address and the port, or `None` for a folder.
    #[must_use]
    pub fn socket(&self) -> Option<SocketAddr> {
        self.address.map(|address| SocketAddr::new(address, self.host.port))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)?;
        match self.address {
            Some(address) if self.host.name.parse() != Ok(address) => write!(f, " ({address})"),
            _ => Ok(()),
        }
    }
}

/// The hosts of a server. The host that failed last is tried last.
#[derive(Debug)]
pub struct Hosts {
    list: Vec<Host>,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The number of places when the names of the hosts were last resolved.
    places: usize,
    /// The addresses that the hosts had when their names were last resolved.
    addresses: HashMap<Host, Vec<Option<IpAddr>>>,
    /// The places that have failed, the latest last.
    failures: Vec<Failure>,
}

#[derive(Debug)]
struct Failure {
    place: Place,
    given_up: Option<Instant>,
}

impl Hosts {
    /// Makes the hosts of a list.
    #[must_use]
    pub fn new(list: Vec<Host>) -> Self {
        Self { list, memory: Mutex::default() }
    }

    /// Resolves the names again. While no name server answers, a name keeps its last addresses. Returns the places in the
    /// order in which to try them: those that have never failed in the order of the list, then the others. Also returns
    /// the hosts that could not be resolved, with the reasons.
    pub async fn places(&self) -> (Vec<Place>, Vec<(Host, String)>) {
        let has_none = self.list.len() == 1 && self.memory().addresses.is_empty();
        let limit_ms = if has_none { RESOLVE_ALONE_TIMEOUT_MS } else { RESOLVE_TIMEOUT_MS };
        self.learn(join_all(self.list.iter().map(|host| host.addresses(limit_ms))).await)
    }

    fn learn(&self, resolved: Vec<Resolved>) -> (Vec<Place>, Vec<(Host, String)>) {
        let (mut places, mut unknown) = (Vec::new(), Vec::new());
        let mut memory = self.memory();
        for (host, resolved) in self.list.iter().zip(resolved) {
            match resolved {
                Ok(addresses) => drop(memory.addresses.insert(host.clone(), addresses)),
                Err(Unresolved { why, is_late }) => {
                    if !is_late {
                        memory.addresses.remove(host);
                    }
                    unknown.push((host.clone(), why));
                }
            }
            let known = memory.addresses.get(host).into_iter().flatten();
            places.extend(known.map(|address| Place { host: host.clone(), address: *address }));
        }
        memory.places = places.len();
        memory.failures.retain(|failure| places.contains(&failure.place));
        places.sort_by_key(|place| memory.failures.iter().position(|failure| failure.place == *place));
        (places, unknown)
    }

    /// Notes that a connection to a place could not be opened.
    pub fn failed(&self, place: &Place) {
        self.note(place, None);
    }

    /// Notes that the server at a place accepts connections but does not do its work.
    pub fn give_up(&self, place: &Place) {
        self.note(place, Some(Instant::now()));
    }

    fn note(&self, place: &Place, given_up: Option<Instant>) {
        let mut memory = self.memory();
        let before = memory.failures.iter().position(|failure| failure.place == *place);
        let before = before.and_then(|index| memory.failures.remove(index).given_up);
        memory.failures.push(Failure { place: place.clone(), given_up: given_up.or(before) });
    }

    /// Returns whether a place was given up after `then`. The only place of a server is never given up.
    #[must_use]
    pub fn gave_up_since(&self, place: &Place, then: Instant) -> bool {
        let memory = self.memory();
        memory.places > 1
            && memory
                .failures
                .iter()
                .any(|failure| failure.place == *place && failure.given_up.is_some_and(|at| at > then))
    }

    /// Returns whether there was more than one place when the names were last resolved.
    #[must_use]
    pub fn are_several(&self) -> bool {
        self.memory().places > 1
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.list.iter().map(Host::to_string).collect::<Vec<_>>().join(","))
    }
}

/// Why no host could be used, in one line. A reason is named after its host, unless there is only one.
#[must_use]
pub fn reasons(refusals: &[(String, String)]) -> String {
    match refusals {
        [] => "its name has no address".to_owned(),
        [(_, why)] => why.clone(),
        _ => refusals.iter().map(|(host, why)| format!("{host}: {why}")).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Hosts {
        Hosts::new(names.iter().map(|name| Host { name: (*name).to_owned(), port: 1 }).collect())
    }

    async fn order(hosts: &Hosts) -> Vec<String> {
        hosts.places().await.0.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn what_failed_last_is_tried_last() {
        let hosts = hosts(&["10.0.0.1", "10.0.0.2", "/run/postgresql", "::1"]);
        let places = hosts.places().await.0;
        assert_eq!(order(&hosts).await, ["10.0.0.1:1", "10.0.0.2:1", "/run/postgresql", "[::1]:1"]);
        hosts.failed(&places[0]);
        hosts.give_up(&places[2]);
        assert_eq!(order(&hosts).await, ["10.0.0.2:1", "[::1]:1", "10.0.0.1:1", "/run/postgresql"]);
        hosts.failed(&places[0]);
        assert_eq!(order(&hosts).await, ["10.0.0.2:1", "[::1]:1", "/run/postgresql", "10.0.0.1:1"]);
    }

    #[tokio::test]
    async fn only_what_is_opened_after_a_place_was_given_up_is_of_use() {
        let several = hosts(&["10.0.0.1", "10.0.0.2"]);
        let (place, before) = (several.places().await.0.remove(0), Instant::now());
        several.failed(&place);
        assert!(!several.gave_up_since(&place, before), "another connection may have had more luck");
        several.give_up(&place);
        several.failed(&place);
        assert!(several.gave_up_since(&place, before));
        assert!(!several.gave_up_since(&place, Instant::now()));
        let only = hosts(&["10.0.0.1"]);
        let place = only.places().await.0.remove(0);
        only.give_up(&place);
        assert!(!only.gave_up_since(&place, before), "there is nowhere else to go");
    }

    #[tokio::test]
    async fn a_name_stands_for_all_its_addresses_and_one_that_is_unknown_for_none() {
        let hosts = hosts(&["no-such-host.invalid", "localhost"]);
        let (places, unknown) = hosts.places().await;
        assert!(places.iter().any(|place| place.to_string() == "localhost:1 (127.0.0.1)"), "{places:?}");
        assert_eq!(unknown.len(), 1);
        assert_eq!(unknown[0].0.to_string(), "no-such-host.invalid:1");
    }

    #[test]
    fn a_name_keeps_its_addresses_while_no_name_server_answers() {
        let hosts = hosts(&["db.example", "10.0.0.2"]);
        let addresses = |address: &str| Ok(vec![Some(address.parse().expect("an address"))]);
        let places = |first: Resolved| {
            let (places, unknown) = hosts.learn(vec![first, addresses("10.0.0.2")]);
            (places.iter().map(ToString::to_string).collect::<Vec<_>>(), unknown.len())
        };
        let unresolved = |is_late| Err(Unresolved { why: String::new(), is_late });
        let both = ["db.example:1 (10.0.0.1)", "10.0.0.2:1"].map(str::to_owned).to_vec();
        assert_eq!(places(unresolved(true)), (both[1..].to_vec(), 1), "it was never known");
        assert_eq!(places(addresses("10.0.0.1")), (both.clone(), 0));
        assert_eq!(places(unresolved(true)), (both.clone(), 1));
        assert_eq!(places(unresolved(false)), (both[1..].to_vec(), 1), "it is gone");
        assert_eq!(places(unresolved(true)), (both[1..].to_vec(), 1));
    }
}
