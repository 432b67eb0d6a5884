//! The log: one line per record on standard error, for people or as JSON. Must not contain what is logged.

use std::{
    fmt,
    io::{self, Write},
};

use clap::ValueEnum;
use jiff::{Timestamp, Unit};
use log::{
    Level, Record,
    kv::{self, Key, Value, VisitSource, VisitValue},
};
use serde::{Serializer, ser::SerializeMap};

/// The filter if `RUST_LOG` is not set: our own lines, and warnings of the libraries.
const DEFAULT: &str = "warn,point_system=info";

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts the log of this process.
pub fn start(format: LogFormat) {
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(DEFAULT));
    match format {
        LogFormat::Text => {}
        LogFormat::Json => {
            builder.format(|out, record| {
                write_json(&mut *out, record).map_err(io::Error::other)?;
                out.write_all(b"\n")
            });
        }
    }
    builder.init();
}

/// Logs a line with pairs that are known only at run time. For all other lines, use the macros of `log`.
pub fn write(level: Level, target: &'static str, message: fmt::Arguments, pairs: &[(&'static str, Value)]) {
    let record = Record::builder()
        .level(level)
        .target(target)
        .module_path_static(Some(target))
        .args(message)
        .key_values(&pairs)
        .build();
    log::logger().log(&record);
}

/// Writes one object: timestamp (RFC 3339, with microseconds), level, target, message, and the pairs of the record.
fn write_json(out: impl Write, record: &Record) -> serde_json::Result<()> {
    let now = Timestamp::now().round(Unit::Microsecond).unwrap_or_default();
    let mut json = serde_json::Serializer::new(out);
    let mut line = json.serialize_map(None)?;
    line.serialize_entry("timestamp", &format_args!("{now:.6}"))?;
    line.serialize_entry("level", record.level().as_str())?;
    line.serialize_entry("target", record.target())?;
    line.serialize_entry("message", record.args())?;
    let mut pairs = Pairs { line: &mut line, result: Ok(()) };
    // `result` has the error that it returns as well.
    record.key_values().visit(&mut pairs).ok();
    pairs.result?;
    line.end()
}

struct Pairs<'a, M: SerializeMap> {
    line: &'a mut M,
    result: Result<(), M::Error>,
}

impl<'kvs, M: SerializeMap> VisitSource<'kvs> for Pairs<'_, M> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        value.visit(Pair { key: key.as_str(), pairs: self })
    }
}

/// A pair. Its value is written as a number or boolean if it is one, and as a string otherwise.
struct Pair<'p, 'a, M: SerializeMap> {
    key: &'p str,
    pairs: &'p mut Pairs<'a, M>,
}

impl<M: SerializeMap> Pair<'_, '_, M> {
    fn add(&mut self, value: &(impl serde::Serialize + ?Sized)) -> Result<(), kv::Error> {
        self.pairs.result = self.pairs.line.serialize_entry(self.key, value);
        if self.pairs.result.is_ok() { Ok(()) } else { Err(kv::Error::msg("the log can't be written")) }
    }
}

impl<M: SerializeMap> VisitValue<'_> for Pair<'_, '_, M> {
    fn visit_any(&mut self, value: Value) -> Result<(), kv::Error> {
        self.add(&format_args!("{value}"))
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.add(&value)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.add(&value)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.add(&value)
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.add(&value)
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.add(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_one_object_with_the_pairs_as_they_are() {
        let mut out = Vec::new();
        let pairs: &[(&str, Value)] = &[
            ("request_id", Value::from_display(&"01a2")),
            ("seq", 7i64.into()),
            ("slow", true.into()),
            ("seconds", 0.5.into()),
            ("route", "/\"\n".into()),
        ];
        let what = "two\nlines";
        let mut record = Record::builder();
        record.level(Level::Warn).target("point_system::worker").key_values(&pairs);
        write_json(&mut out, &record.args(format_args!("{what}")).build()).expect("written");
        assert!(!out.contains(&b'\n'));
        let mut line: serde_json::Value = serde_json::from_slice(&out).expect("an object");
        let timestamp = line["timestamp"].take();
        assert!(timestamp.as_str().is_some_and(|text| text.parse::<Timestamp>().is_ok()), "{timestamp}");
        let expected = json!({
            "timestamp": null, "level": "WARN", "target": "point_system::worker", "message": "two\nlines",
            "request_id": "01a2", "seq": 7, "slow": true, "seconds": 0.5, "route": "/\"\n",
        });
        assert_eq!(line, expected);
    }
}
