//! Random deltas of a few users, and what is decided for them. Must not contain a rule.

use super::*;

pub(super) fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

pub(super) fn user(id: i64) -> UserId {
    UserId::new("user_id", &id.to_string()).expect("valid")
}

/// A delta of a few users and request ids, so that the same id comes again with the same change and with another,
/// and is reversed, with points near both limits, which expire sooner or later or not at all.
pub(super) fn any_delta() -> impl Strategy<Value = Delta> {
    let point = prop_oneof![1..3i64, 1..100i64, POINTS_MAX - 50..=POINTS_MAX];
    let point = point.prop_map(|point| Points::new(point).expect("in range"));
    // Two users never have the same request id, unless one has received points by it.
    let id =
        |user: i64, id: u128| RequestId::from(Uuid::from_u128(u128::from(user.cast_unsigned()) << 64 | id));
    let expired = (1..4i64, 1..20i64).prop_map(|(id, seq)| RequestId::of_expiry(&user(id), seq));
    let any_id = (1..4i64, 0..40u128).prop_map(move |(user, number)| id(user, number));
    let request = prop_oneof![9 => any_id, 1 => expired];
    let expires_at = prop::option::of((0..60i64).prop_map(second));
    // Few ids, so that holds are ended.
    let hold = move || (1..4i64, 30..40u128).prop_map(move |(user, number)| id(user, number));
    let hold_end = expires_at.clone();
    let change = prop_oneof![
        4 => (point.clone(), expires_at).prop_map(|(point, expires_at)| Change::Add { point, expires_at }),
        4 => (point.clone(), any::<bool>()).prop_map(|(point, partial)| Change::Subtract { point, partial }),
        4 => (request, any::<bool>()).prop_map(|(request, partial)| Change::Reverse { request, partial }),
        4 => (1..4i64, point.clone()).prop_map(|(to, point)| Change::Transfer { to: user(to), point }),
        4 => (point.clone(), hold_end).prop_map(|(point, expires_at)| Change::Hold { point, expires_at }),
        3 => (hold(), prop::option::of(point)).prop_map(|(hold, point)| Change::Capture { hold, point }),
        2 => hold().prop_map(|hold| Change::Release { hold }),
        1 => Just(Change::Expire),
    ];
    let numbers = (0..40u128, 30..40u128);
    (1..4i64, numbers, change).prop_map(move |(user, (number, few), change)| {
        let of =
            |number, change| Delta { request_id: id(user, number), ..Delta::of(&user.to_string(), change) };
        match change {
            Change::Expire => Delta::expiry(self::user(user)),
            Change::Hold { .. } => of(few, change),
            // A transfer to its own sender becomes an add.
            Change::Transfer { to, point } if to == self::user(user) => {
                of(number, Change::Add { point, expires_at: None })
            }
            _ => of(number, change),
        }
    })
}

/// Batches, each with the time of its decision: the clock goes on, or jumps back.
pub(super) fn any_batches() -> impl Strategy<Value = Vec<(Timestamp, Vec<Delta>)>> {
    prop::collection::vec(((0..60i64).prop_map(second), prop::collection::vec(any_delta(), 0..40)), 0..8)
}

/// Decides all batches, and returns the new entries.
pub(super) fn decide_all(batches: &[(Timestamp, Vec<Delta>)], accounts: &mut Accounts) -> Vec<Arc<Entry>> {
    let mut known = Known::default();
    let mut entries = Vec::new();
    for (now, batch) in batches {
        let decided = decide(accounts, &mut known, batch, *now);
        entries.extend(decided.outcomes.into_iter().flatten().filter(|o| !o.replayed).map(|o| o.entry));
        entries.extend(decided.further);
    }
    entries.sort_by_key(|entry| (entry.user_id.clone(), entry.seq));
    entries
}
