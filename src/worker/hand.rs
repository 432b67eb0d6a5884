//! What a worker has in hand of one partition: messages that are not settled, and the users whose deltas wait. Must not
//! contain I/O or a clock.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    domain::{Delta, Obstacle, Outcome, ServiceError, UserId},
    queue::{Delivery, Disposition},
};

/// The pauses between tries for a user who has an obstacle: once it is gone, the user waits no longer than this.
const RETRY_PAUSE_MIN_MS: u64 = 50;
const RETRY_PAUSE_MAX_MS: u64 = 1_000;

/// The same for one who is slow: each try holds the partition up for as long as a statement may take.
const SLOW_PAUSE_MIN_MS: u64 = 5_000;
const SLOW_PAUSE_MAX_MS: u64 = 60_000;

/// A delta, and where it came from.
pub(super) struct Taken {
    /// The tag of its message, and its place in there: in the order of the queue.
    place: (u64, usize),
    pub(super) delta: Delta,
}

/// The unsettled part of a partition. What is not here is either behind it in the queue or settled.
#[derive(Default)]
pub(super) struct Hand {
    /// By the tags of their messages.
    messages: BTreeMap<u64, Message>,
    waiting: HashMap<UserId, Waiting>,
}

struct Message {
    /// How many of its deltas have not come to their end.
    open: usize,
    disposition: Disposition,
    oldest: Option<Timestamp>,
    taken_at: Instant,
}

/// A user who has an obstacle.
pub(super) struct Waiting {
    /// In the order of the queue; the first is tried again, and the others follow it.
    deltas: VecDeque<Taken>,
    pub(super) obstacle: Obstacle,
    /// Since when.
    pub(super) since: Instant,
    pause: Duration,
    due: Instant,
    /// Whether somebody was told.
    pub(super) told: bool,
}

impl Hand {
    /// Takes messages, and returns the deltas to apply now, those of users who do not wait. Of messages that have nothing
    /// to apply, what becomes of them is settled at once: see [`Hand::settled`].
    pub(super) fn take(&mut self, deliveries: Vec<Delivery>, now: Instant) -> Vec<Taken> {
        let mut fresh = Vec::new();
        for Delivery { tag, deltas } in deliveries {
            let disposition = if deltas.is_ok() { Disposition::Ack } else { Disposition::DeadLetter };
            let deltas = deltas.unwrap_or_default();
            let oldest = deltas.iter().map(|delta| delta.requested_at).min();
            self.messages.insert(tag, Message { open: deltas.len(), disposition, oldest, taken_at: now });
            for (index, delta) in deltas.into_iter().enumerate() {
                let taken = Taken { place: (tag, index), delta };
                match self.waiting.get_mut(&taken.delta.user_id) {
                    Some(waiting) => waiting.deltas.push_back(taken),
                    None => fresh.push(taken),
                }
            }
        }
        fresh
    }

    /// The deltas of users who are due, to be applied apart from others: those who still have an obstacle take time.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Taken> {
        let due = self.waiting.values_mut().filter(|user| user.due <= now && user.obstacle != Obstacle::Slow);
        due.flat_map(|waiting| waiting.deltas.drain(..)).collect()
    }

    /// The next delta of a user who is slow and due, to be applied alone.
    pub(super) fn take_slow(&mut self, now: Instant) -> Vec<Taken> {
        let mut users = self.waiting.values_mut();
        let user = users.find(|user| user.due <= now && user.obstacle == Obstacle::Slow);
        user.and_then(|user| user.deltas.pop_front()).into_iter().collect()
    }

    /// Notes what became of the deltas that were taken, up to the first without a final result, and returns
    /// the users who were waiting and do not any more.
    pub(super) fn note(
        &mut self,
        taken: Vec<Taken>,
        results: &[Result<Outcome, ServiceError>],
        now: Instant,
    ) -> Vec<(UserId, Waiting)> {
        for (taken, result) in taken.into_iter().zip(results) {
            match result {
                Ok(_) => {
                    self.close(taken.place.0, Disposition::Ack);
                    // Slow no more: what came behind it may go on together.
                    if let Some(user) = self.waiting.get_mut(&taken.delta.user_id) {
                        (user.obstacle, user.due, user.pause) = (Obstacle::Locked, now, Duration::ZERO);
                    }
                }
                Err(ServiceError::Refused(_)) => self.close(taken.place.0, Disposition::DeadLetter),
                Err(ServiceError::Blocked(obstacle)) => self.wait(taken, obstacle, now),
                Err(ServiceError::Unavailable(_) | ServiceError::Overloaded) => return Vec::new(),
            }
        }
        let free: Vec<UserId> =
            self.waiting.iter().filter(|(_, user)| user.deltas.is_empty()).map(|(user, _)| *user).collect();
        free.into_iter().filter_map(|user| self.waiting.remove_entry(&user)).collect()
    }

    fn close(&mut self, tag: u64, disposition: Disposition) {
        let message = self.messages.get_mut(&tag).expect("taken with its deltas");
        message.open -= 1;
        if disposition == Disposition::DeadLetter {
            message.disposition = disposition;
        }
    }

    fn wait(&mut self, taken: Taken, obstacle: &Obstacle, now: Instant) {
        let (min_ms, max_ms) = match obstacle {
            Obstacle::Locked | Obstacle::Unreadable(_) => (RETRY_PAUSE_MIN_MS, RETRY_PAUSE_MAX_MS),
            Obstacle::Slow => (SLOW_PAUSE_MIN_MS, SLOW_PAUSE_MAX_MS),
        };
        let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
        let user = self.waiting.entry(taken.delta.user_id).or_insert_with(|| Waiting {
            deltas: VecDeque::new(),
            obstacle: obstacle.clone(),
            since: now,
            pause: Duration::ZERO,
            due: now,
            told: false,
        });
        if user.due <= now {
            user.pause = (2 * user.pause).clamp(min, max);
            user.due = now + user.pause;
            user.obstacle = obstacle.clone();
        }
        let place = user.deltas.partition_point(|other| other.place < taken.place);
        user.deltas.insert(place, taken);
    }

    /// Removes the messages of which every delta has come to its end, and says what becomes of them.
    pub(super) fn settled(&mut self) -> Vec<(u64, Disposition)> {
        let done: Vec<_> = self
            .messages
            .iter()
            .filter(|(_, message)| message.open == 0)
            .map(|(tag, message)| (*tag, message.disposition))
            .collect();
        for (tag, _) in &done {
            self.messages.remove(tag);
        }
        done
    }

    /// The lowest tag that is not settled.
    pub(super) fn first_open(&self) -> Option<u64> {
        self.messages.keys().next().copied()
    }

    /// How many messages are not settled.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// When the first of the waiting users is to be tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// Since when the oldest message is in hand.
    pub(super) fn since(&self) -> Option<Instant> {
        self.messages.values().next().map(|message| message.taken_at)
    }

    /// When the oldest delta in hand was accepted.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.messages.values().filter_map(|message| message.oldest).min()
    }

    /// The users who wait.
    pub(super) fn waiting(&mut self) -> impl ExactSizeIterator<Item = (UserId, &mut Waiting)> {
        self.waiting.iter_mut().map(|(user, waiting)| (*user, waiting))
    }

    /// Forgets everything: it comes again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Action, Entry, Points, RequestId};

    fn delta(user: i64) -> Delta {
        Delta {
            request_id: RequestId::random(),
            user_id: UserId::new("user_id", user).expect("positive"),
            action: Action::Add,
            point: Points::new(1).expect("in range"),
            reason: None,
            requested_at: Timestamp::UNIX_EPOCH,
            traceparent: None,
        }
    }

    fn applied(delta: &Delta) -> Outcome {
        let (created_at, seq, balance, rejection) = (Timestamp::UNIX_EPOCH, 1, 1, None);
        let entry = Entry { delta: delta.clone(), seq, rejection, balance, created_at };
        Outcome { entry, replayed: false }
    }

    proptest! {
        /// Messages of a few users, and what becomes of each try: whatever happens, each user's deltas are applied in
        /// their order and once, and a message is settled when its last delta is, and no sooner.
        #[test]
        fn an_obstacle_delays_its_user_only_and_nothing_is_overtaken(
            messages in prop::collection::vec(prop::collection::vec(1..5i64, 0..4), 1..30),
            obstacles in prop::collection::vec(prop::option::of(0..3usize), 60),
        ) {
            let (mut hand, mut now) = (Hand::default(), Instant::now());
            let (mut applied_ids, mut sent, mut open) = (Vec::new(), Vec::new(), BTreeMap::new());
            let mut obstacles = obstacles.into_iter();
            let mut messages = (1..).zip(messages).peekable();
            while messages.peek().is_some() || hand.len() > 0 {
                let mut deliveries: Vec<Delivery> = messages.by_ref().take(2).map(|(tag, users)| {
                    let deltas: Vec<Delta> = users.into_iter().map(delta).collect();
                    sent.extend(deltas.iter().map(|delta| (delta.user_id, delta.request_id)));
                    open.insert(tag, deltas.len());
                    Delivery { tag, deltas: Ok(deltas) }
                }).collect();
                for turn in ["fresh", "due", "slow"] {
                    let group = match turn {
                        "fresh" => hand.take(std::mem::take(&mut deliveries), now),
                        "due" => hand.take_due(now),
                        _ => hand.take_slow(now),
                    };
                    let blocked: HashMap<UserId, Obstacle> = group.iter().filter_map(|taken| {
                        let of = [Obstacle::Locked, Obstacle::Unreadable(String::new()), Obstacle::Slow];
                        Some((taken.delta.user_id, of[obstacles.next()??].clone()))
                    }).collect();
                    let results: Vec<_> = group.iter().map(|taken| match blocked.get(&taken.delta.user_id) {
                        Some(obstacle) => Err(ServiceError::Blocked(obstacle.clone())),
                        None => Ok(applied(&taken.delta)),
                    }).collect();
                    for taken in group.iter().filter(|taken| !blocked.contains_key(&taken.delta.user_id)) {
                        applied_ids.push((taken.delta.user_id, taken.delta.request_id));
                        *open.get_mut(&taken.place.0).expect("sent") -= 1;
                    }
                    hand.note(group, &results, now);
                    for (tag, disposition) in hand.settled() {
                        prop_assert_eq!((open.remove(&tag), disposition), (Some(0), Disposition::Ack));
                    }
                    prop_assert_eq!(open.keys().next().copied(), hand.first_open());
                    prop_assert!(open.values().all(|open| *open > 0), "settled late");
                }
                now = hand.due().map_or(now, |due| due.max(now));
            }
            for user in 1..5 {
                let of = |all: &[(UserId, RequestId)]| {
                    all.iter().filter(|(id, _)| id.get() == user).copied().collect::<Vec<_>>()
                };
                prop_assert_eq!(of(&applied_ids), of(&sent));
            }
        }
    }

    #[test]
    fn a_refused_delta_takes_its_message_to_the_dead_letters_once_all_of_it_has_come_to_an_end() {
        let (mut hand, now) = (Hand::default(), Instant::now());
        let taken = hand.take(vec![Delivery { tag: 1, deltas: Ok(vec![delta(1), delta(2)]) }], now);
        let blocked = ServiceError::Blocked(Obstacle::Locked);
        hand.note(taken, &[Err(ServiceError::Refused(String::new())), Err(blocked)], now);
        assert!(hand.settled().is_empty() && hand.waiting().len() == 1);
        let later = hand.due().expect("a user who waits");
        let taken = hand.take_due(later);
        let result = Ok(applied(&taken[0].delta));
        assert_eq!(hand.note(taken, &[result], later).len(), 1);
        assert_eq!(hand.settled(), [(1, Disposition::DeadLetter)]);
        let malformed = Delivery { tag: 2, deltas: Err("not JSON".to_owned()) };
        assert!(hand.take(vec![malformed], later).is_empty());
        assert_eq!(hand.settled(), [(2, Disposition::DeadLetter)]);
    }
}
