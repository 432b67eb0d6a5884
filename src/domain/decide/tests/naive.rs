//! The rules of `decide` in a second, slow form, for its property tests. Must not contain anything but these rules.

use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::{
    account::{Held, Moved},
    change::Change,
    decide::reuse,
    delta::{Delta, POINTS_MAX, Points},
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

    fn write(&mut self, delta: &Delta, verdict: Verdict, time: Timestamp) -> Arc<Entry> {
        let seq = i64::try_from(self.of_user(&delta.user_id).count()).expect("short") + 1;
        let entry = Entry::of(delta, verdict, (seq, self.balance(&delta.user_id)), time);
        let entry = Arc::new(entry);
        self.log.push((delta.change.clone(), Arc::clone(&entry)));
        entry
    }

    fn expire(&mut self, user: &UserId, (time, now): (Timestamp, Timestamp)) {
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

    /// Takes points: those of `first`, then those that expire first, then the others.
    fn take(&mut self, user: &UserId, point: i64, first: &Lots) -> Lots {
        let before = self.lots(user);
        let mut left = point;
        let named = first.as_slice().iter().map(|lot| (Some(Some(lot.at)), lot.point));
        self.points.sort_by_key(|(_, at, _)| (at.is_none(), *at));
        for (wanted, most) in named.chain([(None, point)]) {
            let mut part = most.min(left);
            let is_wanted = |at: &Option<Timestamp>| wanted.is_none_or(|wanted| wanted == *at);
            let pieces = self.points.iter_mut().filter(|(owner, at, _)| owner == user && is_wanted(at));
            for (_, _, piece) in pieces {
                let some = part.min(*piece);
                (*piece, part, left) = (*piece - some, part - some, left - some);
            }
        }
        self.points.retain(|(.., piece)| *piece > 0);
        before.without(&self.lots(user))
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
        let undone =
            self.original(delta).filter(is_undoable).and_then(|(_, entry)| entry.counterparty.clone());
        let partner = delta.change.to().cloned().or(undone).filter(|_| other.is_none());
        let users: Vec<&UserId> = [user].into_iter().chain(&partner).collect();
        let time = users.iter().map(|user| self.last_time(user)).fold(now, Timestamp::max);
        for user in users {
            self.expire(user, (time, now));
        }
        if delta.change == Change::Expire {
            return None;
        }
        let (verdict, request_id) = match &other {
            Some(first) => {
                (refuse(Rejection::KeyReused, asked(&delta.change), first.request_id), reuse(delta))
            }
            None => (self.verdict(delta, partner.as_ref(), time), delta.request_id),
        };
        let entry = self.write(&Delta { request_id, ..delta.clone() }, verdict, time);
        let named = partner.clone().or(entry.counterparty.clone());
        let entry = Arc::new(Entry { counterparty: named, ..(*entry).clone() });
        self.log.last_mut().expect("one").1 = Arc::clone(&entry);
        if let Some(partner) = partner.as_ref().filter(|_| entry.change != 0) {
            let received = Entry {
                user_id: partner.clone(),
                counterparty: Some(user.clone()),
                seq: i64::try_from(self.of_user(partner).count()).expect("short") + 1,
                change: -entry.change,
                balance: self.balance(partner),
                ..(*entry).clone()
            };
            self.log.push((delta.change.clone(), Arc::new(received)));
            self.expire(partner, (time, now));
        }
        self.expire(user, (time, now));
        Some(Outcome { entry, replayed: false, first: other })
    }

    /// The entry of the request that a delta is about.
    fn original(&self, delta: &Delta) -> Option<(Change, Arc<Entry>)> {
        let request = delta.change.request()?;
        self.of_user(&delta.user_id).find(|(_, entry)| entry.request_id == request).cloned()
    }

    fn verdict(&mut self, delta: &Delta, partner: Option<&UserId>, time: Timestamp) -> Verdict {
        let user = &delta.user_id;
        match &delta.change {
            Change::Hold { point, expires_at } => {
                return self.hold(delta, point.get(), *expires_at, time);
            }
            Change::Capture { hold, point } => {
                return self.end(user, *hold, true, point.map(Points::get));
            }
            Change::Release { hold } => return self.end(user, *hold, false, None),
            Change::Add { .. }
            | Change::Subtract { .. }
            | Change::Reverse { .. }
            | Change::Transfer { .. }
            | Change::Expire => {}
        }
        let original = self.original(delta);
        let (wanted, partial, reference, lots) = match (&delta.change, &original) {
            (Change::Add { point, expires_at }, _) => {
                (point.get(), false, None, Lots::of(*expires_at, point.get()))
            }
            (Change::Subtract { point, partial }, _) => (-point.get(), *partial, None, Lots::default()),
            (Change::Transfer { point, .. }, _) => (-point.get(), false, None, Lots::default()),
            (Change::Reverse { request, partial }, Some((change, entry))) => {
                let is_capture = matches!(change, Change::Capture { .. }) && entry.rejection.is_none();
                let wanted = if is_capture { entry.point } else { -entry.change };
                (wanted, *partial, Some(*request), entry.lots.clone())
            }
            (Change::Reverse { request, partial }, None) => (0, *partial, Some(*request), Lots::default()),
            (_, _) => unreachable!("it asks for nothing, or is about a hold"),
        };
        let undoes = |entry: &Entry| {
            entry.action == "reverse" && entry.rejection.is_none() && entry.reference == reference
        };
        let reversal = self.of_user(user).find(|(_, entry)| undoes(entry)).filter(|_| reference.is_some());
        let reversal = reversal.map(|(_, first)| first.request_id);
        let is_late = delta.change.expires_at().is_some_and(|at| at <= time);
        let verdict = |change| Verdict { point: wanted.abs(), reference, change };
        match (reference, &original) {
            (Some(_), None) => return verdict(Err(Rejection::UnknownRequest)),
            (Some(_), Some(original)) if !is_undoable(original) => {
                return verdict(Err(Rejection::NotReversible));
            }
            _ if reversal.is_some() => {
                return Verdict { reference: reversal, ..verdict(Err(Rejection::AlreadyReversed)) };
            }
            _ if is_late => return verdict(Err(Rejection::Expired)),
            _ => {}
        }
        let (giver, receiver) = if wanted > 0 { (partner, Some(user)) } else { (Some(user), partner) };
        verdict(self.moved((giver, receiver), (wanted, partial), original.as_ref(), lots, time))
    }

    /// Moves points from a user to another one, or from or to nobody. Returns what it did to the user who asked.
    fn moved(
        &mut self,
        (giver, receiver): (Option<&UserId>, Option<&UserId>),
        (wanted, partial): (i64, bool),
        original: Option<&(Change, Arc<Entry>)>,
        mut lots: Lots,
        time: Timestamp,
    ) -> Result<Moved, Rejection> {
        let (before, mut point) = (self.points.clone(), wanted.abs());
        if let Some(giver) = giver {
            let balance = self.balance(giver);
            if balance < point && !(partial && balance > 0) {
                return Err(Rejection::InsufficientPoints);
            }
            point = point.min(balance);
            let gave = original.map(|(_, entry)| Lots::of(entry.expires_at, entry.change.abs()));
            let first = if lots.as_slice().is_empty() { gave.unwrap_or_default() } else { lots };
            lots = self.take(giver, point, &first);
        }
        if let Some(receiver) = receiver {
            let balance = self.balance(receiver);
            let mut all = self.lots(receiver);
            let held: Vec<Hold> = self.of_holds(receiver).cloned().collect();
            let held = held.iter().flat_map(|hold| hold.lots.as_slice());
            for lot in lots.as_slice().iter().chain(held).filter(|lot| lot.at > time) {
                all.add(*lot);
            }
            let full = match () {
                () if point > POINTS_MAX - balance - self.held(receiver) => Some(Rejection::BalanceLimit),
                () if !lots.as_slice().is_empty() && all.as_slice().len() > LOTS_MAX => {
                    Some(Rejection::LotLimit)
                }
                () => None,
            };
            if let Some(why) = full {
                self.points = before;
                return Err(why);
            }
            self.give(receiver, point, &lots);
        }
        Ok(Moved { change: wanted.signum() * point, lots, held: Held::default() })
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

fn is_undoable((change, entry): &(Change, Arc<Entry>)) -> bool {
    let is_received = change.to() == Some(&entry.user_id);
    let is_other = matches!(
        change,
        Change::Reverse { .. } | Change::Hold { .. } | Change::Release { .. } | Change::Expire
    );
    !is_other && !is_received && entry.rejection.is_none()
}
