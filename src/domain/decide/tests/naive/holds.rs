//! The rules of holds in the slow form. Must not contain anything but these rules.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan};

use super::Naive;
use crate::domain::{
    account::{Held, Moved},
    change::Change,
    delta::{Delta, Points},
    entry::{Entry, Rejection, Verdict},
    holds::{HOLDS_MAX, Hold},
    request_id::RequestId,
    user_id::UserId,
};

impl Naive {
    /// Decides a delta about a hold.
    pub(super) fn about_hold(&mut self, delta: &Delta, time: Timestamp) -> Option<Verdict> {
        let user = &delta.user_id;
        match delta.change {
            Change::Hold { point, expires_at } => Some(self.hold(delta, point.get(), expires_at, time)),
            Change::Capture { hold, point } => Some(self.end(user, hold, true, point.map(Points::get))),
            Change::Release { hold } => Some(self.end(user, hold, false, None)),
            Change::Add { .. } | Change::Subtract { .. } | Change::Reverse { .. } | Change::Expire => None,
        }
    }

    fn hold(&mut self, delta: &Delta, point: i64, at: Option<Timestamp>, time: Timestamp) -> Verdict {
        let user = &delta.user_id;
        let at = at.unwrap_or(time + 15.minutes());
        let change = if at <= time {
            Err(Rejection::Expired)
        } else if self.of_holds(user).count() == HOLDS_MAX {
            Err(Rejection::HoldLimit)
        } else if self.balance(user) < point {
            Err(Rejection::InsufficientPoints)
        } else {
            let lots = self.take(user, point, None);
            let hold = Hold { at, request: delta.request_id, point, lots: lots.clone() };
            self.holds.push((user.clone(), hold.clone()));
            Ok(Moved { change: -point, lots, held: Held::Opens(hold) })
        };
        Verdict { point, reference: None, change }
    }

    /// A capture takes all, or as many as it names. A release takes none.
    fn end(&mut self, user: &UserId, request: RequestId, captures: bool, some: Option<i64>) -> Verdict {
        let refused = |why, point, reference| Verdict { point, reference: Some(reference), change: Err(why) };
        let asked = |all: i64| some.unwrap_or(all);
        let Some(hold) = self.of_holds(user).find(|hold| hold.request == request).cloned() else {
            let held = self.of_user(user).find(|(change, entry)| {
                entry.request_id == request
                    && matches!(change, Change::Hold { .. })
                    && entry.rejection.is_none()
            });
            let Some((_, held)) = held else { return refused(Rejection::UnknownHold, asked(0), request) };
            let is_end = |(change, entry): &&(Change, Arc<Entry>)| {
                change.hold() == Some(request) && entry.rejection.is_none()
            };
            let (_, first) = self.of_user(user).find(is_end).expect("it is not open");
            return refused(Rejection::HoldOver, asked(held.point), first.request_id);
        };
        let point = asked(hold.point);
        if point > hold.point {
            return refused(Rejection::HoldTooSmall, point, request);
        }
        // The user has nothing but the hold for a moment, so that what expires first of it is taken.
        let (own, others): (Vec<_>, Vec<_>) = self.points.drain(..).partition(|(owner, ..)| owner == user);
        self.points = others;
        self.put_back(user, request);
        let lots = if captures { self.take(user, point, None) } else { hold.lots.clone() };
        self.points.extend(own);
        let change = if captures { hold.point - point } else { hold.point };
        let moved = Moved { change, lots, held: Held::default() };
        Verdict { point, reference: Some(request), change: Ok(moved) }
    }
}
