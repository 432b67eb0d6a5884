//! Apply: how fast one worker drains a backlog, compared with its transactions alone.

use std::time::Duration;

use super::{LANES, MANY, Size, USERS, uniform};
use crate::{
    bed::{Bed, Drained},
    ceiling,
    report::{Line, Target},
    traffic::{Closed, Kind, Users},
};

pub async fn measure(size: &Size) -> Vec<Line> {
    let line = |what: &str, least| {
        let line =
            Line::new("apply", format!("backlog {what}"), "/s").against("the same transactions, no queue");
        line.target(Target::RatioAtLeast(least))
    };
    let of_transaction = |what: &str| Line::new("apply", format!("deltas in a transaction, {what}"), "");
    let mut lines = [
        line("of one-delta messages", 0.35),
        of_transaction("one-delta messages"),
        line("as the publisher batches", 0.6),
        of_transaction("as batched"),
    ];
    for _ in 0..size.runs {
        for (of_kind, drained) in [(0, singles(size).await), (2, batched(size).await)] {
            let transactions = transactions(size, drained.batch).await;
            lines[of_kind].add(drained.per_second, transactions);
            lines[of_kind + 1].add(drained.batch, f64::NAN);
        }
    }
    lines.into()
}

/// A backlog of messages of one delta each, from the bare client.
async fn singles(size: &Size) -> Drained {
    let mut bed = Bed::new(size).await;
    bed.publish(&Users::Uniform(USERS), size.backlog, 1).await;
    drain(bed).await
}

/// A backlog from 512 HTTP connections.
async fn batched(size: &Size) -> Drained {
    let mut bed = Bed::new(size).await;
    let (serve, address) = bed.serve().await;
    let time = Duration::from_secs(600);
    bed.load(address, &Closed { at_most: size.backlog, ..uniform(Kind::Add, MANY, time) }).await;
    assert!(serve.end("-TERM").await.success(), "a clean end");
    drain(bed).await
}

async fn drain(bed: Bed) -> Drained {
    let drained = bed.drain(LANES).await;
    bed.finish().await;
    drained
}

/// The same transactions without a queue.
async fn transactions(size: &Size, batch: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small mean")]
    let batch = batch.round() as usize;
    let bed = Bed::new(size).await;
    let deltas = usize::try_from(size.backlog).expect("a count");
    let users = Users::Uniform(USERS);
    let pace = bed.pace_of(ceiling::apply(&bed.system, &users, deltas, batch, usize::from(LANES))).await;
    bed.system.finish().await;
    pace.per_second
}
