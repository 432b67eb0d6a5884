//! Accept: the rate of 202s, without a worker.

use super::{FEW, MANY, Size, USERS, uniform};
use crate::{
    bed::{Bed, cpu_s, cpu_s_of, cpu_s_of_us},
    ceiling::HttpCeiling,
    report::{Line, Target},
    traffic::{Kind, OPERATIONS, Users},
};

pub struct Accept {
    pub lines: Vec<Line>,
    /// The mean number of deltas in a message, with [`MANY`] connections.
    pub of_message: usize,
}

pub async fn measure(size: &Size) -> Accept {
    let http = |n| format!("HTTP alone, {n} connections");
    let cpu = |what: &str| Line::new("accept", format!("CPU s per million 202s, {what}"), "s");
    let bare = "bare client, a message each, 512 in flight";
    let mut lines = [
        Line::new("accept", "202s, 64 connections", "/s").against(http(FEW)),
        Line::new("accept", "202s, 512 connections", "/s")
            .against(http(MANY))
            .target(Target::RatioAtLeast(0.5)),
        Line::new("accept", "202s, 512 connections", "/s").against(bare).target(Target::RatioAtLeast(1.0)),
        Line::new("accept", "operations in batches of 100, 64 connections", "/s")
            .against("202s, one each, 512 connections"),
        Line::new("accept", "deltas in a message, 512 connections", ""),
        cpu("serve"),
        cpu("RabbitMQ"),
        cpu("the load itself"),
    ];
    for _ in 0..size.runs {
        for (line, (measured, ceiling)) in lines.iter_mut().zip(one(size).await) {
            line.add(measured, ceiling);
        }
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small mean")]
    let of_message = lines[4].value().round() as usize;
    Accept { lines: lines.into(), of_message }
}

/// The figures of one run, each with its ceiling, if it has one.
async fn one(size: &Size) -> [(f64, f64); 8] {
    let bare = bare(size).await;
    let (http, mut bed) = (HttpCeiling::start().await, Bed::new(size).await);
    let (serve, address) = bed.serve().await;
    // Each figure right after its ceiling: the speed of the machine changes from minute to minute.
    let http_few = uniform(Kind::Add, FEW, size.time).run(http.address).await.per_second;
    let few = bed.load(address, &uniform(Kind::Add, FEW, size.time)).await;
    let http_many = uniform(Kind::Add, MANY, size.time).run(http.address).await.per_second;
    let (deltas_before, messages_before) = (bed.expected, bed.messages().await);
    let cpu = || [cpu_s(&serve), cpu_s_of("beam.smp"), cpu_s_of_us()];
    let cpu_before = cpu();
    let many = bed.load(address, &uniform(Kind::Add, MANY, size.time)).await;
    let cpu = cpu();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let deltas = (bed.expected - deltas_before) as f64;
    let of_message = deltas / f64::from(bed.messages().await - messages_before);
    let batches = bed.load(address, &uniform(Kind::Batch, FEW, size.time)).await;
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    let operations = batches * OPERATIONS as f64;
    assert!(serve.end("-TERM").await.success(), "a clean end");
    bed.drain(super::LANES).await;
    bed.finish().await;

    let cpu = |process: usize| ((cpu[process] - cpu_before[process]) / deltas * 1e6, f64::NAN);
    let of_message = (of_message, f64::NAN);
    [(few, http_few), (many, http_many), (many, bare), (operations, many), of_message, cpu(0), cpu(1), cpu(2)]
}

/// The rate of confirmed messages per second, with one delta each.
async fn bare(size: &Size) -> f64 {
    let mut bed = Bed::new(size).await;
    let rate = bed.publish(&Users::Uniform(USERS), size.backlog, 1).await;
    bed.drain(super::LANES).await;
    bed.finish().await;
    rate
}
