//! The rate limit of each caller. Must not contain HTTP.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    str::FromStr,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::HashMapStateStore,
};

use crate::domain::Actor;

/// The bits of an IPv6 address that name a network. A caller in a network can use all of its addresses.
const IPV6_NETWORK_BITS: u32 = 64;

/// A number of requests per time, such as "100/s" or "600/m".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    requests: NonZeroU32,
    window_s: u32,
}

impl RateLimit {
    /// Maximum number of requests per window. More would be no limit.
    const MAX: u32 = 1_000_000;

    /// How many requests a caller may send at once, and again within each [`RateLimit::window_s`].
    #[must_use]
    pub fn requests(self) -> u32 {
        self.requests.get()
    }

    /// The length of the window in seconds.
    #[must_use]
    pub fn window_s(self) -> u32 {
        self.window_s
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests in {} s", self.requests, self.window_s)
    }
}

impl FromStr for RateLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || format!("must be a number from 1 to {} and a time, such as 100/s or 600/m", Self::MAX);
        let (requests, window) = text.split_once('/').ok_or_else(rule)?;
        let window_s = match window {
            "s" => 1,
            "m" => 60,
            _ => return Err(rule()),
        };
        let requests: NonZeroU32 = requests.parse().map_err(|_| rule())?;
        if requests.get() > Self::MAX { Err(rule()) } else { Ok(Self { requests, window_s }) }
    }
}

/// A client, whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// All callers with a key of one name: a rotation does not double what they may send.
    Actor(Actor),
    /// All callers without a key from one IPv4 address or one IPv6 network.
    Address(IpAddr),
}

impl Client {
    /// Returns the client at this address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => {
                let host = u128::MAX >> IPV6_NETWORK_BITS;
                Ipv6Addr::from_bits(address.to_bits() & !host).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// How much of its limit a client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The limit.
    pub limit: RateLimit,
    /// How many more requests it may send now; 0 if this one is refused.
    pub remaining: u32,
    /// In how many whole seconds it may send one request more than that; at least 1.
    pub more_after_s: u64,
    /// Whether this request is within the limit.
    pub granted: bool,
}

type Buckets = RateLimiter<Client, HashMapStateStore<Client>, DefaultClock, StateInformationMiddleware>;

/// Counts the requests of every client, with the generic cell rate algorithm.
pub(super) struct Limits {
    limit: RateLimit,
    buckets: Buckets,
}

impl Limits {
    pub(super) fn new(limit: RateLimit) -> Self {
        let every = Duration::from_secs(limit.window_s.into()) / limit.requests.get();
        let quota = Quota::with_period(every).expect("not zero").allow_burst(limit.requests);
        Self { limit, buckets: RateLimiter::hashmap(quota).with_middleware() }
    }

    /// Counts one request.
    pub(super) fn take(&self, client: &Client) -> Allowance {
        let limit = self.limit;
        match self.buckets.check_key(client) {
            Ok(state) => Allowance {
                limit,
                remaining: state.remaining_burst_capacity(),
                more_after_s: whole_seconds(state.quota().replenish_interval()),
                granted: true,
            },
            Err(refused) => Allowance {
                limit,
                remaining: 0,
                more_after_s: whole_seconds(refused.wait_time_from(self.buckets.clock().now())),
                granted: false,
            },
        }
    }

    /// Forgets the clients that have their full limit again.
    pub(super) fn forget_the_quiet(&self) {
        self.buckets.retain_recent();
    }
}

/// Rounds up, so that a client that waits this long is not refused again.
fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_and_a_time() {
        for (text, requests, window_s) in [("1/s", 1, 1), ("100/s", 100, 1), ("600/m", 600, 60)] {
            let limit: RateLimit = text.parse().expect(text);
            assert_eq!((limit.requests(), limit.window_s()), (requests, window_s));
        }
        for wrong in ["", "100", "0/s", "-1/s", "1.5/s", "100/", "100/h", "/s", "1000001/s", "99999999999/s"]
        {
            assert!(wrong.parse::<RateLimit>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_client_has_its_own_and_a_quiet_one_is_forgotten() {
        let limits = Limits::new("2/m".parse().expect("valid"));
        let [key, other] = ["shop", "games"].map(|name| Client::Actor(Actor::new(name).expect(name)));
        for client in [&key, &other, &Client::at(IpAddr::from([127, 0, 0, 1]))] {
            let left: Vec<(u32, bool)> = (0..3)
                .map(|_| {
                    let allowance = limits.take(client);
                    assert!((1..=30).contains(&allowance.more_after_s), "{allowance:?}");
                    (allowance.remaining, allowance.granted)
                })
                .collect();
            assert_eq!(left, [(1, true), (0, true), (0, false)]);
        }
        limits.forget_the_quiet();
        assert_eq!(limits.buckets.len(), 3, "they still have to wait");
        let fast = Limits::new("1000000/s".parse().expect("valid"));
        fast.take(&key);
        while !fast.buckets.is_empty() {
            fast.forget_the_quiet();
        }
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_an_ipv4_address_is_one() {
        let at = |address: &str| Client::at(address.parse().expect(address));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:0:0:2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
        assert_eq!(at("192.0.2.1"), at("::ffff:192.0.2.1"));
    }
}
