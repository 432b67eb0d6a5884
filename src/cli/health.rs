//! The command `health`: asks the node on this machine whether it is ready. Must not contain how a node finds out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::args::parse_time;

/// The most bytes of an answer that are read. An answer has a few hundred.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// Flags of `health`.
#[derive(Args, Debug)]
pub struct HealthArgs {
    /// Address and port of the node's API. For a wildcard address such as 0.0.0.0, the loopback address is used.
    #[arg(long, env = "POINT_SYSTEM_LISTEN", default_value = "127.0.0.1:31001", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Address and port of the node's metrics listener. If it is set, this listener is asked instead. A worker has no
    /// other.
    #[arg(long, env = "POINT_SYSTEM_METRICS_LISTEN", value_name = "IP:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Ask only whether the process answers (/livez), not whether it can do its work (/readyz).
    #[arg(long)]
    pub live: bool,
    /// How long to wait for the answer.
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_time)]
    pub timeout: Duration,
}

/// The members of an answer that people need.
#[derive(Deserialize)]
struct Answer {
    state: String,
    detail: String,
}

/// Asks the node, and prints its answer.
///
/// # Errors
/// The node is not ready, or does not answer.
pub(super) async fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let address = reachable(args.metrics_listen.unwrap_or(args.listen));
    let path = if args.live { "/livez" } else { "/readyz" };
    let asked = || format!("asking http://{address}{path}");
    let answering = timeout(args.timeout, answer(address, path)).await;
    let late = || format!("no answer within {} ms (--timeout)", args.timeout.as_millis());
    let text = answering.with_context(late).and_then(|answer| Ok(answer?)).with_context(asked)?;
    let (status, body) = parse(&text).with_context(|| format!("{}: not an HTTP response", asked()))?;
    let told = serde_json::from_str(body)
        .map_or_else(|_| body.to_owned(), |Answer { state, detail }| format!("{state}: {detail}"));
    if status != 200 {
        bail!("{told}");
    }
    println!("{told}");
    Ok(())
}

/// The address at which this machine reaches a listener.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let loopback = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(loopback, listener.port())
}

async fn answer(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.take(ANSWER_MAX_BYTES).read_to_string(&mut text).await?;
    Ok(text)
}

/// Returns the status and the body.
fn parse(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_is_asked_on_the_loopback_address() {
        for (listener, asked) in [
            ("0.0.0.0:31001", "127.0.0.1:31001"),
            ("[::]:9000", "[::1]:9000"),
            ("127.0.0.2:9000", "127.0.0.2:9000"),
            ("[fd00::1]:9000", "[fd00::1]:9000"),
        ] {
            assert_eq!(reachable(listener.parse().expect(listener)).to_string(), asked);
        }
    }

    #[test]
    fn only_an_answer_of_http_is_understood() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\nServer: x\r\n\r\nlive"), Some((200, "live")));
        assert_eq!(parse("HTTP/1.1 503 Service Unavailable\r\n\r\n{}"), Some((503, "{}")));
        for wrong in
            ["", "HTTP/1.1 200 OK\r\n", "AMQP\0\0\x09\x01", "HTTP/1.1 OK\r\n\r\n", "SSH-2.0 200 \r\n\r\n"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
