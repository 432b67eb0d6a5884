//! Sustained: the highest end-to-end rate of adds at which the backlog does not grow. It is measured once, by a search.

use std::time::Duration;

use tokio::time::{Instant, interval};

use super::{FEW, LANES, MANY, Size, USERS, uniform};
use crate::{
    bed::Bed,
    report::Line,
    traffic::{Kind, Open, Users},
};

/// How often the search halves the range of the rate.
const HALVINGS: u32 = 4;

/// During the search, a rate must hold for [`Size::hold`] divided by this.
const LOOK: u32 = 3;

/// The factor from a rate that does not hold for long enough to the next rate.
const STEP: f64 = 0.95;

/// The time between two looks at the backlog.
const LOOKS: Duration = Duration::from_millis(250);

/// In the second half, the backlog must not exceed the deltas that arrive in this time. Such a backlog is work in
/// progress.
const UNDER_WAY_S: f64 = 1.0;

pub async fn measure(size: &Size) -> Line {
    let line = Line::new("sustained", "202s and applied, the backlog not growing", "/s");
    let mut line = line.against("202s alone, 512 connections");
    let mut bed = Bed::new(size).await;
    let (serve, address) = bed.serve().await;
    let alone = bed.load(address, &uniform(Kind::Add, MANY, size.time)).await;
    let work = bed.work(LANES).await;
    bed.all_applied().await;
    let (mut low, mut high) = (0.0, alone);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if holds(&mut bed, address, middle, size.hold / LOOK).await {
            low = middle;
        } else {
            high = middle;
        }
        bed.all_applied().await;
    }
    while !holds(&mut bed, address, low, size.hold).await {
        low *= STEP;
        bed.all_applied().await;
    }
    line.add(low, alone);
    for process in [serve, work] {
        assert!(process.end("-TERM").await.success(), "a clean end");
    }
    bed.finish().await;
    line
}

/// Returns whether the backlog stays small at this rate and the service keeps up with it.
async fn holds(bed: &mut Bed, address: std::net::SocketAddr, per_second: f64, time: Duration) -> bool {
    let connections = u32::try_from(if per_second < 5_000.0 { FEW } else { MANY }).expect("a small number");
    let load = Open { kind: Kind::Add, users: Users::Uniform(USERS), connections, per_second, time };
    let wires = load.connect(address).await;
    let loading = tokio::spawn(async move { load.run(wires).await.len() });
    let (began, before) = (Instant::now(), bed.applied().await);
    let mut looks = interval(LOOKS);
    let mut holds = true;
    while began.elapsed() < time {
        looks.tick().await;
        let due = began.elapsed().as_secs_f64() * per_second;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let behind = due - (bed.applied().await - before) as f64;
        if began.elapsed() > time / 2 && behind > per_second * UNDER_WAY_S {
            holds = false;
        }
    }
    bed.expected += loading.await.expect("no panic");
    holds
}
