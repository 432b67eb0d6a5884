//! A TCP proxy in front of a server, which breaks connections as networks do.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::frames::{Frames, Tampering};

/// What the proxy does to connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weather {
    Fair,
    /// Every piece is delayed by this time, until the weather changes.
    Slow(Duration),
    /// Nothing passes and nothing is closed. New connections are accepted, but carry nothing.
    Stalled,
    /// On each connection this many bytes pass to the server, in whole pieces, and then nothing.
    StalledAfter(usize),
    /// Each connection is cut once this many bytes have passed in one direction, even in the middle of a message.
    CutAfter(usize),
    /// The proxy sends bytes of no protocol before those of the client.
    Garbled,
    /// AMQP frames to clients are changed like this on connections that begin now, even after the weather changes.
    Tampered(Tampering),
    /// Connections are refused.
    Refusing,
}

/// A running proxy. It ends, with its connections, when it is dropped.
pub struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    lives: watch::Sender<Lives>,
    accepted: watch::Receiver<usize>,
    _end: DropGuard,
}

/// Tokens that end the current connections.
#[derive(Clone, Default)]
struct Lives {
    /// Ends both sides.
    cut: CancellationToken,
    /// Ends the server's side only.
    halved: CancellationToken,
    /// Ends the client's side only.
    stranded: CancellationToken,
}

impl Proxy {
    /// Starts a proxy in front of `server`, which is `host:port`.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (weather, felt) = watch::channel(Weather::Fair);
        let (lives, alive) = watch::channel(Lives::default());
        let (count, accepted) = watch::channel(0);
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(
            async move { ended.run_until_cancelled(accept(listener, server, felt, alive, count)).await },
        );
        Self { port, weather, lives, accepted, _end: end.drop_guard() }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of connections that it has accepted.
    pub fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    /// Changes the weather. In fair weather, stalled bytes are sent.
    pub fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Stalls for `time`, or until the weather changes. As with [`Weather::Slow`], the time is the fault itself.
    pub async fn stall(&self, time: Duration) {
        self.turn(Weather::Stalled);
        let mut forecast = self.weather.subscribe();
        timeout(time, forecast.wait_for(|weather| *weather != Weather::Stalled)).await.ok();
        self.turn(Weather::Fair);
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.lives.send_replace(Lives::default()).cut.cancel();
    }

    /// Closes the server's side of all connections. The clients' sides stay open, but nothing arrives.
    pub fn halve(&self) {
        let lives = self.lives.borrow().clone();
        self.lives.send_replace(Lives { halved: CancellationToken::new(), ..lives.clone() });
        lives.halved.cancel();
    }

    /// Closes the clients' side of all connections. The server's side stays open, as if the clients had vanished.
    pub fn strand(&self) {
        let lives = self.lives.borrow().clone();
        self.lives.send_replace(Lives { stranded: CancellationToken::new(), ..lives.clone() });
        lives.stranded.cancel();
    }

    /// Closes all connections, and accepts none until the weather changes.
    pub fn refuse(&self) {
        self.turn(Weather::Refusing);
        self.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

/// A proxy in front of the server of `url`, and the URL that leads through it.
pub async fn detour(url: &str) -> (Proxy, url::Url) {
    let mut url = url::Url::parse(url).expect("a valid URL");
    let port = url.port().unwrap_or(if url.scheme() == "amqp" { 5672 } else { 5432 });
    let proxy = Proxy::start(format!("{}:{port}", url.host_str().expect("a host"))).await;
    url.set_host(Some("127.0.0.1")).expect("a host");
    url.set_port(Some(proxy.port())).expect("a port");
    (proxy, url)
}

/// Proxies in front of the server of `url`, and the URL that lists them as hosts, in their order.
pub async fn through(url: &str, count: usize) -> (Vec<Proxy>, String) {
    let parsed = url::Url::parse(url).expect("a valid URL");
    let server = format!("127.0.0.1:{}", parsed.port().expect("a port"));
    let proxies = join_all((0..count).map(|_| Proxy::start(server.clone()))).await;
    let hosts: Vec<String> = proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect();
    assert!(url.contains(&server), "the private servers listen there");
    (proxies, url.replace(&server, &hosts.join(",")))
}

async fn accept(
    mut listener: TcpListener,
    server: String,
    mut weather: watch::Receiver<Weather>,
    lives: watch::Receiver<Lives>,
    count: watch::Sender<usize>,
) {
    let address = listener.local_addr().expect("bound");
    let refusing = |weather: &Weather| *weather == Weather::Refusing;
    let mut forecast = weather.clone();
    loop {
        tokio::select! {
            biased;
            turned = forecast.wait_for(refusing) => {
                if turned.is_err() {
                    return;
                }
            }
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("a connection");
                count.send_modify(|count| *count += 1);
                tokio::spawn(carry(client, server.clone(), weather.clone(), lives.borrow().clone()));
                continue;
            }
        }
        // The port stays ours, but is closed.
        drop(listener);
        let closed = hold(address).expect("our port");
        if weather.wait_for(|weather| !refusing(weather)).await.is_err() {
            return;
        }
        listener = closed.listen(1024).expect("our port");
    }
}

fn hold(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn carry(mut client: TcpStream, server: String, mut weather: watch::Receiver<Weather>, lives: Lives) {
    let reach = async {
        weather.wait_for(|weather| *weather != Weather::Stalled).await.ok()?;
        TcpStream::connect(server).await.ok()
    };
    let Some(Some(mut server)) = lives.cut.run_until_cancelled(reach).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let carrying = async {
        tokio::try_join!(
            pump(from_client, to_server, weather.clone(), true),
            pump(from_server, to_client, weather.clone(), false),
        )
    };
    // Whichever side ends the connection, both sides are closed.
    tokio::select! {
        _ = carrying => {}
        () = lives.cut.cancelled() => {}
        () = lives.halved.cancelled() => {
            drop(server);
            lives.cut.cancelled().await;
        }
        () = lives.stranded.cancelled() => {
            drop(client);
            lives.cut.cancelled().await;
        }
    }
}

/// Moves bytes until one side has closed.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    to_server: bool,
) -> io::Result<()> {
    const GARBAGE: [u8; 16] = [0xff; 16];
    let (mut buffer, mut passed) = (vec![0; 16 * 1024], 0);
    let mut tampered = match *weather.borrow() {
        Weather::Tampered(tampering) if !to_server => Some(Frames::new(tampering)),
        _ => None,
    };
    loop {
        let count = from.read(&mut buffer).await?;
        let stopped = |weather: &Weather| match weather {
            Weather::Stalled => true,
            Weather::StalledAfter(limit) => to_server && passed >= *limit,
            _ => false,
        };
        let now = *weather.wait_for(|weather| !stopped(weather)).await.map_err(io::Error::other)?;
        let piece = &buffer[..count];
        match now {
            Weather::Slow(pause) => {
                timeout(pause, weather.wait_for(|weather| *weather != now)).await.ok();
            }
            Weather::Garbled if to_server => to.write_all(&GARBAGE).await?,
            Weather::CutAfter(limit) if passed + count > limit => {
                to.write_all(&piece[..limit.saturating_sub(passed)]).await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            _ => {}
        }
        if piece.is_empty() {
            return to.shutdown().await;
        }
        match &mut tampered {
            Some(frames) => to.write_all(&frames.passed(piece)).await?,
            None => to.write_all(piece).await?,
        }
        passed += count;
    }
}
