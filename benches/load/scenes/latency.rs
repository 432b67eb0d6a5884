//! Latency at fixed rates: until the 202, and from the 202 until the balance shows the delta.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use hyper::StatusCode;
use tokio::time::interval;

use super::{FEW, LANES, MANY, Size, USERS};
use crate::{
    bed::Bed,
    report::{Line, Target},
    traffic::{Kind, Open, Users, Wire, histogram, record, request},
};

/// The time between two deltas that are followed until they are visible.
const PROBES: Duration = Duration::from_millis(20);

/// The rate that the targets apply to.
const TARGET_PER_SECOND: f64 = 2_000.0;

/// The latencies at one rate.
pub struct Latency {
    pub per_second: f64,
    pub accepted: Histogram<u64>,
    pub visible: Histogram<u64>,
}

pub async fn measure(size: &Size, sustained: f64) -> (Vec<Line>, Vec<Latency>) {
    let mut all = Vec::new();
    for per_second in [TARGET_PER_SECOND, sustained / 2.0] {
        let mut latency = Latency { per_second, accepted: histogram(), visible: histogram() };
        let targets = per_second == TARGET_PER_SECOND;
        let quantiles = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
        let line = |what: &str| Line::new("latency", format!("{what} at {per_second:.0}/s"), "ms");
        let mut lines = [
            line("202 p50"),
            line("202 p99"),
            line("202 p99.9"),
            line("202 to visible p50"),
            line("202 to visible p99"),
        ];
        if targets {
            lines[1].target = Some(Target::AtMost(10.0));
            lines[4].target = Some(Target::AtMost(50.0));
        }
        for _ in 0..size.runs {
            let (accepted, visible) = one(size, per_second).await;
            for (line, (_, quantile)) in lines.iter_mut().zip(quantiles) {
                line.measured.push(milliseconds(&accepted, quantile));
            }
            for (line, (_, quantile)) in lines[3..].iter_mut().zip(quantiles) {
                line.measured.push(milliseconds(&visible, quantile));
            }
            latency.accepted.add(&accepted).expect("the same bounds");
            latency.visible.add(&visible).expect("the same bounds");
        }
        all.push((lines, latency));
    }
    let (lines, latencies): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    (lines.into_iter().flatten().collect(), latencies)
}

async fn one(size: &Size, per_second: f64) -> (Histogram<u64>, Histogram<u64>) {
    let mut bed = Bed::new(size).await;
    let (serve, address) = bed.serve().await;
    let work = bed.work(LANES).await;
    let connections = u32::try_from(if per_second < 5_000.0 { FEW } else { MANY }).expect("a small number");
    let load = |time| Open { kind: Kind::Add, users: Users::Uniform(USERS), connections, per_second, time };
    // Creates every connection, channel and statement before the measurement.
    let warm_up = load(Duration::from_secs(2));
    bed.expected += warm_up.run(warm_up.connect(address).await).await.len();
    let load = load(size.hold);
    let wires = load.connect(address).await;
    let (accepted, (visible, probes)) = tokio::join!(load.run(wires), probe(address, size.hold));
    bed.expected += accepted.len() + probes;
    bed.all_applied().await;
    for process in [serve, work] {
        assert!(process.end("-TERM").await.success(), "a clean end");
    }
    bed.finish().await;
    (accepted, visible)
}

/// Sends the first delta of a new user now and then, and measures the time from its 202 until its balance is visible.
async fn probe(address: SocketAddr, time: Duration) -> (Histogram<u64>, u64) {
    let mut wire = Wire::open(address).await;
    let (mut visible, mut probes) = (histogram(), 0);
    let (began, mut due) = (Instant::now(), interval(PROBES));
    for user in USERS + 1.. {
        due.tick().await;
        if began.elapsed() > time {
            break;
        }
        assert_eq!(wire.send(request(Kind::Add, user)).await, StatusCode::ACCEPTED);
        let accepted = Instant::now();
        while wire.send(request(Kind::Read, user)).await == StatusCode::NOT_FOUND {}
        record(&mut visible, accepted);
        probes += 1;
    }
    (visible, probes)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn milliseconds(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1_000.0
}
