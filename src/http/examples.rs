//! Examples of every answer, and of every kind of problem, for the pages and the API's description. Must not contain
//! handlers.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{catalogue::Kind, error::ApiError, probes, sent::Sent};
use crate::{
    access::Scope,
    domain::{Change, Delta, Entry, Moved, Obstacle, Points, Rejection, UserId, Verdict},
    infra::build,
    ops::health::{Condition, Duty, Report, Seen, State},
    queue::Depths,
};

/// The moment in every example.
const MOMENT: &str = "2026-11-23T02:02:48.693239Z";

/// The request id in every example.
const REQUEST_ID: Uuid = Uuid::from_u128(0x0193_5b5a_4c00_7000_8000_0000_0000_0001);

/// The request ids of its reversal in the examples, and of one more.
const REVERSAL_ID: Uuid = Uuid::from_u128(0x0193_5b5a_4c00_7000_8000_0000_0000_0002);
const AGAIN_ID: Uuid = Uuid::from_u128(0x0193_5b5a_4c00_7000_8000_0000_0000_0003);

pub(super) fn about() -> Value {
    json!({"name": env!("CARGO_PKG_NAME"), "version": build::VERSION})
}

pub(super) fn pending() -> Value {
    json!({"request_id": REQUEST_ID, "status": "pending"})
}

pub(super) fn entry() -> Value {
    json!({
        "request_id": REQUEST_ID, "status": "applied", "user_id": "1", "action": "add", "point": 1000,
        "change": 1000, "actor": "shop", "reason": "welcome", "seq": 1, "balance": 1000, "requested_at": MOMENT, "created_at": MOMENT,
    })
}

/// The body of a reversal of the request in every example.
pub(super) fn reverse() -> Value {
    json!({"user_id": "1", "request": REQUEST_ID, "reason": "order 7 was cancelled"})
}

pub(super) fn reversal() -> Value {
    json!({
        "request_id": REVERSAL_ID, "status": "applied", "ref": REQUEST_ID, "user_id": "1", "action": "reverse",
        "point": 1000, "change": -1000, "actor": "shop", "reason": "order 7 was cancelled", "seq": 2, "balance": 0,
        "requested_at": MOMENT, "created_at": MOMENT,
    })
}

/// The bodies of what ends the hold in the examples.
pub(super) fn capture() -> Value {
    json!({"user_id": "1", "hold": REQUEST_ID, "point": 250, "reason": "order 7"})
}

pub(super) fn release() -> Value {
    json!({"user_id": "1", "hold": REQUEST_ID, "reason": "order 7 was cancelled"})
}

/// The entry of a hold, of its capture, and of its release.
pub(super) fn held() -> Value {
    json!({
        "request_id": REQUEST_ID, "status": "applied", "user_id": "1", "action": "hold", "point": 300, "change": -300,
        "expires_at": "2026-11-23T02:17:48.693239Z", "actor": "shop", "reason": "order 7", "seq": 2, "balance": 700,
        "requested_at": MOMENT, "created_at": MOMENT,
    })
}

pub(super) fn captured() -> Value {
    json!({
        "request_id": REVERSAL_ID, "status": "applied", "ref": REQUEST_ID, "user_id": "1", "action": "capture",
        "point": 250, "change": 50, "actor": "shop", "reason": "order 7", "seq": 3, "balance": 750,
        "requested_at": MOMENT, "created_at": MOMENT,
    })
}

pub(super) fn released() -> Value {
    json!({
        "request_id": REVERSAL_ID, "status": "applied", "ref": REQUEST_ID, "user_id": "1", "action": "release",
        "point": 300, "change": 300, "actor": "shop", "reason": "order 7 was cancelled", "seq": 3, "balance": 1000,
        "requested_at": MOMENT, "created_at": MOMENT,
    })
}

pub(super) fn holds() -> Value {
    let hold = json!({"hold": REQUEST_ID, "point": 300, "expires_at": "2026-11-23T02:17:48.693239Z"});
    json!({"user_id": "1", "held": 300, "holds": [hold]})
}

pub(super) fn page() -> Value {
    json!({"entries": [entry()]})
}

pub(super) fn batch() -> Value {
    json!({"operations": [
        {"action": "add", "user_id": "1", "point": 50, "reason": "payday"},
        {"action": "subtract", "user_id": "2", "point": 5, "key": "order-8"},
    ]})
}

pub(super) fn pending_batch() -> Value {
    json!({"operations": [pending(), pending()]})
}

pub(super) fn balance() -> Value {
    json!({"user_id": "1", "point": 700, "seq": 2, "updated_at": MOMENT,
        "expires": [{"at": "2027-12-31T15:00:00Z", "point": 200}], "held": 300})
}

pub(super) fn balances() -> Value {
    json!({"points": [balance()], "unknown": ["2"]})
}

pub(super) fn balances_page() -> Value {
    let of = |user: &str, point: i64| json!({"user_id": user, "point": point, "seq": 1, "updated_at": MOMENT, "held": 0});
    json!({"points": [of("alice/coins", 1200), of("alice/gems", 3)], "unknown": []})
}

impl Kind {
    pub(super) fn example(self) -> ApiError {
        match self {
            Self::NotFound => ApiError::NotFound,
            Self::MethodNotAllowed => ApiError::MethodNotAllowed { allow: "GET, HEAD" },
            Self::UnsupportedMediaType => ApiError::UnsupportedMediaType,
            Self::BodyTooLarge => ApiError::BodyTooLarge { limit_bytes: super::points::BODY_MAX_BYTES },
            Self::BodyTimeout => ApiError::BodyTimeout { limit_s: super::points::BODY_TIMEOUT_S },
            Self::EmptyBody => ApiError::EmptyBody,
            Self::MalformedBody => {
                ApiError::MalformedBody("EOF while parsing an object at line 1 column 1".to_owned())
            }
            Self::InvalidField => {
                ApiError::InvalidField { field: "point".to_owned(), rule: Points::RULE.to_owned() }
            }
            Self::UnknownUser => ApiError::UnknownUser,
            Self::KeyReused => ApiError::KeyReused(Arc::new(entry_of_900(add, 900, Ok(Moved::lasting(900))))),
            Self::InsufficientPoints => rejected(subtract, 700, Rejection::InsufficientPoints),
            Self::BalanceLimit => rejected(add, crate::domain::POINTS_MAX, Rejection::BalanceLimit),
            Self::UnknownRequest => not_reversed(REVERSAL_ID, 0, REQUEST_ID, Rejection::UnknownRequest),
            Self::NotReversible => not_reversed(REVERSAL_ID, 0, REQUEST_ID, Rejection::NotReversible),
            Self::AlreadyReversed => not_reversed(AGAIN_ID, 300, REVERSAL_ID, Rejection::AlreadyReversed),
            Self::Expired => rejected(add, 700, Rejection::Expired),
            Self::LotLimit => rejected(add, 700, Rejection::LotLimit),
            Self::HoldLimit => rejected(held_points, 700, Rejection::HoldLimit),
            Self::UnknownHold => not_ended(0, REQUEST_ID, Rejection::UnknownHold),
            Self::HoldTooSmall => not_ended(900, REQUEST_ID, Rejection::HoldTooSmall),
            Self::HoldOver => {
                let ApiError::Rejected(entry, _) = not_ended(300, REVERSAL_ID, Rejection::HoldOver) else {
                    unreachable!("a rejection")
                };
                let capture = Change::Capture { hold: REQUEST_ID.into(), point: Points::new(300).ok() };
                let done = Ok(Moved::lasting(0));
                let verdict = Verdict { point: 300, reference: Some(REQUEST_ID.into()), change: done };
                ApiError::HoldOver(entry, Some(Arc::new(entry_of(REVERSAL_ID, capture, verdict, 700))))
            }
            Self::Rejected => rejected(subtract, 700, Rejection::Unknown("account_frozen".to_owned())),
            Self::QueueUnavailable => ApiError::QueueUnavailable(sent()),
            Self::DatabaseUnavailable => ApiError::DatabaseUnavailable(Some(sent())),
            Self::UserBlocked => ApiError::UserBlocked(Obstacle::Locked, Some(sent())),
            Self::NewerVersion => ApiError::NewerVersion(Some(sent())),
            Self::Overloaded => ApiError::Overloaded { retry_after: Duration::from_secs(3) },
            Self::Refused => ApiError::Refused,
            Self::Unauthorized => ApiError::Unauthorized { key_given: false },
            Self::InsufficientScope => ApiError::InsufficientScope { scope: Scope::Write.as_str() },
            Self::LoopbackOnly => ApiError::LoopbackOnly { header: "Host".to_owned() },
            Self::RateLimited => ApiError::RateLimited { retry_after: Duration::from_secs(3) },
            Self::NotReady => probes::not_ready(&report(Condition::Unable)),
        }
    }
}

/// The change of the examples.
fn sent() -> Sent {
    Sent { user_id: UserId::new("user_id", "1").expect("valid"), request_id: REQUEST_ID.into() }
}

/// The answer of a node that is ready.
pub(super) fn readiness() -> Value {
    serde_json::to_value(probes::readiness(&report(Condition::Ready))).expect("JSON")
}

/// A node that serves and reaches PostgreSQL. It reaches RabbitMQ too, unless it is `Unable`.
fn report(condition: Condition) -> Report {
    let since = MOMENT.parse().expect("a moment");
    let rabbitmq = Seen { state: State::of(condition == Condition::Ready), since };
    Report {
        duty: Duty::Serve,
        condition,
        rabbitmq,
        postgresql: Seen { state: State::Up, since },
        silent: Vec::new(),
        kept: Vec::new(),
        unusable: Vec::new(),
        depths: Depths::default(),
    }
}

/// The rejection of a change of 900 points because of `balance`.
fn rejected(change: fn(Points) -> Change, balance: i64, why: Rejection) -> ApiError {
    ApiError::Rejected(Arc::new(entry_of_900(change, balance, Err(why.clone()))), why)
}

fn add(point: Points) -> Change {
    Change::Add { point, expires_at: None }
}

fn subtract(point: Points) -> Change {
    Change::Subtract { point, partial: false }
}

fn entry_of_900(change: fn(Points) -> Change, balance: i64, done: Result<Moved, Rejection>) -> Entry {
    let change = change(Points::new(900).expect("valid"));
    entry_of(REQUEST_ID, change, Verdict { point: 900, reference: None, change: done }, balance)
}

fn held_points(point: Points) -> Change {
    Change::Hold { point, expires_at: None }
}

/// The rejection of a capture of the hold in every example.
fn not_ended(point: i64, reference: Uuid, why: Rejection) -> ApiError {
    let change = Change::Capture { hold: REQUEST_ID.into(), point: Points::new(point).ok() };
    let verdict = Verdict { point, reference: Some(reference.into()), change: Err(why.clone()) };
    ApiError::Rejected(Arc::new(entry_of(AGAIN_ID, change, verdict, 700)), why)
}

/// The rejection of a reversal of the request in every example.
fn not_reversed(request_id: Uuid, point: i64, reference: Uuid, why: Rejection) -> ApiError {
    let change = Change::Reverse { request: REQUEST_ID.into(), partial: false };
    let verdict = Verdict { point, reference: Some(reference.into()), change: Err(why.clone()) };
    ApiError::Rejected(Arc::new(entry_of(request_id, change, verdict, 700)), why)
}

fn entry_of(request_id: Uuid, change: Change, verdict: Verdict, balance: i64) -> Entry {
    let moment: Timestamp = MOMENT.parse().expect("a moment");
    let delta = Delta {
        request_id: request_id.into(),
        user_id: UserId::new("user_id", "1").expect("valid"),
        change,
        actor: None,
        reason: None,
        metadata: None,
        requested_at: moment,
        traceparent: None,
    };
    Entry::of(&delta, verdict, (3, balance), moment)
}
