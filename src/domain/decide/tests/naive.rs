//! The rules of `decide` in a second, slow form, for its property tests. Must not contain anything but these rules.

use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::{
    account::{Held, Moved},
    change::Change,
    decide::reuse,
    delta::{Delta, POINTS_MAX},
    entry::{Entry, Outcome, Rejection, Verdict},
    holds::{Hold, Holds},
    judge::{asked, refuse},
    known::Known,
    lots::{LOTS_MAX, Lot, Lots},
    request_id::RequestId,
    user_id::UserId,
};

mod holds;

/// The same rules in a slow implementation: one thing happens at a time, and what the users have is a list.
#[derive(Default)]
pub(super) struct Naive {
    /// In the order in which it was written, each entry with the change that was asked for.
    pub(super) log: Vec<(Change, Arc<Entry>)>,
    /// Whose points, when they expire, and how many.
    points: Vec<(UserId, Option<Timestamp>, i64)>,
    /// The open holds.
    holds: Vec<(UserId, Hold)>,
}

impl Naive {
    fn of_user(&self, user: &UserId) -> impl Iterator<Item = &(Change, Arc<Entry>)> {
        self.log.iter().filter(move |(_, entry)| entry.user_id == *user)
    }

    fn last_time(&self, user: &UserId) -> Timestamp {
        self.of_user(user).last().map_or(Timestamp::UNIX_EPOCH, |(_, entry)| entry.created_at)
    }

    pub(super) fn balance(&self, user: &UserId) -> i64 {
        self.points.iter().filter(|(owner, ..)| owner == user).map(|(.., point)| point).sum()
    }

    pub(super) fn lots(&self, user: &UserId) -> Lots {
        let mut lots = Lots::default();
        for (_, at, point) in self.points.iter().filter(|(owner, ..)| owner == user) {
            if let Some(at) = *at {
                lots.add(Lot { at, point: *point });
            }
        }
        lots
    }

    pub(super) fn holds(&self, user: &UserId) -> Holds {
        let mut holds = Holds::default();
        self.of_holds(user).for_each(|hold| holds.open(hold.clone()));
        holds
    }

    fn of_holds(&self, user: &UserId) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(move |(owner, _)| owner == user).map(|(_, hold)| hold)
    }

    fn held(&self, user: &UserId) -> i64 {
        self.of_holds(user).map(|hold| hold.point).sum()
    }

    /// Ends a hold. All its points are the user's again.
    fn put_back(&mut self, user: &UserId, request: RequestId) {
        let hold = self.of_holds(user).find(|hold| hold.request == request).expect("open").clone();
        self.holds.retain(|(owner, hold)| owner != user || hold.request != request);
        self.give(user, hold.point, &hold.lots);
    }

    fn write(&mut self, delta: &Delta, verdict: Verdict, time: Timestamp) -> Arc<Entry> {
        let seq = i64::try_from(self.of_user(&delta.user_id).count()).expect("short") + 1;
        let entry = Entry::of(delta, verdict, (seq, self.balance(&delta.user_id)), time);
        let entry = Arc::new(entry);
        self.log.push((delta.change, Arc::clone(&entry)));
        entry
    }

    fn expire(&mut self, user: &UserId, now: Timestamp) {
        let time = self.last_time(user).max(now);
        loop {
            let lot = self.lots(user).as_slice().first().copied().filter(|lot| lot.at <= time);
            let hold = self.of_holds(user).min_by_key(|hold| (hold.at, hold.request)).cloned();
            if let Some(hold) = hold.filter(|hold| hold.at <= lot.map_or(time, |lot| lot.at)) {
                self.put_back(user, hold.request);
                let seq = i64::try_from(self.of_user(user).count()).expect("short") + 1;
                let delta = Delta {
                    request_id: RequestId::of_expiry(user, seq),
                    requested_at: now,
                    change: Change::Release { hold: hold.request },
                    ..Delta::expiry(user.clone())
                };
                let moved = Moved { change: hold.point, lots: hold.lots.clone(), held: Held::default() };
                let verdict = Verdict { point: hold.point, reference: Some(hold.request), change: Ok(moved) };
                self.write(&delta, verdict, self.last_time(user).max(hold.at));
                continue;
            }
            let Some(lot) = lot else { break };
            self.points.retain(|(owner, at, _)| owner != user || *at != Some(lot.at));
            let seq = i64::try_from(self.of_user(user).count()).expect("short") + 1;
            let delta = Delta {
                request_id: RequestId::of_expiry(user, seq),
                requested_at: now,
                ..Delta::expiry(user.clone())
            };
            let verdict =
                Verdict { point: lot.point, reference: None, change: Ok(Moved::lasting(-lot.point)) };
            let entry = self.write(&delta, verdict, self.last_time(user).max(lot.at));
            self.log.last_mut().expect("one").1 =
                Arc::new(Entry { expires_at: Some(lot.at), ..(*entry).clone() });
        }
    }

    fn give(&mut self, user: &UserId, point: i64, lots: &Lots) {
        let expiring = lots.as_slice().iter().map(|lot| (user.clone(), Some(lot.at), lot.point));
        self.points.extend(expiring);
        let lasting = point - lots.as_slice().iter().map(|lot| lot.point).sum::<i64>();
        self.points.push((user.clone(), None, lasting));
    }

    fn take(&mut self, user: &UserId, mut point: i64, first: Option<Timestamp>) -> Lots {
        let before = self.lots(user);
        self.points.sort_by_key(|(_, at, _)| (first.is_none() || *at != first, at.is_none(), *at));
        for (_, _, piece) in self.points.iter_mut().filter(|(owner, ..)| owner == user) {
            let some = point.min(*piece);
            (*piece, point) = (*piece - some, point - some);
        }
        self.points.retain(|(.., piece)| *piece > 0);
        let (mut taken, after) = (before, self.lots(user));
        for lot in after.as_slice() {
            taken.remove(*lot);
        }
        taken
    }

    /// Decides one delta. `None` if it asks for nothing.
    pub(super) fn decide(&mut self, delta: &Delta, now: Timestamp) -> Option<Outcome> {
        let user = &delta.user_id;
        let is_reuse = |entry: &Entry| {
            entry.rejection == Some(Rejection::KeyReused) && entry.reference == Some(delta.request_id)
        };
        let first = self.of_user(user).find(|(_, entry)| entry.request_id == delta.request_id);
        let other = first.filter(|(change, _)| *change != delta.change).map(|(_, entry)| Arc::clone(entry));
        let again = self.of_user(user).find(|(change, entry)| *change == delta.change && is_reuse(entry));
        if let Some((_, entry)) = first.filter(|(change, _)| *change == delta.change).or(again) {
            return Some(Outcome { entry: Arc::clone(entry), replayed: true, first: other });
        }
        self.expire(user, now);
        if delta.change == Change::Expire {
            return None;
        }
        let time = self.last_time(user).max(now);
        let (verdict, request_id) = match &other {
            Some(first) => {
                (refuse(Rejection::KeyReused, asked(&delta.change), first.request_id), reuse(delta))
            }
            None => (self.verdict(delta, time), delta.request_id),
        };
        let entry = self.write(&Delta { request_id, ..delta.clone() }, verdict, time);
        self.expire(user, now);
        Some(Outcome { entry, replayed: false, first: other })
    }

    fn verdict(&mut self, delta: &Delta, time: Timestamp) -> Verdict {
        let user = &delta.user_id;
        if let Some(verdict) = self.about_hold(delta, time) {
            return verdict;
        }
        let entry_of = |id| self.of_user(user).find(|(_, entry)| entry.request_id == id).cloned();
        let original = delta.change.request().and_then(entry_of);
        let (wanted, partial, reference, lots) = match (delta.change, &original) {
            (Change::Add { point, expires_at }, _) => {
                (point.get(), false, None, Lots::of(expires_at, point.get()))
            }
            (Change::Subtract { point, partial }, _) => (-point.get(), partial, None, Lots::default()),
            (Change::Reverse { request, partial }, Some((change, entry))) => {
                let is_capture = matches!(change, Change::Capture { .. }) && entry.rejection.is_none();
                let wanted = if is_capture { entry.point } else { -entry.change };
                (wanted, partial, Some(request), entry.lots.clone())
            }
            (Change::Reverse { request, partial }, None) => (0, partial, Some(request), Lots::default()),
            (_, _) => unreachable!("it asks for nothing, or is about a hold"),
        };
        let undoes = |entry: &Entry| {
            entry.action == "reverse" && entry.rejection.is_none() && entry.reference == reference
        };
        let reversal = self.of_user(user).find(|(_, entry)| undoes(entry)).filter(|_| reference.is_some());
        let reversal = reversal.map(|(_, first)| first.request_id);
        let is_undoable = |(change, entry): &(Change, Arc<Entry>)| {
            let kinds =
                matches!(change, Change::Add { .. } | Change::Subtract { .. } | Change::Capture { .. });
            kinds && entry.rejection.is_none()
        };
        let is_late = delta.change.expires_at().is_some_and(|at| at <= time);
        let mut all = self.lots(user);
        for lot in lots.as_slice().iter().filter(|lot| lot.at > time) {
            all.add(*lot);
        }
        let held: Vec<Hold> = self.of_holds(user).cloned().collect();
        for lot in held.iter().flat_map(|hold| hold.lots.as_slice()).filter(|lot| lot.at > time) {
            all.add(*lot);
        }
        let balance = self.balance(user);
        let verdict = |change| Verdict { point: wanted.abs(), reference, change };
        match (reference, &original) {
            (Some(_), None) => verdict(Err(Rejection::UnknownRequest)),
            (Some(_), Some(original)) if !is_undoable(original) => verdict(Err(Rejection::NotReversible)),
            _ if reversal.is_some() => {
                Verdict { reference: reversal, ..verdict(Err(Rejection::AlreadyReversed)) }
            }
            _ if is_late => verdict(Err(Rejection::Expired)),
            _ if wanted > POINTS_MAX - balance - self.held(user) => verdict(Err(Rejection::BalanceLimit)),
            _ if wanted > 0 && !lots.as_slice().is_empty() && all.as_slice().len() > LOTS_MAX => {
                verdict(Err(Rejection::LotLimit))
            }
            _ if wanted > 0 => {
                self.give(user, wanted, &lots);
                verdict(Ok(Moved { change: wanted, lots, held: Held::default() }))
            }
            _ if balance + wanted >= 0 || partial && balance > 0 => {
                let taken = balance.min(-wanted);
                let lots = self.take(user, taken, original.and_then(|(_, entry)| entry.expires_at));
                verdict(Ok(Moved { change: -taken, lots, held: Held::default() }))
            }
            _ => verdict(Err(Rejection::InsufficientPoints)),
        }
    }

    /// What the store looks up in the log for `deltas`.
    pub(super) fn looked_up(&self, deltas: &[Delta]) -> Known {
        let mut known = Known::default();
        for delta in deltas {
            let ids = [Some(delta.request_id), Some(reuse(delta)), delta.change.about()];
            let is_asked = |entry: &Entry| {
                ids.contains(&Some(entry.request_id)) || entry.ended().is_some_and(|id| ids[2] == Some(id))
            };
            let asked = self.of_user(&delta.user_id).filter(|(_, entry)| is_asked(entry));
            asked.for_each(|(_, entry)| known.learn(Arc::clone(entry)));
        }
        known
    }
}
