//! What a user has while deltas are decided, and how a change moves it. Must not contain a decision or I/O.

use jiff::Timestamp;

use super::{
    holds::{Hold, Holds},
    lots::Lots,
    request_id::RequestId,
};

/// The state of a user while deltas are decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// The balance, from 0 to [`POINTS_MAX`](super::POINTS_MAX).
    pub point: i64,
    /// The number of entries in the log, which is the `seq` of the last one.
    pub seq: i64,
    /// When the last entry was written.
    pub updated_at: Timestamp,
    /// The points that expire, as of the last entry.
    pub lots: Lots,
    /// The open holds, as of the last entry. Their points are not in the balance.
    pub holds: Holds,
}

impl Account {
    /// The time of a decision: a user's times never go back, even if the clock does.
    pub(super) fn time(&self, now: Timestamp) -> Timestamp {
        self.updated_at.max(now)
    }

    /// Counts the next entry. Its time is `time` or, if that is later, the time of the last entry.
    pub(super) fn next(&mut self, time: Timestamp) {
        self.seq += 1;
        self.updated_at = self.time(time);
    }

    /// When the first points expire or the first hold ends.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.lots.first().into_iter().chain(self.holds.first()).min()
    }

    /// Gives or takes points.
    pub(super) fn moves(&mut self, Moved { change, lots, held }: &Moved) {
        self.point += change;
        let (lots, gives) = match held {
            Held::Nothing => (lots, *change > 0),
            Held::Opens(hold) => {
                self.holds.open(hold.clone());
                (lots, false)
            }
            Held::Ends { hold, rest } => {
                self.holds.close(*hold);
                (rest, true)
            }
        };
        for lot in lots.as_slice() {
            if gives { self.lots.add(*lot) } else { self.lots.remove(*lot) }
        }
    }

    /// What the user has at a time, whether or not the log has entries for it yet: holds whose time has come have
    /// returned, and then the points that have expired are gone.
    pub(super) fn at(mut self, time: Timestamp) -> Self {
        while let Some(hold) = self.holds.pop_due(time) {
            self.moves(&Moved { change: hold.point, lots: hold.lots, held: Held::Nothing });
        }
        self.point -= self.lots.due(time);
        self.lots = self.lots.after(time);
        self
    }
}

/// What a change takes from a balance, or gives to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// By how many points the balance changes.
    pub change: i64,
    /// The points that expire. For a capture, those of the captured points.
    pub lots: Lots,
    /// What it does to a hold.
    pub held: Held,
}

/// What a change does to a hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Held {
    /// Nothing: the lots are given to the user's lots or taken from them.
    #[default]
    Nothing,
    /// It takes points out of the balance, with their lots.
    Opens(Hold),
    /// It returns points of a hold to the balance.
    Ends {
        /// The request of the hold.
        hold: RequestId,
        /// Those of the returned points that expire.
        rest: Lots,
    },
}

impl Moved {
    /// The same for the other user, who gets what this one loses.
    pub(crate) fn mirrored(&self) -> Self {
        Self { change: -self.change, lots: self.lots.clone(), held: Held::Nothing }
    }

    /// Points that do not expire.
    pub(crate) fn lasting(change: i64) -> Self {
        Self { change, ..Self::default() }
    }

    /// The whole hold returns.
    pub(crate) fn release(hold: &Hold) -> Self {
        let ends = Held::Ends { hold: hold.request, rest: hold.lots.clone() };
        Self { change: hold.point, lots: hold.lots.clone(), held: ends }
    }
}
