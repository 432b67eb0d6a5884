//! Skew: one hot user, and Zipf's law, compared with an even load over the same number of users.

use super::{LANES, MANY, Size, uniform};
use crate::{
    bed::Bed,
    report::{Line, Target},
    traffic::{Closed, Kind, Users},
};

/// The number of users.
const SKEWED_USERS: u32 = 100_000;

pub async fn measure(size: &Size, of_message: usize) -> Vec<Line> {
    let line = |topic, what: &str, least| {
        let target = Target::RatioAtLeast(least);
        Line::new(topic, what, "/s").against("the same, 100,000 users evenly").target(target)
    };
    let mut lines = [
        line("skew", "202s, one hot user, 512 connections", 0.8),
        line("skew", "202s, Zipf 1.0", 0.9),
        line("skew", "apply, one hot user", 0.8),
        line("skew", "apply, Zipf 1.0", 0.9),
    ];
    let skews = [Users::Hot, Users::zipf(SKEWED_USERS)];
    for _ in 0..size.runs {
        let evenly = accept_and_apply(size, &Users::Uniform(SKEWED_USERS.into()), of_message).await;
        for (line, users) in skews.iter().enumerate() {
            let skewed = accept_and_apply(size, users, of_message).await;
            lines[line].add(skewed.0, evenly.0);
            lines[line + 2].add(skewed.1, evenly.1);
        }
    }
    lines.into()
}

async fn accept_and_apply(size: &Size, users: &Users, of_message: usize) -> (f64, f64) {
    let mut bed = Bed::new(size).await;
    let (serve, address) = bed.serve().await;
    let load = Closed { users: users.clone(), ..uniform(Kind::Add, MANY, size.time) };
    let accepted = bed.load(address, &load).await;
    assert!(serve.end("-TERM").await.success(), "a clean end");
    if let Some(more @ 1..) = size.backlog.checked_sub(bed.expected) {
        bed.publish(users, more, of_message).await;
    }
    let drained = bed.drain(LANES).await;
    bed.finish().await;
    (accepted, drained.per_second)
}
