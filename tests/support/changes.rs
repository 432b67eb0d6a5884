//! The changes that a load sends for a user, one after the other: of every kind.

use serde_json::{Value, json};

/// The number of users to whom the others give points.
const POPULAR: i64 = 5;

/// The action of a user's change with this number, from 1, and its other members. `sent` are the user's request ids so
/// far. It asks for as many points as its number, some of which expire in the distant future, takes all that the user
/// has, holds some and ends the hold, gives some to one of a few users, or undoes an earlier one: an add, all that was
/// taken, a capture, a reversal, or what was undone before.
pub fn change(user: i64, number: i64, sent: Option<&Vec<String>>) -> (&'static str, Value) {
    let about = sent.and_then(|sent| match number % 32 {
        10 | 26 => sent.last(),
        13 => sent.iter().rev().nth(3),
        _ => None,
    });
    match (about, number % 32) {
        (_, 21 | 29) => {
            let to = user % POPULAR + 1;
            if to != user {
                return ("transfer", json!({"user_id": user, "to": to, "point": number}));
            }
        }
        (_, 9 | 25) => return ("hold", json!({"user_id": user, "point": number / 2})),
        (Some(hold), 10) => {
            return ("capture", json!({"user_id": user, "hold": hold, "point": number / 4}));
        }
        (Some(hold), 26) => return ("release", json!({"user_id": user, "hold": hold})),
        // This one is over.
        (Some(hold), _) => return ("capture", json!({"user_id": user, "hold": hold})),
        (None, _) => {}
    }
    let undone = sent.and_then(|sent| match number % 16 {
        3 => sent.iter().rev().nth(1),
        7 | 11 | 12 => sent.last(),
        15 => sent.iter().rev().nth(8),
        _ => None,
    });
    if let Some(request) = undone {
        return ("reverse", json!({"user_id": user, "request": request, "partial": number % 16 == 3}));
    }
    match number % 8 {
        4 | 0 => ("subtract", json!({"user_id": user, "point": number})),
        6 => ("subtract", json!({"user_id": user, "point": 1000 * number, "partial": true})),
        1 | 5 => {
            let expires_at = format!("{}-01-01T00:00:00Z", 2_090 + number % 7);
            ("add", json!({"user_id": user, "point": number, "expires_at": expires_at}))
        }
        _ => ("add", json!({"user_id": user, "point": number})),
    }
}

/// The same change as an operation of a batch.
pub fn operation(user: i64, number: i64, sent: Option<&Vec<String>>, key: Option<&str>) -> Value {
    let (action, mut members) = change(user, number, sent);
    members["action"] = json!(action);
    members["key"] = json!(key);
    members
}
