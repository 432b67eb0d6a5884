//! The trace that a request belongs to. Must not contain a decision: the trace is only carried along.

use std::fmt;

use uuid::Uuid;

/// The trace that a request belongs to: a `traceparent` of version 00 (W3C Trace Context §3.2), passed on unchanged.
/// It is not part of the change. The log keeps the id of the trace only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(Box<str>);

impl TraceParent {
    /// The length: `00-`, 32 digits of the trace, `-`, 16 of the parent, `-`, 2 of the flags.
    pub const BYTES: usize = 55;

    /// Parses a `traceparent`. Returns `None` if it is invalid: the standard says to ignore it then.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut part = |length: usize| {
            let digits = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            parts.next().filter(|part| part.len() == length && digits(part))
        };
        let (version, trace, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let is_set = |id: &str| id.bytes().any(|digit| digit != b'0');
        let valid = version == "00" && is_set(trace) && is_set(parent) && parts.next().is_none();
        valid.then(|| Self(text.into()))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the trace.
    ///
    /// # Panics
    /// Never: 32 hexadecimal digits are a UUID without its hyphens.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        TraceId(Uuid::try_parse(&self.0[3..35]).expect("32 hexadecimal digits"))
    }

    /// Returns whether the caller records this trace: the lowest bit of the flags.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.chars().next_back().and_then(|digit| digit.to_digit(16)).is_some_and(|flags| flags & 1 == 1)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a trace: 16 bytes, written as 32 hexadecimal digits in lower case (W3C Trace Context §3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(Uuid);

impl TraceId {
    /// The bytes, as the log keeps them.
    pub(super) fn get(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for TraceId {
    fn from(bytes: Uuid) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_valid_or_nothing() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(valid.len(), TraceParent::BYTES);
        assert!(TraceParent::parse(valid).is_some_and(|trace| trace.is_sampled() && trace.as_str() == valid));
        let id = TraceParent::parse(valid).expect("valid").trace_id();
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let trace = TraceParent::parse(&valid.replace("-01", &format!("-{flags}"))).expect(flags);
            assert_eq!(trace.is_sampled(), sampled, "{flags}");
        }
        for (from, to) in [
            ("00-4", "01-4"),
            ("00-4", "ff-4"),
            ("4bf9", "4BF9"),
            ("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            ("00f067aa0ba902b7", "0000000000000000"),
            ("-01", ""),
            ("-01", "-1"),
            ("-01", "-01-"),
            ("-01", "-0g"),
            ("4bf9", "4bé"),
            (valid, ""),
        ] {
            let wrong = valid.replacen(from, to, 1);
            assert_eq!(TraceParent::parse(&wrong), None, "{wrong}");
        }
    }
}
