//! A TCP proxy in front of a server, which does to connections what networks do to them.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

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

use crate::support::frames::Frames;

/// What becomes of the bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weather {
    Fair,
    /// Every piece takes this much longer, until the weather turns.
    Slow(Duration),
    /// Nothing passes and nothing is closed; new connections are accepted, and then nothing.
    Stalled,
    /// Of each connection, so many bytes pass to the server, in whole pieces, and then nothing.
    StalledAfter(usize),
    /// Each connection is cut once so many bytes have passed in one direction, be it amid a word.
    CutAfter(usize),
    /// What clients send is preceded by bytes that are no protocol's.
    Garbled,
    /// Connections that begin now never get an AMQP delivery, whatever the weather turns to.
    Swallowing,
    /// Nobody listens.
    Refusing,
}

/// A running proxy; it ends, with its connections, when it is dropped.
pub struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    lives: watch::Sender<Lives>,
    accepted: watch::Receiver<usize>,
    _end: DropGuard,
}

/// What ends the connections there are.
#[derive(Clone, Default)]
struct Lives {
    /// For both ends.
    cut: CancellationToken,
    /// For the server; the client is not told.
    halved: CancellationToken,
    /// For the client; the server is not told.
    stranded: CancellationToken,
}

impl Proxy {
    /// Stands in front of the server at `server`, which is `host:port`.
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

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        *self.accepted.borrow()
    }

    /// Changes what becomes of the bytes; what was stopped by a stall goes on in fair weather.
    pub fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Stalls until the weather turns, or for so long: as with [`Weather::Slow`], the time is the fault itself.
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

    /// Closes the server's end of all connections; the clients' ends stay open, and nothing comes any more.
    pub fn halve(&self) {
        let lives = self.lives.borrow().clone();
        self.lives.send_replace(Lives { halved: CancellationToken::new(), ..lives.clone() });
        lives.halved.cancel();
    }

    /// Closes the clients' end of all connections; the server's end stays open, as of clients that have vanished.
    pub fn strand(&self) {
        let lives = self.lives.borrow().clone();
        self.lives.send_replace(Lives { stranded: CancellationToken::new(), ..lives.clone() });
        lives.stranded.cancel();
    }

    /// Closes all connections, and accepts none until the weather is another.
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

/// A proxy in front of the server of `url`, and the URL that leads there.
pub async fn detour(url: &str) -> (Proxy, url::Url) {
    let mut url = url::Url::parse(url).expect("a valid URL");
    let port = url.port().unwrap_or(if url.scheme() == "amqp" { 5672 } else { 5432 });
    let proxy = Proxy::start(format!("{}:{port}", url.host_str().expect("a host"))).await;
    url.set_host(Some("127.0.0.1")).expect("a host");
    url.set_port(Some(proxy.port())).expect("a port");
    (proxy, url)
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
        // The port stays ours, and is closed to everybody.
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
    // However it ends, both ends are closed, by and by.
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

/// Moves bytes until one end has closed.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    to_server: bool,
) -> io::Result<()> {
    const GARBAGE: [u8; 16] = [0xff; 16];
    let (mut buffer, mut passed) = (vec![0; 16 * 1024], 0);
    let mut swallowing = (*weather.borrow() == Weather::Swallowing && !to_server).then(Frames::default);
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
        match &mut swallowing {
            Some(frames) => to.write_all(&frames.without_deliveries(piece)).await?,
            None => to.write_all(piece).await?,
        }
        passed += count;
    }
}
