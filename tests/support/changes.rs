//! The changes that a load sends for a user, one after the other: of every kind.

use serde_json::{Value, json};

/// The action of a user's change with this number, from 1, and its other members. It asks for as many points as its
/// number. Every sixth of eight takes all that the user has.
pub fn change(user: i64, number: i64) -> (&'static str, Value) {
    match number % 8 {
        4 | 0 => ("subtract", json!({"user_id": user, "point": number})),
        6 => ("subtract", json!({"user_id": user, "point": 1000 * number, "partial": true})),
        _ => ("add", json!({"user_id": user, "point": number})),
    }
}

/// The same change as an operation of a batch.
pub fn operation(user: i64, number: i64, key: Option<&str>) -> Value {
    let (action, mut members) = change(user, number);
    members["action"] = json!(action);
    members["key"] = json!(key);
    members
}
