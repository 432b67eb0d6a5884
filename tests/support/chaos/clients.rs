//! The clients of the chaos: each sends its users' changes one after the other, repeats each until it gets an answer,
//! and records every answer.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jiff::Timestamp;
use point_system::domain::{IdempotencyKey, Partitions, RequestId, UserId};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Chaos, after_the_backlog, report::Counts};
use crate::support::{
    changes,
    client::{Client, Promises, body, text},
    system::System,
};

/// How long a client waits for an answer before it sends again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The least time between two attempts of a change.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The most operations of a batch.
const BATCH_MAX: usize = 100;

/// When the points expire of users whose points expire soon, in milliseconds from the request.
const SOON_MS: std::ops::Range<i64> = 1_000..20_000;

/// The first of the prober's users.
const PROBE: i64 = 1_000_000;

/// What the clients know at their end.
pub struct Record {
    pub promises: Promises,
    /// The requests that may be in the log or not.
    pub unpromised: HashSet<String>,
    pub counts: Counts,
    /// When each 202 came.
    pub accepted: Vec<Instant>,
}

/// The clients, and an additional prober, which has a user in each partition.
pub struct Clients {
    tasks: JoinSet<Promises>,
    prober: Sender,
    /// Locked while the clients send nothing.
    gate: Arc<RwLock<()>>,
    probes: i64,
    promises: Promises,
}

impl Clients {
    /// Starts the clients. Each sends to one of the ports, and the prober to the first.
    pub fn start(chaos: Chaos, ports: &[u16], ended: &CancellationToken) -> Self {
        let nodes = ports.iter().map(|port| Client::new(&format!("http://127.0.0.1:{port}")));
        let mut nodes = nodes.cycle();
        let client = nodes.next().expect("a port");
        let (counts, accepted, gate) = (Arc::default(), Arc::default(), Arc::<RwLock<()>>::default());
        let prober = Sender { client, counts, accepted, unpromised: Arc::default(), gate: Arc::default() };
        let mut tasks = JoinSet::new();
        for connection in 0..chaos.connections {
            let (client, gate) = (nodes.next().expect("a port"), Arc::clone(&gate));
            let (sender, ended) = (Sender { client, gate, ..prober.clone() }, ended.clone());
            let users: Vec<i64> =
                (1..=chaos.users).filter(|user| user % chaos.connections == connection).collect();
            tasks.spawn(async move { sender.run(&users, &ended).await });
        }
        Self { tasks, prober, gate, probes: 0, promises: Promises::new() }
    }

    /// Waits until no client except the prober has a request in flight, and holds their next requests until the
    /// returned guard is dropped.
    pub async fn stand_still(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.gate).write_owned().await
    }

    /// Measures how long it takes from now until a new change is accepted in every partition, and until all these
    /// changes are applied.
    pub async fn probe(&mut self, system: &System) -> (Duration, Duration) {
        let started = Instant::now();
        self.probes += 1;
        let users = probe_users(system.partitions());
        let probes = users.iter().map(|user| self.prober.send(*user, self.probes, None, false));
        let ids: Vec<String> = join_all(probes).await.into_iter().flatten().collect();
        let accepted = started.elapsed();
        for (user, id) in users.iter().zip(&ids) {
            self.promises.entry(*user).or_default().push(id.clone());
        }
        let probes = i64::from(system.partitions().count());
        after_the_backlog("the probes are applied", async || {
            let (of_probes, of_all) = applied_so_far(system, &users, &ids).await?;
            Some((of_probes == probes, of_all))
        })
        .await;
        (accepted, started.elapsed())
    }

    /// Waits until each client has the answer to its last change.
    pub async fn finish(mut self) -> Record {
        self.promises.extend(self.tasks.join_all().await.into_iter().flatten());
        let counts = Arc::into_inner(self.prober.counts).expect("the clients have ended");
        let unpromised = std::mem::take(&mut *lock(&self.prober.unpromised));
        let accepted = std::mem::take(&mut *lock(&self.prober.accepted));
        Record { promises: self.promises, unpromised, counts, accepted }
    }
}

/// A user of each partition that no other client has.
fn probe_users(partitions: Partitions) -> Vec<i64> {
    let of = |partition: u16| {
        let first = PROBE + i64::from(partition) * 1_000;
        let is_there = |id: &i64| {
            UserId::new("user_id", &id.to_string()).is_ok_and(|user| user.partition(partitions) == partition)
        };
        (first..first + 1_000).find(is_there).expect("one of a thousand")
    };
    partitions.all().map(of).collect()
}

/// Returns whether all points that a user adds expire during the run.
pub fn expires_soon(user: i64) -> bool {
    user < PROBE && user % 3 == 0 && user % 4 != 1
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
#[derive(Clone)]
struct Sender {
    client: Client,
    counts: Arc<Counts>,
    accepted: Arc<Mutex<Vec<Instant>>>,
    unpromised: Arc<Mutex<HashSet<String>>>,
    gate: Arc<RwLock<()>>,
}

impl Sender {
    /// Sends each change after the answer to the user's last one, so a user's order is that of its answers. Changes
    /// with `Prefer: wait` overtake the queue, so a user always waits or never does. A batch has one change per user:
    /// the changes in a repeated batch may be out of order.
    async fn run(&self, users: &[i64], ended: &CancellationToken) -> Promises {
        let (together, alone): (Vec<i64>, Vec<i64>) = users.iter().partition(|user| *user % 4 == 1);
        let mut promises = Promises::new();
        for change in 1.. {
            for user in &alone {
                if ended.is_cancelled() {
                    return promises;
                }
                let id = self.send(*user, change, promises.get(user), user % 4 == 0).await;
                promises.entry(*user).or_default().extend(id);
            }
            for users in together.chunks(BATCH_MAX) {
                if ended.is_cancelled() {
                    return promises;
                }
                for (user, id) in users.iter().zip(self.send_batch(users, change, &promises).await) {
                    promises.entry(*user).or_default().push(id);
                }
            }
        }
        promises
    }

    /// Returns the request id of the change, or `None` if its points had expired before there was an answer.
    async fn send(&self, user: i64, change: i64, sent: Option<&Vec<String>>, wait: bool) -> Option<String> {
        // Users are not in step, so there are always some with points that expire, also at the end.
        let (action, mut members) = changes::change(user, change + user % 8, sent);
        if expires_soon(user) && action == "add" {
            let soon = Timestamp::now().as_millisecond() + fastrand::i64(SOON_MS);
            let soon = Timestamp::from_millisecond(soon).expect("in range");
            members["expires_at"] = json!(soon);
        }
        let request = || {
            let request = self.client.send(action, &members);
            let request = request.header("Idempotency-Key", key(user, change));
            if wait { request.header("Prefer", "wait") } else { request }
        };
        let answer = self.answered(request).await;
        if answer.is_none() {
            let user_id = UserId::new("user_id", &user.to_string()).expect("positive");
            let (actor, key) = (None, key(user, change));
            let id = RequestId::from_key(actor, &user_id, &IdempotencyKey::new(&key).expect("a key"));
            lock(&self.unpromised).insert(id.get().to_string());
        }
        answer.map(|answer| text(&answer["request_id"]))
    }

    /// Sends the same change for each of `users`, half of them with their own key.
    async fn send_batch(&self, users: &[i64], change: i64, promises: &Promises) -> Vec<String> {
        let operations: Vec<Value> = users
            .iter()
            .map(|user| {
                let key = (user % 8 == 1).then(|| key(*user, change));
                changes::operation(*user, change, promises.get(user), key.as_deref())
            })
            .collect();
        let key = format!("batch-{}-{change}", users[0]);
        let request = || {
            let request = self.client.post("/v1/point/batch").json(&json!({"operations": operations}));
            request.header("Idempotency-Key", &key)
        };
        let answer = self.answered(request).await.expect("nothing expires soon");
        count(&self.counts.batches);
        let operations = answer["operations"].as_array().expect("operations");
        operations.iter().map(|operation| text(&operation["request_id"])).collect()
    }

    /// Sends a request until it is answered. Returns the body of the answer, or `None` if it came too late for its
    /// points.
    async fn answered(&self, request: impl Fn() -> RequestBuilder) -> Option<Value> {
        let mut tries = interval(RETRY_PAUSE);
        tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tries.tick().await;
            let _open = self.gate.read().await;
            count(&self.counts.requests);
            match request().timeout(ANSWER_TIMEOUT).send().await {
                Ok(answer) => match answer.status().as_u16() {
                    202 => {
                        count(&self.counts.queued);
                        lock(&self.accepted).push(Instant::now());
                        return Some(body(answer).await);
                    }
                    200 | 409 => {
                        count(&self.counts.waited);
                        return Some(body(answer).await);
                    }
                    400 => {
                        let problem = body(answer).await;
                        assert_eq!(problem["field"], "expires_at", "{problem}");
                        count(&self.counts.late);
                        return None;
                    }
                    503 => count(&self.counts.unavailable),
                    other => panic!("{other}: {}", body(answer).await),
                },
                Err(_) => count(&self.counts.unanswered),
            }
        }
    }
}

fn key(user: i64, change: i64) -> String {
    format!("{user}-{change}")
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How many of the probes are in the log, and how many entries there are; `None` without the database.
async fn applied_so_far(system: &System, users: &[i64], ids: &[String]) -> Option<(i64, i64)> {
    let query = "select (select count(*) from log where user_id = any($1::bigint[]::text[]) \
         and request_id = any($2::text[]::uuid[])) as probes, \
         (select coalesce(sum(seq), 0)::bigint from user_point) as entries";
    let row = system.pool.get().await.ok()?.query_one(query, &[&users, &ids]).await.ok()?;
    Some((row.get("probes"), row.get("entries")))
}
