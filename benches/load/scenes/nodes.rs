//! Nodes: one to four workers, on one broker and on a cluster of three, and the CPU time of a delta on each. Each figure
//! is measured once, because no target depends on it.

use std::fs;

use point_system::{local::LocalCluster, queue::Link};

use super::{LANES, MANY, Size, USERS, uniform};
use crate::{
    bed::{Bed, Drained, cpu_s, cpu_s_of},
    report::Line,
    support::{
        servers::{Database, own_folder},
        system::{PATIENCE, System},
    },
    traffic::{Kind, Users},
};

/// The numbers of workers.
const WORKERS: [usize; 3] = [1, 2, 4];

/// The figures of one broker or one cluster.
struct Figures {
    accepted: f64,
    /// By the number of workers.
    applied: Vec<Drained>,
    /// CPU seconds per million deltas: `serve` and RabbitMQ for a 202, and then `work`, PostgreSQL and RabbitMQ.
    cpu: [f64; 5],
}

pub async fn measure(size: &Size, of_message: usize) -> Vec<Line> {
    let one = figures(async || Bed::new(size).await, size, of_message).await;
    let (folder, _lock) = own_folder();
    let cluster = LocalCluster::start(&folder.join("rabbitmq")).await.expect("a private cluster");
    let on_cluster = async || {
        let mut system =
            System::on(Database::migrated().await, cluster.nodes[0].url(), size.partitions).await;
        system.node_amqp_url = Some(cluster.url_from(0));
        let link = Link::start(system.node().broker.url, system.names(), "bench");
        link.watch().ready(PATIENCE).await.expect("the queues are declared");
        link.close().await;
        Bed { system, expected: 0 }
    };
    let three = figures(on_cluster, size, of_message).await;
    cluster.shut_down().await.expect("RabbitMQ stops");
    fs::remove_dir_all(folder).expect("the folder is ours");

    let line = |what: String, unit: &str, three: f64, one: f64| {
        let mut line = Line::new("nodes", format!("{what}, three brokers"), unit).against("one broker");
        line.add(three, one);
        line
    };
    let mut lines = vec![line("202s, 512 connections".to_owned(), "/s", three.accepted, one.accepted)];
    for ((workers, three), one) in WORKERS.iter().zip(&three.applied).zip(&one.applied) {
        lines.push(line(format!("apply, {workers} × work"), "/s", three.per_second, one.per_second));
        lines.push(line(format!("deltas in a transaction, {workers} × work"), "", three.batch, one.batch));
    }
    let parts = ["serve", "RabbitMQ until the 202", "work", "PostgreSQL", "RabbitMQ from the 202"];
    for ((part, three), one) in parts.iter().zip(three.cpu).zip(one.cpu) {
        lines.push(line(format!("CPU s per million deltas, {part}"), "s", three, one));
    }
    lines
}

async fn figures(bed: impl AsyncFn() -> Bed, size: &Size, of_message: usize) -> Figures {
    let mut accepting = bed().await;
    let (serve, address) = accepting.serve().await;
    let millions = |bed: &Bed| {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let millions = bed.expected as f64 / 1e6;
        millions
    };
    let before = [cpu_s(&serve), cpu_s_of("beam.smp")];
    let accepted = accepting.load(address, &uniform(Kind::Add, MANY, size.time)).await;
    let [of_serve, accept] =
        [cpu_s(&serve) - before[0], cpu_s_of("beam.smp") - before[1]].map(|cpu| cpu / millions(&accepting));
    assert!(serve.end("-TERM").await.success(), "a clean end");

    let before = ["postgres", "beam.smp"].map(cpu_s_of);
    let work = accepting.work(LANES).await;
    accepting.all_applied().await;
    let of_work = cpu_s(&work) / millions(&accepting);
    let after = ["postgres", "beam.smp"].map(cpu_s_of);
    let [postgres, apply] = [0, 1].map(|part| (after[part] - before[part]) / millions(&accepting));
    assert!(work.end("-TERM").await.success(), "a clean end");
    accepting.finish().await;

    let mut applied = Vec::new();
    for workers in WORKERS {
        let mut bed = bed().await;
        bed.publish(&Users::Uniform(USERS), size.backlog, of_message).await;
        let draining = async {
            let mut processes = Vec::new();
            for _ in 0..workers {
                processes.push(bed.work(LANES).await);
            }
            bed.all_applied().await;
            for process in processes {
                assert!(process.end("-TERM").await.success(), "a clean end");
            }
        };
        applied.push(bed.pace_of(draining).await);
        bed.finish().await;
    }
    Figures { accepted, applied, cpu: [of_serve, accept, of_work, postgres, apply] }
}
