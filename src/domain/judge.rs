//! What a change does to an account, or why it does nothing. Must not contain I/O, a clock or SQL.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    change::Change,
    delta::{Delta, POINTS_MAX, Points},
    entry::{Account, Entry, Moved, Rejection, Verdict},
    known::Known,
    lots::{LOTS_MAX, Lots},
    request_id::RequestId,
    user_id::UserId,
};

/// One arm for each action. `other` is the account of the other user, if the change has one. `None` if there is nothing
/// to decide.
pub(super) fn judge(
    account: &Account,
    other: Option<&Account>,
    known: &Known,
    delta: &Delta,
    time: Timestamp,
) -> Option<Verdict> {
    let alone = |change| Verdict { point: asked(&delta.change), reference: None, change };
    Some(match &delta.change {
        Change::Add { point, expires_at } => {
            let lots = Lots::of(*expires_at, point.get());
            let is_late = expires_at.is_some_and(|at| at <= time);
            alone(if is_late { Err(Rejection::Expired) } else { give(account, point.get(), lots, time) })
        }
        Change::Subtract { point, partial } => alone(take(account, point.get(), *partial, &Lots::default())),
        Change::Transfer { point, .. } => {
            let moved = take(account, point.get(), false, &Lots::default());
            alone(moved.and_then(|moved| passed_on(moved, other, time)))
        }
        Change::Reverse { request, partial } => match reversible(known, &delta.user_id, *request) {
            Ok(original) => reverse((account, other), original, *partial, time),
            Err(refused) => *refused,
        },
        Change::Expire => return None,
    })
}

/// How many points a change asks for by itself.
pub(super) fn asked(change: &Change) -> i64 {
    change.point().map_or(0, Points::get)
}

pub(super) fn refuse(why: Rejection, point: i64, reference: RequestId) -> Verdict {
    Verdict { point, reference: Some(reference), change: Err(why) }
}

/// The entry that a reversal undoes, or why there is none.
fn reversible<'a>(
    known: &'a Known,
    user_id: &UserId,
    request: RequestId,
) -> Result<&'a Arc<Entry>, Box<Verdict>> {
    let refused = |why, point, reference| Err(Box::new(refuse(why, point, reference)));
    let Some(original) = known.entry(user_id, request) else {
        return refused(Rejection::UnknownRequest, 0, request);
    };
    let point = original.change.abs();
    if !original.is_reversible() {
        return refused(Rejection::NotReversible, point, request);
    }
    match known.reversal(user_id, request) {
        Some(reversal) => refused(Rejection::AlreadyReversed, point, reversal.request_id),
        None => Ok(original),
    }
}

/// Gives back what the entry took, to the lots that it took it from, or takes what it gave, first from the lot that it
/// gave it to. What it gave to another user comes from that user.
fn reverse(
    (account, other): (&Account, Option<&Account>),
    original: &Entry,
    partial: bool,
    time: Timestamp,
) -> Verdict {
    let point = original.change.abs();
    let change = if original.counterparty.is_some() {
        let receiver = other.expect("the account of the counterparty");
        let moved = take(receiver, point, partial, &original.lots);
        moved.and_then(|moved| passed_on(moved, Some(account), time)).map(|moved| moved.mirrored())
    } else if original.change < 0 {
        give(account, point, original.lots.clone(), time)
    } else {
        take(account, point, partial, &Lots::of(original.expires_at, point))
    };
    Verdict { point, reference: Some(original.request_id), change }
}

/// Gives points, of which those in `lots` expire.
fn give(account: &Account, point: i64, lots: Lots, time: Timestamp) -> Result<Moved, Rejection> {
    if account.point > POINTS_MAX - point {
        Err(Rejection::BalanceLimit)
    } else if account.lots.count_with(&lots, time) > LOTS_MAX {
        Err(Rejection::LotLimit)
    } else {
        Ok(Moved { change: point, lots })
    }
}

/// Takes less than `point` only if there is less, and a part is enough. The points of `first` are taken first, then what
/// expires next, and then what does not expire.
fn take(account: &Account, point: i64, partial: bool, first: &Lots) -> Result<Moved, Rejection> {
    let taken = match account.point {
        enough if enough >= point => point,
        rest if partial && rest > 0 => rest,
        _ => return Err(Rejection::InsufficientPoints),
    };
    Ok(Moved { change: -taken, lots: account.lots.taken(taken, first) })
}

/// What is taken from one account, if the other account can have it.
fn passed_on(taken: Moved, receiver: Option<&Account>, time: Timestamp) -> Result<Moved, Rejection> {
    let receiver = receiver.expect("a transfer has two accounts");
    give(receiver, -taken.change, taken.lots.clone(), time)?;
    Ok(taken)
}
