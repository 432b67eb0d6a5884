//! A preview says what a change would do, and does nothing.

use jiff::{SignedDuration, Timestamp};
use point_system::domain::{Delta, Entry};

use super::{add, add_until, apply, capture, hold, reverse, reverse_some, subtract, subtract_some, transfer};
use crate::support::system::System;

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_is_what_becomes_of_the_change_and_changes_nothing() {
    let system = System::new().await;
    let service = system.service(2);
    let soon = Timestamp::now() + SignedDuration::from_hours(1);
    let (first, gift, kept) = (add_until(7, 1_000, soon), transfer(7, 8, 300), hold(7, 200, Some(soon)));
    let (taken, undo) = (subtract(7, 5_000), reverse(7, gift.request_id));
    let again = Delta { change: subtract(7, 1).change, ..first.clone() };
    let deltas = [
        first.clone(),
        gift.clone(),
        kept.clone(),
        taken.clone(),
        taken,
        again,
        capture(7, kept.request_id, Some(50)),
        capture(7, kept.request_id, None),
        undo.clone(),
        reverse(7, undo.request_id),
        reverse(8, gift.request_id),
        reverse_some(7, first.request_id),
        subtract_some(7, 9_000),
        add(9, 5),
    ];
    let essence = |entry: &Entry| {
        (
            entry.request_id,
            entry.seq,
            entry.point,
            entry.change,
            entry.balance,
            entry.rejection.clone(),
            entry.reference,
        )
    };
    for delta in deltas {
        let before = system.count("select count(*) from log").await;
        let preview = service.preview(delta.clone()).await.expect("a preview");
        assert_eq!(system.count("select count(*) from log").await, before, "{delta:?}");
        let outcome = apply(&service, &delta).await;
        let foreseen = preview.outcome;
        assert_eq!(essence(&foreseen.entry), essence(&outcome.entry), "{delta:?}");
        assert_eq!((foreseen.replayed, foreseen.first), (outcome.replayed, outcome.first), "{delta:?}");
        let other = outcome.entry.counterparty.as_ref().filter(|_| outcome.entry.change != 0);
        assert_eq!(preview.other.as_ref().map(|entry| &entry.user_id), other, "{delta:?}");
    }
    system.finish_without_queues().await;
}
