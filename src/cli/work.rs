//! The command `work`: starts consumers that apply changes to the database. Must not contain how a change is applied.

use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    NodeArgs,
    start::{Deadline, connected, ending_within, installed},
    telemetry::Telemetry,
};
use crate::{
    domain::{APART_MAX, Installation, Patience, PointService},
    infra::postgres::{self, Pool},
    jobs,
    ops::{health::Duty, pulse::Counts},
    queue::{Consumer, Link, MESSAGE_VERSION},
    worker,
};

/// The connections that search for expired points.
const EXPIRY_CONNECTIONS: usize = 1;

/// Flags of `work`.
#[derive(Args, Debug)]
pub struct WorkArgs {
    /// The servers, the limits and the metrics listener.
    #[command(flatten)]
    pub node: NodeArgs,
    /// The highest version of messages that this worker understands. Tests lower or raise it.
    #[arg(long, hide = true, default_value_t = MESSAGE_VERSION, value_name = "VERSION")]
    pub understands: u64,
}

/// Applies changes from the queue until `stop` is cancelled. Then finishes work in hand, within the shutdown timeout.
/// The broker delivers unfinished changes again, to this worker or another. Messages of a version above `understands`
/// wait for another worker.
///
/// # Errors
/// The database or the broker is not ready in time.
pub async fn work(node: &NodeArgs, understands: u64, stop: CancellationToken) -> anyhow::Result<()> {
    let working = Box::pin(work_until(node, understands, stop.clone()));
    ending_within(node.patience.shutdown_timeout, stop, working).await
}

async fn work_until(node: &NodeArgs, understands: u64, stop: CancellationToken) -> anyhow::Result<()> {
    let connections = usize::from(node.concurrency) + APART_MAX + EXPIRY_CONNECTIONS;
    let pool = postgres::pool(&node.database.url, connections)?;
    let telemetry = Telemetry::start(Duty::Work, node, &pool, &stop)?;
    let working = async {
        let deadline = Deadline::after(node.patience.startup_timeout);
        let installed = installed(&pool, &node.database, deadline);
        let Some(installation) = stop.run_until_cancelled(installed).await else { return Ok(()) };
        let installation = installation?;
        let link = Link::start(node.broker.url.clone(), node.broker.names(&installation), "work");
        telemetry.watch(&link);
        let connected = connected(&link, deadline);
        let worked = match stop.run_until_cancelled(connected).await {
            Some(Ok(())) => {
                work_on(&installation, (node, understands), (&pool, &link, &telemetry), &stop).await;
                Ok(())
            }
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        link.close().await;
        worked
    };
    let worked = working.await;
    telemetry.end().await;
    worked
}

/// Works on every partition until `stop` is cancelled.
async fn work_on(
    Installation { id, partitions, .. }: &Installation,
    (node, understands): (&NodeArgs, u64),
    (pool, link, telemetry): (&Pool, &Link, &Telemetry),
    stop: &CancellationToken,
) {
    telemetry.health.started();
    let concurrency = node.concurrency;
    let patience = Patience::Queue(stop.clone());
    let service = Arc::new(PointService::start(pool.clone(), concurrency.into(), &patience));
    let worker = Uuid::now_v7();
    let consumer = |p| Consumer::new(p, link.watch(), worker, understands, stop.clone());
    let consumers: Vec<Consumer> = partitions.all().map(consumer).collect();
    let (progress, watch) = (consumers.iter().map(Consumer::progress).collect(), link.watch());
    let counted = Arc::clone(&service);
    let counts = move || {
        let (applied, refused) = counted.settled();
        Counts { accepted: 0, applied, refused }
    };
    telemetry.beat(*partitions, |pulse| pulse.taking(progress, watch, counts));
    log::info!(
        worker:%;
        "working on {partitions} partitions of installation {id}, up to {concurrency} concurrent transactions"
    );
    let taking = async {
        stop.cancelled().await;
        log::info!("taking no more from the queue");
    };
    tokio::join!(worker::work(consumers, Arc::clone(&service)), jobs::expire(service, stop.clone()), taking);
}
