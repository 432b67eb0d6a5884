//! Who may do what, and how often: the keys and the limits, held in memory. Nothing of HTTP and of points may
//! enter.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use deadpool_postgres::Pool;
use tokio::time::{MissedTickBehavior, interval};

use key::KeyHash;
use limit::{Client, Limits};
use store::Snapshot;

mod anonymous;
mod key;
mod limit;
mod store;

pub use anonymous::Anonymous;
pub use key::{ApiKey, KeyName, Scope, WhichKey};
pub use limit::{Allowance, RateLimit};
pub use store::KeyRecord;

/// How often a node looks which keys there are; after this, and the time that the look takes, a revoked key is
/// refused.
const REFRESH_MS: u64 = 1_000;

/// Why something can't be done about keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The database can't be used now.
    #[error("PostgreSQL is not available: {0}")]
    Unavailable(String),
    /// A key that is not revoked has this name.
    #[error("a key named {0} exists: revoke it, or choose another name")]
    NameTaken(String),
    /// There are as many keys as a node can hold.
    #[error("there are {limit} keys: revoke some")]
    TooMany {
        /// How many there may be.
        limit: i64,
    },
    /// Others than this machine could reach the service, and nothing says that they may.
    #[error(
        "there is no API key, and {listen} is not a loopback address: create a key with `point-system key \
         create`, or serve everybody without one with --allow-anonymous"
    )]
    Unprotected {
        /// Where the service was told to listen.
        listen: SocketAddr,
    },
}

/// Creates a key and returns its number and the key itself, which is kept nowhere.
///
/// # Errors
/// [`AccessError::NameTaken`], [`AccessError::TooMany`], [`AccessError::Unavailable`].
pub async fn create(pool: &Pool, name: &KeyName, scope: Scope) -> Result<(i64, ApiKey), AccessError> {
    let key = ApiKey::random();
    Ok((store::create(pool, name, scope, &key.hash()).await?, key))
}

/// Every key that was ever created, in the order of their numbers.
///
/// # Errors
/// [`AccessError::Unavailable`].
pub async fn list(pool: &Pool) -> Result<Vec<KeyRecord>, AccessError> {
    store::list(pool).await
}

/// Revokes a key for good and returns it as it was before, or nothing where there is no such key.
///
/// # Errors
/// [`AccessError::Unavailable`].
pub async fn revoke(pool: &Pool, which: &WhichKey) -> Result<Option<KeyRecord>, AccessError> {
    store::revoke(pool, which).await
}

/// What is asked of callers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Which of those without a key are served.
    pub allow_anonymous: Anonymous,
    /// How often each may call; without it as often as they like.
    pub rate_limit: Option<RateLimit>,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody with a key.
    Key {
        /// Its number.
        id: i64,
        /// What it may do.
        scope: Scope,
    },
    /// Somebody without a key, who is served all the same.
    Anonymous,
    /// Somebody without a key, who is served where the request comes straight from a client on this machine.
    OnThisMachine,
}

impl Caller {
    /// Whether the caller may do what needs `scope`.
    #[must_use]
    pub fn may(self, needed: Scope) -> bool {
        match self {
            Self::Key { scope, .. } => scope >= needed,
            Self::Anonymous | Self::OnThisMachine => true,
        }
    }
}

/// Why nobody is known to be calling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// There was no key, where one is needed.
    NoKey,
    /// There was one that is not ours, or no longer.
    WrongKey,
}

struct ActiveKey {
    id: i64,
    scope: Scope,
    /// Since this was last written down.
    used: AtomicBool,
}

/// The keys of one moment.
struct Ring {
    keys: HashMap<KeyHash, Arc<ActiveKey>>,
    /// Whether nobody ever created a key.
    unused: bool,
}

/// What a node knows of its callers. A request asks nobody else.
pub struct Access {
    pool: Pool,
    ring: ArcSwap<Ring>,
    limits: Option<Limits>,
    policy: Policy,
    listen: SocketAddr,
}

impl Access {
    /// Reads the keys, for a service that listens at `listen`.
    ///
    /// # Errors
    /// [`AccessError::Unavailable`].
    pub async fn open(pool: Pool, policy: Policy, listen: SocketAddr) -> Result<Self, AccessError> {
        let ring = ArcSwap::from_pointee(Ring::new(store::snapshot(&pool).await?, None));
        let limits = policy.rate_limit.map(Limits::new);
        Ok(Self { pool, ring, limits, policy, listen })
    }

    /// Says who is served, and refuses to serve others than this machine where nothing says that they may.
    ///
    /// # Errors
    /// [`AccessError::Unprotected`].
    pub fn check(&self) -> Result<(), AccessError> {
        let ring = self.ring.load();
        let keys = ring.keys.len();
        match (self.policy.allow_anonymous, ring.unused, self.is_local()) {
            (Anonymous::Everyone, ..) => log::info!("{keys} API keys; requests without one are served"),
            (Anonymous::Loopback, ..) => {
                log::info!("{keys} API keys; requests without one are served to a loopback host name");
            }
            (Anonymous::UntilTheFirstKey, false, _) => {
                log::info!("{keys} API keys; requests without one are refused");
            }
            (Anonymous::UntilTheFirstKey, true, true) => {
                log::info!("no API key yet: requests from this machine need none");
            }
            (Anonymous::UntilTheFirstKey, true, false) => {
                return Err(AccessError::Unprotected { listen: self.listen });
            }
        }
        if let Some(limit) = self.policy.rate_limit {
            log::info!("each key, and each address without one, may send {limit}");
        }
        Ok(())
    }

    /// Whether only this machine can reach the service.
    fn is_local(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// Who sends `key`, or, without it, whether that is somebody to serve. A revoked key and one that never was
    /// are the same to a node: neither is among those that it holds.
    ///
    /// # Errors
    /// [`Stranger`].
    pub fn caller(&self, key: Option<&[u8]>) -> Result<Caller, Stranger> {
        let Some(key) = key else {
            return match self.policy.allow_anonymous {
                Anonymous::Everyone => Ok(Caller::Anonymous),
                Anonymous::Loopback => Ok(Caller::OnThisMachine),
                Anonymous::UntilTheFirstKey if self.is_local() && self.ring.load().unused => {
                    Ok(Caller::OnThisMachine)
                }
                Anonymous::UntilTheFirstKey => Err(Stranger::NoKey),
            };
        };
        let hash = KeyHash::of(key).ok_or(Stranger::WrongKey)?;
        let ring = self.ring.load();
        let key = ring.keys.get(&hash).ok_or(Stranger::WrongKey)?;
        // Read first: a line that nobody writes is shared by all processors.
        if !key.used.load(Ordering::Relaxed) {
            key.used.store(true, Ordering::Relaxed);
        }
        Ok(Caller::Key { id: key.id, scope: key.scope })
    }

    /// Counts a request, where there is a limit.
    pub fn count(&self, caller: Caller, address: IpAddr) -> Option<Allowance> {
        let limits = self.limits.as_ref()?;
        Some(limits.take(match caller {
            Caller::Key { id, .. } => Client::Key(id),
            Caller::Anonymous | Caller::OnThisMachine => Client::at(address),
        }))
    }

    /// Follows what is created and revoked, for ever. While PostgreSQL is away, the keys are those that were
    /// there last.
    pub async fn keep_up(&self) -> Infallible {
        let mut looks = interval(Duration::from_millis(REFRESH_MS));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut blind = false;
        loop {
            looks.tick().await;
            if let Some(limits) = &self.limits {
                limits.forget_the_quiet();
            }
            let refreshed = self.refresh().await;
            match &refreshed {
                Ok(()) if blind => log::info!("the API keys can be read again"),
                Err(error) if !blind => log::warn!("the API keys stay as they are known: {error}"),
                Ok(()) | Err(_) => {}
            }
            blind = refreshed.is_err();
        }
    }

    /// Reads which keys there are, and writes down which were used.
    ///
    /// # Errors
    /// [`AccessError::Unavailable`].
    pub async fn refresh(&self) -> Result<(), AccessError> {
        let before = self.ring.load_full();
        self.ring.store(Arc::new(Ring::new(store::snapshot(&self.pool).await?, Some(&before))));
        let used: Vec<&ActiveKey> = before
            .keys
            .values()
            .filter(|key| key.used.swap(false, Ordering::Relaxed))
            .map(Arc::as_ref)
            .collect();
        if used.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = used.iter().map(|key| key.id).collect();
        store::used(&self.pool, &ids).await.inspect_err(|_| {
            for key in used {
                key.used.store(true, Ordering::Relaxed);
            }
        })
    }
}

impl Ring {
    /// A key that was there before stays the same one, with what is known of its use.
    fn new(snapshot: Snapshot, before: Option<&Self>) -> Self {
        let keys = snapshot.active.into_iter().map(|row| {
            let known = before.and_then(|ring| ring.keys.get(&row.hash)).cloned();
            let fresh = || Arc::new(ActiveKey { id: row.id, scope: row.scope, used: AtomicBool::new(false) });
            (row.hash, known.unwrap_or_else(fresh))
        });
        Self { keys: keys.collect(), unused: !snapshot.any }
    }
}
