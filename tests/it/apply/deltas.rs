//! Makes deltas of users whose ids are numbers.

use jiff::Timestamp;
use point_system::domain::{Change, Delta, Points, RequestId, UserId};

pub fn user(id: i64) -> UserId {
    UserId::new("user_id", &id.to_string()).expect("positive")
}

pub fn delta(user_id: i64, change: Change) -> Delta {
    Delta {
        request_id: RequestId::random(),
        user_id: user(user_id),
        change,
        actor: None,
        reason: None,
        metadata: None,
        requested_at: Timestamp::now(),
        traceparent: None,
    }
}

fn points(point: i64) -> Points {
    Points::new(point).expect("in range")
}

pub fn add(user_id: i64, point: i64) -> Delta {
    delta(user_id, Change::Add { point: points(point), expires_at: None })
}

/// Adds points that expire.
pub fn add_until(user_id: i64, point: i64, expires_at: Timestamp) -> Delta {
    delta(user_id, Change::Add { point: points(point), expires_at: Some(expires_at) })
}

pub fn subtract(user_id: i64, point: i64) -> Delta {
    delta(user_id, Change::Subtract { point: points(point), partial: false })
}

/// Subtracts what there is, up to this many points.
pub fn subtract_some(user_id: i64, point: i64) -> Delta {
    delta(user_id, Change::Subtract { point: points(point), partial: true })
}

/// Undoes the change of a user with this request id.
pub fn reverse(user_id: i64, request: RequestId) -> Delta {
    delta(user_id, Change::Reverse { request, partial: false })
}

/// As `reverse`, or as much of it as there is.
pub fn reverse_some(user_id: i64, request: RequestId) -> Delta {
    delta(user_id, Change::Reverse { request, partial: true })
}

/// Holds points until a time, or for the default time.
pub fn hold(user_id: i64, point: i64, expires_at: Option<Timestamp>) -> Delta {
    delta(user_id, Change::Hold { point: points(point), expires_at })
}

/// Captures points of a hold, or all of them.
pub fn capture(user_id: i64, hold: RequestId, point: Option<i64>) -> Delta {
    delta(user_id, Change::Capture { hold, point: point.map(points) })
}

/// Moves points from a user to another one.
pub fn transfer(user_id: i64, to: i64, point: i64) -> Delta {
    delta(user_id, Change::Transfer { to: user(to), point: points(point) })
}
