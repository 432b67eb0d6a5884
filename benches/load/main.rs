//! The load bench: runs the release executable under load on private servers. It measures every figure beside its
//! ceiling in the same run, and accounts for every delta at the end of each scene. It uses the harness of the tests.

#![expect(unreachable_pub, reason = "a file's `pub` says what other files may use")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use point_system::domain::Partitions;

use report::{Line, Report};
use scenes::Size;
use support::{servers::versions, sizing, system::System};

mod backlog;
mod bed;
mod ceiling;
mod charts;
mod report;
mod scenes;
mod traffic;

#[path = "../../tests/support/mod.rs"]
mod support;

/// The sustained rate to use if it was never measured.
const SUSTAINED: f64 = 4_000.0;

/// Measures the throughput, latency and cost of the service, each figure beside its ceiling in the same run.
#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
struct Options {
    /// Measure each figure once, and for a shorter time: about two and a half minutes in all.
    #[arg(long)]
    quick: bool,
    /// Also compare with a log of 100 million rows. This takes an hour.
    #[arg(long, conflicts_with = "quick")]
    long: bool,
    /// Measure only these topics: accept, connections, apply, sync (with read), sustained, latency, skew, ids, batch,
    /// concurrency, nodes, growth, footprint.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The number of partitions.
    #[arg(long, default_value_t = Partitions::DEFAULT, value_name = "N")]
    partitions: Partitions,
    /// Write the figures to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table into docs/performance.md, and the charts beside it. Other topics stay as they are.
    #[arg(long)]
    docs: bool,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn size(&self) -> Size {
        let mut size = if self.quick {
            Size {
                partitions: self.partitions,
                runs: 1,
                time: Duration::from_secs(1),
                hold: Duration::from_secs(3),
                backlog: 60_000,
                long_backlog: 200_000,
                log_rows: vec![0, 100_000],
            }
        } else {
            Size {
                partitions: self.partitions,
                runs: 3,
                time: Duration::from_secs(5),
                hold: Duration::from_secs(30),
                backlog: 500_000,
                long_backlog: 1_000_000,
                log_rows: vec![0, 1_000_000, 10_000_000],
            }
        };
        size.log_rows.extend(self.long.then_some(100_000_000));
        size
    }

    fn wants(&self, topic: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == topic)
    }
}

#[tokio::main]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some(ceiling::ARGUMENT) {
        return ceiling::serve().await.expect("a server");
    }
    let options = Options::parse();
    let size = options.size();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance");
    let mut lines = Vec::new();
    let mut of_message = 32;
    if options.wants("accept") {
        let accept = scenes::accept::measure(&size).await;
        of_message = accept.of_message;
        show(&mut lines, accept.lines);
    }
    if options.wants("connections") {
        show(&mut lines, scenes::connections::measure(&size).await);
    }
    if options.wants("apply") {
        show(&mut lines, scenes::apply::measure(&size).await);
    }
    if options.wants("sync") {
        show(&mut lines, scenes::waiting::measure(&size).await);
    }
    let earlier = Report::read_json(&folder.join("figures.json"));
    let of_sustained =
        |report: &Report| report.lines.iter().find(|line| line.topic == "sustained").map(Line::value);
    let mut sustained = earlier.as_ref().and_then(of_sustained).unwrap_or(SUSTAINED);
    if options.wants("sustained") {
        let line = scenes::sustained::measure(&size).await;
        sustained = line.value();
        show(&mut lines, vec![line]);
    }
    if options.wants("latency") {
        let (of_latency, latencies) = scenes::latency::measure(&size, sustained).await;
        show(&mut lines, of_latency);
        if options.docs {
            charts::latency(&folder, &latencies);
        }
    }
    if options.wants("skew") {
        show(&mut lines, scenes::skew::measure(&size, of_message).await);
    }
    if options.wants("ids") {
        show(&mut lines, scenes::ids::measure(&size).await);
    }
    if options.wants("batch") {
        show(&mut lines, scenes::workers::batches(&size).await);
    }
    if options.wants("concurrency") {
        show(&mut lines, scenes::workers::concurrency(&size, of_message).await);
    }
    if options.wants("nodes") {
        show(&mut lines, scenes::nodes::measure(&size, of_message).await);
    }
    if options.wants("growth") {
        show(&mut lines, scenes::growth::measure(&size, of_message).await);
    }
    if options.wants("footprint") {
        show(&mut lines, scenes::footprint::measure(&size, of_message).await);
    }
    let report = Report { machine: machine(size.partitions).await, lines };
    if let Some(file) = &options.json {
        report.write_json(file);
    }
    if options.docs {
        document(&folder, &size, &report.together_with(earlier));
    }
}

/// Writes the figures, the charts and the table of the documentation.
fn document(folder: &Path, size: &Size, report: &Report) {
    report.write_json(&folder.join("figures.json"));
    charts::batch(folder, &report.lines, &scenes::workers::BATCHES);
    charts::growth(folder, &report.lines, &size.log_rows);
    report.write_into(&folder.with_extension("md"));
    sizing::write(Path::new(env!("CARGO_MANIFEST_DIR")));
}

/// Describes the machine and the software of the measurement.
async fn machine(partitions: Partitions) -> String {
    let cores = std::thread::available_parallelism().expect("a number of cores");
    let versions = versions(&System::new().await).await;
    let today = jiff::Zoned::now().date();
    format!(
        "{today}, {cores} cores for everything, the load included, {versions}, partitions: {partitions}; medians of the \
         runs."
    )
}

/// Prints the figures of a scene.
fn show(lines: &mut Vec<Line>, of_scene: Vec<Line>) {
    for line in &of_scene {
        println!("{line}");
    }
    lines.extend(of_scene);
}
