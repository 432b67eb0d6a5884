//! Connections: the rate, the latency and the broker's cost of 202s by the number of connections, in closed loops without
//! a worker. Run it with several numbers of partitions to compare them.

use super::{LANES, Size, latency::milliseconds, uniform};
use crate::{
    bed::{Bed, cpu_s_of},
    report::Line,
    traffic::Kind,
};

/// The numbers of connections.
const CONNECTIONS: [u64; 4] = [1, 16, 64, 512];

pub async fn measure(size: &Size) -> Vec<Line> {
    let lines = |connections: u64| {
        let line = |what: &str, unit| {
            let what = format!("{what}, {connections} connections, {} partitions", size.partitions);
            Line::new("connections", what, unit)
        };
        [
            line("202s", "/s"),
            line("202 p50", "ms"),
            line("202 p99", "ms"),
            line("CPU s per million 202s, RabbitMQ", "s"),
        ]
    };
    let mut all = CONNECTIONS.map(lines);
    for _ in 0..size.runs {
        for (lines, connections) in all.iter_mut().zip(CONNECTIONS) {
            for (line, figure) in lines.iter_mut().zip(one(size, connections).await) {
                line.measured.push(figure);
            }
        }
    }
    all.into_iter().flatten().collect()
}

async fn one(size: &Size, connections: u64) -> [f64; 4] {
    let mut bed = Bed::new(size).await;
    let (serve, address) = bed.serve().await;
    let before = cpu_s_of("beam.smp");
    let answered = uniform(Kind::Add, connections, size.time).run(address).await;
    let cpu = cpu_s_of("beam.smp") - before;
    bed.expected += answered.total;
    assert!(serve.end("-TERM").await.success(), "a clean end");
    bed.drain(LANES).await;
    bed.finish().await;
    let [p50, p99] = [0.5, 0.99].map(|quantile| milliseconds(&answered.latencies, quantile));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let millions = answered.total as f64 / 1e6;
    [answered.per_second, p50, p99, cpu / millions]
}
