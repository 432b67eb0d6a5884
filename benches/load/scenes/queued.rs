//! Accept and apply: the two halves of the queued path, one after the other. No latency is measured here.

use super::{FEW, LANES, MANY, Size, USERS, uniform};
use crate::{
    bed::{Bed, Drained},
    ceiling::{self, HttpCeiling},
    report::{Line, Target},
    traffic::{Closed, Kind, Users},
};

pub struct Queued {
    pub lines: Vec<Line>,
    /// The mean number of deltas in a message of the publisher, with [`MANY`] connections.
    pub of_message: usize,
}

pub async fn measure(size: &Size) -> Queued {
    let http = |n| format!("HTTP alone, {n} connections");
    let few = Line::new("accept", "202s, 64 connections", "/s").against(http(FEW));
    let many = Line::new("accept", "202s, 512 connections", "/s").against(http(MANY));
    let bare = Line::new("accept", "202s, 512 connections", "/s").against("bare client, one delta a message");
    let of_message = Line::new("accept", "deltas in a message, 512 connections", "");
    let single = Line::new("apply", "backlog of one-delta messages", "/s").against("transactions alone");
    let batched = Line::new("apply", "backlog as the publisher batches", "/s").against("transactions alone");
    let mut lines = [
        few,
        many.target(Target::RatioAtLeast(0.5)),
        bare.target(Target::RatioAtLeast(1.0)),
        of_message,
        single.target(Target::RatioAtLeast(0.35)),
        Line::new("apply", "deltas in a transaction, one-delta messages", ""),
        batched.target(Target::RatioAtLeast(0.6)),
        Line::new("apply", "deltas in a transaction, as batched", ""),
    ];
    for _ in 0..size.runs {
        let (messages_per_s, drained, transactions) = singles(size).await;
        lines[4].add(drained.per_second, transactions);
        lines[5].add(drained.batch, f64::NAN);
        let run = accepted(size).await;
        lines[0].add(run.few, run.http_few);
        lines[1].add(run.many, run.http_many);
        lines[2].add(run.many, messages_per_s);
        lines[3].add(run.of_message, f64::NAN);
        lines[6].add(run.drained.per_second, run.transactions);
        lines[7].add(run.drained.batch, f64::NAN);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small mean")]
    let of_message = lines[3].value().round() as usize;
    Queued { lines: lines.into(), of_message }
}

/// A backlog of messages of one delta each, from the bare client.
async fn singles(size: &Size) -> (f64, Drained, f64) {
    let mut bed = Bed::new().await;
    let messages_per_s = bed.publish(&Users::Uniform(USERS), size.backlog, 1).await;
    let drained = bed.drain(LANES).await;
    bed.finish().await;
    let transactions = transactions(size, drained.batch).await;
    (messages_per_s, drained, transactions)
}

struct Accepted {
    few: f64,
    many: f64,
    http_few: f64,
    http_many: f64,
    of_message: f64,
    drained: Drained,
    transactions: f64,
}

/// A backlog from HTTP, with no worker; then a worker, with no HTTP.
async fn accepted(size: &Size) -> Accepted {
    let http = HttpCeiling::start().await;
    let http_few = uniform(Kind::Add, FEW, size.time).run(http.address).await.per_second;
    let http_many = uniform(Kind::Add, MANY, size.time).run(http.address).await.per_second;
    drop(http);

    let mut bed = Bed::new().await;
    let (serve, address) = bed.serve().await;
    let few = bed.load(address, &uniform(Kind::Add, FEW, size.time)).await;
    let (deltas_before, messages_before) = (bed.expected, bed.messages().await);
    let many = bed.load(address, &uniform(Kind::Add, MANY, size.time)).await;
    let messages = f64::from(bed.messages().await - messages_before);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let of_message = (bed.expected - deltas_before) as f64 / messages;
    if let Some(more @ 1..) = size.backlog.checked_sub(bed.expected) {
        let rest = Closed { at_most: more, ..uniform(Kind::Add, MANY, std::time::Duration::from_secs(600)) };
        bed.load(address, &rest).await;
    }
    assert!(serve.end("-TERM").await.success(), "a clean end");
    let drained = bed.drain(LANES).await;
    bed.finish().await;
    let transactions = transactions(size, drained.batch).await;
    Accepted { few, many, http_few, http_many, of_message, drained, transactions }
}

/// The same transactions without a queue.
async fn transactions(size: &Size, batch: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small mean")]
    let batch = batch.round() as usize;
    let bed = Bed::new().await;
    let deltas = usize::try_from(size.backlog).expect("a count");
    let rate = ceiling::apply(&bed.system, &Users::Uniform(USERS), deltas, batch, usize::from(LANES)).await;
    bed.finish().await;
    rate
}
