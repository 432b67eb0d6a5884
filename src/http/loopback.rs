//! The check that a request comes from a client on this machine, not from a web page of another site or through a
//! proxy. Must not contain anything about API keys.

use std::net::{Ipv4Addr, Ipv6Addr};

use actix_web::{
    dev::ServiceRequest,
    http::{
        Uri,
        header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN},
    },
};

/// The header in which browsers tell which site a request comes from (W3C Fetch Metadata §2.4).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The prefix of a family of headers that proxies add.
const FORWARDED_PREFIX: &str = "x-forwarded";

/// The other headers that proxies add: RFC 7239, RFC 9110 §7.6.3, and those of nginx, Envoy and the content delivery
/// networks.
const FORWARDING: [&str; 11] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-original-forwarded-for",
    "x-original-host",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
];

/// Finds a header which shows that the request does not come straight from a client on this machine. `Host` exposes a
/// page whose own name resolves to a loopback address (DNS rebinding).
pub(super) fn foreign_header(request: &ServiceRequest) -> Option<String> {
    let headers = request.headers();
    if !is_host(headers) || !is_ours(request.uri()) {
        return Some("Host".to_owned());
    }
    headers.iter().find_map(|(name, value)| is_foreign(name, value).then(|| spelled(name)))
}

/// Whether `Host` is sent once and is a loopback name or address.
fn is_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST);
    let host = hosts.next().filter(|_| hosts.next().is_none());
    host.is_some_and(is_loopback_authority)
}

/// Whether `Host` and every `Origin` are loopback names or addresses. A proxy may have replaced `Host`.
pub(super) fn is_local(headers: &HeaderMap) -> bool {
    is_host(headers) && headers.get_all(ORIGIN).all(is_loopback_origin)
}

/// The authority of a target in absolute form replaces `Host` (RFC 9112 §3.2.2).
fn is_ours(target: &Uri) -> bool {
    target.authority().is_none_or(|authority| is_loopback(authority.host()))
}

fn is_foreign(name: &HeaderName, value: &HeaderValue) -> bool {
    if name == ORIGIN {
        return !is_loopback_origin(value);
    }
    let name = name.as_str();
    match name.as_bytes().first() {
        Some(b's') => name == SEC_FETCH_SITE && value == "cross-site",
        Some(b'f' | b'v' | b'x' | b't' | b'c') => {
            name.starts_with(FORWARDED_PREFIX) || FORWARDING.contains(&name)
        }
        _ => false,
    }
}

/// Spells a header as its documents do, with each word capitalised.
fn spelled(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| match word.split_at_checked(1) {
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => String::new(),
    });
    words.collect::<Vec<_>>().join("-")
}

/// Whether a `Host` is a loopback name or address, with or without a port. Any other character is
/// foreign. Every request passes here, so a general parser would be too slow.
fn is_loopback_authority(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => (&text[..colon], &text[colon + 1..]),
        _ => (text, ""),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-[:]".contains(&byte);
    port.bytes().all(|byte| byte.is_ascii_digit()) && host.bytes().all(plain) && is_loopback(host)
}

/// `null` is no loopback origin: a sandboxed frame of any site sends it.
fn is_loopback_origin(value: &HeaderValue) -> bool {
    let origin = value.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    origin.is_some_and(|uri| uri.scheme().is_some() && uri.host().is_some_and(is_loopback))
}

/// `localhost` and its subdomains (RFC 6761 §6.3), 127.0.0.0/8, and `[::1]`.
fn is_loopback(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok_and(|address| address.to_canonical().is_loopback());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let top = name.rsplit('.').next().unwrap_or_default();
    top.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_host_is_loopback_by_its_name_or_its_address_alone() {
        for host in [
            "localhost",
            "LocalHost.",
            "a.b.localhost",
            "127.0.0.1",
            "127.255.0.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "localhost.example",
            "xlocalhost",
            "128.0.0.1",
            "127.0.0.1.example",
            "127.1",
            "2130706433",
            "0.0.0.0",
            "[::]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn the_host_is_the_part_between_the_user_and_the_port() {
        for (host, ours) in [
            ("localhost:31001", true),
            ("[::1]", true),
            ("localhost:", true),
            ("localhost:8o", false),
            ("localhost:80:80", false),
            ("a@b.localhost", false),
            ("a/b.localhost", false),
            ("[::1]:31001", true),
            ("localhost@evil.example", false),
            ("evil.example@localhost", false),
            ("localhost:80@evil.example", false),
            ("evil.example#localhost", false),
            ("localhost/evil.example", false),
            ("localhost localhost", false),
            ("", false),
        ] {
            let request = TestRequest::get().insert_header((HOST, host)).to_srv_request();
            assert_eq!(foreign_header(&request).is_none(), ours, "{host:?}");
        }
    }
}
