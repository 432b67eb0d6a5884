//! Whether every partition moves: each node tells PostgreSQL how far it has accepted or taken changes, and reads which
//! partitions are silent. Must not contain the ledger, or how operators are told.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    join,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    domain::Partitions,
    infra::{
        metrics,
        postgres::{self, Client, Pool, within},
    },
    ops::{
        beat::{self, Node},
        health::Health,
        setback::Memory,
    },
    queue::{Accepted, LinkWatch, Progress, Standing},
};

pub use super::beat::Counts;
pub(super) use table::untaken;
use table::{News, told_and_seen};
pub use table::{tell_taken, waiting_until};

mod table;

/// The pause between two beats.
const BEAT_PAUSE_S: u64 = 5;

/// The longest that a beat may wait for a connection, and then for its statements.
const BEAT_TIMEOUT_MS: u64 = 2_000;

/// The longest that writing the figures of the console may take.
const TELL_TIMEOUT_MS: u64 = 500;

/// A partition is silent if changes wait and no worker has taken one for this long. The broker does not show this: it
/// does not count a message as waiting if it believes that a consumer holds it.
const SILENCE_S: u64 = 30;

/// A partition no longer counts as kept once its worker has been subscribed this long without a delivery: another worker
/// is active, or the message is gone.
const LOOK_S: u64 = 5;

/// The shortest time between two reconnects of a worker because of silence.
const RENEW_PAUSE_S: u64 = 60;

/// Maximum number of reconnects for one silence. If they do not help, as after a purge of the queue, an operator must
/// act; more reconnects would only disturb the other partitions.
const RENEWALS_MAX: u32 = 3;

/// The pulse of a node.
pub struct Pulse {
    pool: Pool,
    health: Arc<Health>,
    partitions: Partitions,
    memory: Memory,
    /// For each partition, when its latest change was accepted, if that is decided and no worker has told that it took
    /// it.
    decided: HashMap<u16, Timestamp>,
    node: Node,
    /// Whether the last beat failed. Then this node does not know which partitions are silent.
    is_blind: bool,
}

impl Pulse {
    /// Makes a pulse that uses one connection of `pool` at a time, and reports silence to `health`.
    #[must_use]
    pub fn new(pool: Pool, health: Arc<Health>, partitions: Partitions) -> Self {
        let (memory, decided) = (Memory::new(), HashMap::new());
        Self { pool, health, partitions, memory, decided, node: Node::new(), is_blind: false }
    }

    /// Beats for a node that accepts changes. For each partition, `latest` returns the latest delta that is safe in its
    /// queue. `counts` returns what the node has counted.
    pub async fn accepting(
        mut self,
        latest: impl Fn() -> Vec<Option<Accepted>>,
        counts: impl Fn() -> Counts,
    ) -> Infallible {
        let (mut beats, mut told) = (beats(), Vec::new());
        loop {
            beats.tick().await;
            let now = latest();
            let news = (0..).zip(&now).filter(|(partition, latest)| told.get(*partition) != Some(*latest));
            let news = news.filter_map(|(partition, latest)| Some((number(partition), latest.clone()?)));
            if self.beat(News::Accepted(news.collect()), (counts(), None)).await.is_some() {
                told = now;
            }
        }
    }

    /// Beats for a node that takes changes from the queue. If a partition that it is subscribed to is silent, it
    /// reconnects: the broker then returns to the queue what it believes this node holds. `counts` returns what the node
    /// has counted.
    pub async fn taking(
        mut self,
        partitions: Vec<Progress>,
        link: LinkWatch,
        counts: impl Fn() -> Counts,
    ) -> Infallible {
        let (mut beats, mut told) = (beats(), Vec::new());
        let (mut renewed, mut renewals) = (None::<Instant>, 0);
        loop {
            beats.tick().await;
            let now: Vec<Standing> = partitions.iter().map(Progress::standing).collect();
            self.tell_kept(&now);
            let untils: Vec<_> = now.iter().map(|standing| standing.taken_until).collect();
            // A worker that does not know a time must not report one: that would hide the silence from other nodes.
            let has_moved = |partition: usize| {
                untils[partition].is_some() && told.get(partition) != Some(&untils[partition])
            };
            let holds = |standing: &Standing| standing.is_busy && standing.subscribed_at.is_some();
            // A partition that waits for a newer worker is not silent: reconnecting would not help.
            let is_waiting = |standing: &Standing| holds(standing) || is_kept(standing);
            let is_news = |partition: usize| has_moved(partition) || is_waiting(&now[partition]);
            let news = (0..now.len()).filter(|partition| is_news(*partition));
            let news = news.map(|partition| (number(partition), untils[partition]));
            let oldest = now.iter().filter_map(|standing| standing.oldest).min();
            let Some(silent) = self.beat(News::Taken(news.collect()), (counts(), oldest)).await else {
                continue;
            };
            told = untils;
            let is_recent = |then: Instant| then.elapsed() < Duration::from_secs(RENEW_PAUSE_S);
            let ours =
                silent.iter().find(|partition| now.get(usize::from(**partition)).is_some_and(should_hear));
            if ours.is_none() {
                renewals = 0;
            }
            let may_help = renewals < RENEWALS_MAX && !renewed.is_some_and(is_recent);
            if let Some(partition) = ours.filter(|_| may_help) {
                log::warn!(
                    "partition {partition} is silent: changes were accepted, but none is delivered; reconnecting"
                );
                link.renew();
                renewed = Some(Instant::now());
                renewals += 1;
            }
        }
    }

    fn tell_kept(&self, partitions: &[Standing]) {
        let mut kept = Vec::new();
        for (partition, standing) in (0..).zip(partitions) {
            let is_kept = is_kept(standing);
            metrics::partition_is_kept(partition, is_kept);
            kept.extend(is_kept.then_some(partition));
        }
        self.health.set_kept(kept);
    }

    /// Writes the news, and the counts and the oldest change of the node. Returns the silent partitions, or `None` if
    /// PostgreSQL did not answer.
    async fn beat(&mut self, news: News, (counts, oldest): (Counts, Option<Timestamp>)) -> Option<Vec<u16>> {
        let report = self.health.report();
        let limit = Duration::from_millis(BEAT_TIMEOUT_MS);
        let client = match within(limit, self.pool.get()).await {
            Ok(client) => postgres::fit_to_commit(client).await.map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        let seen = match client {
            Ok(client) => {
                // The pulse does not depend on the console's figures.
                let (seen, told) = join!(
                    within(
                        limit,
                        told_and_seen(&client, &news, self.partitions, (&mut self.memory, &mut self.decided))
                    ),
                    within(
                        Duration::from_millis(TELL_TIMEOUT_MS),
                        beat::tell(&client, &self.node, &report, counts, oldest)
                    ),
                );
                if let Err(why) = &told {
                    log::debug!("the console gets no figures of this node: {why}");
                }
                if seen.is_err() || told.is_err() {
                    drop(Client::take(client));
                }
                seen
            }
            Err(why) => Err(why),
        };
        match &seen {
            Err(why) if !self.is_blind => {
                log::warn!("this node can't tell whether a partition is silent: {why}");
            }
            Ok(_) if self.is_blind => log::info!("this node can tell again whether a partition is silent"),
            Ok(_) | Err(_) => {}
        }
        self.is_blind = seen.is_err();
        let known = seen.is_ok();
        let mut silent = Vec::new();
        metrics::silence_is_unknown();
        for (partition, seconds) in seen.into_iter().flatten() {
            metrics::partition_is_silent(partition, seconds);
            if seconds >= Duration::from_secs(SILENCE_S).as_secs_f64() {
                silent.push(partition);
            }
        }
        self.health.set_silent(silent.clone());
        known.then_some(silent)
    }
}

fn beats() -> Interval {
    let mut beats = interval(Duration::from_secs(BEAT_PAUSE_S));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

fn number(partition: usize) -> i16 {
    i16::try_from(partition).expect("there are only a few partitions")
}

/// Whether a consumer should have received messages by now: it has been subscribed for long enough, and is not busy.
fn should_hear(standing: &Standing) -> bool {
    let is_old = |since: Instant| since.elapsed() >= Duration::from_secs(SILENCE_S);
    !standing.is_busy && standing.subscribed_at.is_some_and(is_old)
}

/// Whether a partition waits for a worker that understands its next message, as far as this worker knows: a worker that
/// can't look at the partition knows nothing.
fn is_kept(standing: &Standing) -> bool {
    let has_lasted = |since: Instant| since.elapsed() >= Duration::from_secs(LOOK_S);
    standing.kept_until.is_some_and(|until| Instant::now() < until)
        && !standing.subscribed_at.is_some_and(has_lasted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_counts_as_kept_only_while_its_worker_looks_at_it() {
        let ago =
            |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).expect("a machine that is up");
        let soon = Some(Instant::now() + Duration::from_secs(60));
        let kept = |kept_until, subscribed_at| {
            is_kept(&Standing { subscribed_at, kept_until, ..Standing::default() })
        };
        assert!(kept(soon, None) && kept(soon, Some(Instant::now())));
        assert!(!kept(soon, Some(ago(LOOK_S))), "another worker is active, or the message is gone");
        assert!(!kept(Some(ago(1)), None), "it can't subscribe");
        assert!(!kept(None, None), "it understands the next message");
    }
}
