//! The progress of a command: a bar on a terminal, or a line in the log every few seconds. Must not contain the work.

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// The time between two lines in the log.
const TELL_EVERY_S: u64 = 5;

/// A bar on a terminal, and a hidden one elsewhere.
pub(super) fn bar(template: &str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template(template).expect("a template"));
    bar
}

/// How far a command is with its rows.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
    told: Mutex<Instant>,
}

impl Progress {
    /// With `length` rows to do, if their number is known.
    pub(super) fn of_rows(length: Option<u64>) -> Self {
        let template = match length {
            Some(_) => "{wide_bar} {human_pos} of {human_len} rows, {per_sec}, {eta} to go",
            None => "{spinner} {human_pos} rows, {per_sec}",
        };
        let bar = bar(template);
        if let Some(length) = length {
            bar.set_length(length);
        }
        let now = Instant::now();
        Self { bar, started: now, told: Mutex::new(now) }
    }

    /// Notes that this many more rows are done.
    pub(super) fn advance(&self, rows: u64) {
        self.bar.inc(rows);
        if !self.bar.is_hidden() {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= Duration::from_secs(TELL_EVERY_S) {
            *told = Instant::now();
            log::info!("{}", self.told());
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "it is for people")]
    fn told(&self) -> String {
        let (done, seconds) = (self.bar.position(), self.started.elapsed().as_secs_f64());
        let rate = done as f64 / seconds;
        match self.bar.length() {
            None => format!("{done} rows, {rate:.0} rows/s"),
            Some(length) => {
                let left = length.saturating_sub(done) as f64 / rate;
                format!("{done} of {length} rows, {rate:.0} rows/s, {left:.0} s to go")
            }
        }
    }

    /// Removes the bar.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
