//! Decides when a batch departs. Must not contain what a batch carries or where it goes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, MutexGuard, Notify, mpsc},
    time::sleep,
};

use super::{Trip, Waiting};

/// The longest that a small batch waits for another one. A batch that is stuck delays others no longer than this.
pub(super) const TURN_MAX: Duration = Duration::from_millis(20);

/// The total weight of the waiting items.
#[derive(Default)]
pub(super) struct Load {
    weight: AtomicUsize,
    worthy: Notify,
}

impl Load {
    pub(super) fn add<T: Trip>(&self, item: &T::Item) {
        let weight = T::weight(item);
        let before = self.weight.fetch_add(weight, Ordering::SeqCst);
        if before < T::WORTHY_WEIGHT && before + weight >= T::WORTHY_WEIGHT {
            self.worthy.notify_waiters();
        }
    }

    /// Returns once the waiting items are worth a trip.
    async fn is_worthy<T: Trip>(&self) {
        let worthy = self.worthy.notified();
        if self.weight.load(Ordering::SeqCst) < T::WORTHY_WEIGHT {
            worthy.await;
        }
    }
}

/// The place where the trips of a lane wait for the next batch, one at a time.
pub(super) struct Departures<T: Trip> {
    waiting: Mutex<mpsc::Receiver<Waiting<T>>>,
    /// The trip with a small batch holds this.
    turn: Mutex<()>,
    load: Arc<Load>,
}

impl<T: Trip> Departures<T> {
    pub(super) fn new(waiting: mpsc::Receiver<Waiting<T>>, load: Arc<Load>) -> Self {
        Self { waiting: Mutex::new(waiting), turn: Mutex::new(()), load }
    }

    /// Returns the next batch, and the turn if the batch is small and got it. Items are taken until their total weight
    /// reaches `max_weight`.
    pub(super) async fn next(
        &self,
        max_weight: usize,
    ) -> Option<(Vec<Waiting<T>>, Option<MutexGuard<'_, ()>>)> {
        let mut waiting = self.waiting.lock().await;
        let mut batch = vec![waiting.recv().await?];
        let turn = tokio::select! {
            biased;
            () = self.load.is_worthy::<T>() => None,
            turn = self.turn.lock() => Some(turn),
            () = sleep(TURN_MAX) => None,
        };
        let mut weight = T::weight(&batch[0].0);
        while weight < max_weight
            && let Ok(next) = waiting.try_recv()
        {
            weight += T::weight(&next.0);
            batch.push(next);
        }
        self.load.weight.fetch_sub(weight, Ordering::SeqCst);
        Some((batch, turn))
    }
}
