//! Points that expire: the lots of a user, or those that an entry gave or took. Must not contain I/O or a decision.

use jiff::Timestamp;

/// The most lots of a user.
pub const LOTS_MAX: usize = 100;

/// Points that expire at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lot {
    /// When they expire.
    pub at: Timestamp,
    /// How many they are, at least 1.
    pub point: i64,
}

/// Lots in the order in which they expire, one for each moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lots(Vec<Lot>);

impl Lots {
    /// The lot of these points, if they expire.
    pub(super) fn of(at: Option<Timestamp>, point: i64) -> Self {
        Self(at.map(|at| Lot { at, point }).into_iter().collect())
    }

    /// The lots, in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[Lot] {
        &self.0
    }

    /// When the first lot expires.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.0.first().map(|lot| lot.at)
    }

    /// How many points are in the lots that have expired by a time.
    pub(super) fn due(&self, by: Timestamp) -> i64 {
        self.0.iter().take_while(|lot| lot.at <= by).map(|lot| lot.point).sum()
    }

    /// The lots that have not expired by a time.
    pub(super) fn after(&self, time: Timestamp) -> Self {
        Self(self.0.iter().filter(|lot| lot.at > time).copied().collect())
    }

    /// Removes the first lot if it has expired by a time.
    pub(super) fn pop_due(&mut self, by: Timestamp) -> Option<Lot> {
        self.first().filter(|first| *first <= by).map(|_| self.0.remove(0))
    }

    pub(super) fn add(&mut self, lot: Lot) {
        match self.0.binary_search_by_key(&lot.at, |own| own.at) {
            Ok(place) => self.0[place].point += lot.point,
            Err(place) => self.0.insert(place, lot),
        }
    }

    /// Removes points that are in a lot.
    pub(super) fn remove(&mut self, Lot { at, point }: Lot) {
        let place = self.0.binary_search_by_key(&at, |own| own.at).expect("one of the lots");
        self.0[place].point -= point;
        if self.0[place].point == 0 {
            self.0.remove(place);
        }
    }

    /// What `point` points take from these lots: the points of `first`, as far as they are there, and then those that
    /// expire first.
    pub(super) fn taken(&self, point: i64, first: &Self) -> Self {
        let mut taken = Self::default();
        for Lot { at, point: wanted } in first.0.iter().chain(&self.0) {
            let left = self.point_at(*at) - taken.point_at(*at);
            let some = left.min(*wanted).min(point - taken.due(Timestamp::MAX));
            if some > 0 {
                taken.add(Lot { at: *at, point: some });
            }
        }
        taken
    }

    /// How many points expire at a time.
    fn point_at(&self, at: Timestamp) -> i64 {
        self.0.binary_search_by_key(&at, |lot| lot.at).map_or(0, |place| self.0[place].point)
    }

    /// These lots without those of `part`, which they contain.
    pub(super) fn without(mut self, part: &Self) -> Self {
        for lot in &part.0 {
            self.remove(*lot);
        }
        self
    }

    /// The lots as numbers: of each, when it expires, in microseconds since 1970, and its points.
    pub(super) fn to_numbers(&self) -> Vec<i64> {
        self.0.iter().flat_map(|lot| [lot.at.as_microsecond(), lot.point]).collect()
    }

    /// Reads the numbers of lots. `None` if they are no lots.
    pub(super) fn from_numbers(numbers: &[i64]) -> Option<Self> {
        let (pairs, rest) = numbers.as_chunks::<2>();
        let lot =
            |[at, point]: &[i64; 2]| Some(Lot { at: Timestamp::from_microsecond(*at).ok()?, point: *point });
        let lots: Vec<Lot> = pairs.iter().map(lot).collect::<Option<_>>()?;
        let sum = lots.iter().try_fold(0i64, |sum, lot| sum.checked_add(lot.point));
        let sound = rest.is_empty()
            && sum.is_some()
            && lots.iter().all(|lot| lot.point > 0)
            && lots.is_sorted_by(|one, next| one.at < next.at);
        (sound && !lots.is_empty()).then_some(Self(lots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lots(of: &[(i64, i64)]) -> Lots {
        let mut lots = Lots::default();
        for (second, point) in of {
            lots.add(Lot { at: Timestamp::from_second(*second).expect("in range"), point: *point });
        }
        lots
    }

    #[test]
    fn lots_of_one_moment_are_one_and_numbers_that_are_no_lots_are_refused() {
        let some = lots(&[(5, 1), (3, 2), (5, 3)]);
        assert_eq!(some.to_numbers(), [3_000_000, 2, 5_000_000, 4]);
        assert_eq!(Lots::from_numbers(&some.to_numbers()), Some(some));
        for wrong in
            [&[][..], &[1], &[1, 0], &[1, -1], &[1, 1, 1], &[2, 1, 1, 1], &[1, 1, 1, 1], &[i64::MAX, 1]]
        {
            assert_eq!(Lots::from_numbers(wrong), None, "{wrong:?}");
        }
        assert_eq!(Lots::from_numbers(&[1, i64::MAX, 2, 1]), None, "their sum is too large");
    }

    #[test]
    fn what_expires_first_is_taken_first_after_the_points_that_are_named() {
        let of = lots(&[(1, 5), (2, 5), (3, 5)]);
        assert_eq!(of.taken(7, &Lots::default()), lots(&[(1, 5), (2, 2)]));
        assert_eq!(of.taken(7, &lots(&[(3, 5)])), lots(&[(1, 2), (3, 5)]));
        assert_eq!(of.taken(7, &lots(&[(3, 9), (4, 1)])), lots(&[(1, 2), (3, 5)]));
        assert_eq!(of.taken(7, &lots(&[(2, 1), (3, 3)])), lots(&[(1, 3), (2, 1), (3, 3)]));
        assert_eq!(of.taken(100, &lots(&[(2, 2)])), of);
    }
}
