//! Batch by backpressure: items queue up while a slow resource is busy, and the next trip takes all of them. Must not
//! contain points, HTTP, AMQP or SQL.

use std::{sync::Arc, time::Instant};

use tokio::{
    sync::{
        mpsc::{self, Permit, PermitIterator, error::TrySendError},
        oneshot,
    },
    task::JoinHandle,
};

use crate::infra::metrics::LaneMetrics;
use departures::{Departures, Load};

mod departures;

/// A trip to a slow resource and back.
pub trait Trip: Send + 'static {
    /// The item that a caller hands in.
    type Item: Send + 'static;
    /// The reply that a caller gets.
    type Reply: Send + 'static;
    /// The name of the lane in the metrics.
    const NAME: &'static str;
    /// A trip takes waiting items until their total weight reaches this.
    const MAX_WEIGHT: usize;
    /// A batch of this weight is worth its own trip, even if other trips are under way.
    const WORTHY_WEIGHT: usize = Self::MAX_WEIGHT;

    /// The limit of this trip, if it is lower than [`Trip::MAX_WEIGHT`].
    fn max_weight(&self) -> usize {
        Self::MAX_WEIGHT
    }

    /// The item's share of [`Trip::MAX_WEIGHT`], in the unit that limits the resource.
    fn weight(item: &Self::Item) -> usize;

    /// How much the item adds to the size of a batch in the metrics: more than 1 if it is a group.
    #[must_use]
    fn size(_: &Self::Item) -> usize {
        1
    }

    /// Carries a batch, which is never empty. Returns a reply per item, in the order of the items.
    fn carry(&mut self, batch: Vec<Self::Item>) -> impl Future<Output = Vec<Self::Reply>> + Send;
}

/// Why a lane did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// The lane's queue is full; nothing happened.
    #[error("too many requests are waiting")]
    Full,
    /// The lane has ended; the fate of the item is unknown.
    #[error("shutting down")]
    Ended,
}

/// An item, and the caller that waits for its reply.
type Waiting<T> = (<T as Trip>::Item, oneshot::Sender<<T as Trip>::Reply>);

/// A queue of items, and the trips that carry them. Trips run in parallel if enough items wait. Only one small batch is
/// under way at a time; the next one grows meanwhile (as in Nagle's algorithm, RFC 896). A lane with one trip keeps the
/// order of its items.
pub struct Lane<T: Trip> {
    queue: mpsc::Sender<Waiting<T>>,
    load: Arc<Load>,
    metrics: LaneMetrics,
}

impl<T: Trip> Lane<T> {
    /// Starts a task for each trip. Up to `capacity` items may wait. The tasks end once the `Lane` is dropped and all
    /// items have been carried.
    pub fn start(trips: impl IntoIterator<Item = T>, capacity: usize) -> Self {
        let (queue, waiting) = mpsc::channel(capacity);
        let (load, metrics) = (Arc::new(Load::default()), LaneMetrics::new(T::NAME));
        let departures = Arc::new(Departures::new(waiting, Arc::clone(&load)));
        for trip in trips {
            tokio::spawn(outlive(tokio::spawn(run(trip, Arc::clone(&departures), metrics.clone()))));
        }
        Self { queue, load, metrics }
    }

    /// Hands `item` in and waits for the reply.
    ///
    /// # Errors
    /// [`LaneError::Full`] at once, if no place is free; [`LaneError::Ended`].
    pub async fn call(&self, item: T::Item) -> Result<T::Reply, LaneError> {
        let place = self.places(1)?.next().expect("the one");
        self.hand_in(place, item).await.map_err(|_| LaneError::Ended)
    }

    fn places(&self, count: usize) -> Result<PermitIterator<'_, Waiting<T>>, LaneError> {
        self.queue.try_reserve_many(count).map_err(|error| match error {
            TrySendError::Full(()) => {
                self.metrics.refusals.inc();
                LaneError::Full
            }
            TrySendError::Closed(()) => LaneError::Ended,
        })
    }

    fn hand_in(&self, place: Permit<'_, Waiting<T>>, item: T::Item) -> oneshot::Receiver<T::Reply> {
        let (reply, answer) = oneshot::channel();
        self.load.add::<T>(&item);
        place.send((item, reply));
        answer
    }
}

/// Hands in all of `items`, in their order, each to the lane of its index. If a lane lacks room for its share, hands in
/// none. Then waits for the replies.
///
/// # Errors
/// As [`Lane::call`], with the index of the lane that failed; no item was handed in.
pub async fn call_all<T: Trip>(
    lanes: &[Lane<T>],
    items: Vec<(usize, T::Item)>,
) -> Result<Vec<Result<T::Reply, LaneError>>, (usize, LaneError)> {
    let mut answers = Vec::with_capacity(items.len());
    for answer in hand_in_all(lanes, items)? {
        answers.push(answer.await.map_err(|_| LaneError::Ended));
    }
    Ok(answers)
}

fn hand_in_all<T: Trip>(
    lanes: &[Lane<T>],
    items: Vec<(usize, T::Item)>,
) -> Result<Vec<oneshot::Receiver<T::Reply>>, (usize, LaneError)> {
    let mut shares = vec![0; lanes.len()];
    for (lane, _) in &items {
        shares[*lane] += 1;
    }
    let places = lanes.iter().zip(shares).enumerate();
    let places = places.map(|(index, (lane, share))| lane.places(share).map_err(|error| (index, error)));
    let mut places = places.collect::<Result<Vec<_>, _>>()?;
    let hand_in = |(lane, item): (usize, T::Item)| {
        lanes[lane].hand_in(places[lane].next().expect("a place for each"), item)
    };
    Ok(items.into_iter().map(hand_in).collect())
}

/// Aborts the process if a lane panics. A dead lane would refuse its callers for good. The broker delivers unsettled
/// changes again, to a process that works.
async fn outlive(lane: JoinHandle<()>) {
    if lane.await.is_err_and(|error| error.is_panic()) {
        log::error!("a lane panicked; aborting the process");
        std::process::abort();
    }
}

async fn run<T: Trip>(mut trip: T, departures: Arc<Departures<T>>, metrics: LaneMetrics) {
    while let Some((batch, _turn)) = departures.next(trip.max_weight()).await {
        let (items, callers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let (size, departed) = (items.iter().map(T::size).sum(), Instant::now());
        let replies = trip.carry(items).await;
        metrics.carried(size, departed.elapsed());
        for (caller, reply) in callers.into_iter().zip(replies) {
            // A caller that has gone, such as a closed HTTP connection, needs no reply.
            caller.send(reply).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::{join, sync::Semaphore, time};

    use super::{departures::TURN_MAX, *};

    /// Each trip reports its batch at departure, waits for a permit, and replies with the batch.
    struct Gated {
        gate: Arc<Semaphore>,
        departed: mpsc::UnboundedSender<Vec<usize>>,
    }

    impl Trip for Gated {
        type Item = usize;
        type Reply = Vec<usize>;
        const NAME: &'static str = "gated";
        const MAX_WEIGHT: usize = 4;

        fn weight(item: &usize) -> usize {
            *item
        }

        async fn carry(&mut self, batch: Vec<usize>) -> Vec<Vec<usize>> {
            self.departed.send(batch.clone()).ok();
            self.gate.acquire().await.expect("open").forget();
            vec![batch.clone(); batch.len()]
        }
    }

    fn gated(
        trips: usize,
        capacity: usize,
    ) -> (Lane<Gated>, Arc<Semaphore>, mpsc::UnboundedReceiver<Vec<usize>>) {
        let (departed, departures) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let trip = |_| Gated { gate: Arc::clone(&gate), departed: departed.clone() };
        (Lane::start((0..trips).map(trip), capacity), gate, departures)
    }

    #[tokio::test]
    async fn what_waits_travels_together_up_to_the_limit() {
        let (lane, gate, _) = gated(1, 5);
        let calls = [1, 2, 2, 1, 9].map(|item| lane.call(item));
        let open = async { gate.add_permits(9) };
        let (carried, full, ()) = join!(join_all(calls), lane.call(1), open);
        assert_eq!(full, Err(LaneError::Full), "five places");
        let [first, second] = [vec![1, 2, 2], vec![1, 9]].map(Ok);
        assert_eq!(carried, [first.clone(), first.clone(), first, second.clone(), second]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_batch_waits_for_another_and_a_worthy_one_does_not() {
        let (lane, gate, mut departures) = gated(3, 9);
        let started = time::Instant::now();
        let worthy = async {
            assert_eq!(departures.recv().await, Some(vec![1]));
            let beside = async {
                assert_eq!(departures.recv().await, Some(vec![2, 2]));
                gate.add_permits(2);
            };
            join!(lane.call(2), lane.call(2), beside)
        };
        join!(lane.call(1), worthy).0.expect("an answer");
        let small = async {
            assert_eq!(departures.recv().await, Some(vec![1]));
            let later = async {
                for _ in 0..9 {
                    tokio::task::yield_now().await;
                }
                gate.add_permits(2);
                lane.call(2).await
            };
            let together = Ok(vec![1, 2]);
            assert_eq!(join!(lane.call(1), later), (together.clone(), together));
        };
        join!(lane.call(1), small).0.expect("an answer");
        assert_eq!(started.elapsed(), time::Duration::ZERO, "nobody waited for the clock");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_up_holds_up_nobody_else_for_long() {
        let (lane, gate, mut departures) = gated(2, 9);
        let started = time::Instant::now();
        let others = async {
            assert_eq!(departures.recv().await, Some(vec![1]));
            let second = async {
                assert_eq!(departures.recv().await, Some(vec![3]));
                gate.add_permits(2);
            };
            join!(lane.call(3), second)
        };
        join!(lane.call(1), others).0.expect("an answer");
        assert!((TURN_MAX..2 * TURN_MAX).contains(&started.elapsed()));
    }

    #[tokio::test]
    async fn many_are_handed_in_all_or_none() {
        let lanes = [gated(1, 3), gated(1, 3)];
        let gates = [&lanes[0].1, &lanes[1].1].map(Arc::clone);
        let lanes = lanes.map(|(lane, ..)| lane);
        let many = call_all(&lanes, vec![(0, 1), (1, 2), (0, 1), (1, 2), (0, 1)]);
        let refused = async {
            let of_both = call_all(&lanes, vec![(0, 9), (1, 9)]).await;
            assert_eq!(of_both, Err((0, LaneError::Full)), "one lane has no room");
            for gate in &gates {
                gate.add_permits(9);
            }
        };
        let (carried, ()) = join!(many, refused);
        let [first, second] = [vec![1, 1, 1], vec![2, 2]].map(Ok);
        let expected = [first.clone(), second.clone(), first.clone(), second, first];
        assert_eq!(carried, Ok(expected.to_vec()), "nothing of what was refused travelled");
    }
}
