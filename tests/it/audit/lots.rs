//! Damage to points that expire: in an entry, or in a user's row. It is found and named.

use jiff::{Timestamp, ToSpan};
use point_system::domain::Delta;

use super::{damage, findings, kinds};
use crate::{
    apply::{add_until, apply, reverse, reverse_some, subtract, subtract_some},
    expiry::pass,
    support::system::System,
};

/// A second of the distant future, and the microseconds since 1970 that it has.
const NEVER: &str = "2099-01-01T00:00:00Z";
const NEVER_US: &str = "4070908800000000";

/// As in the tests of other kinds, and then points that expire, in every kind of entry, up to entry 32.
pub async fn filled() -> System {
    let system = kinds::filled().await;
    let service = system.service(4);
    let never: Timestamp = NEVER.parse().expect("a time");
    let soon = Timestamp::from_second(Timestamp::now().as_second()).expect("in range") + 1.hour();
    let mut orders = Vec::new();
    for user in 1..=12 {
        let order = subtract(user, 8);
        let changes = [
            // Entry 22: nothing is left of what there was before.
            subtract_some(user, (1 << 53) - 1),
            add_until(user, 10, never),
            add_until(user, 5, soon),
            order.clone(),
            reverse(user, order.request_id),
            subtract(user, 2),
            add_until(user, 1, soon - 2.hours()),
        ];
        for change in &changes {
            apply(&service, change).await;
        }
        let given: &Delta = &changes[1];
        orders.push((user, given.request_id));
    }
    // What would expire soon has expired now.
    pass(&system, 2 * 3_600).await;
    for (user, given) in orders {
        // Entry 29: the 3 that are left of 5 expire.
        for change in [subtract(user, 1), reverse_some(user, given), add_until(user, 7, never)] {
            apply(&service, &change).await;
        }
    }
    system
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_expire_at_another_time_or_by_other_lots_are_found_and_named() {
    let system = filled().await;
    assert_eq!(findings(&system).await, []);
    system.execute(damage::DROP_CONSTRAINTS).await;
    let now = "2026-01-01Z";
    for statement in [
        "update log set expires_at = null where user_id = '1' and seq = 32".to_owned(),
        format!("update log set expires_at = '{now}' where user_id = '2' and seq = 32"),
        format!("update log set expires_at = '{NEVER}' where user_id = '3' and seq = 30"),
        "update log set lots = null where user_id = '4' and seq = 30".to_owned(),
        "update log set lots = '{1}' where user_id = '5' and seq = 30".to_owned(),
        format!("update log set lots = '{{{NEVER_US},2}}' where user_id = '6' and seq = 30"),
        format!("update log set lots = '{{{NEVER_US},1}}' where user_id = '7' and seq = 32"),
        "update log set expires_at = null where user_id = '8' and seq = 28".to_owned(),
        format!("update user_point set lots = '{{{NEVER_US},6}}' where user_id = '9'"),
        "update user_point set lots = null, due_at = null where user_id = '10'".to_owned(),
        "update user_point set due_at = null where user_id = '11'".to_owned(),
        "update user_point set format = 0 where user_id = '12'".to_owned(),
    ] {
        system.execute(&statement).await;
    }
    let found: Vec<String> = findings(&system).await.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "user 1: user_point: lots is {4070908800000000,7}, expected none",
            "user 1: user_point: due_at is 2099-01-01T00:00:00Z, expected none",
            "user 2: log entry 32: expires_at is 2026-01-01T00:00:00Z, expected a time after created_at, or none",
            "user 2: user_point: lots is {4070908800000000,7}, expected {1767225600000000,7}",
            "user 2: user_point: due_at is 2099-01-01T00:00:00Z, expected 2026-01-01T00:00:00Z",
            "user 3: log entry 30: expires_at is 2099-01-01T00:00:00Z, expected none",
            "user 4: user_point: lots is {4070908800000000,7}, expected {4070901600000000,1,4070908800000000,7}",
            "user 4: user_point: due_at is 2099-01-01T00:00:00Z, expected 2098-12-31T22:00:00Z",
            "user 5: log entry 30: lots is {1}, expected lots of points in change",
            "user 5: user_point: lots is {4070908800000000,7}, expected {4070901600000000,1,4070908800000000,7}",
            "user 5: user_point: due_at is 2099-01-01T00:00:00Z, expected 2098-12-31T22:00:00Z",
            "user 6: log entry 30: lots is {4070908800000000,2}, expected lots of points in change",
            "user 6: user_point: lots is {4070908800000000,7}, expected {4070901600000000,1,4070908800000000,5}",
            "user 6: user_point: due_at is 2099-01-01T00:00:00Z, expected 2098-12-31T22:00:00Z",
            "user 7: log entry 32: lots is {4070908800000000,1}, expected none",
            "user 8: log entry 28: reject_reason is expired, expected a reason that holds",
            "user 9: user_point: lots is {4070908800000000,6}, expected {4070908800000000,7}",
            "user 10: user_point: lots is none, expected {4070908800000000,7}",
            "user 10: user_point: due_at is none, expected 2099-01-01T00:00:00Z",
            "user 11: user_point: due_at is none, expected 2099-01-01T00:00:00Z",
            "user 12: user_point: format is 0, expected 1 or more",
        ]
    );
    system.discard().await;
}
