//! Checks that every entry continues from the one before it, in any order of arrival and in bounded memory. Must not
//! contain I/O or SQL.

use std::{
    collections::{HashMap, HashSet, hash_map},
    mem,
    ops::RangeInclusive,
};

use super::{AuditLimits, lots::LotSum};
use crate::domain::user_id::UserId;

/// What a log entry says about its user's balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The balance before it.
    pub before: i64,
    /// The balance after it.
    pub after: i64,
    /// When it was written, in PostgreSQL's microseconds.
    pub time: i64,
}

/// A user's row. A column is `None` if it is null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BalanceRow {
    /// The number of the user.
    pub user: i64,
    pub user_id: Option<String>,
    pub format: Option<i16>,
    pub seq: Option<i64>,
    pub point: Option<i64>,
    pub updated_at: Option<i64>,
    /// The sum of its lots and holds. `None` if its columns contradict each other.
    pub lots: Option<LotSum>,
}

/// What is known about a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Each entry so far continues from the one before it.
    Sound,
    /// Too many entries came before their predecessors, so the user's entries must be read one by one.
    Unread,
    /// Something does not fit.
    Broken,
    /// The user was broken or unread, and was reported before.
    Reported,
}

/// The last of a user's entries that are known without a gap from the first.
#[derive(Clone, Copy, Debug)]
struct Chain {
    seq: i64,
    balance: i64,
    time: i64,
    /// What all entries so far have done to the user's lots and holds.
    lots: LotSum,
    /// How many of the user's entries wait for their predecessors.
    early: u32,
    standing: Standing,
    has_balance: bool,
}

impl Chain {
    const NEW: Self = Self {
        seq: 0,
        balance: 0,
        time: i64::MIN,
        lots: LotSum::NONE,
        early: 0,
        standing: Standing::Sound,
        has_balance: false,
    };

    /// Moves to the next entry. The chain is broken if that entry does not continue from here.
    fn follow(&mut self, seq: i64, step: Step) {
        if step.before != self.balance || step.time < self.time {
            self.standing = Standing::Broken;
        }
        (self.seq, self.balance, self.time) = (seq, step.after, step.time);
    }

    fn ends_at(&self, row: &BalanceRow) -> bool {
        let time_fits = self.seq == 0 || row.updated_at == Some(self.time);
        let user_fits = row.user_id.as_deref().is_some_and(UserId::is_valid) && row.format.is_some();
        let sums_fit =
            (row.seq, row.point, row.lots) == (Some(self.seq), Some(self.balance), Some(self.lots));
        user_fits && self.early == 0 && sums_fit && time_fits
    }
}

/// The chains of a range of users, which shrinks at the limit. Users that share a number look like one broken chain.
pub(super) struct Chains {
    limits: AuditLimits,
    users: RangeInclusive<i64>,
    of_users: HashMap<i64, Chain>,
    early: HashMap<(i64, i64), Step>,
    /// Users with a balance but no entries, who have already been reported. Holds at most `limits.users`.
    reported: HashSet<i64>,
}

impl Chains {
    pub(super) fn new(limits: AuditLimits) -> Self {
        let (of_users, early, reported) = (HashMap::new(), HashMap::new(), HashSet::new());
        Self { limits, users: i64::MIN..=i64::MAX, of_users, early, reported }
    }

    /// The range of users whose entries are wanted.
    pub(super) fn users(&self) -> RangeInclusive<i64> {
        self.users.clone()
    }

    /// The users after this range, if there are any.
    pub(super) fn next(self) -> Option<Self> {
        let first = self.users.end().checked_add(1)?;
        Some(Self { users: first..=i64::MAX, ..Self::new(self.limits) })
    }

    /// Adds an entry. `step` is `None` if the entry breaks a rule by itself.
    pub(super) fn entry(&mut self, user: i64, seq: i64, step: Option<Step>) {
        if !self.users.contains(&user) {
            return;
        }
        let full = self.of_users.len() >= self.limits.users;
        let chain = match self.of_users.entry(user) {
            hash_map::Entry::Vacant(_) if full => {
                self.narrow();
                return self.entry(user, seq, step);
            }
            entry => entry.or_insert(Chain::NEW),
        };
        let Some(step) = step else {
            chain.standing = Standing::Broken;
            return;
        };
        if chain.standing != Standing::Sound {
            return;
        }
        if seq <= chain.seq {
            chain.standing = Standing::Broken;
        } else if seq == chain.seq + 1 {
            chain.follow(seq, step);
            while chain.early > 0
                && let Some(next) = chain.seq.checked_add(1)
                && let Some(step) = self.early.remove(&(user, next))
            {
                chain.early -= 1;
                chain.follow(next, step);
            }
        } else if self.early.insert((user, seq), step).is_some() {
            chain.standing = Standing::Broken;
        } else {
            chain.early += 1;
            if self.early.len() >= self.limits.early {
                self.forget_early();
            }
        }
    }

    /// Adds what an entry, which is added already, has done to its user's lots and holds.
    pub(super) fn lots(&mut self, user: i64, sum: LotSum) {
        if let Some(chain) = self.of_users.get_mut(&user) {
            chain.lots.join(sum);
        }
    }

    /// Leaves a user, whose entry is added already, to be read one by one.
    pub(super) fn doubt(&mut self, user: i64) {
        if let Some(chain) = self.of_users.get_mut(&user)
            && chain.standing == Standing::Sound
        {
            chain.standing = Standing::Unread;
        }
    }

    /// Leaves the half of the users with the larger numbers for later.
    fn narrow(&mut self) {
        let mut users: Vec<i64> = self.of_users.keys().copied().collect();
        let middle = users.len() / 2;
        let (_, &mut first_left_out, _) = users.select_nth_unstable(middle);
        self.users = *self.users.start()..=first_left_out - 1;
        self.of_users.retain(|user, _| *user < first_left_out);
        self.early.retain(|(user, _), _| *user < first_left_out);
    }

    /// Drops the entries that wait. Their users are read one by one instead.
    fn forget_early(&mut self) {
        for (user, _) in mem::take(&mut self.early).into_keys() {
            self.doubt(user);
        }
    }

    /// Compares a user's row with the user's entries, once all entries are added. A user is reported once, unless too many
    /// users without entries are reported.
    pub(super) fn compare(&mut self, row: &BalanceRow) -> Standing {
        if let Some(chain) = self.of_users.get_mut(&row.user) {
            chain.has_balance = true;
            let is_broken = chain.standing == Standing::Sound && !chain.ends_at(row);
            let standing = if is_broken { Standing::Broken } else { chain.standing };
            if standing != Standing::Sound {
                chain.standing = Standing::Reported;
            }
            return standing;
        }
        if Chain::NEW.ends_at(row) {
            return Standing::Sound;
        }
        if self.reported.contains(&row.user) {
            return Standing::Reported;
        }
        if self.reported.len() < self.limits.users {
            self.reported.insert(row.user);
        }
        Standing::Broken
    }

    /// The users that have entries but no row.
    pub(super) fn without_balance(&self) -> impl Iterator<Item = i64> {
        self.of_users.iter().filter(|(_, chain)| !chain.has_balance).map(|(user, _)| *user)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The entries of some users, in any order. Each entry adds 1.
    fn entries() -> impl Strategy<Value = Vec<(i64, i64)>> {
        let lengths = prop::collection::vec(1..30i64, 1..12);
        lengths
            .prop_map(|lengths| {
                let of_user = |(user, length)| (1..=length).map(move |seq| (user, seq));
                (1..).zip(lengths).flat_map(of_user).collect::<Vec<_>>()
            })
            .prop_shuffle()
    }

    fn row(user: i64, seq: i64) -> BalanceRow {
        let (user_id, format, seq, lots) = (Some(user.to_string()), Some(0), Some(seq), Some(LotSum::NONE));
        BalanceRow { user, user_id, format, seq, point: seq, updated_at: seq, lots }
    }

    /// The final standing of each user, after all passes.
    fn standings(limits: AuditLimits, entries: &[(i64, i64)]) -> Vec<(i64, Standing)> {
        let last = |user: i64| entries.iter().filter(|entry| entry.0 == user).map(|entry| entry.1).max();
        let (mut told, mut chains) = (Vec::new(), Chains::new(limits));
        loop {
            for (user, seq) in entries {
                chains.entry(*user, *seq, Some(Step { before: seq - 1, after: *seq, time: *seq }));
                assert!(chains.of_users.len() <= limits.users && chains.early.len() < limits.early);
            }
            let users = (1..12).filter(|user| chains.users().contains(user)).collect::<Vec<_>>();
            for user in users {
                if let Some(seq) = last(user) {
                    told.push((user, chains.compare(&row(user, seq))));
                }
            }
            assert_eq!(chains.without_balance().count(), 0);
            match chains.next() {
                Some(next) => chains = next,
                None => return told,
            }
        }
    }

    proptest! {
        #[test]
        fn a_sound_log_is_never_called_broken_whatever_its_order(
            entries in entries(), users in 2..6usize, early in 1..200usize
        ) {
            let told = standings(AuditLimits { users, early }, &entries);
            let everyone: Vec<i64> = (1..=entries.iter().map(|entry| entry.0).max().unwrap_or(0)).collect();
            prop_assert_eq!(told.iter().map(|(user, _)| *user).collect::<Vec<_>>(), everyone);
            prop_assert!(told.iter().all(|(_, standing)| *standing != Standing::Broken), "{told:?}");
            if early > entries.len() {
                prop_assert!(told.iter().all(|(_, standing)| *standing == Standing::Sound), "{told:?}");
            }
        }

        #[test]
        fn an_entry_that_is_lost_or_there_twice_is_never_called_sound(
            entries in entries(), at in any::<prop::sample::Index>(), twice: bool, users in 2..6usize
        ) {
            let (mut entries, at) = (entries.clone(), at.index(entries.len()));
            let (user, seq) = entries[at];
            if twice {
                entries.push((user, seq));
            } else if entries.contains(&(user, seq + 1)) {
                entries.remove(at);
            } else {
                return Ok(());
            }
            let told = standings(AuditLimits { users, early: 1_000 }, &entries);
            prop_assert!(told.iter().all(|(u, standing)| (*standing == Standing::Broken) == (*u == user)));
        }
    }
}
