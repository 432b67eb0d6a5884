//! Batch by backpressure: whoever waits for a slow resource collects what arrives meanwhile, and the
//! next trip takes it all. Nothing of points, HTTP, AMQP or SQL may enter.

use std::time::Instant;

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::metrics::LaneMetrics;

/// One lane's slow resource.
pub trait Trip: Send + 'static {
    /// What callers hand in.
    type Item: Send + 'static;
    /// What each caller gets back.
    type Reply: Send + 'static;
    /// What the lane is called in the metrics.
    const NAME: &'static str;
    /// A trip takes waiting items until their weights reach this.
    const MAX_WEIGHT: usize;

    /// The item's share of [`Trip::MAX_WEIGHT`], in whatever unit limits the resource.
    fn weight(item: &Self::Item) -> usize;

    /// What the item counts for in the size of a batch, where it is a group of things.
    #[must_use]
    fn size(_: &Self::Item) -> usize {
        1
    }

    /// Carries a batch, never empty; answers each item, in the order of the items.
    fn carry(&mut self, batch: Vec<Self::Item>) -> impl Future<Output = Vec<Self::Reply>> + Send;
}

/// Why a lane did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// The lane's queue is full; nothing happened.
    #[error("too many requests are waiting")]
    Full,
    /// The lane has ended; what became of the item is unknown.
    #[error("shutting down")]
    Ended,
}

type Waiting<T> = (<T as Trip>::Item, oneshot::Sender<<T as Trip>::Reply>);

/// Lanes that run side by side; within a lane, items are carried in the order they were handed in.
pub struct Lanes<T: Trip> {
    queues: Vec<mpsc::Sender<Waiting<T>>>,
    metrics: LaneMetrics,
}

impl<T: Trip> Lanes<T> {
    /// Starts one task per trip, each with room for `capacity` waiting items. The tasks end when
    /// the `Lanes` are dropped and what was handed in has been carried.
    pub fn start(trips: impl IntoIterator<Item = T>, capacity: usize) -> Self {
        let metrics = LaneMetrics::new(T::NAME);
        let start = |trip| {
            let (queue, waiting) = mpsc::channel(capacity);
            tokio::spawn(outlive(tokio::spawn(run(trip, waiting, metrics.clone()))));
            queue
        };
        Self { queues: trips.into_iter().map(start).collect(), metrics }
    }

    /// Hands `item` to the lane of `key` and waits for the answer. Items of one key that are handed
    /// in one after the other are carried in that order.
    ///
    /// # Errors
    /// [`LaneError::Full`] at once, rather than a queue that grows; [`LaneError::Ended`].
    pub async fn call(&self, key: u16, item: T::Item) -> Result<T::Reply, LaneError> {
        let (reply, answer) = oneshot::channel();
        let lane = usize::from(key) % self.queues.len();
        self.queues[lane].try_send((item, reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.metrics.refusals.inc();
                LaneError::Full
            }
            mpsc::error::TrySendError::Closed(_) => LaneError::Ended,
        })?;
        answer.await.map_err(|_| LaneError::Ended)
    }

    /// Hands in all of `items` with their keys, in their order, or none where a lane has no room for its
    /// share; then waits for the answer to each.
    ///
    /// # Errors
    /// As [`Lanes::call`], with the lane that is at fault; nothing happened.
    pub async fn call_all(
        &self,
        items: Vec<(u16, T::Item)>,
    ) -> Result<Vec<Result<T::Reply, LaneError>>, (usize, LaneError)> {
        let mut answers = Vec::with_capacity(items.len());
        for answer in self.hand_in(items)? {
            answers.push(answer.await.map_err(|_| LaneError::Ended));
        }
        Ok(answers)
    }

    fn hand_in(
        &self,
        items: Vec<(u16, T::Item)>,
    ) -> Result<Vec<oneshot::Receiver<T::Reply>>, (usize, LaneError)> {
        let lane = |key: u16| usize::from(key) % self.queues.len();
        let mut shares = vec![0; self.queues.len()];
        for (key, _) in &items {
            shares[lane(*key)] += 1;
        }
        let places = self.queues.iter().zip(shares).enumerate().map(|(lane, (queue, share))| {
            queue.try_reserve_many(share).map_err(|error| match error {
                mpsc::error::TrySendError::Full(()) => (lane, LaneError::Full),
                mpsc::error::TrySendError::Closed(()) => (lane, LaneError::Ended),
            })
        });
        let mut places = places.collect::<Result<Vec<_>, _>>()?;
        let hand_in = |(key, item)| {
            let (reply, answer) = oneshot::channel();
            places[lane(key)].next().expect("a place for each").send((item, reply));
            answer
        };
        Ok(items.into_iter().map(hand_in).collect())
    }
}

/// A lane that panics is a defect that would leave its callers waiting or refused for good. It takes the
/// process with it: what was not settled comes again, to one that works.
async fn outlive(lane: JoinHandle<()>) {
    if lane.await.is_err_and(|error| error.is_panic()) {
        log::error!("a lane has panicked; ending the process");
        std::process::abort();
    }
}

async fn run<T: Trip>(mut trip: T, mut waiting: mpsc::Receiver<Waiting<T>>, metrics: LaneMetrics) {
    while let Some(first) = waiting.recv().await {
        let mut weight = T::weight(&first.0);
        let mut batch = vec![first];
        while weight < T::MAX_WEIGHT
            && let Ok(next) = waiting.try_recv()
        {
            weight += T::weight(&next.0);
            batch.push(next);
        }
        let (items, callers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let (size, departed) = (items.iter().map(T::size).sum(), Instant::now());
        let replies = trip.carry(items).await;
        metrics.carried(size, departed.elapsed());
        for (caller, reply) in callers.into_iter().zip(replies) {
            // A caller that has gone away, such as a closed HTTP connection, needs no answer.
            caller.send(reply).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Each trip waits for a permit and answers with the batch that the item travelled in.
    struct Gated(Arc<Semaphore>);

    impl Trip for Gated {
        type Item = usize;
        type Reply = Vec<usize>;
        const NAME: &'static str = "gated";
        const MAX_WEIGHT: usize = 4;

        fn weight(item: &usize) -> usize {
            *item
        }

        async fn carry(&mut self, batch: Vec<usize>) -> Vec<Vec<usize>> {
            self.0.acquire().await.expect("open").forget();
            vec![batch.clone(); batch.len()]
        }
    }

    #[tokio::test]
    async fn what_waits_travels_together_up_to_the_limit() {
        let gate = Arc::new(Semaphore::new(0));
        let lanes = Lanes::start([Gated(Arc::clone(&gate))], 5);
        let calls = [1, 2, 2, 1, 9].map(|item| lanes.call(0, item));
        let open = async { gate.add_permits(9) };
        let (carried, full, ()) = tokio::join!(join_all(calls), lanes.call(0, 1), open);
        assert_eq!(full, Err(LaneError::Full), "five places");
        let [first, second] = [vec![1, 2, 2], vec![1, 9]].map(Ok);
        assert_eq!(carried, [first.clone(), first.clone(), first, second.clone(), second]);
    }

    #[tokio::test]
    async fn many_are_handed_in_all_or_none() {
        let gates = [0, 0].map(|permits| Arc::new(Semaphore::new(permits)));
        let lanes = Lanes::start(gates.clone().map(Gated), 3);
        let many = lanes.call_all(vec![(0, 1), (1, 2), (0, 1), (1, 2), (0, 1)]);
        let refused = async {
            let of_both = lanes.call_all(vec![(0, 9), (1, 9)]).await;
            assert_eq!(of_both, Err((0, LaneError::Full)), "one lane has no room");
            for gate in &gates {
                gate.add_permits(9);
            }
        };
        let (carried, ()) = tokio::join!(many, refused);
        let [first, second] = [vec![1, 1, 1], vec![2, 2]].map(Ok);
        let expected = [first.clone(), second.clone(), first.clone(), second, first];
        assert_eq!(carried, Ok(expected.to_vec()), "nothing of what was refused travelled");
    }
}
