//! The telemetry of a node: its health, its pulse, its metrics listener, and its supervisor. Must not contain work of the
//! role.

use std::{convert::Infallible, net::TcpListener, sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{NodeArgs, start, supervisor};
use crate::{
    domain::Partitions,
    http,
    infra::{
        metrics,
        postgres::{self, Pool},
    },
    ops::{
        health::{Duty, Health},
        overview::Overview,
        pulse::Pulse,
    },
    queue::{DepthProbe, Link, LinkWatch},
};

/// The pause between two checks of the queues.
const DEPTHS_PAUSE_S: u64 = 5;

/// Connections to PostgreSQL: one for the readiness, one for the pulse, and one for the console of `serve`.
const PROBES: usize = 3;

/// The telemetry of a node. It starts and ends with the role.
pub(super) struct Telemetry {
    /// Whether the node can do its work.
    pub(super) health: Arc<Health>,
    probe: Pool,
    telling: Option<JoinHandle<()>>,
    listening: Option<JoinHandle<()>>,
    ended: CancellationToken,
    /// Ends the tasks if the role fails.
    guard: DropGuard,
}

impl Telemetry {
    /// Starts to watch what the node needs. If `--metrics-listen` is set, also starts the metrics listener.
    ///
    /// # Errors
    /// The listener's address can't be bound.
    pub(super) fn start(
        duty: Duty,
        node: &NodeArgs,
        pool: &Pool,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let listener = node.metrics.listen.map(|address| start::listen("--metrics-listen", address));
        let listener = listener.transpose()?;
        let ended = CancellationToken::new();
        let health = Arc::new(Health::new(duty, stop.clone()));
        // Its own connections: the probes never wait for the work, and the work never waits for the probes.
        let probe = postgres::pool(&node.database.url, PROBES)?;
        {
            let (health, probe, pool, ended) =
                (Arc::clone(&health), probe.clone(), pool.clone(), ended.clone());
            tokio::spawn(async move { ended.run_until_cancelled(health.watch(probe, pool)).await });
        }
        let telling = supervisor::is_there().then(|| {
            let (health, stop, ended) = (Arc::clone(&health), stop.clone(), ended.clone());
            tokio::spawn(async move { supervisor::tell(&health, stop, ended).await })
        });
        let listening =
            listener.map(|listener| tokio::spawn(listen(listener, Arc::clone(&health), ended.clone())));
        let guard = ended.clone().drop_guard();
        Ok(Self { health, probe, telling, listening, ended, guard })
    }

    /// Watches the connection to the broker as well, and the queues.
    pub(super) fn watch(&self, link: &Link) {
        self.health.uses(link.watch());
        let (depths, ended) = (watch_depths(link.watch(), Arc::clone(&self.health)), self.ended.clone());
        tokio::spawn(async move { ended.run_until_cancelled(depths).await });
    }

    /// The overview for the console.
    pub(super) fn overview(&self) -> Overview {
        Overview::new(self.probe.clone(), Arc::clone(&self.health))
    }

    /// Runs the pulse that `beating` makes until [`Telemetry::end`].
    pub(super) fn beat<F: Future<Output = Infallible> + Send + 'static>(
        &self,
        partitions: Partitions,
        beating: impl FnOnce(Pulse) -> F,
    ) {
        let pulse = Pulse::new(self.probe.clone(), Arc::clone(&self.health), partitions);
        let (beating, ended) = (beating(pulse), self.ended.clone());
        tokio::spawn(async move { ended.run_until_cancelled(beating).await });
    }

    /// Ends the tasks and the listener. The supervisor has been told by then that the node stops.
    pub(super) async fn end(self) {
        drop(self.guard);
        for task in [self.telling, self.listening].into_iter().flatten() {
            task.await.ok();
        }
    }
}

async fn listen(listener: TcpListener, health: Arc<Health>, ended: CancellationToken) {
    if let Err(error) = http::serve_metrics(listener, health, ended).await {
        log::error!("--metrics-listen: {error}");
    }
}

async fn watch_depths(link: LinkWatch, health: Arc<Health>) {
    let mut probe = DepthProbe::new(link);
    let mut looks = interval(Duration::from_secs(DEPTHS_PAUSE_S));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = probe.changed() => {}
        }
        let depths = probe.look().await;
        for (partition, depth) in (0..).zip(&depths.partitions) {
            metrics::queue_has(partition, *depth);
        }
        metrics::dead_letters_have(depths.dead_letters);
        health.set_depths(depths);
    }
}
