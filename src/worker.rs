//! Consumer → `apply_delta` → ack. No HTTP, no AMQP frame and no SQL may enter.

use std::{fmt, sync::Arc};

use log::{Level, kv::Value};
use tokio_util::task::TaskTracker;

use crate::{
    domain::{Delta, Outcome, PointService, ServiceError, TraceParent},
    logging,
    metrics::WorkerMetrics,
    queue::{Consumer, Delivery, Disposition},
};

/// Works on the partitions of `consumers` until each has stopped and what was in hand is settled.
pub async fn work(consumers: impl IntoIterator<Item = Consumer>, service: Arc<PointService>) {
    let tasks = TaskTracker::new();
    for consumer in consumers {
        tasks.spawn(work_partition(consumer, Arc::clone(&service)));
    }
    tasks.close();
    tasks.wait().await;
}

/// One group at a time: what comes next is not applied before this is settled, so a user's order holds.
async fn work_partition(mut consumer: Consumer, service: Arc<PointService>) {
    let metrics = WorkerMetrics::new(consumer.partition());
    while let Some(deliveries) = consumer.next().await {
        let deltas =
            deliveries.iter().filter_map(|delivery| delivery.deltas.as_ref().ok()).flatten().cloned();
        let deltas: Vec<_> = deltas.collect();
        metrics.taken(deltas.iter().map(|delta| delta.requested_at).min());
        let results = if deltas.is_empty() { Ok(Vec::new()) } else { service.apply_deltas(deltas).await };
        let dispositions = match results {
            Ok(results) => dispositions(&deliveries, &results),
            Err(error) => {
                log::warn!("partition {}: {error}; its messages come again", consumer.partition());
                vec![Disposition::Hold; deliveries.len()]
            }
        };
        count(&metrics, &deliveries, &dispositions);
        consumer.settle(&deliveries, &dispositions).await;
    }
    consumer.unsubscribe().await;
}

/// What becomes of each delivery, by the results of all their deltas.
fn dispositions(deliveries: &[Delivery], results: &[Result<Outcome, ServiceError>]) -> Vec<Disposition> {
    let mut rest = results;
    deliveries
        .iter()
        .map(|delivery| match &delivery.deltas {
            Err(why) => {
                log::error!("a message goes to the dead letters: {why}");
                Disposition::DeadLetter
            }
            Ok(deltas) => {
                let (own, others) = rest.split_at(deltas.len());
                rest = others;
                disposition(deltas, own)
            }
        })
        .collect()
}

/// Counts what became of messages and, of those that are done, measures the ways of their deltas.
fn count(metrics: &WorkerMetrics, deliveries: &[Delivery], dispositions: &[Disposition]) {
    metrics.taken(None);
    for (delivery, disposition) in deliveries.iter().zip(dispositions) {
        match (disposition, &delivery.deltas) {
            (Disposition::Ack, _) => {}
            (Disposition::Hold, _) => metrics.held.inc(),
            (Disposition::DeadLetter, Ok(_)) => metrics.refused.inc(),
            (Disposition::DeadLetter, Err(_)) => metrics.malformed.inc(),
        }
    }
    let done =
        deliveries.iter().zip(dispositions).filter(|(_, disposition)| **disposition == Disposition::Ack);
    let deltas = done.filter_map(|(delivery, _)| delivery.deltas.as_ref().ok()).flatten();
    metrics.settled(deltas.map(|delta| delta.requested_at));
}

fn disposition(deltas: &[Delta], results: &[Result<Outcome, ServiceError>]) -> Disposition {
    let mut disposition = Disposition::Ack;
    for (delta, result) in deltas.iter().zip(results) {
        match result {
            Ok(outcome) => log_outcome(delta, outcome),
            Err(ServiceError::Unavailable(_) | ServiceError::Overloaded) => return Disposition::Hold,
            Err(ServiceError::Refused(why)) => {
                let what = format_args!("its message goes to the dead letters: {why}");
                log_delta(Level::Error, delta, None, what);
                disposition = Disposition::DeadLetter;
            }
        }
    }
    disposition
}

/// What a customer is likely to ask for is told, and what is traced; the rest is for those who look closer.
fn log_outcome(delta: &Delta, outcome: &Outcome) {
    let rejection = outcome.entry.rejection.filter(|_| !outcome.replayed);
    let is_traced = delta.traceparent.as_ref().is_some_and(TraceParent::is_sampled);
    let level = if rejection.is_some() || is_traced { Level::Info } else { Level::Debug };
    if log::log_enabled!(level) {
        let seq = Some(outcome.entry.seq);
        match rejection {
            Some(why) => log_delta(level, delta, seq, format_args!("rejected: {}", why.as_str())),
            None if outcome.replayed => log_delta(level, delta, seq, format_args!("already in the log")),
            None => log_delta(level, delta, seq, format_args!("applied")),
        }
    }
}

fn log_delta(level: Level, delta: &Delta, seq: Option<i64>, what: fmt::Arguments) {
    let mut pairs = vec![
        ("request_id", Value::from_display(&delta.request_id)),
        ("user_id", Value::from_display(&delta.user_id)),
    ];
    pairs.extend(seq.map(|seq| ("seq", seq.into())));
    pairs.extend(delta.traceparent.iter().map(|trace| ("traceparent", trace.as_str().into())));
    logging::write(level, module_path!(), what, &pairs);
}
