//! Opens a connection to one of the hosts of RabbitMQ. Must not contain a channel.

use std::{
    future::pending,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use amqprs::{
    connection::{Connection, OpenConnectionArguments},
    tls::TlsAdaptor,
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    BrokerUrl,
    session::{Session, in_own_task},
};
use crate::infra::hosts::{Host, Place, reasons};

/// The longest that the only host may take to open a connection.
const OPEN_TIMEOUT_MS: u64 = 20_000;

/// The longest that one of several hosts may take to open a connection.
const OPEN_ONE_TIMEOUT_MS: u64 = 5_000;

/// If a connection to one of several hosts is not open after this time, we check that the host is reachable at all.
const DOUBT_MS: u64 = 250;

/// The longest that a host may take to accept a TCP connection when we check that it is reachable.
const REACH_TIMEOUT_MS: u64 = 1_000;

/// Tries the hosts one after the other. The host that failed last is tried last. The broker shows `name` to its
/// operators.
///
/// # Errors
/// The reason; with several hosts, the reason of each.
pub(super) async fn connect(url: &BrokerUrl, name: &str) -> Result<Session, String> {
    let (places, unknown) = url.hosts.places().await;
    let mut refusals: Vec<(String, String)> =
        unknown.into_iter().map(|(host, why): (Host, _)| (host.to_string(), why)).collect();
    let limit_ms = if places.len() > 1 { OPEN_ONE_TIMEOUT_MS } else { OPEN_TIMEOUT_MS };
    let limit_ms = url.connection_timeout_ms.unwrap_or(limit_ms);
    for place in &places {
        let opened = match place.socket() {
            Some(address) if places.len() > 1 => {
                tokio::select! {
                    opened = open(url, name, place, limit_ms) => opened,
                    why = unreachable(address) => Err(why),
                }
            }
            _ => open(url, name, place, limit_ms).await,
        };
        match opened {
            Ok(session) => {
                for (place, why) in refusals {
                    log::warn!("RabbitMQ at {place}: {why}; using {}", session.place);
                }
                return Ok(session);
            }
            Err(why) => {
                url.hosts.failed(place);
                refusals.push((place.to_string(), why));
            }
        }
    }
    Err(reasons(&refusals))
}

async fn open(url: &BrokerUrl, name: &str, place: &Place, limit_ms: u64) -> Result<Session, String> {
    let port = place.host.port;
    let host = match place.address {
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        Some(IpAddr::V4(address)) => address.to_string(),
        None => return Err("has no address".to_owned()),
    };
    let mut arguments = OpenConnectionArguments::new(&host, port, &url.user, &url.password)
        .virtual_host(&url.virtual_host)
        .heartbeat(url.heartbeat_s)
        .finish();
    arguments.connection_name(&format!("point-system {name} {}", std::process::id()));
    if let Some(tls) = &url.tls {
        let connector = tls.connector().map_err(|error| error.to_string())?;
        // The address is not in the certificate, but the name in the URL is.
        let name = url.server_name.as_ref().unwrap_or(&place.host.name);
        arguments.tls_adaptor(TlsAdaptor::new(connector, name.clone()));
    }
    match in_own_task(limit_ms, async move { Connection::open(&arguments).await }).await {
        Ok(connection) => Session::new(connection, place.clone()).await,
        Err(error) => Err(diagnosed(&format!("{host}:{port}"), url.tls.is_some(), error).await),
    }
}

/// Returns only if the address accepts no TCP connection: the reason. amqprs has no limit of its own for that.
async fn unreachable(address: SocketAddr) -> String {
    sleep(Duration::from_millis(DOUBT_MS)).await;
    match reach(&address.to_string()).await {
        Ok(()) => pending().await,
        Err(why) => why,
    }
}

async fn reach(address: &str) -> Result<(), String> {
    match timeout(Duration::from_millis(REACH_TIMEOUT_MS), TcpStream::connect(address)).await {
        Ok(connected) => connected.map(drop).map_err(|error| error.to_string()),
        Err(_) => Err(format!("no TCP connection within {REACH_TIMEOUT_MS} ms")),
    }
}

/// Explains why there is no connection. RabbitMQ drops a connection without a reply if the user, the password or the
/// virtual host is wrong. So if the server is reachable, the message names these.
async fn diagnosed(address: &str, is_tls: bool, error: String) -> String {
    match reach(address).await {
        // The error says what is wrong with the broker's certificate.
        Ok(()) if error.contains("certificate") => error,
        Ok(()) if error.contains("fatal alert") => {
            format!("{error}: the broker refuses us; check certfile and keyfile, and its TLS versions")
        }
        Ok(()) if is_tls => format!(
            "{error}: the server is reachable; check certfile and keyfile, the user, the password and the \
             virtual host"
        ),
        Ok(()) => {
            format!("{error}: the server is reachable; check the user, the password and the virtual host")
        }
        Err(unreachable) => unreachable,
    }
}
