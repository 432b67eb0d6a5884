//! Opens sessions for a pool, host after host, and sets them up. Must not contain the URL's syntax.

use std::{
    error::Error,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Config, NoTls, Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    DatabaseUrl, PoolError,
    commits::timeline,
    settings::{SETTINGS, set_up},
};
use crate::infra::{
    hosts::{Host, Hosts, Place, reasons},
    tls::{Tls, TlsError},
};

/// The longest that one host may take to accept a TCP connection, if the URL has no `connect_timeout`.
const REACH_TIMEOUT_MS: u64 = 1_000;

/// The longest that one host may take to open a session that is ready for use, if the URL has no `connect_timeout`.
const OPEN_TIMEOUT_MS: u64 = 3_000;

/// The most sessions that one attempt opens on a host, if those before it are unfit.
const SESSION_TRIES_MAX: u32 = 3;

/// The pause between two looks at the hosts that are not in use.
const LOOK_PAUSE_MS: u64 = 5_000;

/// Why there is no session, without secrets.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct ConnectError {
    why: String,
    read_only: bool,
}

impl ConnectError {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), read_only: false }
    }

    /// Returns whether a server answered, but accepts only reads.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }
}

impl From<tokio_postgres::Error> for ConnectError {
    fn from(error: tokio_postgres::Error) -> Self {
        // The message alone: a DETAIL may quote a customer's row.
        Self::new(match error.as_db_error() {
            Some(refusal) => format!("{} ({})", refusal.message(), refusal.code().code()),
            None => with_causes(&error),
        })
    }
}

impl From<PoolError> for ConnectError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error,
            other => Self::new(other.to_string()),
        }
    }
}

impl From<TlsError> for ConnectError {
    fn from(error: TlsError) -> Self {
        Self::new(error.to_string())
    }
}

/// The message of an error, and of its cause.
fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The error of a session that must write and can't.
const READ_ONLY: &str = "the server is read-only: is it a standby?";

/// The purpose of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It must write.
    Write,
    /// It only reads.
    Read,
    /// It keeps the settings of the server.
    Bare,
}

/// Opens and checks the sessions of a pool.
#[derive(Debug)]
pub struct Manager {
    url: DatabaseUrl,
    need: Need,
    /// When it last looked at the hosts that are not in use.
    looked: Mutex<Option<Instant>>,
}

impl Manager {
    /// Makes a manager. The files of certificates are read now, so that mistakes are found early, and again for each
    /// session.
    pub(super) fn new(url: DatabaseUrl, need: Need) -> Result<Self, TlsError> {
        url.tls.as_ref().map(Tls::config).transpose()?;
        Ok(Self { url, need, looked: Mutex::default() })
    }

    async fn open(&self, place: &Place) -> Result<Session, ConnectError> {
        let mut config = self.url.config.clone();
        config.host(&place.host.name).port(place.host.port);
        if let Some(address) = place.address {
            config.hostaddr(address);
        }
        let limit = config.get_connect_timeout().copied();
        config.connect_timeout(limit.unwrap_or(Duration::from_millis(REACH_TIMEOUT_MS)));
        let limit = limit.unwrap_or(Duration::from_millis(OPEN_TIMEOUT_MS));
        let opening = async {
            let (client, writable) = self.session(&config, place).await?;
            if self.need != Need::Bare {
                if !writable && (self.need == Need::Write || self.url.is_read_write()) {
                    return Err(ConnectError { why: READ_ONLY.to_owned(), read_only: true });
                }
                if writable && self.url.is_read_only() {
                    return Err(ConnectError::new(
                        "the server accepts writes, and target_session_attrs is read-only",
                    ));
                }
            }
            Ok(Session { client, place: place.clone(), hosts: Arc::clone(&self.url.hosts) })
        };
        let late = |_| Err(ConnectError::new(format!("no answer within {} ms", limit.as_millis())));
        timeout(limit, opening).await.unwrap_or_else(late)
    }

    /// Gives up the host of a session if another host has a server that was promoted later: this one is then an old
    /// primary, whose standbys follow the new one. Returns whether it has given up the host. Does nothing if it has
    /// looked within the last seconds.
    pub(super) async fn leave(&self, session: &Session) -> bool {
        let (hosts, place) = (&self.url.hosts, &session.place);
        if !hosts.are_several() || !self.may_look() {
            return false;
        }
        let limit = Duration::from_millis(OPEN_TIMEOUT_MS);
        let timeline = async |session: &Session| timeout(limit, timeline(session)).await.ok()?.ok();
        let Some(ours) = timeline(session).await else { return false };
        for other in hosts.places().await.0.iter().filter(|other| *other != place) {
            let Ok(found) = Box::pin(self.open(other)).await else { continue };
            if timeline(&found).await.is_some_and(|theirs| theirs > ours) {
                log::warn!("PostgreSQL at {place} is an old primary; using {other}");
                hosts.give_up(place);
                return true;
            }
        }
        false
    }

    /// Whether to look at the other hosts. If so, not again for some seconds.
    fn may_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let may = looked.is_none_or(|looked| looked.elapsed() > Duration::from_millis(LOOK_PAUSE_MS));
        if may {
            *looked = Some(Instant::now());
        }
        may
    }

    /// Connects, and sets the session up. Returns whether it can write. A pooler's session may be unfit while the next
    /// one is not.
    async fn session(&self, config: &Config, place: &Place) -> Result<(ClientWrapper, bool), ConnectError> {
        let settings = if self.need == Need::Bare { "" } else { SETTINGS };
        let mut tries_left = SESSION_TRIES_MAX;
        loop {
            let client = match &self.url.tls {
                Some(tls) => {
                    let tls = MakeRustlsConnect::new(tls.config_for_postgresql()?);
                    connect(config, tls, place).await?
                }
                None => connect(config, NoTls, place).await?,
            };
            tries_left -= 1;
            match set_up(&client, settings).await {
                Ok(writable) => return Ok((client, writable)),
                Err(error) if tries_left == 0 => return Err(error),
                Err(error) => log::info!("PostgreSQL at {place}: {}; opening another session", error.why),
            }
        }
    }
}

async fn connect<T>(config: &Config, tls: T, place: &Place) -> Result<ClientWrapper, ConnectError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    let place = place.clone();
    let carrying: JoinHandle<()> = tokio::spawn(async move {
        if let Err(error) = connection.await {
            log::debug!("lost a connection to PostgreSQL at {place}: {error}");
        }
    });
    Ok(ClientWrapper::new(client, carrying))
}

impl managed::Manager for Manager {
    type Type = Session;
    type Error = ConnectError;

    /// Tries the hosts one after the other. The host that failed last is tried last.
    async fn create(&self) -> Result<Session, ConnectError> {
        let hosts = &self.url.hosts;
        let (places, unknown) = hosts.places().await;
        let mut refusals: Vec<(String, String)> =
            unknown.into_iter().map(|(host, why): (Host, _)| (host.to_string(), why)).collect();
        let mut read_only = false;
        for place in places {
            // The driver's future is large while it connects, and the caller's should stay small.
            match Box::pin(self.open(&place)).await {
                Ok(session) => {
                    for (place, why) in refusals {
                        log::info!("PostgreSQL at {place}: {why}; using {}", session.place);
                    }
                    return Ok(session);
                }
                Err(error) => {
                    if error.read_only {
                        // Sessions from before it became a standby are useless.
                        hosts.give_up(&place);
                        read_only = true;
                    } else {
                        hosts.failed(&place);
                    }
                    refusals.push((place.to_string(), error.why));
                }
            }
        }
        Err(ConnectError { why: reasons(&refusals), read_only })
    }

    async fn recycle(&self, session: &mut Session, metrics: &Metrics) -> RecycleResult<ConnectError> {
        if session.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        if session.hosts.gave_up_since(&session.place, metrics.created) {
            return Err(RecycleError::message("its host was given up"));
        }
        Ok(())
    }
}

/// A session, and where it is.
#[derive(Debug)]
pub struct Session {
    client: ClientWrapper,
    place: Place,
    hosts: Arc<Hosts>,
}

impl Session {
    /// Gives up the host, because it accepts connections but does not do its work: it is tried last from now on, and no
    /// session that it has given is used again. Does nothing if there is no other host.
    pub fn give_up(&self) {
        if self.hosts.are_several() {
            log::warn!("PostgreSQL at {} does not do its work; trying another host", self.place);
            self.hosts.give_up(&self.place);
        }
    }
}

impl Deref for Session {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.client
    }
}
