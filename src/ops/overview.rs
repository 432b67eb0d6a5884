//! The picture of the whole installation, taken once for all viewers, and only while somebody watches. Must not contain
//! how it is shown.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval, timeout},
};

pub use super::beat::{DepthHistory, NodeSeen, Rates, Step};
use super::{
    beat,
    health::{Health, Report, State},
    pulse,
};
use crate::infra::postgres::{Client, Pool, within};

/// The pause between two pictures: that between two beats of a node.
const PAUSE_S: u64 = 5;

/// A picture that is older than this is not shown to a new viewer: nobody was watching.
const FRESH_S: u64 = 6;

/// The longest that PostgreSQL may take to answer.
const READ_TIMEOUT_MS: u64 = 2_000;

/// The longest that a new viewer waits for a picture.
const LOOK_TIMEOUT_MS: u64 = 8_000;

/// The installation at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// When it was taken.
    pub at: Timestamp,
    taken: Instant,
    /// The health of this node.
    pub here: Report,
    /// The reports of all nodes, or why PostgreSQL does not return them.
    pub told: Result<Told, String>,
    shown: OnceLock<String>,
}

impl Picture {
    /// The output of `show` for the picture, made once for all viewers.
    #[must_use]
    pub fn shown(&self, show: impl FnOnce(&Self) -> String) -> &str {
        self.shown.get_or_init(|| show(self))
    }
}

/// The reports of the nodes.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Each node's last beat.
    pub nodes: Vec<NodeSeen>,
    /// The last quarter of an hour.
    pub history: Vec<Step>,
    /// The last quarter of an hour of each partition.
    pub depths: Vec<DepthHistory>,
    /// For each partition with changes that no worker has taken, when the first of them was accepted.
    pub untaken: Vec<(u16, Timestamp)>,
}

impl Told {
    /// The nodes that still report.
    pub fn live(&self) -> impl Iterator<Item = &NodeSeen> {
        self.nodes.iter().filter(|node| !node.is_quiet)
    }
}

/// Takes pictures of the installation.
pub struct Overview {
    pool: Pool,
    health: Arc<Health>,
    latest: watch::Sender<Option<Arc<Picture>>>,
    wanted: Notify,
}

impl Overview {
    /// Makes the overview of a node. It uses one connection of `pool` at a time.
    #[must_use]
    pub fn new(pool: Pool, health: Arc<Health>) -> Self {
        Self { pool, health, latest: watch::Sender::new(None), wanted: Notify::new() }
    }

    /// Shows the pictures from now on. There is one every five seconds, as long as somebody watches.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Picture>>> {
        let watching = self.latest.subscribe();
        self.wanted.notify_one();
        watching
    }

    /// The current picture, unless it takes too long.
    pub async fn look(&self) -> Option<Arc<Picture>> {
        let mut watching = self.watch();
        let is_fresh = |picture: &Option<Arc<Picture>>| {
            picture.as_ref().is_some_and(|picture| picture.taken.elapsed() < Duration::from_secs(FRESH_S))
        };
        let looking = timeout(Duration::from_millis(LOOK_TIMEOUT_MS), watching.wait_for(is_fresh)).await;
        looking.ok()?.ok()?.clone()
    }

    /// Takes the pictures. Never ends.
    pub async fn keep_up(&self) -> Infallible {
        let mut ticks = interval(Duration::from_secs(PAUSE_S));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.wanted.notified().await;
            ticks.reset();
            while self.latest.receiver_count() > 0 {
                let picture = self.take().await;
                self.latest.send_replace(Some(Arc::new(picture)));
                ticks.tick().await;
            }
        }
    }

    async fn take(&self) -> Picture {
        let told = self.told().await;
        let (at, taken) = (Timestamp::now(), Instant::now());
        Picture { at, taken, here: self.health.report(), told, shown: OnceLock::new() }
    }

    async fn told(&self) -> Result<Told, String> {
        // While commits wait, no node can report, and the last reports say nothing of the present.
        if self.health.report().postgresql.state == State::CommitsWait {
            return Err("its commits wait for a standby".to_owned());
        }
        let limit = Duration::from_millis(READ_TIMEOUT_MS);
        let client = within(limit, self.pool.get()).await?;
        let reading = async { tokio::try_join!(beat::read(&client), pulse::untaken(&client)) };
        let read = within(limit, reading).await;
        if read.is_err() {
            drop(Client::take(client));
        }
        read.map(|((nodes, history, depths), untaken)| Told { nodes, history, depths, untaken })
    }
}
