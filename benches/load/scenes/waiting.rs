//! Waiting: requests that wait for PostgreSQL, with `Prefer: wait`, and reads.

use super::{FEW, MANY, Size, USERS, uniform};
use crate::{
    bed::Bed,
    ceiling::{self, HttpCeiling},
    report::{Line, Target},
    traffic::{Kind, Users},
};

pub async fn measure(size: &Size) -> Vec<Line> {
    let one = "the same transaction, one by one";
    let http = "HTTP alone, 512 connections";
    let mut lines = [
        Line::new("sync", "Prefer: wait, 64 connections", "/s").against(one),
        Line::new("sync", "Prefer: wait, 512 connections", "/s")
            .against(one)
            .target(Target::RatioAtLeast(8.0)),
        Line::new("read", "balances, 64 connections", "/s").against("HTTP alone, 64 connections"),
        Line::new("read", "balances, 512 connections", "/s").against(http).target(Target::RatioAtLeast(0.5)),
        Line::new("read", "balances, 512 connections", "/s").against("pgbench -S, 64 connections"),
    ];
    for _ in 0..size.runs {
        let mut bed = Bed::new(size).await;
        let one_by_one = ceiling::one_by_one(&bed.system, &Users::Uniform(USERS), size.time).await;
        bed.expected = bed.applied().await;
        let (serve, address) = bed.serve().await;
        for (line, connections) in [(0, FEW), (1, MANY)] {
            let rate = bed.load(address, &uniform(Kind::Wait, connections, size.time)).await;
            lines[line].add(rate, one_by_one);
        }
        // So that every user of the reads exists.
        bed.expected += ceiling::see_all(&bed.system, USERS).await;
        let http = HttpCeiling::start().await;
        for (line, connections) in [(2, FEW), (3, MANY)] {
            let load = uniform(Kind::Read, connections, size.time);
            let ceiling = load.run(http.address).await.per_second;
            lines[line].add(load.run(address).await.per_second, ceiling);
        }
        let pgbench = ceiling::pgbench(&bed.system, FEW, size.time).await;
        let last = lines[3].measured[lines[3].measured.len() - 1];
        lines[4].add(last, pgbench);
        assert!(serve.end("-TERM").await.success(), "a clean end");
        bed.finish().await;
    }
    lines.into()
}
