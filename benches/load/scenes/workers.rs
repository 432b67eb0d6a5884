//! Workers: apply by the number of transactions at once, and by the number of deltas in a message. Each is measured
//! once, because no target depends on it.

use super::{LANES, Size, USERS};
use crate::{bed::Bed, report::Line, traffic::Users};

/// `--concurrency`.
const CONCURRENCY: [u16; 4] = [1, 2, 4, 8];

/// The numbers of deltas in a message.
pub const BATCHES: [usize; 5] = [1, 4, 16, 64, 256];

/// The index of the concurrency that the others are compared with.
const USUAL: usize = 2;

pub async fn concurrency(size: &Size, of_message: usize) -> Vec<Line> {
    let mut rates = Vec::new();
    for concurrency in CONCURRENCY {
        rates.push((format!("--concurrency {concurrency}"), apply(size, concurrency, of_message).await));
    }
    against("concurrency", &rates, USUAL)
}

pub async fn batches(size: &Size) -> Vec<Line> {
    let mut rates = Vec::new();
    for of_message in BATCHES {
        rates.push((format!("{of_message} deltas a message"), apply(size, LANES, of_message).await));
    }
    against("batch", &rates, 0)
}

/// Returns a line for each rate, compared with the rate at `base`.
fn against(topic: &str, rates: &[(String, f64)], base: usize) -> Vec<Line> {
    let (against, ceiling) = &rates[base];
    let line = |(what, rate): &(String, f64)| {
        let mut line = Line::new(topic, format!("apply, {what}"), "/s").against(against);
        line.add(*rate, *ceiling);
        line
    };
    rates.iter().map(line).collect()
}

async fn apply(size: &Size, concurrency: u16, of_message: usize) -> f64 {
    let mut bed = Bed::new(size).await;
    bed.publish(&Users::Uniform(USERS), size.backlog, of_message).await;
    let drained = bed.drain(concurrency).await;
    bed.finish().await;
    drained.per_second
}
