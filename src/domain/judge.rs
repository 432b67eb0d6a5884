//! What a change does to an account, or why it does nothing. Must not contain I/O, a clock or SQL.

use jiff::Timestamp;

use super::{
    change::{Action, Change},
    delta::{Delta, POINTS_MAX, Points},
    entry::{Account, Moved, Rejection, Verdict},
    known::Known,
    lots::{LOTS_MAX, Lots},
    request_id::RequestId,
    user_id::UserId,
};

/// One arm for each action. `None` if there is nothing to decide.
pub(super) fn judge(account: &Account, known: &Known, delta: &Delta, now: Timestamp) -> Option<Verdict> {
    let alone = |change| Verdict { point: asked(&delta.change), reference: None, change };
    Some(match &delta.change {
        Change::Add { point, expires_at } => {
            let lots = Lots::of(*expires_at, point.get());
            let is_late = expires_at.is_some_and(|at| at <= account.time(now));
            alone(if is_late { Err(Rejection::Expired) } else { give(account, point.get(), lots, now) })
        }
        Change::Subtract { point, partial } => alone(take(account, point.get(), *partial, None)),
        Change::Reverse { request, partial } => {
            reverse(account, known, &delta.user_id, (*request, *partial), now)
        }
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

/// Gives back what the request took, to the lots that it took it from, or takes what it gave, first from the lot that it
/// gave it to.
fn reverse(
    account: &Account,
    known: &Known,
    user_id: &UserId,
    (request, partial): (RequestId, bool),
    now: Timestamp,
) -> Verdict {
    let Some(original) = known.entry(user_id, request) else {
        return refuse(Rejection::UnknownRequest, 0, request);
    };
    let point = original.change.abs();
    if original.rejection.is_some() || !original.known_action().is_some_and(Action::is_reversible) {
        return refuse(Rejection::NotReversible, point, request);
    }
    if let Some(reversal) = known.reversal(user_id, request) {
        return refuse(Rejection::AlreadyReversed, point, reversal.request_id);
    }
    let change = if original.change < 0 {
        give(account, point, original.lots.clone(), now)
    } else {
        take(account, point, partial, original.expires_at)
    };
    Verdict { point, reference: Some(request), change }
}

/// Gives points, of which those in `lots` expire.
fn give(account: &Account, point: i64, lots: Lots, now: Timestamp) -> Result<Moved, Rejection> {
    if account.point > POINTS_MAX - point {
        Err(Rejection::BalanceLimit)
    } else if account.lots.count_with(&lots, account.time(now)) > LOTS_MAX {
        Err(Rejection::LotLimit)
    } else {
        Ok(Moved { change: point, lots })
    }
}

/// Takes less than `point` only if there is less, and a part is enough. What expires at `first` is taken first, then what
/// expires next, and then what does not expire.
fn take(account: &Account, point: i64, partial: bool, first: Option<Timestamp>) -> Result<Moved, Rejection> {
    let taken = match account.point {
        enough if enough >= point => point,
        rest if partial && rest > 0 => rest,
        _ => return Err(Rejection::InsufficientPoints),
    };
    Ok(Moved { change: -taken, lots: account.lots.taken(taken, first) })
}
