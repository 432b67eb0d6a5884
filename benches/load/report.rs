//! What was measured: the table, and the same for machines. Nothing is measured here.

use std::fmt;

use serde::Serialize;

/// One figure, each time it was measured, with what limits it from outside.
#[derive(Serialize)]
pub struct Line {
    /// accept, apply, …
    pub topic: &'static str,
    pub what: String,
    pub unit: &'static str,
    pub measured: Vec<f64>,
    pub ceiling: Option<Ceiling>,
    pub target: Option<Target>,
}

/// What the figure is measured against, in the same run.
#[derive(Serialize)]
pub struct Ceiling {
    pub what: String,
    pub measured: Vec<f64>,
}

/// What the figure should come to.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// At least this share of its ceiling.
    RatioAtLeast(f64),
    /// At most this, in its unit.
    AtMost(f64),
}

impl Line {
    pub fn new(topic: &'static str, what: impl Into<String>, unit: &'static str) -> Self {
        Self { topic, what: what.into(), unit, measured: Vec::new(), ceiling: None, target: None }
    }

    pub fn against(mut self, what: impl Into<String>) -> Self {
        self.ceiling = Some(Ceiling { what: what.into(), measured: Vec::new() });
        self
    }

    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Adds what one run came to, and its ceiling in that run.
    pub fn add(&mut self, measured: f64, ceiling: f64) {
        self.measured.push(measured);
        if let Some(of) = &mut self.ceiling {
            of.measured.push(ceiling);
        }
    }

    pub fn with(mut self, measured: f64) -> Self {
        self.measured.push(measured);
        self
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

    /// Whether it comes to its target.
    pub fn holds(&self) -> Option<bool> {
        Some(match self.target? {
            Target::RatioAtLeast(least) => self.ratio()? >= least,
            Target::AtMost(most) => self.value() <= most,
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |value: f64| if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        write!(f, "{:<12}{:<44}{:>10} {:<6}", self.topic, self.what, figure(self.value()), self.unit)?;
        match (&self.ceiling, self.ratio()) {
            (Some(of), Some(ratio)) => {
                let ceiling = median(of.measured.clone());
                write!(f, "{ratio:>8.2} × {:>8}  {:<34}", figure(ceiling), of.what)?;
            }
            _ => write!(f, "{:55}", "")?,
        }
        let target = match self.target {
            Some(Target::RatioAtLeast(least)) => format!("≥ {least}"),
            Some(Target::AtMost(most)) => format!("≤ {most}"),
            None => return Ok(()),
        };
        write!(f, "{target:<7} {}", if self.holds() == Some(true) { "holds" } else { "MISSED" })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
