//! Reads the course of a balance over time, in a bounded number of points. Must not contain writes or SQL.

use jiff::Timestamp;

use super::{
    PointService, ServiceError,
    read::LookUp,
    store::{Store, StoreError},
    user_id::UserId,
};

/// The most entries in a course.
pub const COURSE_POINTS_MAX: i64 = 200;

/// Selects the course of a user's balance.
#[derive(Clone, Debug)]
pub struct CourseQuery {
    /// The user.
    pub user_id: UserId,
    /// Only since this time. The first point is then the last entry before it, if there is one.
    pub from: Option<Timestamp>,
}

/// The course of a balance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The balance after each entry, oldest first. If there are more than [`COURSE_POINTS_MAX`] entries, the balance
    /// after that number of entries, at equal intervals in the log, including the first and the last.
    pub points: Vec<CoursePoint>,
    /// The number of entries from the first point to the last.
    pub entries: i64,
}

/// A balance after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoursePoint {
    /// When the entry was written.
    pub at: Timestamp,
    /// The balance after it.
    pub balance: i64,
}

impl LookUp for CourseQuery {
    type Answer = Course;
    const NAME: &'static str = "read_course";
    const TOGETHER_MAX: usize = 4;

    async fn look_up(store: &Store, asked: &[Self]) -> Result<Vec<Self::Answer>, StoreError> {
        store.courses(asked).await
    }
}

/// The places of the entries to read, from `first` to `last`.
pub(super) fn places(first: i64, last: i64) -> Vec<i64> {
    let entries = last - first + 1;
    if entries <= COURSE_POINTS_MAX {
        return (first..=last).collect();
    }
    let steps = COURSE_POINTS_MAX - 1;
    let place =
        |step: i64| i128::from(first) + i128::from(entries - 1) * i128::from(step) / i128::from(steps);
    (0..=steps).map(|step| i64::try_from(place(step)).expect("no more than the last")).collect()
}

impl PointService {
    /// Returns the course of a user's balance. It has no points for an unknown user. The cost does not depend on the
    /// length of the log.
    ///
    /// # Errors
    /// As [`PointService::balance`].
    pub async fn course(&self, query: CourseQuery) -> Result<Course, ServiceError> {
        self.readers.courses.call(query).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_has_the_first_and_the_last_entry_and_a_bounded_number_between_them() {
        assert_eq!(places(1, 0), [0_i64; 0]);
        assert_eq!(places(7, 9), [7, 8, 9]);
        for last in [199, 200, 201, 202, 399, 400, 10_000_000, i64::MAX] {
            let places = places(1, last);
            assert_eq!((places[0], places[places.len() - 1]), (1, last));
            assert!(places.is_sorted_by(|one, next| one < next));
            assert_eq!(places.len(), usize::try_from(last.min(COURSE_POINTS_MAX)).expect("small"));
        }
    }
}
