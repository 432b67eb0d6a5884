//! Chaos: clients record their acknowledged changes while faults of every kind strike at random. At the end the log
//! must match that record: no change is missing, none is added, and all are in order.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use point_system::{domain::Partitions, local::free_port};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::support::{
    client::{Promises, REQUESTED},
    clock,
    servers::{OwnServers, versions},
    system::{PATIENCE, System, eventually},
};
use clients::{Clients, Record};
use faults::{Concern, Fault, Site};
use progress::Progress;

pub mod clients;
mod faults;
mod neighbours;
pub mod progress;
mod report;

pub use report::Report;

/// The pause between two looks at the log.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// The size of a chaos run.
#[derive(Clone, Copy, Debug)]
pub struct Chaos {
    /// How long the run starts new faults. A fault that has begun runs to its end.
    pub time: Duration,
    /// The same seed gives the same faults in the same order.
    pub seed: u64,
    /// The number of connections that send at once, each for its own users.
    pub connections: i64,
    /// The number of users. A quarter uses `Prefer: wait`, and a quarter is sent in batches.
    pub users: i64,
    /// The number of partitions.
    pub partitions: Partitions,
}

/// A fault that is over.
pub struct Strike<F> {
    pub fault: F,
    pub struck: Instant,
    pub healed: Instant,
    /// From the end of the fault until every partition accepts a change, and until these changes are applied.
    pub accepted_after: Duration,
    pub applied_after: Duration,
    /// The longest time without an applied change for the users of interest, if there are any.
    pub waited: Option<Duration>,
}

/// The users of interest: a fault must not delay users that it does not concern.
const OTHERS: &str = "longest without an applied change, of those it does not affect";

/// Runs the chaos on separate servers, and leaves nothing behind.
pub async fn run(chaos: Chaos) -> Report<Fault> {
    let servers = OwnServers::start().await;
    let mut system = System::on_own_with(&servers, chaos.partitions).await;
    let versions = versions(&system).await;
    clock::install(&system).await;
    let port = free_port().expect("a port");
    let mut site = Site::start(&mut system, servers, port).await;
    let ended = CancellationToken::new();
    let mut clients = Clients::start(chaos, &[port], &ended);
    let progress = Progress::watch(system.database.pool(1), chaos);

    let mut rng = fastrand::Rng::with_seed(chaos.seed);
    let mut strikes = Vec::new();
    let until = Instant::now() + chaos.time;
    while Instant::now() < until {
        // In rounds, so that all kinds of faults occur equally often.
        let mut round = Fault::ALL.to_vec();
        rng.shuffle(&mut round);
        for fault in round.into_iter().take_while(|_| Instant::now() < until) {
            let left = until.saturating_duration_since(Instant::now()).as_secs();
            eprintln!("{left:>5} s left; {fault}");
            let striking = site.strike(fault, (&system, &chaos), (&mut clients, &progress), &mut rng);
            let (concern, struck): (Concern, _) = striking.await;
            let healed = Instant::now();
            let (accepted_after, applied_after) = clients.probe(&system).await;
            progress.leave_out(0);
            let mut others = concern.others(chaos.partitions).peekable();
            let waited =
                others.peek().is_some().then(|| progress.longest_gap(others, struck, healed + applied_after));
            strikes.push(Strike { fault, struck, healed, accepted_after, applied_after, waited });
        }
    }
    ended.cancel();
    let record = clients.finish().await;
    let (ledger, expired) = settled(&system, &record).await;
    let servers = site.stop().await;
    system.finish().await;
    servers.stop().await;
    let Chaos { time, seed, partitions, .. } = chaos;
    let title = format!("{versions}, partitions {partitions}, seed {seed}, {} s", time.as_secs());
    Report::new((title, OTHERS), (record, &ledger, expired), &strikes)
}

/// Waits until what was promised is in the log, and the points have expired that expire soon. Returns the log without
/// what may be there or not, and the number of entries of expired points.
pub async fn settled(system: &System, record: &Record) -> (Promises, i64) {
    settle(system, record).await;
    let mut ledger = system.ledger().await;
    for ids in ledger.values_mut() {
        ids.retain(|id| !record.unpromised.contains(id));
    }
    (ledger, system.count("select count(*) from log where action = 'expire'").await)
}

async fn settle(system: &System, record: &Record) {
    let unpromised = record.unpromised.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let logged = format!(
        "select count(*) from log where {REQUESTED} and request_id <> all('{{{unpromised}}}'::uuid[])"
    );
    let promised = i64::try_from(record.promises.values().map(Vec::len).sum::<usize>()).expect("in range");
    after_the_backlog("all promises are in the log", async || {
        let count = system.count(&logged).await;
        Some((count >= promised, count))
    })
    .await;
    let queues = system.queues().await;
    eventually("nothing is left in the queues", async || queues.waiting().await == 0).await;
    // Other points expire in the distant future, and the last hold of a user may be open.
    let due = "select count(*) from user_point where due_at < '2090-01-01' and holds is null";
    eventually("the points have expired", async || system.count(due).await == 0).await;
}

/// Waits until `look` says that all is there. Behind the backlog of an outage that may take long, so it fails only once
/// the number of entries, which `look` says too, no longer grows.
async fn after_the_backlog(what: &str, mut look: impl AsyncFnMut() -> Option<(bool, i64)>) {
    let (mut most, mut grew_at) = (0, Instant::now());
    let mut looks = interval(LOOK_PAUSE);
    loop {
        looks.tick().await;
        let Some((all, entries)) = look().await else { continue };
        if all {
            break;
        }
        if entries > most {
            (most, grew_at) = (entries, Instant::now());
        }
        let stood = grew_at.elapsed();
        assert!(stood < PATIENCE, "not yet: {what}; and no entry came in {} s", stood.as_secs());
    }
}

/// The faults of a ledger, compared with the record of the acknowledged changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The changes that were acknowledged but are not in the log.
    pub lost: usize,
    /// The changes that are in the log more than once.
    pub doubled: usize,
    /// The changes that are in the log but were never sent.
    pub invented: usize,
    /// The users whose log has another order than the record.
    pub disordered: usize,
}

impl Verdict {
    pub fn of(promises: &Promises, ledger: &Promises) -> Self {
        let mut verdict = Self::default();
        for user in promises.keys().chain(ledger.keys()).collect::<HashSet<_>>() {
            let [sent, logged] = [promises, ledger].map(|of| of.get(user).map_or(&[][..], Vec::as_slice));
            let [expected, found] = [sent, logged].map(|ids| ids.iter().collect::<HashSet<_>>());
            verdict.lost += expected.difference(&found).count();
            verdict.invented += found.difference(&expected).count();
            verdict.doubled += logged.len() - found.len();
            verdict.disordered += usize::from(expected == found && sent != logged);
        }
        verdict
    }
}

#[test]
fn a_verdict_counts_each_kind_of_wrong() {
    let of = |ids: &[&str]| Promises::from([(1, ids.iter().map(ToString::to_string).collect())]);
    let verdict = |sent: &[&str], logged: &[&str]| {
        let Verdict { lost, doubled, invented, disordered } = Verdict::of(&of(sent), &of(logged));
        [lost, doubled, invented, disordered]
    };
    assert_eq!(verdict(&["a", "b"], &["a", "b"]), [0, 0, 0, 0]);
    assert_eq!(verdict(&["a", "b"], &["b"]), [1, 0, 0, 0]);
    assert_eq!(verdict(&["a"], &["a", "a"]), [0, 1, 0, 1]);
    assert_eq!(verdict(&["a"], &["a", "c"]), [0, 0, 1, 0]);
    assert_eq!(verdict(&["a", "b"], &["b", "a"]), [0, 0, 0, 1]);
}
