//! What a change does to an account, or why it does nothing. Must not contain I/O, a clock or SQL.

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    account::{Account, Held, Moved},
    change::{Action, Change},
    delta::{Delta, POINTS_MAX, Points},
    entry::{Entry, Rejection, Verdict},
    holds::{HOLD_DEFAULT_MINUTES, HOLDS_MAX, Hold},
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
        Change::Hold { point, expires_at } => {
            alone(hold(account, delta.request_id, point.get(), *expires_at, time))
        }
        Change::Capture { hold, point } => end(account, known, &delta.user_id, *hold, |hold| {
            let point = point.map_or(hold.point, Points::get);
            (point, capture(hold, point))
        }),
        Change::Release { hold } => {
            end(account, known, &delta.user_id, *hold, |hold| (hold.point, Ok(Moved::release(hold))))
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

/// The entry that a reversal undoes, or why there is none.
fn reversible<'a>(known: &'a Known, user_id: &UserId, request: RequestId) -> Result<&'a Entry, Box<Verdict>> {
    let refused = |why, point, reference| Err(Box::new(refuse(why, point, reference)));
    let Some(original) = known.entry(user_id, request) else {
        return refused(Rejection::UnknownRequest, 0, request);
    };
    if !original.is_reversible() {
        return refused(Rejection::NotReversible, original.change.abs(), request);
    }
    match known.ending(user_id, request) {
        Some(reversal) => refused(Rejection::AlreadyReversed, undone_point(original), reversal.request_id),
        None => Ok(original),
    }
}

/// How many points the reversal of an entry is about. A capture took points that were already held.
fn undone_point(original: &Entry) -> i64 {
    if is_capture(original) { original.point } else { original.change.abs() }
}

fn is_capture(entry: &Entry) -> bool {
    entry.known_action() == Some(Action::Capture)
}

/// Gives back what the entry took, to the lots that it took it from, or takes what it gave, first from the lot that it
/// gave it to. What it gave to another user comes from that user.
fn reverse(
    (account, other): (&Account, Option<&Account>),
    original: &Entry,
    partial: bool,
    time: Timestamp,
) -> Verdict {
    let point = undone_point(original);
    let change = if original.counterparty.is_some() {
        let receiver = other.expect("the account of the counterparty");
        let moved = take(receiver, point, partial, &original.lots);
        moved.and_then(|moved| passed_on(moved, Some(account), time)).map(|moved| moved.mirrored())
    } else if original.change < 0 || is_capture(original) {
        give(account, point, original.lots.clone(), time)
    } else {
        take(account, point, partial, &Lots::of(original.expires_at, point))
    };
    Verdict { point, reference: Some(original.request_id), change }
}

/// Takes points out of the balance until they are captured or return.
fn hold(
    account: &Account,
    request: RequestId,
    point: i64,
    at: Option<Timestamp>,
    time: Timestamp,
) -> Result<Moved, Rejection> {
    let default = || time.checked_add(SignedDuration::from_mins(HOLD_DEFAULT_MINUTES));
    let at = at.unwrap_or_else(|| default().unwrap_or(Timestamp::MAX));
    if at <= time {
        return Err(Rejection::Expired);
    }
    if account.holds.as_slice().len() >= HOLDS_MAX {
        return Err(Rejection::HoldLimit);
    }
    let Moved { change, lots, .. } = take(account, point, false, &Lots::default())?;
    let held = Held::Opens(Hold { at, request, point, lots: lots.clone() });
    Ok(Moved { change, lots, held })
}

/// Ends a hold. `how` returns the number of points and the effect.
fn end(
    account: &Account,
    known: &Known,
    user_id: &UserId,
    request: RequestId,
    how: impl Fn(&Hold) -> (i64, Result<Moved, Rejection>),
) -> Verdict {
    if let Some(hold) = account.holds.get(request) {
        let (point, change) = how(hold);
        return Verdict { point, reference: Some(request), change };
    }
    let asked = |point| how(&Hold { at: Timestamp::MIN, request, point, lots: Lots::default() }).0;
    let is_hold = |entry: &&Arc<Entry>| entry.known_action() == Some(Action::Hold);
    let hold = known.entry(user_id, request).filter(is_hold);
    match hold.zip(known.ending(user_id, request)) {
        Some((hold, first)) => refuse(Rejection::HoldOver, asked(hold.point), first.request_id),
        None => refuse(Rejection::UnknownHold, asked(0), request),
    }
}

/// Takes what expires first. The rest returns.
fn capture(hold: &Hold, point: i64) -> Result<Moved, Rejection> {
    if point > hold.point {
        return Err(Rejection::HoldTooSmall);
    }
    let lots = hold.lots.taken(point, &Lots::default());
    let ends = Held::Ends { hold: hold.request, rest: hold.lots.clone().without(&lots) };
    Ok(Moved { change: hold.point - point, lots, held: ends })
}

/// Gives points, of which those in `lots` expire. The holds count, so that their points can always return.
fn give(account: &Account, point: i64, lots: Lots, time: Timestamp) -> Result<Moved, Rejection> {
    if account.point + account.holds.point() > POINTS_MAX - point {
        Err(Rejection::BalanceLimit)
    } else if times(account, &lots, time) > LOTS_MAX {
        Err(Rejection::LotLimit)
    } else {
        Ok(Moved { change: point, lots, held: Held::Nothing })
    }
}

/// At how many times after `now` points expire, those in holds and those of `given` included.
fn times(account: &Account, given: &Lots, now: Timestamp) -> usize {
    if given.as_slice().is_empty() {
        return 0;
    }
    let held = account.holds.as_slice().iter().map(|hold| &hold.lots);
    let all = held.chain([&account.lots, given]).flat_map(Lots::as_slice);
    all.map(|lot| lot.at).filter(|at| *at > now).collect::<BTreeSet<_>>().len()
}

/// Takes less than `point` only if there is less, and a part is enough. The points of `first` are taken first, then what
/// expires next, and then what does not expire.
fn take(account: &Account, point: i64, partial: bool, first: &Lots) -> Result<Moved, Rejection> {
    let taken = match account.point {
        enough if enough >= point => point,
        rest if partial && rest > 0 => rest,
        _ => return Err(Rejection::InsufficientPoints),
    };
    Ok(Moved { change: -taken, lots: account.lots.taken(taken, first), held: Held::Nothing })
}

/// The points taken from one account, if they fit into the other.
fn passed_on(taken: Moved, receiver: Option<&Account>, time: Timestamp) -> Result<Moved, Rejection> {
    let receiver = receiver.expect("a transfer has two accounts");
    give(receiver, -taken.change, taken.lots.clone(), time)?;
    Ok(taken)
}
