//! Consumer → `apply_delta` → ack. No HTTP, no AMQP frame and no SQL may enter.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use crate::{
    domain::{Delta, Outcome, PointService, ServiceError},
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
    while let Some(deliveries) = consumer.next().await {
        let deltas =
            deliveries.iter().filter_map(|delivery| delivery.deltas.as_ref().ok()).flatten().cloned();
        let deltas: Vec<_> = deltas.collect();
        let results = if deltas.is_empty() {
            Ok(Vec::new())
        } else {
            service.apply_deltas(consumer.partition(), deltas).await
        };
        let dispositions = match results {
            Ok(results) => dispositions(&deliveries, &results),
            Err(error) => {
                log::warn!("partition {}: {error}; its messages come again", consumer.partition());
                vec![Disposition::Hold; deliveries.len()]
            }
        };
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

fn disposition(deltas: &[Delta], results: &[Result<Outcome, ServiceError>]) -> Disposition {
    let mut disposition = Disposition::Ack;
    for (Delta { request_id, user_id, .. }, result) in deltas.iter().zip(results) {
        match result {
            Ok(outcome) => log_outcome(outcome),
            Err(ServiceError::Unavailable(_) | ServiceError::Overloaded) => return Disposition::Hold,
            Err(ServiceError::Refused(why)) => {
                log::error!(request_id:%, user_id:%; "its message goes to the dead letters: {why}");
                disposition = Disposition::DeadLetter;
            }
        }
    }
    disposition
}

fn log_outcome(outcome: &Outcome) {
    let entry = &outcome.entry;
    let (request_id, user_id, seq) = (entry.delta.request_id, entry.delta.user_id, entry.seq);
    match (entry.rejection, outcome.replayed) {
        (Some(why), false) => log::info!(request_id:%, user_id:%, seq; "rejected: {}", why.as_str()),
        (None, false) => log::debug!(request_id:%, user_id:%, seq; "applied"),
        (_, true) => log::debug!(request_id:%, user_id:%, seq; "already in the log"),
    }
}
