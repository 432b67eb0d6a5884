//! The wire format of the queue: JSON ↔ deltas. Must not contain a connection.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{self, Actor, Change, Delta, Invalid, Members, Object, Partitions, TraceParent, UserId};

mod encode;
mod size;
mod unread;

pub(super) use encode::encode;
pub(super) use size::max_bytes;
pub(super) use unread::Unread;

/// The highest version of the format that we know, and the one that we write: the only one so far. Once there are more,
/// a message uses the lowest version that can express it, so that older workers keep as few messages as possible. A new
/// member needs no new version: a worker that does not know it keeps the message.
pub const MESSAGE_VERSION: u64 = 2;

/// The lowest version that is still understood. Messages of version 1 were never released. Raise it only when no queue
/// can hold an older message.
const VERSION_MIN: u64 = 2;

/// The `content-type` of a message.
pub(super) const CONTENT_TYPE: &str = "application/json";

/// Why a message can't be applied by any version.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    // The error's own text may quote the message.
    #[error("not a message of deltas: {:?} error at line {} column {}", .0.classify(), .0.line(), .0.column())]
    Json(#[from] serde_json::Error),
    #[error("unknown version {0}")]
    Version(u64),
    #[error("unknown member")]
    Member,
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("user {user} belongs to partition {partition}")]
    WrongPartition { user: UserId, partition: u16 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeltasMessage<T> {
    version: u64,
    deltas: Vec<T>,
}

/// A delta in a message that we read.
struct Received;

impl Object for Received {
    const MEMBERS: &'static [&'static str] = &[
        "request_id",
        "user_id",
        "action",
        "point",
        "expires_at",
        "request",
        "hold",
        "to",
        "partial",
        "actor",
        "reason",
        "metadata",
        "requested_at",
        "traceparent",
    ];
}

/// Decodes a message from the queue of one of the partitions, of a version up to `understands`. A delta of another
/// partition's user makes the message malformed: the delta would lose its place in that user's order.
pub(super) fn decode(body: &[u8], one_of: (u16, Partitions), understands: u64) -> Result<Vec<Delta>, Unread> {
    let deltas = decode_any(body, understands)?;
    match stranger(&deltas, one_of) {
        Some((user, partition)) => {
            let elsewhere = Malformed::WrongPartition { user, partition };
            Err(Unread::Malformed(elsewhere.to_string()))
        }
        None => Ok(deltas),
    }
}

/// The first user who belongs to another partition, and that partition.
pub(super) fn stranger(
    deltas: &[Delta],
    (partition, partitions): (u16, Partitions),
) -> Option<(UserId, u16)> {
    let mut users = deltas.iter().map(|delta| (&delta.user_id, delta.user_id.partition(partitions)));
    users.find(|(_, other)| *other != partition).map(|(user, other)| (user.clone(), other))
}

/// Decodes a message from any queue, of a version up to `understands`.
pub(super) fn decode_any(body: &[u8], understands: u64) -> Result<Vec<Delta>, Unread> {
    parse(body, understands).map_err(|malformed| match unread::unknown(body, understands) {
        Some(what) => Unread::NotUnderstood(what),
        None => Unread::Malformed(malformed.to_string()),
    })
}

fn parse(body: &[u8], understands: u64) -> Result<Vec<Delta>, Malformed> {
    let message: DeltasMessage<Members<Received>> = domain::parse(body)?;
    if !(VERSION_MIN..=understands).contains(&message.version) {
        return Err(Malformed::Version(message.version));
    }
    message.deltas.iter().map(received).collect()
}

fn received(members: &Members<Received>) -> Result<Delta, Malformed> {
    if members.unknown().is_some() {
        return Err(Malformed::Member);
    }
    let actor = members.get("actor").map(|name| Actor::new(&domain::text(name.get()).unwrap_or_default()));
    // An invalid trace does not invalidate the change.
    let trace = members.get("traceparent").and_then(|trace| TraceParent::parse(&domain::text(trace.get())?));
    Ok(Delta {
        request_id: json::<Uuid>(members, "request_id")?.into(),
        user_id: members.required("user_id")?,
        change: Change::read(members.required("action")?, members).map_err(Invalid::first)?,
        actor: actor.transpose()?,
        reason: members.optional("reason")?,
        metadata: members.optional("metadata")?,
        requested_at: json(members, "requested_at")?,
        traceparent: trace,
    })
}

/// Parses a member that only messages have.
fn json<'a, T: Deserialize<'a>>(members: &Members<'a, Received>, name: &'static str) -> Result<T, Malformed> {
    let invalid = |rule: &str| Invalid { field: name, rule: rule.to_owned() };
    let value = members.get(name).ok_or_else(|| invalid("is required"))?;
    Ok(serde_json::from_str(value.get()).map_err(|_| invalid("can't be read"))?)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Metadata, Points, Reason, RequestId};

    fn partition_of(user: &UserId) -> (u16, Partitions) {
        (user.partition(Partitions::DEFAULT), Partitions::DEFAULT)
    }

    fn one_point() -> Change {
        Change::Add { point: Points::new(1).expect("in range"), expires_at: None }
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let point = (1..1i64 << 53).prop_map(|point| Points::new(point).expect("in range"));
        let time = (0..Timestamp::MAX.as_microsecond())
            .prop_map(|time| Timestamp::from_microsecond(time).expect("in range"));
        let request = any::<u128>().prop_map(|id| RequestId::from(Uuid::from_u128(id)));
        prop_oneof![
            (point.clone(), prop::option::of(time.clone()))
                .prop_map(|(point, expires_at)| Change::Add { point, expires_at }),
            (point.clone(), any::<bool>()).prop_map(|(point, partial)| Change::Subtract { point, partial }),
            (request.clone(), any::<bool>())
                .prop_map(|(request, partial)| Change::Reverse { request, partial }),
            (point.clone(), prop::option::of(time))
                .prop_map(|(point, expires_at)| Change::Hold { point, expires_at }),
            (request.clone(), prop::option::of(point))
                .prop_map(|(hold, point)| Change::Capture { hold, point }),
            request.prop_map(|hold| Change::Release { hold }),
            (r#"([!-~]{1,62}|["\\]{63})_"#, 1..1i64 << 53).prop_map(|(to, point)| Change::Transfer {
                to: UserId::new("to", &to).expect("visible ASCII"),
                point: Points::new(point).expect("in range"),
            }),
        ]
    }

    fn any_delta() -> impl Strategy<Value = Delta> {
        let second = Timestamp::MIN.as_second()..Timestamp::MAX.as_second();
        let reason = prop::option::of(r#"[^\pC]{1,200}|["\\]{200}"#);
        let trace = prop::option::of("00-[1-9a-f]{32}-[1-9a-f]{16}-[0-9a-f]{2}");
        let texts = (
            reason,
            prop::option::of("[A-Za-z][A-Za-z0-9._-]{0,62}"),
            prop::option::of(r#"\{"[^\pC"\\]{0,200}": ?1\}"#),
        );
        (r#"([!-~]{0,63}|["\\]{63})[!-^]"#, any_change(), texts, second, trace).prop_map(
            |(user, change, (reason, actor, metadata), second, trace)| Delta {
                request_id: RequestId::random(),
                user_id: UserId::new("user_id", &user).expect("visible ASCII"),
                change,
                actor: actor.map(|name| Actor::new(&name).expect("a name")),
                reason: reason.map(|text| Reason::new(text).expect("no control characters")),
                metadata: metadata.map(|json| Metadata::new(json).expect("an object")),
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
            prop_assert_eq!(decode(&body, partition_of(&delta.user_id), MESSAGE_VERSION).expect("ours"), [delta]);
        }

        #[test]
        fn whatever_comes_is_decoded_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let refused = decode(&body, (0, Partitions::DEFAULT), MESSAGE_VERSION);
            prop_assert!(matches!(refused, Err(Unread::Malformed(_))), "{refused:?}");
        }
    }

    #[test]
    fn a_worker_that_understands_a_newer_version_reads_the_messages_that_are_queued() {
        let delta = Delta::of("1", one_point());
        let queued = String::from_utf8(encode(std::slice::from_ref(&delta))).expect("JSON");
        let queued = queued.replace(&format!("\"version\":{MESSAGE_VERSION}"), "\"version\":2");
        for understands in [MESSAGE_VERSION, 3] {
            let read = decode(queued.as_bytes(), partition_of(&delta.user_id), understands);
            assert_eq!(read.expect("understood"), std::slice::from_ref(&delta), "up to {understands}");
        }
    }

    #[test]
    fn a_message_that_no_worker_can_apply_is_malformed_and_one_that_a_newer_worker_may_apply_is_not() {
        let delta = concat!(
            r#"{"request_id":"01890a5d-ac96-774b-bcce-b302099a8057","user_id":"1","action":"add","#,
            r#""point":1,"requested_at":"2026-11-01T00:00:00Z"}"#
        );
        let message = format!(r#"{{"version":2,"deltas":[{delta},{delta}]}}"#);
        let ours = partition_of(&UserId::new("user_id", "1").expect("valid"));
        let read = |message: &str| decode(message.as_bytes(), ours, MESSAGE_VERSION);
        assert_eq!(read(&message).expect("ours").len(), 2);
        for (from, to) in [
            (r#"{"version":2"#, "0"),
            (r#""version":2,"#, ""),
            (r#""version":2"#, r#""version":1"#),
            (r#""version":2"#, r#""version":0"#),
            (r#""version":2"#, r#""version":"3""#),
            (r#""version":2"#, r#""version":3.5"#),
            (r#""version":2"#, r#""version":2,"deltas":[]"#),
            (r#""user_id":"1""#, r#""user_id":"""#),
            (r#""point":1"#, r#""point":0"#),
            (r#""point":1"#, r#""point":1.5"#),
            (r#""point":1,"#, ""),
            (r#""add""#, "7"),
            (r#""point":1"#, r#""point":1,"reason":"\u0000""#),
            (r#""add","point":1"#, r#""subtract","point":1,"partial":1"#),
            (r#""point":1"#, r#""point":1,"expires_at":"2026-12-01""#),
            (r#""add","point":1"#, r#""reverse","request":"1""#),
        ] {
            let refused = read(&message.replacen(from, to, 1));
            assert!(matches!(refused, Err(Unread::Malformed(_))), "{to}: {refused:?}");
        }
        for (from, to, what) in [
            (r#""version":2"#, r#""version":3"#, "version 3"),
            (r#""version":2"#, r#""version":300"#, "version 300"),
            (message.as_str(), r#"{"version":3}"#, "version 3"),
            (r#""version":2"#, r#""version":2,"more":{}"#, "member more"),
            (r#""point":1"#, r#""point":1,"more":1"#, "member more"),
            (r#""point":1"#, r#""point":0,"more":1"#, "member more"),
            (r#""point":1"#, r#""point":1,"partial":true"#, "member partial of add"),
            (r#""add""#, r#""reverse""#, "member point of reverse"),
            (r#""add""#, r#""set""#, "action set"),
            (r#""add""#, r#""expire""#, "action expire"),
            (
                r#""add","point":1"#,
                r#""subtract","point":1,"expires_at":"""#,
                "member expires_at of subtract",
            ),
            (r#""add","point":1"#, r#""grant""#, "action grant"),
        ] {
            let refused = read(&message.replacen(from, to, 1));
            assert_eq!(refused.expect_err(to), Unread::NotUnderstood(format!("unknown {what}")));
        }
        let newer = message.replace(r#""version":2"#, r#""version":3"#);
        assert_eq!(decode(newer.as_bytes(), ours, 3).expect("understood").len(), 2);
        let elsewhere = decode(message.as_bytes(), (ours.0 + 1, ours.1), MESSAGE_VERSION);
        let why = format!("user 1 belongs to partition {}", ours.0);
        assert_eq!(elsewhere, Err(Unread::Malformed(why)));
    }
}
