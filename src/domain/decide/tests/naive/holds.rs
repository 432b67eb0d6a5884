//! The rules of holds in the slow form. Must not contain other rules.

use jiff::ToSpan;

use super::*;
use crate::domain::holds::HOLDS_MAX;

impl Naive {
    pub(in crate::domain::decide::tests) fn holds(&self, user: &UserId) -> Holds {
        let mut holds = Holds::default();
        self.of_holds(user).for_each(|hold| holds.open(hold.clone()));
        holds
    }

    pub(super) fn of_holds(&self, user: &UserId) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(move |(owner, _)| owner == user).map(|(_, hold)| hold)
    }

    pub(super) fn held(&self, user: &UserId) -> i64 {
        self.of_holds(user).map(|hold| hold.point).sum()
    }

    /// Ends a hold. All its points are the user's again.
    pub(super) fn put_back(&mut self, user: &UserId, request: RequestId) {
        let hold = self.of_holds(user).find(|hold| hold.request == request).expect("open").clone();
        self.holds.retain(|(owner, hold)| owner != user || hold.request != request);
        self.give(user, hold.point, &hold.lots);
    }

    pub(super) fn hold(
        &mut self,
        delta: &Delta,
        point: i64,
        at: Option<Timestamp>,
        time: Timestamp,
    ) -> Verdict {
        let user = &delta.user_id;
        let at = at.unwrap_or(time + 15.minutes());
        let change = if at <= time {
            Err(Rejection::Expired)
        } else if self.of_holds(user).count() == HOLDS_MAX {
            Err(Rejection::HoldLimit)
        } else if self.balance(user) < point {
            Err(Rejection::InsufficientPoints)
        } else {
            let lots = self.take(user, point, &Lots::default());
            let hold = Hold { at, request: delta.request_id, point, lots: lots.clone() };
            self.holds.push((user.clone(), hold.clone()));
            Ok(Moved { change: -point, lots, held: Held::Opens(hold) })
        };
        Verdict { point, reference: None, change }
    }

    /// A capture takes all points of the hold, or the number that it names. A release takes none.
    pub(super) fn end(
        &mut self,
        user: &UserId,
        request: RequestId,
        is_capture: bool,
        captured: Option<i64>,
    ) -> Verdict {
        let refused = |why, point, reference| Verdict { point, reference: Some(reference), change: Err(why) };
        let asked = |all: i64| captured.unwrap_or(all);
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
        let lots = if is_capture { self.take(user, point, &Lots::default()) } else { hold.lots.clone() };
        self.points.extend(own);
        let change = if is_capture { hold.point - point } else { hold.point };
        let moved = Moved { change, lots, held: Held::default() };
        Verdict { point, reference: Some(request), change: Ok(moved) }
    }
}
