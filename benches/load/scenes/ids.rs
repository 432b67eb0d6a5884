//! Ids: what an `Idempotency-Key` costs, and user ids that are UUIDs, compared with adds without a key for users whose
//! ids are numbers.

use super::{LANES, MANY, Size, uniform};
use crate::{bed::Bed, report::Line, traffic::Kind};

pub async fn measure(size: &Size) -> Vec<Line> {
    let line = |what, against| Line::new("ids", what, "/s").against(against);
    let mut lines = [
        line("202s with a new key, 512 connections", "the same without a key"),
        line("apply, with a new key", "the same without a key"),
        line("202s, UUIDs as user ids, 512 connections", "the same with numbers"),
        line("apply, UUIDs as user ids", "the same with numbers"),
    ];
    for _ in 0..size.runs {
        let plain = accept_and_apply(size, Kind::Add).await;
        let keyed = accept_and_apply(size, Kind::KeyedAdd).await;
        let uuids = accept_and_apply(size, Kind::UuidAdd).await;
        for (lines, figures) in lines.chunks_mut(2).zip([keyed, uuids]) {
            lines[0].add(figures.0, plain.0);
            lines[1].add(figures.1, plain.1);
        }
    }
    lines.into()
}

async fn accept_and_apply(size: &Size, kind: Kind) -> (f64, f64) {
    let mut bed = Bed::new(size).await;
    let (serve, address) = bed.serve().await;
    let accepted = bed.load(address, &uniform(kind, MANY, size.time)).await;
    assert!(serve.end("-TERM").await.success(), "a clean end");
    let drained = bed.drain(LANES).await;
    bed.finish().await;
    (accepted, drained.per_second)
}
