//! Apply against the number of transactions at once, and against the deltas in a message. Once each: no target hangs on them.

use super::{LANES, Size, USERS};
use crate::{bed::Bed, report::Line, traffic::Users};

/// `--concurrency`.
const CONCURRENCY: [u16; 4] = [1, 2, 4, 8];

/// Deltas in a message.
pub const BATCHES: [usize; 5] = [1, 4, 16, 64, 256];

pub async fn concurrency(size: &Size, of_message: usize) -> Vec<Line> {
    let line =
        |n| Line::new("concurrency", format!("apply, --concurrency {n}"), "/s").against("--concurrency 4");
    let mut lines = CONCURRENCY.map(line);
    let mut rates = Vec::new();
    for concurrency in CONCURRENCY {
        rates.push(apply(size, concurrency, of_message).await);
    }
    for (line, rate) in lines.iter_mut().zip(&rates) {
        line.add(*rate, rates[2]);
    }
    lines.into()
}

pub async fn batches(size: &Size) -> Vec<Line> {
    let line =
        |n| Line::new("batch", format!("apply, {n} deltas a message"), "/s").against("1 delta a message");
    let mut lines = BATCHES.map(line);
    let mut rates = Vec::new();
    for of_message in BATCHES {
        rates.push(apply(size, LANES, of_message).await);
    }
    for (line, rate) in lines.iter_mut().zip(&rates) {
        line.add(*rate, rates[0]);
    }
    lines.into()
}

async fn apply(size: &Size, concurrency: u16, of_message: usize) -> f64 {
    let mut bed = Bed::new().await;
    bed.publish(&Users::Uniform(USERS), size.backlog, of_message).await;
    let drained = bed.drain(concurrency).await;
    bed.finish().await;
    drained.per_second
}
