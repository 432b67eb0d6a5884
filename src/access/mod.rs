//! Who may call, and how often: the API keys and the rate limits, held in memory. Must not contain HTTP or points.

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
use tokio::time::{MissedTickBehavior, interval};

use crate::{domain::Actor, infra::postgres::Pool};
use key::KeyHash;
use limit::{Client, Limits};
use store::{ActiveRow, Snapshot};

mod anonymous;
mod error;
mod key;
mod limit;
mod manage;
mod store;

pub use anonymous::Anonymous;
pub use error::AccessError;
pub use key::{ApiKey, KeyName, Scope, WhichKey};
pub use limit::{Allowance, RateLimit};
pub use manage::{Rotation, create, list, revoke, rotate};
pub use store::KeyRecord;

/// The pause between two reads of the keys. A node refuses a revoked key after this and the time that the read takes.
const REFRESH_MS: u64 = 1_000;

/// The rules for callers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Which callers without a key are served.
    pub allow_anonymous: Anonymous,
    /// How often each caller may call. `None` is no limit.
    pub rate_limit: Option<RateLimit>,
}

/// A caller that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A caller with a key.
    Key {
        /// Who calls: the name of the key.
        actor: Actor,
        /// What the key may do.
        scope: Scope,
    },
    /// A caller without a key.
    Anonymous,
    /// A caller without a key, who is served only if the request comes directly from a client on this machine.
    OnThisMachine,
}

impl Caller {
    /// Whether the caller has the scope `needed`.
    #[must_use]
    pub fn may(&self, needed: Scope) -> bool {
        match self {
            Self::Key { scope, .. } => *scope >= needed,
            Self::Anonymous | Self::OnThisMachine => true,
        }
    }

    /// Who calls, or `None` for a caller without a key.
    #[must_use]
    pub fn actor(&self) -> Option<&Actor> {
        match self {
            Self::Key { actor, .. } => Some(actor),
            Self::Anonymous | Self::OnThisMachine => None,
        }
    }
}

/// Why a caller is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// The request needs a key and has none.
    NoKey,
    /// The key is unknown or revoked.
    WrongKey,
}

struct ActiveKey {
    id: i64,
    actor: Actor,
    scope: Scope,
    /// Whether the key was used since its last use was written to the database.
    used: AtomicBool,
}

/// The active keys at one moment.
struct Ring {
    keys: HashMap<KeyHash, Arc<ActiveKey>>,
    /// The active keys that this version can't read, and why. They are refused.
    unreadable: Vec<String>,
    /// Whether no key was ever created.
    unused: bool,
}

/// What a node knows about its callers. To admit a request, the node reads only this.
pub struct Access {
    pool: Pool,
    ring: ArcSwap<Ring>,
    limits: Option<Limits>,
    policy: Policy,
    listen: SocketAddr,
}

impl Access {
    /// Reads the keys, for a service that listens on `listen`.
    ///
    /// # Errors
    /// [`AccessError::Unavailable`].
    pub async fn open(pool: Pool, policy: Policy, listen: SocketAddr) -> Result<Self, AccessError> {
        let ring = Ring::new(store::snapshot(&pool).await?, None);
        ring.tell_unreadable();
        let ring = ArcSwap::from_pointee(ring);
        let limits = policy.rate_limit.map(Limits::new);
        Ok(Self { pool, ring, limits, policy, listen })
    }

    /// Logs who is served. Refuses to serve other machines without a key unless a flag allows that.
    ///
    /// # Errors
    /// [`AccessError::Unprotected`].
    pub fn check(&self) -> Result<(), AccessError> {
        let ring = self.ring.load();
        let keys = ring.keys.len();
        match (self.policy.allow_anonymous, ring.unused, self.is_local()) {
            (Anonymous::Everyone, ..) => log::info!("{keys} API keys; requests without a key are served"),
            (Anonymous::Loopback, _, is_local) => {
                log::info!("{keys} API keys; requests without a key are served to loopback host names");
                if !is_local {
                    log::warn!(
                        "{} is not a loopback address, and clients on other machines can send a loopback Host too: \
                         make sure that only this machine can reach the port",
                        self.listen
                    );
                }
            }
            (Anonymous::UntilTheFirstKey, false, _) => {
                log::info!("{keys} API keys; requests without a key are refused");
            }
            (Anonymous::UntilTheFirstKey, true, true) => {
                log::info!("no API key yet: requests from this machine need no key");
            }
            (Anonymous::UntilTheFirstKey, true, false) => {
                return Err(AccessError::Unprotected { listen: self.listen });
            }
        }
        if let Some(limit) = self.policy.rate_limit {
            log::info!("the keys of each name, and each address without a key, may send {limit}");
        }
        Ok(())
    }

    /// The connections to the table of keys, for what an operator does with them.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether only this machine can reach the service.
    fn is_local(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// Whether only this machine can reach the service, and no key was ever created.
    #[must_use]
    pub fn is_before_first_key(&self) -> bool {
        self.is_local() && self.ring.load().unused
    }

    /// Returns the caller who sends `key`, or decides whether a caller without a key is served. A node can't tell a
    /// revoked key from an unknown one: it holds only active keys.
    ///
    /// # Errors
    /// [`Stranger`].
    pub fn caller(&self, key: Option<&[u8]>) -> Result<Caller, Stranger> {
        let Some(key) = key else {
            return match self.policy.allow_anonymous {
                Anonymous::Everyone => Ok(Caller::Anonymous),
                Anonymous::Loopback => Ok(Caller::OnThisMachine),
                Anonymous::UntilTheFirstKey if self.is_before_first_key() => Ok(Caller::OnThisMachine),
                Anonymous::UntilTheFirstKey => Err(Stranger::NoKey),
            };
        };
        let hash = KeyHash::of(key).ok_or(Stranger::WrongKey)?;
        let ring = self.ring.load();
        let key = ring.keys.get(&hash).ok_or(Stranger::WrongKey)?;
        // Read before writing: processors share a cache line as long as nobody writes to it.
        if !key.used.load(Ordering::Relaxed) {
            key.used.store(true, Ordering::Relaxed);
        }
        Ok(Caller::Key { actor: key.actor.clone(), scope: key.scope })
    }

    /// Counts a request, if there is a limit.
    pub fn count(&self, caller: &Caller, address: IpAddr) -> Option<Allowance> {
        let limits = self.limits.as_ref()?;
        let client = caller.actor().map_or_else(|| Client::at(address), |actor| Client::Actor(actor.clone()));
        Some(limits.take(&client))
    }

    /// Keeps the keys up to date. While PostgreSQL is down, the last known keys stay. Never ends.
    pub async fn keep_up(&self) -> Infallible {
        let mut looks = interval(Duration::from_millis(REFRESH_MS));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_blind, mut is_mute) = (false, false);
        loop {
            looks.tick().await;
            if let Some(limits) = &self.limits {
                limits.forget_the_quiet();
            }
            // A key that was used and then revoked is in this ring only.
            let before = self.ring.load_full();
            let refreshed = self.refresh().await;
            match &refreshed {
                Ok(()) if is_blind => log::info!("the API keys can be read again"),
                Err(error) if !is_blind => log::warn!("the API keys stay as they are known: {error}"),
                Ok(()) | Err(_) => {}
            }
            is_blind = refreshed.is_err();
            if is_blind {
                continue;
            }
            let told = self.tell_used_of(&before).await;
            match &told {
                Err(error) if !is_mute => log::warn!("the last use of API keys can't be written: {error}"),
                Ok(()) | Err(_) => {}
            }
            is_mute = told.is_err();
        }
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// [`AccessError::Unavailable`].
    pub async fn refresh(&self) -> Result<(), AccessError> {
        let before = self.ring.load_full();
        let ring = Ring::new(store::snapshot(&self.pool).await?, Some(&before));
        if ring.unreadable != before.unreadable {
            ring.tell_unreadable();
        }
        self.ring.store(Arc::new(ring));
        Ok(())
    }

    /// Writes to the database which keys were used since the last time.
    ///
    /// # Errors
    /// [`AccessError::Unavailable`].
    pub async fn tell_used(&self) -> Result<(), AccessError> {
        self.tell_used_of(&self.ring.load_full()).await
    }

    async fn tell_used_of(&self, ring: &Ring) -> Result<(), AccessError> {
        let used = ring.keys.values().filter(|key| key.used.swap(false, Ordering::Relaxed));
        let used: Vec<_> = used.collect();
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
    /// Makes the ring of a snapshot. A key that was in the previous ring keeps its record of use.
    fn new(snapshot: Snapshot, before: Option<&Self>) -> Self {
        let keys = snapshot.active.into_iter().map(|row| {
            let known = before.and_then(|ring| ring.keys.get(&row.hash)).cloned();
            let ActiveRow { id, actor, scope, hash } = row;
            let fresh = || Arc::new(ActiveKey { id, actor, scope, used: AtomicBool::new(false) });
            (hash, known.unwrap_or_else(fresh))
        });
        Self { keys: keys.collect(), unreadable: snapshot.unreadable, unused: !snapshot.any }
    }

    fn tell_unreadable(&self) {
        for key in &self.unreadable {
            log::warn!("refusing an API key that this version can't read: {key}");
        }
    }
}
