//! The command `work`: starts consumers that apply changes to the database. Must not contain how a change is applied.

use std::{sync::Arc, time::Duration};

use clap::Args;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    NodeArgs,
    args::parse_time_from,
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

/// The minimum of `--ack-timeout`: longer than a user waits before the alert for it fires.
const ACK_TIMEOUT_MIN: Duration = Duration::from_secs(120);

/// Flags of `work`.
#[derive(Args, Debug)]
pub struct WorkArgs {
    /// The servers, the limits and the metrics listener.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How long a worker keeps messages, and which it understands.
    #[command(flatten)]
    pub messages: MessageArgs,
}

/// How long a worker keeps messages, and which it understands.
#[derive(Args, Clone, Copy, Debug)]
pub struct MessageArgs {
    /// How long to keep a message that can't be applied, for example because its user's row is locked, before the
    /// messages of its partition return to the queue and are delivered again; at least two minutes. Keep it well below
    /// RabbitMQ's `consumer_timeout` (30 minutes by default), at which the broker closes the channel.
    #[arg(long, env = "POINT_SYSTEM_ACK_TIMEOUT", default_value = "10m", value_name = "TIME",
          value_parser = |text: &str| parse_time_from(ACK_TIMEOUT_MIN, text))]
    pub ack_timeout: Duration,
    /// The highest version of messages that this worker understands. Tests lower or raise it.
    #[arg(long, hide = true, default_value_t = MESSAGE_VERSION, value_name = "VERSION")]
    pub understands: u64,
}

impl Default for MessageArgs {
    fn default() -> Self {
        Self { ack_timeout: Duration::from_secs(600), understands: MESSAGE_VERSION }
    }
}

/// Applies changes from the queue until `stop` is cancelled. Then finishes work in hand, within the shutdown timeout.
/// The broker delivers unfinished changes again, to this worker or another. Messages that this worker does not
/// understand wait for another worker.
///
/// # Errors
/// The database or the broker is not ready in time.
pub async fn work(node: &NodeArgs, messages: MessageArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let working = Box::pin(work_until(node, messages, stop.clone()));
    ending_within(node.patience.shutdown_timeout, stop, working).await
}

async fn work_until(node: &NodeArgs, messages: MessageArgs, stop: CancellationToken) -> anyhow::Result<()> {
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
                work_on(&installation, (node, messages), (&pool, &link, &telemetry), &stop).await;
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
    (node, messages): (&NodeArgs, MessageArgs),
    (pool, link, telemetry): (&Pool, &Link, &Telemetry),
    stop: &CancellationToken,
) {
    telemetry.health.started();
    let concurrency = node.concurrency;
    let patience = Patience::Queue(stop.clone());
    let service = Arc::new(PointService::start(pool.clone(), concurrency.into(), &patience));
    let worker = Uuid::now_v7();
    let consumer = |p| Consumer::new(p, link.watch(), worker, messages.understands, stop.clone());
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
        log::info!("no longer taking messages from the queue");
    };
    let working = worker::work(consumers, Arc::clone(&service), messages.ack_timeout);
    tokio::join!(working, jobs::expire(service, stop.clone()), taking);
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        messages: MessageArgs,
    }

    #[test]
    fn an_ack_timeout_is_two_minutes_or_longer() {
        let parse = |text: &str| {
            Line::try_parse_from(["work", &format!("--ack-timeout={text}")])
                .map(|line| line.messages.ack_timeout)
        };
        assert_eq!(parse("2m").expect("the least"), Duration::from_secs(120));
        for wrong in ["0s", "119s", "-3m", "600"] {
            let error = parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains("--ack-timeout"), "{error}");
        }
        let default = Line::try_parse_from(["work"]).expect("defaults").messages;
        assert_eq!(default.ack_timeout, MessageArgs::default().ack_timeout);
        assert_eq!(default.understands, MessageArgs::default().understands);
    }
}
