//! The table of figures, for people, machines and the documentation. Must not contain a measurement.

use std::{fmt, fs, path::Path};

use serde::{Deserialize, Serialize};

/// All figures, and where and when they were measured.
#[derive(Serialize, Deserialize)]
pub struct Report {
    pub machine: String,
    pub lines: Vec<Line>,
}

impl Report {
    /// The report of an earlier run.
    pub fn read_json(file: &Path) -> Option<Self> {
        let json = fs::read_to_string(file).ok()?;
        Some(serde_json::from_str(&json).expect("the figures of an earlier run"))
    }

    /// Adds the figures that an earlier run measured for other topics.
    pub fn together_with(mut self, earlier: Option<Self>) -> Self {
        let others = earlier.into_iter().flat_map(|earlier| earlier.lines);
        let others = others.filter(|old| self.lines.iter().all(|new| new.topic != old.topic));
        let others: Vec<Line> = others.collect();
        self.lines.extend(others);
        self.lines.sort_by_key(|line| TOPICS.iter().position(|topic| *topic == line.topic));
        self
    }

    pub fn write_json(&self, file: &Path) {
        let json = serde_json::to_string_pretty(self).expect("figures and names");
        fs::write(file, json).expect("a file that can be written");
    }

    /// Replaces the text between the marks of `file`.
    pub fn write_into(&self, file: &Path) {
        let text = fs::read_to_string(file).expect("the documentation");
        let (before, rest) = text.split_once(BEGIN).expect("the mark of the beginning");
        let (_, after) = rest.split_once(END).expect("the mark of the end");
        let mut table = format!("{}\n\n", self.machine);
        table += "| | measured | | ceiling | ratio | target | |\n|---|--:|---|--:|--:|--:|---|\n";
        for line in &self.lines {
            table += &line.row();
        }
        fs::write(file, format!("{before}{BEGIN}\n{table}{END}{after}")).expect("the documentation");
    }
}

const BEGIN: &str = "<!-- figures: written by `just bench --docs` -->";
const END: &str = "<!-- end of the figures -->";

/// The topics, in the order of the table.
const TOPICS: [&str; 14] = [
    "accept",
    "connections",
    "apply",
    "sync",
    "read",
    "sustained",
    "latency",
    "skew",
    "ids",
    "batch",
    "concurrency",
    "nodes",
    "growth",
    "footprint",
];

/// One figure in every run, with its ceiling.
#[derive(Serialize, Deserialize)]
pub struct Line {
    /// accept, apply, …
    pub topic: String,
    pub what: String,
    pub unit: String,
    pub measured: Vec<f64>,
    pub ceiling: Option<Ceiling>,
    pub target: Option<Target>,
}

/// The external limit that the figure is compared with, measured in the same run.
#[derive(Serialize, Deserialize)]
pub struct Ceiling {
    pub what: String,
    pub measured: Vec<f64>,
}

/// The value that the figure should reach.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At least this share of its ceiling.
    RatioAtLeast(f64),
    /// At most this, in its unit.
    AtMost(f64),
}

impl Line {
    pub fn new(topic: &str, what: impl Into<String>, unit: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            what: what.into(),
            unit: unit.to_owned(),
            measured: Vec::new(),
            ceiling: None,
            target: None,
        }
    }

    pub fn against(mut self, what: impl Into<String>) -> Self {
        self.ceiling = Some(Ceiling { what: what.into(), measured: Vec::new() });
        self
    }

    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Adds the figure of one run, and its ceiling in that run.
    pub fn add(&mut self, measured: f64, ceiling: f64) {
        self.measured.push(measured);
        if let Some(of) = &mut self.ceiling {
            of.measured.push(ceiling);
        }
    }

    pub fn value(&self) -> f64 {
        median(self.measured.clone())
    }

    /// The median of the runs' ratios.
    pub fn ratio(&self) -> Option<f64> {
        let ceiling = self.ceiling.as_ref()?;
        Some(median(
            self.measured.iter().zip(&ceiling.measured).map(|(measured, of)| measured / of).collect(),
        ))
    }

    /// Returns whether it reaches its target, if it has one.
    pub fn holds(&self) -> Option<bool> {
        Some(match self.target? {
            Target::RatioAtLeast(least) => self.ratio()? >= least,
            Target::AtMost(most) => self.value() <= most,
        })
    }
}

impl Line {
    /// The cells of the table.
    fn cells(&self) -> [String; 7] {
        let ceiling = self.ceiling.as_ref().map(|of| (figure(median(of.measured.clone())), of.what.clone()));
        let (ceiling, of) = ceiling.unwrap_or_default();
        let target = match self.target {
            Some(Target::RatioAtLeast(least)) => format!("≥ {least}"),
            Some(Target::AtMost(most)) => format!("≤ {most}"),
            None => String::new(),
        };
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let verdict = self.holds().map_or("", |holds| if holds { "holds" } else { "MISSED" });
        let what = format!("{}: {}", self.topic, self.what);
        let measured = format!("{} {}", figure(self.value()), self.unit);
        [what, measured, of, ceiling, ratio, target, verdict.to_owned()]
    }

    fn row(&self) -> String {
        format!("| {} |\n", self.cells().join(" | "))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [what, measured, of, ceiling, ratio, target, verdict] = self.cells();
        write!(f, "{what:<56} {measured:>12}  {of:<43} {ceiling:>7} {ratio:>6}  {target:<6} {verdict}")
    }
}

fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
