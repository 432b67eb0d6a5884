//! The database's clock jumps back and forth while points expire. Must not contain how lots are kept.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan};
use point_system::domain::PointService;

use super::{balance, in_hours, log};
use crate::{
    apply::{add, add_until, apply, subtract_some},
    support::{
        clock,
        system::{System, eventually},
    },
};

const USERS: usize = 4;

/// What a user should have, in half hours since the test began: the clock shows even numbers, and points expire at odd
/// ones.
#[derive(Default)]
struct Expected {
    plain: i64,
    lots: BTreeMap<i64, i64>,
    last_entry: i64,
    expired: Vec<(i64, i64)>,
}

impl Expected {
    fn total(&self, clock: i64) -> i64 {
        self.plain + self.lots.iter().filter(|(at, _)| **at > clock).map(|(_, point)| point).sum::<i64>()
    }

    fn pass(&mut self, clock: i64) {
        while let Some(lot) = self.lots.first_entry().filter(|lot| *lot.key() <= clock) {
            let (at, point) = lot.remove_entry();
            self.last_entry = self.last_entry.max(at);
            self.expired.push((at, point));
        }
    }

    /// A change is decided at this time or, if that is later, at the time of the last entry.
    fn decide_at(&mut self, clock: i64) -> i64 {
        self.pass(clock);
        self.last_entry = self.last_entry.max(clock);
        self.last_entry
    }

    fn add(&mut self, point: i64, at: i64, clock: i64) {
        if at > self.decide_at(clock) {
            *self.lots.entry(at).or_default() += point;
        }
    }

    fn take(&mut self, mut point: i64, clock: i64) {
        self.decide_at(clock);
        for left in self.lots.values_mut().chain([&mut self.plain]) {
            let taken = point.min(*left);
            *left -= taken;
            point -= taken;
        }
        self.lots.retain(|_, left| *left > 0);
    }
}

async fn is_as_expected(service: &PointService, users: &[Expected], clock: i64) {
    for (id, expected) in (0..).zip(users) {
        assert_eq!(balance(service, id).await.point, expected.total(clock), "user {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_expires_nothing_twice_and_brings_nothing_back() {
    let mut system = System::new().await;
    clock::install(&system).await;
    let service = system.service(2);
    // Its job is a second one that finds what is due.
    system.work();
    let began = in_hours(0);
    let mut users: Vec<Expected> = (0..USERS).map(|_| Expected::default()).collect();
    for (id, user) in (0..).zip(&mut users) {
        apply(&service, &add(id, 1)).await;
        user.plain = 1;
    }
    let mut rng = fastrand::Rng::with_seed(15);
    let (mut hour, mut jumps) = (0, 0);
    for _ in 0..400 {
        let (place, clock) = (rng.usize(..USERS), 2 * hour);
        let (id, user) = (i64::try_from(place).expect("small"), &mut users[place]);
        if rng.u8(..5) < 3 {
            let (point, hours) = (rng.i64(1..50), hour + rng.i64(-1..4));
            let at = began + hours.hours() + 30.minutes();
            apply(&service, &add_until(id, point, at)).await;
            user.add(point, 2 * hours + 1, clock);
        } else {
            let point = rng.i64(1..60);
            apply(&service, &subtract_some(id, point)).await;
            user.take(point, clock);
        }
        is_as_expected(&service, &users, clock).await;
        if rng.u8(..6) == 0 {
            // Back as often as forth, but not as far: a user's time stays where it was.
            hour += if rng.bool() { 2 } else { -1 };
            jumps += 1;
            clock::shift(&system, hour * 3_600).await;
            is_as_expected(&service, &users, 2 * hour).await;
            nothing_is_due(&system, &service).await;
            for user in &mut users {
                user.pass(2 * hour);
            }
        }
    }
    assert!(jumps > 30 && users.iter().all(|user| user.expired.len() > 5), "{jumps} jumps");
    for (id, expected) in (0..).zip(&users) {
        let entries = log(&service, id).await;
        assert!(entries.is_sorted_by_key(|entry| entry.created_at), "user {id}");
        let expired = entries.iter().filter(|entry| &*entry.action == "expire");
        let expired: Vec<(Timestamp, i64)> =
            expired.map(|entry| (entry.expires_at.expect("a time"), entry.point)).collect();
        let time = |half_hours: i64| began + (30 * half_hours).minutes();
        let expected: Vec<_> = expected.expired.iter().map(|(at, point)| (time(*at), *point)).collect();
        assert_eq!(expired, expected, "user {id}");
    }
    system.finish().await;
}

/// Lets everything expire that is due, beside the job.
async fn nothing_is_due(system: &System, service: &PointService) {
    let due = "select count(*) from user_point where due_at <= now() + (select shift from clock)";
    eventually("nothing is due", async || {
        service.expire_all().await.expect("an answer");
        system.count(due).await == 0
    })
    .await;
}
