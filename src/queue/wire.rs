//! The wire format of the queue: JSON ↔ deltas. Must not contain a connection.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::{Action, Delta, Invalid, Partitions, Points, Reason, TraceParent, UserId, whole_number};

/// The version of the format. A consumer refuses any other.
const VERSION: u8 = 1;

/// The `content-type` of a message.
pub(super) const CONTENT_TYPE: &str = "application/json";

/// The largest size of a delta without its reason and trace: field names, a UUID, two numbers of up to 19 digits and a
/// time of 30 characters, with room to spare.
const DELTA_OVERHEAD_BYTES: usize = 256;

/// The size of a trace with its name: `,"traceparent":"…"`.
const TRACE_BYTES: usize = 17 + TraceParent::BYTES;

/// Why a message can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    // The error's own text may quote the message.
    #[error("not a message of deltas: {:?} error at line {} column {}", .0.classify(), .0.line(), .0.column())]
    Json(#[from] serde_json::Error),
    #[error("unknown version {0}: only version {VERSION} is known")]
    Version(u8),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("user {user} belongs to partition {partition}")]
    WrongPartition { user: UserId, partition: u16 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeltasMessage<'a> {
    version: u8,
    #[serde(borrow)]
    deltas: Vec<DeltaMessage<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeltaMessage<'a> {
    request_id: Uuid,
    #[serde(deserialize_with = "whole")]
    user_id: i64,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(deserialize_with = "whole")]
    point: i64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    requested_at: Timestamp,
    /// Added within version 1. Older workers refuse a message that has it: update the workers before `serve`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
}

/// Parses a whole number from its digits, as in a request.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = <&RawValue>::deserialize(deserializer)?;
    whole_number(number.get()).ok_or_else(|| D::Error::custom("not a whole number"))
}

/// The largest size of `delta` in a message, in bytes. A reason has no control characters, so JSON escapes each of its
/// bytes into at most two.
pub(super) fn max_bytes(delta: &Delta) -> usize {
    DELTA_OVERHEAD_BYTES
        + 2 * delta.reason.as_ref().map_or(0, |reason| reason.as_str().len())
        + delta.traceparent.as_ref().map_or(0, |_| TRACE_BYTES)
}

/// Encodes `deltas`, which belong to one partition, as a message.
pub(super) fn encode(deltas: &[Delta]) -> Vec<u8> {
    let deltas = deltas.iter().map(|delta| DeltaMessage {
        request_id: delta.request_id.get(),
        user_id: delta.user_id.get(),
        action: delta.action.as_str().into(),
        point: delta.point.get(),
        reason: delta.reason.as_ref().map(|reason| reason.as_str().into()),
        requested_at: delta.requested_at,
        traceparent: delta.traceparent.as_ref().map(|trace| trace.as_str().into()),
    });
    let message = DeltasMessage { version: VERSION, deltas: deltas.collect() };
    serde_json::to_vec(&message).expect("numbers, texts and times are always JSON")
}

/// Decodes a message from the queue of one of the partitions. A delta of another partition's user makes the message
/// malformed: the delta would lose its place in that user's order.
pub(super) fn decode(body: &[u8], one_of: (u16, Partitions)) -> Result<Vec<Delta>, Malformed> {
    let deltas = decode_any(body)?;
    match stranger(&deltas, one_of) {
        Some((user, partition)) => Err(Malformed::WrongPartition { user, partition }),
        None => Ok(deltas),
    }
}

/// The first user who belongs to another partition, and that partition.
pub(super) fn stranger(
    deltas: &[Delta],
    (partition, partitions): (u16, Partitions),
) -> Option<(UserId, u16)> {
    let mut users = deltas.iter().map(|delta| (delta.user_id, delta.user_id.partition(partitions)));
    users.find(|(_, other)| *other != partition)
}

/// Decodes a message from any queue.
pub(super) fn decode_any(body: &[u8]) -> Result<Vec<Delta>, Malformed> {
    let message: DeltasMessage = serde_json::from_slice(body)?;
    if message.version != VERSION {
        return Err(Malformed::Version(message.version));
    }
    let delta = |wire: DeltaMessage| {
        Ok(Delta {
            request_id: wire.request_id.into(),
            user_id: UserId::new("user_id", wire.user_id)?,
            action: Action::new(&wire.action)?,
            point: Points::new(wire.point)?,
            reason: wire.reason.map(|text| Reason::new(text.into_owned())).transpose()?,
            requested_at: wire.requested_at,
            // An invalid trace does not invalidate the change.
            traceparent: wire.traceparent.and_then(|text| TraceParent::parse(&text)),
        })
    };
    message.deltas.into_iter().map(delta).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::RequestId;

    fn partition_of(user: UserId) -> (u16, Partitions) {
        (user.partition(Partitions::DEFAULT), Partitions::DEFAULT)
    }

    fn any_delta() -> impl Strategy<Value = Delta> {
        let second = Timestamp::MIN.as_second()..Timestamp::MAX.as_second();
        let reason = prop::option::of(r#"[^\pC]{1,200}|["\\]{200}"#);
        let trace = prop::option::of("00-[1-9a-f]{32}-[1-9a-f]{16}-[0-9a-f]{2}");
        (1..=i64::MAX, any::<bool>(), 1..1i64 << 53, reason, second, trace).prop_map(
            |(user, add, point, reason, second, trace)| Delta {
                request_id: RequestId::random(),
                user_id: UserId::new("user_id", user).expect("positive"),
                action: if add { Action::Add } else { Action::Subtract },
                point: Points::new(point).expect("in range"),
                reason: reason.map(|text| Reason::new(text).expect("no control characters")),
                requested_at: Timestamp::from_second(second).expect("in range"),
                traceparent: trace.map(|text| TraceParent::parse(&text).expect("valid")),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(delta in any_delta()) {
            let body = encode(std::slice::from_ref(&delta));
            prop_assert!(body.len() <= max_bytes(&delta) + 32, "{} bytes", body.len());
            prop_assert_eq!(decode(&body, partition_of(delta.user_id)).expect("ours"), [delta]);
        }

        #[test]
        fn whatever_comes_is_decoded_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&body, (0, Partitions::DEFAULT)).is_err());
        }
    }

    #[test]
    fn a_message_that_breaks_a_rule_is_malformed() {
        let delta = r#"{"request_id":"01890a5d-ac96-774b-bcce-b302099a8057","user_id":1,"action":"add",
            "point":1,"requested_at":"2026-11-01T00:00:00Z"}"#;
        let message = format!(r#"{{"version":1,"deltas":[{delta}]}}"#);
        let ours = partition_of(UserId::new("user_id", 1).expect("positive"));
        assert_eq!(decode(message.as_bytes(), ours).expect("ours").len(), 1);
        for (from, to) in [
            (r#""version":1"#, r#""version":2"#),
            (r#""user_id":1"#, r#""user_id":0"#),
            (r#""point":1"#, r#""point":0"#),
            (r#""point":1"#, r#""point":1.5"#),
            ("add", "set"),
            (r#""point":1"#, r#""point":1,"more":1"#),
            (r#""point":1"#, r#""point":1,"reason":"\u0000""#),
        ] {
            assert!(decode(message.replace(from, to).as_bytes(), ours).is_err(), "{to}");
        }
        let elsewhere = decode(message.as_bytes(), (ours.0 + 1, ours.1)).expect_err("not its partition");
        assert!(matches!(elsewhere, Malformed::WrongPartition { .. }), "{elsewhere}");
    }
}
