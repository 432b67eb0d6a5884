//! How long each partition is without an applied change, as seen from outside: in the database, by the witnesses.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use point_system::infra::postgres::Pool;
use tokio::{task::JoinHandle, time::interval};

/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// The longest gap of each witness so far, and when it last moved.
type Gaps = HashMap<i64, (Duration, Instant)>;

/// Watches the witnesses until it is finished.
pub struct Watch {
    gaps: Arc<Mutex<Gaps>>,
    looking: JoinHandle<()>,
}

impl Watch {
    pub fn start(pool: Pool, witnesses: Vec<i64>) -> Self {
        let now = Instant::now();
        let gaps: Gaps = witnesses.iter().map(|user| (*user, (Duration::ZERO, now))).collect();
        let gaps = Arc::new(Mutex::new(gaps));
        Self { looking: tokio::spawn(look(pool, witnesses, Arc::clone(&gaps))), gaps }
    }

    /// Returns the longest gap of each of these witnesses. One that has not ended yet counts.
    pub fn finish(self, witnesses: &[i64]) -> Vec<Duration> {
        self.looking.abort();
        let gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        witnesses.iter().map(|user| gaps[user].0.max(gaps[user].1.elapsed())).collect()
    }
}

async fn look(pool: Pool, witnesses: Vec<i64>, gaps: Arc<Mutex<Gaps>>) {
    let (mut looks, mut known) = (interval(LOOK_PAUSE), HashMap::<i64, i64>::new());
    let names: Vec<String> = witnesses.iter().map(ToString::to_string).collect();
    loop {
        looks.tick().await;
        let client = pool.get().await.expect("a connection");
        let query = "select user_id::bigint as user_id, seq from user_point where user_id = any($1)";
        let rows = client.query(query, &[&names]).await.expect("an answer");
        let now = Instant::now();
        let mut gaps = gaps.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let (user, seq): (i64, i64) = (row.get("user_id"), row.get("seq"));
            if known.insert(user, seq) != Some(seq) {
                let (longest, since) = gaps[&user];
                gaps.insert(user, (longest.max(now - since), now));
            }
        }
    }
}
