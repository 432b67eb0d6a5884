//! What an entry asked for, and what may have become of it. Must not contain I/O or SQL.

use super::moment::Moment;
use crate::domain::{
    Rejection,
    change::Action,
    delta::{POINTS_MAX, Points},
};

/// What an entry asked for, as far as it can be read.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) action: Option<Action>,
    pub(super) point: Option<i64>,
    pub(super) partial: Option<bool>,
    pub(super) expires_at: Option<Moment>,
    pub(super) created_at: Option<Moment>,
    pub(super) has_counterparty: bool,
    /// How many points the user's open holds have.
    pub(super) held: i128,
}

impl Asked {
    /// The fewest points that such an entry may have. A rejected change that refers to another may be about none.
    pub(super) fn point_min(self, is_rejected: bool) -> i64 {
        match self.action {
            Some(Action::Reverse | Action::Capture | Action::Release) if is_rejected => 0,
            Some(
                Action::Add
                | Action::Subtract
                | Action::Reverse
                | Action::Transfer
                | Action::Hold
                | Action::Capture
                | Action::Release
                | Action::Expire,
            )
            | None => 1,
        }
    }

    /// Whether the number of points is one that such an entry may have.
    pub(super) fn has_valid_point(self, is_rejected: bool) -> bool {
        let least = self.point_min(is_rejected);
        self.point.is_some_and(|point| Points::new(point).is_ok() || point == 0 && least == 0)
    }

    /// Whether such an entry may have `partial`.
    pub(super) fn takes_partial(self) -> bool {
        self.action.is_none_or(|action| action.takes("partial"))
    }

    /// By how much it may have raised the balance.
    fn gives(self) -> Option<i128> {
        match self.action? {
            Action::Add | Action::Reverse | Action::Transfer | Action::Release => self.point.map(i128::from),
            Action::Subtract | Action::Hold | Action::Capture | Action::Expire => None,
        }
    }

    /// By how much it may have lowered the balance, which was `before`.
    fn takes(self, before: i64) -> Option<i128> {
        let is_part = |point| self.partial == Some(true) && (1..point).contains(&before);
        match self.action? {
            Action::Add | Action::Capture | Action::Release => None,
            Action::Subtract | Action::Reverse => {
                self.point.map(|point| -i128::from(if is_part(point) { before } else { point }))
            }
            Action::Transfer | Action::Hold | Action::Expire => self.point.map(|point| -i128::from(point)),
        }
    }

    /// By how much it may have changed the balance, which was `before`. Empty if that can't be told. Whether a reversal
    /// gives or takes depends on the entry that it reverses; a transfer takes from one of its users and gives to the
    /// other.
    pub(super) fn changes(self, before: i64) -> Vec<i128> {
        self.gives().into_iter().chain(self.takes(before)).collect()
    }

    /// Whether it may have given this many points as a part: a partial reversal of a transfer gives the sender what the
    /// other user has.
    pub(super) fn may_give_part(self, change: i64) -> bool {
        self.action == Some(Action::Reverse)
            && self.partial == Some(true)
            && self.has_counterparty
            && self.point.is_some_and(|point| (1..=point).contains(&change))
    }

    /// What `counterparty` should be, if it is there or not there wrongly.
    pub(super) fn wrong_counterparty(self) -> Option<&'static str> {
        let (holds, rule) = match self.action? {
            Action::Transfer => (self.has_counterparty, "another user"),
            Action::Reverse => (true, "another user, or none"),
            Action::Add
            | Action::Subtract
            | Action::Hold
            | Action::Capture
            | Action::Release
            | Action::Expire => (!self.has_counterparty, "none"),
        };
        (!holds).then_some(rule)
    }

    /// Whether it may have been rejected for this reason, with this balance.
    pub(super) fn may_be_rejected(self, why: &Rejection, balance: i64) -> bool {
        if self.action == Some(Action::Expire) {
            return false;
        }
        let is_unclear = self.action.is_none() || self.point.is_none();
        let is_of = |actions: &[Action]| self.action.is_none_or(|action| actions.contains(&action));
        // Another user has too few points, or too many.
        let is_undone_transfer = self.action == Some(Action::Reverse) && self.has_counterparty;
        let is_transfer = self.action == Some(Action::Transfer);
        let is_add = self.action == Some(Action::Add);
        let is_due = |(expires_at, created_at)| expires_at <= created_at;
        let is_reversal = is_of(&[Action::Reverse]);
        let is_about_nothing = self.point.is_none_or(|point| point == 0);
        let after = |change| i128::from(balance) + change;
        match why {
            Rejection::InsufficientPoints => {
                is_unclear || is_undone_transfer || self.takes(balance).is_some_and(|taken| after(taken) < 0)
            }
            Rejection::BalanceLimit => {
                let exceeds = |given| after(given) + self.held > i128::from(POINTS_MAX);
                is_unclear
                    || is_transfer
                    || is_of(&[Action::Add, Action::Reverse]) && self.gives().is_some_and(exceeds)
            }
            Rejection::KeyReused => {
                !matches!(self.action, Some(Action::Reverse | Action::Release)) || is_about_nothing
            }
            Rejection::UnknownRequest => is_reversal && is_about_nothing,
            Rejection::NotReversible | Rejection::AlreadyReversed => is_reversal,
            Rejection::Expired => {
                let is_late = self.expires_at.zip(self.created_at).is_some_and(is_due);
                self.action.is_none() || is_of(&[Action::Add, Action::Hold]) && is_late
            }
            Rejection::HoldLimit => is_of(&[Action::Hold]),
            Rejection::UnknownHold => {
                is_of(&[Action::Capture]) || is_of(&[Action::Release]) && is_about_nothing
            }
            Rejection::HoldOver => is_of(&[Action::Capture, Action::Release]),
            Rejection::HoldTooSmall => is_of(&[Action::Capture]),
            Rejection::LotLimit => is_reversal || is_transfer || is_add && self.expires_at.is_some(),
            Rejection::Unknown(_) => false,
        }
    }

    /// Whether an entry with this result refers to another request.
    pub(super) fn has_reference(self, rejection: Option<&Rejection>) -> bool {
        let refers = [Action::Reverse, Action::Capture, Action::Release];
        self.action.is_some_and(|action| refers.contains(&action)) || rejection == Some(&Rejection::KeyReused)
    }
}
