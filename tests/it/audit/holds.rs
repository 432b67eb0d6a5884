//! Damage to holds: in an entry, or in a user's row. It is found and named.

use jiff::{Timestamp, ToSpan};
use point_system::domain::RequestId;

use super::{damage, findings, lots, places};
use crate::{
    apply::{add, apply, capture, hold, reverse},
    expiry::pass,
    holds::release,
    support::system::System,
};

/// As in the tests of points that expire, and then holds, in every kind of entry, up to entry 48. A hold of 6 points, of
/// which 2 expire, is open.
pub async fn filled() -> System {
    let system = lots::filled().await;
    let service = system.service(4);
    let never = Timestamp::from_second(4_070_907_600).expect("in range");
    let soon = Timestamp::from_second(Timestamp::now().as_second()).expect("in range") + 1.hour();
    for user in 1..=12 {
        let (ends, open, order, other) =
            (hold(user, 5, Some(soon)), hold(user, 6, Some(never)), hold(user, 3, None), hold(user, 1, None));
        let taken = capture(user, order.request_id, Some(1));
        let changes = [
            // Entry 33.
            add(user, 10),
            ends.clone(),
            open.clone(),
            order.clone(),
            taken.clone(),
            reverse(user, taken.request_id),
            capture(user, order.request_id, None),
            capture(user, RequestId::random(), None),
            capture(user, open.request_id, Some(100)),
            hold(user, 1_000, None),
            other.clone(),
            release(user, other.request_id),
            release(user, other.request_id),
            reverse(user, open.request_id),
        ];
        for change in &changes {
            apply(&service, change).await;
        }
    }
    // The time of the first hold has come, and its release is entry 47.
    pass(&system, 2 * 3_600).await;
    for user in 1..=12 {
        apply(&service, &add(user, 1)).await;
    }
    system
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_or_an_end_that_is_not_what_it_says_is_found_and_named() {
    let system = filled().await;
    assert_eq!(findings(&system).await, []);
    assert_eq!(system.count("select count(*) from log where seq = 48 and action = 'add'").await, 12);
    system.execute(damage::DROP_CONSTRAINTS).await;
    let damages = [
        "update user_point set holds = null where user_id = '1'",
        "update user_point set holds = replace(holds, '\"point\":6', '\"point\":5') where user_id = '2'",
        "update user_point set holds = replace(holds, 'at\":40709', 'at\":40708') where user_id = '3'",
        "update user_point set holds = regexp_replace(holds, '\"lots\":.([0-9]+),2', '\"lots\":[\\1,1')
             where user_id = '4'",
        "update log set expires_at = expires_at + interval '1 s' where user_id = '5' and seq = 35",
        "update log set lots = null where user_id = '6' and seq = 35",
        "update log set ref = gen_random_uuid() where user_id = '7' and seq = 37",
        "update log set ref = (select request_id from log as o where o.user_id = log.user_id and seq = 36)
             where user_id = '8' and seq = 44",
        "update log set point = 2 where user_id = '9' and seq = 37",
        "update log set actor = null where user_id = '10' and seq = 47",
        "update log set reject_reason = 'unknown_hold' where user_id = '11' and seq = 45",
        "update log set lots = array[lots[1], lots[2] - 1] where user_id = '12' and seq = 47",
    ];
    for statement in damages {
        system.execute(statement).await;
    }
    let found = places(&system).await;
    let expected = [
        "1 0 holds",
        "2 0 holds",
        "3 0 holds",
        "4 0 holds",
        "5 0 holds",
        "5 0 due_at",
        "6 0 lots",
        "6 0 holds",
        "7 37 ref",
        "7 0 holds",
        "7 0 due_at",
        "8 44 ref",
        "8 0 holds",
        "8 0 due_at",
        "9 37 point",
        "9 38 ref",
        "10 47 ref",
        "11 45 reject_reason",
        "12 47 lots",
        "12 0 lots",
    ];
    assert_eq!(found, expected);
    system.discard().await;
}

/// What is held counts towards the limit of a balance.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_would_exceed_the_limit_only_with_what_is_held_is_sound() {
    let system = System::new().await;
    let service = system.service(1);
    for change in [add(7, (1 << 53) - 6), hold(7, 10, None), add(7, 10)] {
        apply(&service, &change).await;
    }
    assert_eq!(findings(&system).await, []);
    system.execute("update log set point = 4 where seq = 3").await;
    let found: Vec<String> = findings(&system).await.iter().map(ToString::to_string).collect();
    let expected = "user 7: log entry 3: reject_reason is balance_limit, expected a reason that holds";
    assert_eq!(found, [expected]);
    system.discard().await;
}
