//! The log lines about single changes. Must not contain what is done with a change.

use std::fmt;

use log::{Level, kv::Value};

use crate::{
    domain::{Delta, Outcome, ServiceError, TraceParent},
    infra::logging,
};

/// The target of the lines, by which operators find and filter them.
const TARGET: &str = "point_system::worker";

/// Logs the outcome of a change.
pub(super) fn log_result(delta: &Delta, result: &Result<Outcome, ServiceError>) {
    match result {
        Ok(outcome) => log_outcome(delta, outcome),
        Err(ServiceError::Refused(why)) => {
            log_delta(Level::Error, delta, None, format_args!("its message goes to the dead letters: {why}"));
        }
        Err(
            ServiceError::Blocked(_)
            | ServiceError::Unavailable(_)
            | ServiceError::Overloaded
            | ServiceError::NotUnderstood(_),
        ) => {}
    }
}

/// Logs rejections, which customers are likely to ask about, and sampled traces at level info; other outcomes at debug.
fn log_outcome(delta: &Delta, outcome: &Outcome) {
    if outcome.first.is_some() {
        // The service has warned of it, with both changes.
        return;
    }
    let rejection = outcome.entry.rejection.as_ref().filter(|_| !outcome.replayed);
    let is_traced = delta.traceparent.as_ref().is_some_and(TraceParent::is_sampled);
    let level = if rejection.is_some() || is_traced { Level::Info } else { Level::Debug };
    if log::log_enabled!(target: TARGET, level) {
        let seq = Some(outcome.entry.seq);
        match rejection {
            Some(why) => log_delta(level, delta, seq, format_args!("rejected: {}", why.as_str())),
            None if outcome.replayed => log_delta(level, delta, seq, format_args!("already in the log")),
            None => log_delta(level, delta, seq, format_args!("applied")),
        }
    }
}

fn log_delta(level: Level, delta: &Delta, seq: Option<i64>, what: fmt::Arguments) {
    let mut pairs = vec![
        ("request_id", Value::from_display(&delta.request_id)),
        ("user_id", Value::from_display(&delta.user_id)),
    ];
    pairs.extend(seq.map(|seq| ("seq", seq.into())));
    pairs.extend(delta.traceparent.iter().map(|trace| ("traceparent", trace.as_str().into())));
    logging::write(level, TARGET, what, &pairs);
}
