//! How many machines a load takes, computed from the CPU seconds that the bench measured. The bench writes the table into
//! docs/size.md, and a test compares it.

use std::{fs, path::Path};

use serde_json::Value;

/// The loads of the table, in deltas per second.
const LOADS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// The share of its processors that a machine may use on average. The rest is for peaks, and for the load of a machine
/// that fails.
const BUSY_MAX: f64 = 0.5;

/// The cores of a machine for `serve` or `work`.
const NODE_CORES: f64 = 2.0;

/// The fewest machines of a role, so that one may fail.
const NODES_MIN: f64 = 2.0;

/// The fewest cores of a database or a broker.
const SERVER_CORES_MIN: f64 = 2.0;

const BEGIN: &str = "<!-- sizes: written by `just bench --docs` -->";
const END: &str = "<!-- end of the sizes -->";

/// The text between the marks of docs/size.md.
pub fn written(document: &str) -> &str {
    let (_, rest) = document.split_once(BEGIN).expect("the mark of the beginning");
    rest.split_once(END).expect("the mark of the end").0
}

/// Writes the table between the marks of docs/size.md.
pub fn write(root: &Path) {
    let file = root.join("docs/size.md");
    let text = fs::read_to_string(&file).expect("the documentation");
    fs::write(&file, text.replacen(written(&text), &table(root), 1)).expect("the documentation");
}

/// The cost of a delta for each process, and the machines for each load.
pub fn table(root: &Path) -> String {
    let figures = fs::read_to_string(root.join("docs/performance/figures.json")).expect("figures");
    let figures: Value = serde_json::from_str(&figures).expect("JSON");
    let [serve, work, postgres, broker] =
        ["serve", "work", "PostgreSQL", "RabbitMQ"].map(|process| cpu_us(&figures, process));
    let head = format!(
        "\nCPU time per delta: `serve` {serve:.1} µs, `work` {work:.1} µs, PostgreSQL {postgres:.1} µs, RabbitMQ \
         {broker:.1} µs.\n\n\
         | deltas/s | `serve` | `work` | PostgreSQL | RabbitMQ |\n|--:|---|---|---|---|\n"
    );
    let row = |load: u32| {
        let busy = |cost: f64| f64::from(load) * cost / 1e6;
        let nodes = |cost| {
            let nodes = (busy(cost) / BUSY_MAX / NODE_CORES).ceil().max(NODES_MIN);
            format!("{:.2} busy: {nodes} × {NODE_CORES} cores", busy(cost))
        };
        let server = |cost| {
            let cores = (busy(cost) / BUSY_MAX).max(SERVER_CORES_MIN).log2().ceil().exp2();
            format!("{:.2} busy: {cores} cores", busy(cost))
        };
        let cells = [nodes(serve), nodes(work), server(postgres), server(broker)];
        format!("| {load} | {} |\n", cells.join(" | "))
    };
    head + &LOADS.map(row).concat()
}

/// The CPU time of a process per delta in microseconds, which are the seconds per million: the median of the runs.
fn cpu_us(figures: &Value, process: &str) -> f64 {
    let what = format!("CPU s per million deltas, {process}");
    let lines = figures["lines"].as_array().expect("lines");
    let line = lines.iter().find(|line| line["what"] == what.as_str()).expect("a figure");
    let runs = line["measured"].as_array().expect("runs").iter().map(|run| run.as_f64().expect("a number"));
    let mut runs: Vec<f64> = runs.collect();
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}
