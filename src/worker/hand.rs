//! What a worker holds of one partition: the unsettled messages, and the users whose deltas wait. Must not contain I/O
//! or a clock.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use jiff::Timestamp;

use crate::{
    domain::{Delta, Obstacle, Outcome, ServiceError, UserId},
    queue::{Delivery, Disposition},
};
use waiting::Waiting;

mod waiting;

/// A delta, and its place in the queue.
pub(super) struct Taken {
    /// The tag of its message and its index in the message. Places sort in the order of the queue.
    place: (u64, usize),
    pub(super) delta: Delta,
}

/// The unsettled part of a partition. Every other message is either settled or later in the queue.
#[derive(Default)]
pub(super) struct Hand {
    /// The unsettled messages by their tags.
    messages: BTreeMap<u64, Message>,
    waiting: HashMap<UserId, Waiting>,
}

struct Message {
    /// The number of its deltas without a final result.
    open: usize,
    disposition: Disposition,
    oldest: Option<Timestamp>,
    taken_at: Instant,
}

impl Hand {
    /// Takes messages, and returns the deltas to apply now: the deltas of users that do not wait. A message with
    /// nothing to apply is finished at once: see [`Hand::settled`].
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

    /// Takes the deltas of users that are due. Apply them apart from others: users that still have an obstacle take
    /// time.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Taken> {
        let due = self.waiting.values_mut().filter(|user| user.is_due(now) && !user.is_slow());
        due.flat_map(|waiting| waiting.deltas.drain(..)).collect()
    }

    /// Takes the next delta of a slow user that is due. Apply it alone.
    pub(super) fn take_slow(&mut self, now: Instant) -> Vec<Taken> {
        let mut users = self.waiting.values_mut();
        let user = users.find(|user| user.is_due(now) && user.is_slow());
        user.and_then(|user| user.deltas.pop_front()).into_iter().collect()
    }

    /// Notes the results of the taken deltas. Leaves the first message that is not understood, and all behind it. After a
    /// failure that is not an obstacle of one user, the hand must be cleared. Returns the users that no longer wait.
    pub(super) fn note(
        &mut self,
        taken: Vec<Taken>,
        results: &[Result<Outcome, ServiceError>],
        now: Instant,
    ) -> Vec<(UserId, Waiting)> {
        let mut left: Option<u64> = None;
        for (taken, result) in taken.into_iter().zip(results) {
            match result {
                Ok(_) => {
                    self.close(taken.place.0, Disposition::Ack);
                    if let Some(user) = self.waiting.get_mut(&taken.delta.user_id) {
                        user.go_on(now);
                    }
                }
                Err(ServiceError::Refused(_)) => self.close(taken.place.0, Disposition::DeadLetter),
                Err(ServiceError::Blocked(obstacle)) => self.wait(taken, obstacle, now),
                Err(ServiceError::NotUnderstood(_)) => {
                    self.waiting.remove(&taken.delta.user_id);
                    left = left.into_iter().chain([taken.place.0]).min();
                }
                Err(ServiceError::Unavailable(_) | ServiceError::Overloaded) => return Vec::new(),
            }
        }
        let free: Vec<UserId> = self
            .waiting
            .iter()
            .filter(|(_, user)| user.deltas.is_empty())
            .map(|(user, _)| user.clone())
            .collect();
        let free = free.into_iter().filter_map(|user| self.waiting.remove_entry(&user)).collect();
        if let Some(tag) = left {
            self.leave(tag);
        }
        free
    }

    fn close(&mut self, tag: u64, disposition: Disposition) {
        let message = self.messages.get_mut(&tag).expect("taken with its deltas");
        message.open -= 1;
        if disposition == Disposition::DeadLetter {
            message.disposition = disposition;
        }
    }

    fn wait(&mut self, taken: Taken, obstacle: &Obstacle, now: Instant) {
        let user =
            self.waiting.entry(taken.delta.user_id.clone()).or_insert_with(|| Waiting::new(obstacle, now));
        user.meet(obstacle, now);
        user.insert(taken);
    }

    /// Forgets the message with this tag and all behind it. They return to the queue later, and until then the broker
    /// sends no others.
    fn leave(&mut self, tag: u64) {
        self.messages.split_off(&tag);
        self.waiting.retain(|_, user| {
            user.deltas.retain(|taken| taken.place.0 < tag);
            !user.deltas.is_empty()
        });
    }

    /// Removes the messages whose deltas all have a final result, and returns what becomes of each message.
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

    /// The lowest unsettled tag.
    pub(super) fn first_open(&self) -> Option<u64> {
        self.messages.keys().next().copied()
    }

    /// The number of unsettled messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// When the next attempt for a waiting user is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }

    /// When the oldest held message was taken.
    pub(super) fn since(&self) -> Option<Instant> {
        self.messages.values().next().map(|message| message.taken_at)
    }

    /// When the oldest held delta was accepted.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.messages.values().filter_map(|message| message.oldest).min()
    }

    /// The users that wait.
    pub(super) fn waiting(&mut self) -> impl ExactSizeIterator<Item = (UserId, &mut Waiting)> {
        self.waiting.iter_mut().map(|(user, waiting)| (user.clone(), waiting))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Change, Entry, Moved, RequestId, Verdict};

    fn delta(user: i64) -> Delta {
        Delta::of(&user.to_string(), Change::Reverse { request: RequestId::random(), partial: false })
    }

    fn applied(delta: &Delta) -> Outcome {
        let verdict = Verdict { point: 1, reference: None, change: Ok(Moved::lasting(1)) };
        let entry = Entry::of(delta, verdict, (1, 1), Timestamp::UNIX_EPOCH);
        Outcome { entry: Arc::new(entry), replayed: false, first: None }
    }

    proptest! {
        /// Takes messages of a few users, with obstacles at random. Each user's deltas are applied once and in order,
        /// and a message is settled with its last delta and no sooner.
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
                    sent.extend(deltas.iter().map(|delta| (delta.user_id.clone(), delta.request_id)));
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
                        Some((taken.delta.user_id.clone(), of[obstacles.next()??].clone()))
                    }).collect();
                    let results: Vec<_> = group.iter().map(|taken| match blocked.get(&taken.delta.user_id) {
                        Some(obstacle) => Err(ServiceError::Blocked(obstacle.clone())),
                        None => Ok(applied(&taken.delta)),
                    }).collect();
                    for taken in group.iter().filter(|taken| !blocked.contains_key(&taken.delta.user_id)) {
                        applied_ids.push((taken.delta.user_id.clone(), taken.delta.request_id));
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
            for user in (1..5).map(|user: i64| user.to_string()) {
                let of = |all: &[(UserId, RequestId)]| {
                    all.iter().filter(|(id, _)| id.as_str() == user).cloned().collect::<Vec<_>>()
                };
                prop_assert_eq!(of(&applied_ids), of(&sent));
            }
        }
    }

    #[test]
    fn the_users_before_a_message_that_is_not_understood_go_on_waiting_and_all_behind_it_is_left() {
        let (mut hand, now) = (Hand::default(), Instant::now());
        let messages =
            [vec![1, 2], vec![3], vec![2, 4], vec![1]].map(|users| users.into_iter().map(delta).collect());
        let deliveries = (1..).zip(messages).map(|(tag, deltas)| Delivery { tag, deltas: Ok(deltas) });
        let taken = hand.take(deliveries.collect(), now);
        let result = |taken: &Taken| match taken.delta.user_id.as_str() {
            "1" => Err(ServiceError::Blocked(Obstacle::Locked)),
            "4" => Err(ServiceError::NotUnderstood(String::new())),
            _ => Ok(applied(&taken.delta)),
        };
        let results: Vec<_> = taken.iter().map(result).collect();
        assert!(hand.note(taken, &results, now).is_empty());
        assert_eq!(hand.settled(), [(2, Disposition::Ack)]);
        assert_eq!((hand.len(), hand.first_open()), (1, Some(1)));
        let later = hand.due().expect("a user who waits");
        let taken = hand.take_due(later);
        assert_eq!(taken.len(), 1, "the user's later delta is behind it");
        let result = Ok(applied(&taken[0].delta));
        assert_eq!(hand.note(taken, &[result], later).len(), 1);
        assert_eq!((hand.settled(), hand.len()), (vec![(1, Disposition::Ack)], 0));
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
