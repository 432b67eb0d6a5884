//! The command `work`: starts consumers that apply changes to the database. Must not contain how a change is applied.

use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    NodeArgs,
    operations::Operations,
    start::{ending_within, ready},
};
use crate::{
    domain::{PARTITIONS, Patience, PointService},
    infra::postgres,
    ops::health::Duty,
    queue::{Consumer, Link, MESSAGE_VERSION},
    worker,
};

/// Flags of `work`.
#[derive(Args, Debug)]
pub struct WorkArgs {
    /// The servers, the limits and the operations listener.
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
    let concurrency = usize::from(node.concurrency);
    // Each partition gets one more, for its users who have an obstacle.
    let pool = postgres::pool(&node.database.url, concurrency + usize::from(PARTITIONS))?;
    let link = Link::start(node.broker.url.clone(), node.broker.names.clone(), "work");
    let operations = Operations::start(Duty::Work, node, (&pool, &link), &stop)?;
    let working = async {
        let Some(started) = stop.run_until_cancelled(ready(&pool, &link, node)).await else { return Ok(()) };
        started?;
        operations.health.started();
        let service =
            Arc::new(PointService::start(pool.clone(), concurrency, &Patience::Queue(stop.clone())));
        let worker = Uuid::now_v7();
        let consumer = |p| Consumer::new(p, link.watch(), worker, understands, stop.clone());
        let consumers: Vec<Consumer> = (0..PARTITIONS).map(consumer).collect();
        let (progress, watch) = (consumers.iter().map(Consumer::progress).collect(), link.watch());
        operations.beat(|pulse| pulse.taking(progress, watch));
        log::info!(worker:%; "working on {PARTITIONS} partitions, up to {concurrency} concurrent transactions");
        let taking = async {
            stop.cancelled().await;
            log::info!("taking no more from the queue");
        };
        tokio::join!(worker::work(consumers, service), taking);
        Ok(())
    };
    let worked = working.await;
    link.close().await;
    operations.end().await;
    worked
}
