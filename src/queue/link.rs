//! A connection to RabbitMQ that comes back by itself. What travels over it may not enter.

use std::time::Duration;

use amqprs::{
    channel::Channel,
    connection::{Connection, OpenConnectionArguments},
    error::Error,
};
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    BrokerUrl, QueueNames,
    callbacks::{ChannelEvent, ChannelWatch, ConnectionWatch},
    topology,
};
use crate::metrics::LinkMetrics;

/// The heartbeat asked of the broker. A silent peer is given up after twice this.
const HEARTBEAT_S: u16 = 5;

/// The longest that opening a connection and declaring the queues may take.
const OPEN_TIMEOUT_MS: u64 = 20_000;

/// The longest that opening a channel may take.
const CHANNEL_TIMEOUT_MS: u64 = 5_000;

/// The longest that a clean close may take.
const CLOSE_TIMEOUT_MS: u64 = 3_000;

/// The pauses between tries to connect.
const RECONNECT_PAUSE_MIN_MS: u64 = 100;
const RECONNECT_PAUSE_MAX_MS: u64 = 1_000;

/// A connection that is replaced when it fails, for as long as the `Link` lives.
pub struct Link {
    watch: LinkWatch,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl Link {
    /// Starts to connect, declares the queues, and goes on so after every failure. `name` is what the
    /// broker's operators see.
    #[must_use]
    pub fn start(url: BrokerUrl, names: QueueNames, name: &'static str) -> Self {
        let (state, watch) = watch::channel(State::Down(format!("RabbitMQ at {url}: not connected yet")));
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(url, names.clone(), name, state, stop.clone()));
        Self { watch: LinkWatch { state: watch, names }, stop, supervisor }
    }

    /// A view of the link for those who use its sessions.
    #[must_use]
    pub fn watch(&self) -> LinkWatch {
        self.watch.clone()
    }

    /// Closes the connection. What is in flight is lost to its sender: finish first.
    pub async fn close(self) {
        self.stop.cancel();
        if let Err(error) = self.supervisor.await {
            log::error!("the supervisor of the RabbitMQ connection failed: {error}");
        }
    }
}

#[derive(Clone)]
enum State {
    Down(String),
    Up(Session),
}

/// What there is of a [`Link`] now, and what comes.
#[derive(Clone)]
pub struct LinkWatch {
    state: watch::Receiver<State>,
    pub(super) names: QueueNames,
}

impl LinkWatch {
    /// The session there is, or why there is none.
    pub(super) fn current(&self) -> Result<Session, String> {
        match &*self.state.borrow() {
            State::Up(session) if session.over.is_cancelled() => Err("the connection was lost".to_owned()),
            State::Up(session) => Ok(session.clone()),
            State::Down(why) => Err(why.clone()),
        }
    }

    /// Whether there is a session now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.current().is_ok()
    }

    /// Waits for a session.
    pub(super) async fn session(&mut self) -> Session {
        loop {
            if let Ok(session) = self.current() {
                return session;
            }
            // Where the link is closed, there will be no session any more.
            if self.state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until there is a connection and the queues are declared.
    ///
    /// # Errors
    /// After `limit`, why there is none.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), String> {
        timeout(limit, self.session()).await.map(drop).or_else(|_| self.current().map(drop))
    }
}

/// One connection, and the token that says it is over: whoever sees it fail cancels the token, and
/// everyone who waits for something on it waits for the token as well.
#[derive(Clone)]
pub(super) struct Session {
    connection: Connection,
    pub(super) over: CancellationToken,
}

impl Session {
    /// A new channel and its events, which end when it does.
    pub(super) async fn open_channel(
        &self,
    ) -> Result<(Channel, mpsc::UnboundedReceiver<ChannelEvent>), String> {
        let connection = self.connection.clone();
        let (events, heard) = mpsc::unbounded_channel();
        let watch = ChannelWatch { over: self.over.clone(), events };
        let channel = in_own_task(CHANNEL_TIMEOUT_MS, async move {
            let channel = connection.open_channel(None).await?;
            channel.register_callback(watch).await?;
            Ok(channel)
        });
        Ok((channel.await?, heard))
    }

    /// Ends a channel after the broker has read everything that was sent on it.
    pub(super) async fn close_channel(channel: Channel) -> Result<(), String> {
        in_own_task(CLOSE_TIMEOUT_MS, channel.close()).await
    }
}

/// Runs a request to the broker to its end, however long we wait for it: amqprs panics where the answer
/// comes to a request that was dropped.
pub(super) async fn in_own_task<T: Send + 'static>(
    limit_ms: u64,
    request: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, String> {
    match timeout(Duration::from_millis(limit_ms), tokio::spawn(request)).await {
        Ok(Ok(done)) => done.map_err(|error| error.to_string()),
        Ok(Err(panic)) => Err(panic.to_string()),
        Err(_) => Err(format!("no answer within {limit_ms} ms")),
    }
}

async fn supervise(
    url: BrokerUrl,
    names: QueueNames,
    name: &'static str,
    state: watch::Sender<State>,
    stop: CancellationToken,
) {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(RECONNECT_PAUSE_MIN_MS))
        .with_max_delay(Duration::from_millis(RECONNECT_PAUSE_MAX_MS))
        .with_jitter()
        .without_max_times();
    let (mut pause, metrics) = (pauses.build(), LinkMetrics::new(name));
    while !stop.is_cancelled() {
        match open(&url, &names, name).await {
            Ok(session) => {
                log::info!("connected to RabbitMQ at {url}");
                metrics.connections.inc();
                pause = pauses.build();
                state.send_replace(State::Up(session.clone()));
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = session.over.cancelled() => {
                        log::warn!("lost the connection to RabbitMQ at {url}; connecting again");
                    }
                }
                state.send_replace(State::Down(format!("RabbitMQ at {url}: the connection was lost")));
                session.over.cancel();
                let close = in_own_task(CLOSE_TIMEOUT_MS, session.connection.close());
                if stop.is_cancelled() {
                    if let Err(error) = close.await {
                        log::warn!("closing the connection to RabbitMQ at {url}: {error}");
                    }
                } else {
                    // Of a broker that has gone away there is nothing to wait for.
                    tokio::spawn(close);
                }
            }
            Err(error) => {
                metrics.failures.inc();
                let pause = pause.next().expect("the pauses have no end");
                log::warn!("RabbitMQ at {url}: {error}; trying again in {} ms", pause.as_millis());
                state.send_replace(State::Down(format!("RabbitMQ at {url}: {error}")));
                stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
    }
}

/// Connects and declares the queues.
async fn open(url: &BrokerUrl, names: &QueueNames, name: &'static str) -> Result<Session, String> {
    let mut arguments = OpenConnectionArguments::new(&url.host, url.port, &url.user, &url.password)
        .virtual_host(&url.virtual_host)
        .heartbeat(HEARTBEAT_S)
        .finish();
    arguments.connection_name(&format!("point-system {name} {}", std::process::id()));
    let opened = in_own_task(OPEN_TIMEOUT_MS, async move { Connection::open(&arguments).await }).await;
    let connection = match opened {
        Ok(connection) => connection,
        Err(error) => return Err(diagnosed(url, error).await),
    };
    let session = Session { connection, over: CancellationToken::new() };
    let (listener, over) = (session.connection.clone(), session.over.clone());
    // Whether it returns true or false, the connection has ended.
    tokio::spawn(async move {
        listener.listen_network_io_failure().await;
        over.cancel();
    });
    let watch = ConnectionWatch { over: session.over.clone() };
    session.connection.register_callback(watch).await.map_err(|error| error.to_string())?;
    let (channel, _) = session.open_channel().await?;
    let names = names.clone();
    in_own_task(OPEN_TIMEOUT_MS, async move {
        topology::declare(&channel, &names).await?;
        channel.close().await
    })
    .await
    .map_err(|error| format!("declaring the queues: {error}"))?;
    Ok(session)
}

/// RabbitMQ drops the connection without a word where the user, the password or the virtual host is wrong:
/// where it can be reached, that is what to look for.
async fn diagnosed(url: &BrokerUrl, error: String) -> String {
    let reach = TcpStream::connect((url.host.trim_matches(['[', ']']), url.port));
    match timeout(Duration::from_millis(CHANNEL_TIMEOUT_MS), reach).await {
        Ok(Ok(_)) => format!("{error}: it can be reached; check the user, the password and the virtual host"),
        Ok(Err(unreachable)) => unreachable.to_string(),
        Err(_) => error,
    }
}
