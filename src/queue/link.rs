//! A connection to RabbitMQ that comes back by itself. What travels over it may not enter.

use std::time::{Duration, Instant};

use amqprs::connection::{Connection, OpenConnectionArguments};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    BrokerUrl, QueueNames,
    pauses::Pauses,
    session::{Session, in_own_task},
    topology,
};
use crate::infra::metrics::LinkMetrics;

/// The heartbeat asked of the broker. A silent peer is given up after twice this.
const HEARTBEAT_S: u16 = 5;

/// The longest that opening a connection may take.
const OPEN_TIMEOUT_MS: u64 = 20_000;

/// The longest that a TCP connection may take, where one of AMQP could not be had.
const REACH_TIMEOUT_MS: u64 = 5_000;

/// The longest pause between tries to connect.
const RECONNECT_PAUSE_MAX_MS: u64 = 1_000;

/// A connection that is replaced when it fails, for as long as the `Link` lives.
pub struct Link {
    watch: LinkWatch,
    stop: DropGuard,
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
        Self { watch: LinkWatch { state: watch, names }, stop: stop.drop_guard(), supervisor }
    }

    /// A view of the link for those who use its sessions.
    #[must_use]
    pub fn watch(&self) -> LinkWatch {
        self.watch.clone()
    }

    /// Closes the connection. What is in flight is lost to its sender: finish first.
    pub async fn close(self) {
        drop(self.stop);
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

    /// Gives the connection up, for a new one.
    pub fn renew(&self) {
        if let Ok(session) = self.current() {
            session.over.cancel();
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

async fn supervise(
    url: BrokerUrl,
    names: QueueNames,
    name: &'static str,
    state: watch::Sender<State>,
    stop: CancellationToken,
) {
    let (mut pauses, metrics) = (Pauses::new(RECONNECT_PAUSE_MAX_MS), LinkMetrics::new(name));
    let mut was_up = false;
    while let Some(opened) = stop.run_until_cancelled(open(&url, &names, name, was_up)).await {
        let pause = match opened {
            Ok(session) => {
                was_up = true;
                log::info!("connected to RabbitMQ at {url}");
                metrics.connections.inc();
                let began = Instant::now();
                state.send_replace(State::Up(session.clone()));
                let lost = stop.run_until_cancelled(session.over.cancelled()).await.is_some();
                state.send_replace(State::Down(format!("RabbitMQ at {url}: the connection was lost")));
                let close = session.close();
                if !lost {
                    if let Err(error) = close.await {
                        log::warn!("closing the connection to RabbitMQ at {url}: {error}");
                    }
                    return;
                }
                // Of a broker that has gone away there is nothing to wait for.
                tokio::spawn(close);
                let pause = pauses.after(began);
                log::warn!(
                    "lost the connection to RabbitMQ at {url}; connecting again in {} ms",
                    pause.as_millis()
                );
                pause
            }
            // An attempt that fails because the process ends is no failure.
            Err(_) if stop.is_cancelled() => return,
            Err(error) => {
                metrics.failures.inc();
                let pause = pauses.after_failure();
                log::warn!("RabbitMQ at {url}: {error}; trying again in {} ms", pause.as_millis());
                state.send_replace(State::Down(format!("RabbitMQ at {url}: {error}")));
                pause
            }
        };
        stop.run_until_cancelled(sleep(pause)).await;
    }
}

/// Connects and declares the queues. Where that went well before, nobody waits for the queues: those who use one see that
/// it is there.
async fn open(
    url: &BrokerUrl,
    names: &QueueNames,
    name: &'static str,
    was_up: bool,
) -> Result<Session, String> {
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
    let session = Session::new(connection).await?;
    let (declaring, names) = (session.clone(), names.clone());
    let declaring = async move { topology::declare(&declaring, &names).await };
    if was_up {
        let over = session.over.clone();
        tokio::spawn(async move {
            if let Some(Err(why)) = over.run_until_cancelled(declaring).await {
                log::error!("{why}");
            }
        });
    } else if let Err(why) = declaring.await {
        tokio::spawn(session.close());
        return Err(why);
    }
    Ok(session)
}

/// RabbitMQ drops the connection without a word where the user, the password or the virtual host is wrong:
/// where it can be reached, that is what to look for.
async fn diagnosed(url: &BrokerUrl, error: String) -> String {
    let reach = TcpStream::connect((url.host.trim_matches(['[', ']']), url.port));
    match timeout(Duration::from_millis(REACH_TIMEOUT_MS), reach).await {
        Ok(Ok(_)) => {
            format!("{error}: the server is reachable; check the user, the password and the virtual host")
        }
        Ok(Err(unreachable)) => unreachable.to_string(),
        Err(_) => error,
    }
}
