//! Records when changes are applied, to see how long a fault delays the users that it does not concern.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use point_system::{domain::UserId, infra::postgres::Pool};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{Chaos, clients::expires_soon};

/// The time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// For each partition, the times of the looks that found newly applied changes.
type Times = Vec<Vec<Instant>>;

/// Watches until it is dropped.
pub struct Progress {
    times: Arc<Mutex<Times>>,
    left_out: Arc<AtomicI64>,
    looking: JoinHandle<()>,
}

impl Progress {
    /// Watches the users of the chaos through `pool`, which bypasses the proxies.
    pub fn watch(pool: Pool, chaos: Chaos) -> Self {
        let times = Arc::new(Mutex::new(vec![Vec::new(); chaos.partitions.all().len()]));
        let left_out = Arc::new(AtomicI64::new(0));
        let looking = tokio::spawn(look(pool, chaos, Arc::clone(&times), Arc::clone(&left_out)));
        Self { times, left_out, looking }
    }

    /// Ignores the changes of this user, until the next call. 0 ignores none.
    pub fn leave_out(&self, user: i64) {
        self.left_out.store(user, Ordering::Relaxed);
    }

    /// The longest time, between two moments, in which one of `partitions` applied nothing.
    pub fn longest_gap(&self, partitions: impl Iterator<Item = u16>, from: Instant, to: Instant) -> Duration {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = |partition: u16| {
            let within = times[usize::from(partition)].iter().filter(|time| (from..=to).contains(*time));
            let all: Vec<Instant> = [from].into_iter().chain(within.copied()).chain([to]).collect();
            all.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        partitions.map(gap).max().unwrap_or_default()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

async fn look(pool: Pool, chaos: Chaos, times: Arc<Mutex<Times>>, left_out: Arc<AtomicI64>) {
    let mut looks = interval(LOOK_PAUSE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known: HashMap<i64, i64> = HashMap::new();
    loop {
        looks.tick().await;
        // While the database is down, changes can't be counted.
        let Ok(client) = pool.get().await else { continue };
        let query = "select user_id::bigint, seq from user_point where user_id::bigint between 1 and $1";
        let Ok(rows) = client.query(query, &[&chaos.users]).await else { continue };
        let now = Instant::now();
        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let (user, seq): (i64, i64) = (row.get(0), row.get(1));
            // Entries of expired points are written without a change.
            let is_left_out = expires_soon(user) || left_out.load(Ordering::Relaxed) == user;
            if known.insert(user, seq) != Some(seq) && !is_left_out {
                let user = UserId::new("user_id", &user.to_string()).expect("positive");
                let partition = user.partition(chaos.partitions);
                let times = &mut times[usize::from(partition)];
                if times.last() != Some(&now) {
                    times.push(now);
                }
            }
        }
    }
}
