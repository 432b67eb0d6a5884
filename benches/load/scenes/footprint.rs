//! Footprint: resident memory, the size of the executable, and CPU seconds by process.

use std::time::Duration;

use super::{LANES, MANY, Size, USERS, uniform};
use crate::{
    bed::{Bed, cpu_s, cpu_s_of, resident_mib},
    report::{Line, Target},
    support::process::Process,
    traffic::{Kind, Users},
};

/// The time between two looks at the memory.
const LOOKS: Duration = Duration::from_millis(100);

pub async fn measure(size: &Size, of_message: usize) -> Vec<Line> {
    let memory = |what: &str| Line::new("footprint", format!("resident memory, {what}"), "MiB");
    let cpu = |what: &str| Line::new("footprint", format!("CPU s per million deltas, {what}"), "s");
    let mut lines = [
        memory("serve, idle"),
        memory("work, idle"),
        memory("serve, 512 connections").target(Target::AtMost(64.0)),
        memory("work, 512 connections").target(Target::AtMost(64.0)),
        memory("serve, a long backlog").target(Target::AtMost(128.0)),
        memory("work, a long backlog").target(Target::AtMost(128.0)),
        cpu("serve"),
        cpu("work"),
        cpu("PostgreSQL"),
        cpu("RabbitMQ"),
        Line::new("footprint", "size of the executable", "MiB").target(Target::AtMost(15.0)),
    ];
    for _ in 0..size.runs {
        let figures = one(size, of_message).await;
        for (line, figure) in lines.iter_mut().zip(figures) {
            line.measured.push(figure);
        }
    }
    lines.into()
}

async fn one(size: &Size, of_message: usize) -> [f64; 11] {
    let mut bed = Bed::new(size).await;
    let (serve, address) = bed.serve().await;
    let work = bed.work(LANES).await;
    let idle = [resident_mib(&serve), resident_mib(&work)];

    let cpu = || [cpu_s(&serve), cpu_s(&work), cpu_s_of("postgres"), cpu_s_of("beam.smp")];
    let before = cpu();
    let load = uniform(Kind::Add, MANY, size.time);
    let mut busy = [0.0, 0.0];
    while_looking(async { bed.load(address, &load).await }, &serve, &work, &mut busy).await;
    while_looking(bed.all_applied(), &serve, &work, &mut busy).await;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let millions = bed.expected as f64 / 1e6;
    let cpu: Vec<f64> = cpu().iter().zip(before).map(|(after, before)| (after - before) / millions).collect();
    assert!(work.end("-TERM").await.success(), "a clean end");

    bed.publish(&Users::Uniform(USERS), size.long_backlog, of_message).await;
    let work = bed.work(LANES).await;
    let mut backlog = [0.0, 0.0];
    while_looking(bed.all_applied(), &serve, &work, &mut backlog).await;
    for process in [serve, work] {
        assert!(process.end("-TERM").await.success(), "a clean end");
    }
    bed.finish().await;

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_point-system")).expect("the executable").len() as f64
        / f64::from(1 << 20);
    let [serve_idle, work_idle] = idle;
    let [serve_busy, work_busy] = busy;
    let [serve_backlog, work_backlog] = backlog;
    [
        serve_idle,
        work_idle,
        serve_busy,
        work_busy,
        serve_backlog,
        work_backlog,
        cpu[0],
        cpu[1],
        cpu[2],
        cpu[3],
        binary,
    ]
}

/// Records the highest memory of both processes while `busy` runs.
async fn while_looking<T>(
    busy: impl Future<Output = T>,
    serve: &Process,
    work: &Process,
    most: &mut [f64; 2],
) {
    let mut looks = tokio::time::interval(LOOKS);
    let mut busy = std::pin::pin!(busy);
    loop {
        for (most, process) in most.iter_mut().zip([serve, work]) {
            *most = most.max(resident_mib(process));
        }
        tokio::select! {
            _ = &mut busy => return,
            _ = looks.tick() => {}
        }
    }
}
