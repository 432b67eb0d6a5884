//! Damage to the entries of changes that take a part or undo another: it is found and named.

use std::collections::HashMap;

use point_system::domain::{Delta, POINTS_MAX, RequestId};

use super::{damage, findings};
use crate::{
    apply::{add, apply, reverse, reverse_some, subtract_some},
    support::system::System,
};

/// As in the tests of plain changes, and then changes of every other kind with every outcome, up to entry 21.
pub async fn filled() -> System {
    let system = super::filled().await;
    let service = system.service(4);
    let sql = "select user_id::bigint, seq, request_id::text from log";
    let id = |text: &str| text.parse::<uuid::Uuid>().expect("a UUID").into();
    let mut ids: HashMap<(i64, i64), RequestId> = HashMap::new();
    for row in system.rows(sql).await {
        ids.insert((row.get("user_id"), row.get("seq")), id(row.get("request_id")));
    }
    for user in 1..=12 {
        let of = |seq: i64| ids[&(user, seq)];
        // Of the remaining 4 points, 1 is taken as asked for, then 3 of 5, and then there is none.
        let all = subtract_some(user, 5);
        let undo_all = reverse(user, all.request_id);
        let some = subtract_some(user, 1);
        let changes = [
            some.clone(),
            all.clone(),
            subtract_some(user, 2),
            undo_all.clone(),
            reverse(user, all.request_id),
            reverse(user, undo_all.request_id),
            reverse(user, of(4)),
            reverse(user, RequestId::random()),
            // Of 4 points, 3 are there, and then none of 2.
            reverse(user, of(3)),
            reverse_some(user, of(3)),
            reverse_some(user, of(2)),
            reverse(user, of(5)),
            reverse(user, of(1)),
            Delta { request_id: of(1), ..reverse(user, of(2)) },
            add(user, POINTS_MAX - 2),
            reverse(user, some.request_id),
        ];
        for change in changes {
            apply(&service, &change).await;
        }
    }
    system
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_subtract_that_took_too_little_or_too_much_is_found_and_named() {
    let system = filled().await;
    assert_eq!(findings(&system).await, []);
    system.execute(damage::DROP_CONSTRAINTS).await;
    system
        .execute(
            "update log set partial = true where user_id = '1' and seq in (1, 5);
             update log set partial = false where user_id = '2' and seq = 6;
             update log set partial = null where user_id = '3' and seq = 7;
             update log set change = -2, balance = balance + 1 where user_id = '4' and seq = 7;
             update log set partial = true where user_id = '5' and seq = 4;
             update log set reject_reason = null where user_id = '6' and seq = 8;
             update log set point = 2 where user_id = '7' and seq = 7;
             update log set point = 4 where user_id = '8' and seq = 6",
        )
        .await;
    let found: Vec<String> =
        findings(&system).await.iter().map(|finding| without_ids(&finding.to_string())).collect();
    assert_eq!(
        found,
        [
            "user 1: log entry 1: partial is true, expected none",
            "user 2: log entry 6: partial is false, expected true or none",
            "user 3: log entry 7: change is -3, expected -5",
            "user 4: log entry 7: change is -2, expected -3",
            "user 4: log entry 8: reject_reason is insufficient_points, expected a reason that holds",
            "user 4: log entry 8: balance is 0, expected 1",
            "user 4: log entry 9: ref is ID, expected an earlier change that this undoes",
            "user 5: log entry 4: reject_reason is insufficient_points, expected a reason that holds",
            "user 6: log entry 8: change is 0, expected -2",
            "user 7: log entry 7: change is -3, expected -2",
            "user 8: log entry 6: change is -1, expected -4",
        ]
    );
    system.discard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reversal_that_is_not_what_it_says_is_found_and_named() {
    let system = filled().await;
    system.execute(damage::DROP_CONSTRAINTS).await;
    let id = |seq: i64| {
        format!("(select request_id from log as other where other.user_id = log.user_id and seq = {seq})")
    };
    let damages = [
        // Of another change, which took as many points and is reversed later; and of one that was reversed before.
        format!("ref = {} where user_id = '1' and seq = 9", id(5)),
        format!("ref = {} where user_id = '2' and seq = 17", id(7)),
        // Of nothing, or of a change that came later.
        "ref = gen_random_uuid() where user_id = '3' and seq = 18".to_owned(),
        format!("ref = {} where user_id = '4' and seq = 13", id(1)),
        format!("ref = {} where user_id = '5' and seq = 10", id(18)),
        // Of one that can be reversed, and of one that is no reversal.
        format!("ref = {}, point = 4 where user_id = '6' and seq = 12", id(3)),
        format!("ref = {} where user_id = '7' and seq = 10", id(7)),
        // A part was not enough; a part would have been enough; it was not as much.
        "partial = null where user_id = '8' and seq = 15".to_owned(),
        "partial = true where user_id = '9' and seq = 14".to_owned(),
        "point = 5 where user_id = '10' and seq = 9".to_owned(),
        "ref = null where user_id = '11' and seq = 18".to_owned(),
        "reject_reason = 'not_reversible' where user_id = '12' and seq = 13".to_owned(),
    ];
    for damage in damages {
        system.execute(&format!("update log set {damage}")).await;
    }
    let found: Vec<String> =
        findings(&system).await.iter().map(|finding| without_ids(&finding.to_string())).collect();
    assert_eq!(
        found,
        [
            "user 1: log entry 17: ref is ID, expected a change that was not reversed before",
            "user 2: log entry 17: ref is ID, expected a change that was not reversed before",
            "user 3: log entry 18: ref is ID, expected an earlier change that this undoes",
            "user 4: log entry 13: ref is ID, expected a request without an earlier entry",
            "user 5: log entry 10: ref is ID, expected an earlier reversal",
            "user 6: log entry 12: ref is ID, expected an earlier entry that cannot be reversed",
            "user 7: log entry 10: ref is ID, expected an earlier reversal",
            "user 8: log entry 15: change is -3, expected 4 or -4",
            "user 9: log entry 14: reject_reason is insufficient_points, expected a reason that holds",
            "user 10: log entry 9: change is 3, expected 5 or -5",
            "user 10: log entry 9: ref is ID, expected an earlier change that this undoes",
            "user 10: log entry 10: ref is ID, expected an earlier reversal",
            "user 11: log entry 18: ref is none, expected a request",
            "user 12: log entry 13: ref is ID, expected an earlier entry that cannot be reversed",
        ]
    );
    system.discard().await;
}

/// The text with every UUID replaced.
fn without_ids(text: &str) -> String {
    let word = |word: &str| match word.trim_end_matches(',').parse::<uuid::Uuid>() {
        Ok(_) => "ID,".to_owned(),
        Err(_) => word.to_owned(),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
