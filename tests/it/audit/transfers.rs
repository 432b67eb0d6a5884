//! Damage to transfers: to one of their two entries. It is found and named for both users.

use super::{damage, findings, holds, places};
use crate::{
    apply::{add, apply, reverse, reverse_some, subtract_some, transfer},
    support::system::System,
};

/// As in the tests of holds, and then transfers of users 1, 3, 5, … to users 2, 4, 6, …, up to entries 54 and 55.
pub async fn filled() -> System {
    let system = holds::filled().await;
    let service = system.service(4);
    for sender in (1..=12).step_by(2) {
        let receiver = sender + 1;
        let (gift, other) = (transfer(sender, receiver, 3), transfer(sender, receiver, 2));
        let changes = [
            // Entry 49 of both.
            gift.clone(),
            other.clone(),
            reverse(sender, gift.request_id),
            transfer(sender, receiver, 10_000),
            reverse(receiver, gift.request_id),
            // The receiver has only one point left.
            subtract_some(receiver, 1 << 52),
            add(receiver, 1),
            reverse(sender, other.request_id),
            reverse_some(sender, other.request_id),
        ];
        for change in &changes {
            apply(&service, change).await;
        }
    }
    system
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_without_its_other_half_is_found_and_named() {
    let system = filled().await;
    assert_eq!(findings(&system).await, []);
    assert_eq!(system.count("select count(*) from log where seq = 54 and change = 1").await, 12);
    system.execute(damage::DROP_CONSTRAINTS).await;
    for statement in [
        "update log set counterparty = '99' where user_id = '1' and seq = 49",
        "update log set request_id = gen_random_uuid() where user_id = '4' and seq = 50",
        "update log set lots = null where user_id = '5' and seq = 49",
        "update log set counterparty = null where user_id = '7' and seq = 52",
        "update log set counterparty = '10' where user_id = '9' and seq = 33",
        "update log set ref = (select request_id from log as o where o.user_id = log.user_id and seq = 49)
             where user_id = '11' and seq = 54",
    ] {
        system.execute(statement).await;
    }
    let found = places(&system).await;
    let expected = [
        "1 49 counterparty",
        "1 51 ref",
        "2 49 counterparty",
        "3 50 counterparty",
        "4 50 counterparty",
        "4 55 ref",
        "5 49 counterparty",
        "5 0 lots",
        "6 49 counterparty",
        "7 52 counterparty",
        "9 33 counterparty",
        "9 33 counterparty",
        "11 54 ref",
        "11 54 counterparty",
        "12 55 counterparty",
    ];
    assert_eq!(found, expected);
    system.discard().await;
}
