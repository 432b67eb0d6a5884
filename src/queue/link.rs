//! A connection to RabbitMQ that reconnects by itself. Must not contain messages.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    BrokerUrl,
    connect::connect,
    names::QueueNames,
    pauses::Pauses,
    session::{OpenChannel, Session},
    topology::{self, Unusable},
};
use crate::{
    domain::Partitions,
    infra::{hosts::Hosts, metrics::LinkMetrics},
};

/// The longest pause between attempts to connect.
const RECONNECT_PAUSE_MAX_MS: u64 = 1_000;

/// A connection that is replaced when it fails, until the `Link` is dropped.
pub struct Link {
    watch: LinkWatch,
    stop: DropGuard,
    supervisor: JoinHandle<()>,
}

impl Link {
    /// Connects and declares the queues in the background, and again after every failure. The broker shows `name` to
    /// its operators.
    #[must_use]
    pub fn start(url: BrokerUrl, names: QueueNames, name: &'static str) -> Self {
        let (state, watch) = watch::channel(State::Down(format!("RabbitMQ at {url}: not connected yet")));
        let stop = CancellationToken::new();
        let hosts = Arc::clone(&url.hosts);
        let watch = LinkWatch { state: watch, names, hosts, unusable: Unusable::default() };
        let supervisor = tokio::spawn(supervise(url, watch.clone(), name, state, stop.clone()));
        Self { watch, stop: stop.drop_guard(), supervisor }
    }

    /// A view of the link, for users of its sessions.
    #[must_use]
    pub fn watch(&self) -> LinkWatch {
        self.watch.clone()
    }

    /// Closes the connection. Its users must finish first: a sender never learns what became of a message in flight.
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

/// Shows the current session of a [`Link`] and waits for the next.
#[derive(Clone)]
pub struct LinkWatch {
    state: watch::Receiver<State>,
    pub(super) names: QueueNames,
    hosts: Arc<Hosts>,
    unusable: Unusable,
}

impl LinkWatch {
    /// The current session, or why there is none.
    pub(super) fn current(&self) -> Result<Session, String> {
        match &*self.state.borrow() {
            State::Up(session) if session.over.is_cancelled() => Err("the connection was lost".to_owned()),
            State::Up(session) => Ok(session.clone()),
            State::Down(why) => Err(why.clone()),
        }
    }

    /// Opens a channel for a partition's queue, which exists as we declare it.
    pub(super) async fn open_partition(
        &self,
        session: &Session,
        partition: u16,
    ) -> Result<OpenChannel, String> {
        topology::open_partition(session, &self.names, &self.unusable, partition).await
    }

    /// The number of partitions.
    #[must_use]
    pub fn partitions(&self) -> Partitions {
        self.names.partitions()
    }

    /// The names of the queues that this node could not use when it last tried.
    #[must_use]
    pub fn unusable(&self) -> Vec<String> {
        self.unusable.queues()
    }

    /// Returns whether there is a session now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.current().is_ok()
    }

    /// Waits until a session has begun or ended. Once the link is closed, there are no more sessions.
    pub(super) async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for a session.
    pub(super) async fn session(&mut self) -> Session {
        loop {
            if let Ok(session) = self.current() {
                return session;
            }
            self.changed().await;
        }
    }

    /// Replaces the connection with a new one, to another host if there is one.
    pub fn renew(&self) {
        if let Ok(session) = self.current() {
            self.hosts.give_up(&session.place);
            session.over.cancel();
        }
    }

    /// Notes that the broker has not confirmed a message that was published at `then`. If it has confirmed no other
    /// message since, and there is another host, moves there: a node that is cut off from its cluster accepts
    /// connections and messages, and never confirms.
    pub(super) fn lacks_confirm(&self, session: &Session, then: Instant) {
        if session.over.is_cancelled() {
            return;
        }
        if session.has_answered_since(then) || !self.hosts.are_several() {
            // The other partitions continue, unless the connection itself does not answer.
            session.check();
            return;
        }
        log::warn!("RabbitMQ at {} confirms nothing; trying another host", session.place);
        self.hosts.give_up(&session.place);
        session.over.cancel();
    }

    /// Waits until there is a connection and the queues are declared.
    ///
    /// # Errors
    /// The reason, if there is no connection within `limit`.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), String> {
        timeout(limit, self.session()).await.map(drop).or_else(|_| self.current().map(drop))
    }
}

async fn supervise(
    url: BrokerUrl,
    link: LinkWatch,
    name: &'static str,
    state: watch::Sender<State>,
    stop: CancellationToken,
) {
    let (mut pauses, metrics) = (Pauses::new(RECONNECT_PAUSE_MAX_MS), LinkMetrics::new(name));
    let mut was_up = false;
    while let Some(opened) = stop.run_until_cancelled(open(&url, &link, name, was_up)).await {
        let pause = match opened {
            Ok(session) => {
                was_up = true;
                let place = session.place.clone();
                log::info!("connected to RabbitMQ at {place}");
                metrics.connections.inc();
                let began = Instant::now();
                state.send_replace(State::Up(session.clone()));
                let lost = stop.run_until_cancelled(session.over.cancelled()).await.is_some();
                state.send_replace(State::Down(format!("RabbitMQ at {place}: the connection was lost")));
                let close = session.close();
                if !lost {
                    if let Err(error) = close.await {
                        log::warn!("closing the connection to RabbitMQ at {place}: {error}");
                    }
                    return;
                }
                // If the broker has gone away, no answer will come.
                tokio::spawn(close);
                let pause = pauses.after(began);
                if !pause.is_zero() {
                    url.hosts.failed(&place);
                }
                log::warn!(
                    "lost the connection to RabbitMQ at {place}; reconnecting in {} ms",
                    pause.as_millis()
                );
                pause
            }
            // An attempt that fails because the process ends does not count as a failure.
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

/// Connects and declares the queues. If the link was up before, it does not wait for the declarations: every user of a
/// queue checks that it exists.
async fn open(
    url: &BrokerUrl,
    link: &LinkWatch,
    name: &'static str,
    was_up: bool,
) -> Result<Session, String> {
    let session = connect(url, name).await?;
    // If the link closes meanwhile, so does the connection.
    let unused = session.over.clone().drop_guard();
    let (declaring, link) = (session.clone(), link.clone());
    if !was_up && let Err(why) = topology::declare(&declaring, &link.names, &link.unusable).await {
        url.hosts.failed(&session.place);
        tokio::spawn(session.close());
        return Err(if url.hosts.are_several() { format!("{}: {why}", session.place) } else { why });
    }
    tokio::spawn(async move {
        if was_up && let Err(why) = topology::declare(&declaring, &link.names, &link.unusable).await {
            log::error!("{why}");
        }
        topology::repair(&declaring, &link.names, &link.unusable).await;
    });
    unused.disarm();
    Ok(session)
}
