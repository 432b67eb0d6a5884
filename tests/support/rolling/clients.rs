//! Clients that count every request that fails: one without an answer within its time, and one that is answered with a
//! 5xx.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use point_system::domain::{Partitions, UserId};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    changes,
    client::{Client, Promises, body, text},
};

/// How long a client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The least time between two changes of a connection.
const PAUSE: Duration = Duration::from_millis(15);

/// The requests after which a client opens a new connection, as one behind a balancer does sooner or later. A client of
/// the other kind opens one for each request.
const REQUESTS_PER_CONNECTION: [usize; 2] = [50, 1];

/// The users of one client.
const USERS_PER_CLIENT: i64 = 5;

/// The users whose changes wait for their outcome, and the witnesses of the partitions, begin with these.
const WAITING: i64 = 1_000;
const WITNESSES: i64 = 1_000_000;

/// What the clients know.
#[derive(Default)]
pub struct Record {
    pub promises: Promises,
    /// The answers, by what was asked.
    pub answered: HashMap<&'static str, usize>,
    pub failures: Vec<String>,
    pub slowest: Duration,
}

impl Record {
    fn answered(&mut self, kind: &'static str, took: Duration) {
        *self.answered.entry(kind).or_default() += 1;
        self.slowest = self.slowest.max(took);
    }
}

/// The clients.
pub struct Clients {
    record: Arc<Mutex<Record>>,
    tasks: JoinSet<()>,
    ended: CancellationToken,
}

impl Clients {
    /// Starts `queueing` clients that queue changes, as many that wait for the outcome of each change, and one for the
    /// witness of each partition. Between their changes, they read a balance.
    pub fn start(port: u16, queueing: i64, partitions: Partitions) -> Self {
        let base = format!("http://127.0.0.1:{port}");
        let (record, ended) = (Arc::<Mutex<Record>>::default(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let users = |first: i64| (first..first + USERS_PER_CLIENT).collect::<Vec<_>>();
        let queued = (0..queueing).map(|client| (users(1 + client * USERS_PER_CLIENT), false));
        let waited = (0..queueing).map(|client| (users(WAITING + client * USERS_PER_CLIENT), true));
        let witnessed = witnesses(partitions).into_iter().map(|user| (vec![user], false));
        for (number, (users, waits)) in queued.chain(waited).chain(witnessed).enumerate() {
            let requests = REQUESTS_PER_CONNECTION[number % REQUESTS_PER_CONNECTION.len()];
            let client = Client::new(&base);
            let sender =
                Sender { base: base.clone(), client, requests, sent: 0, waits, record: Arc::clone(&record) };
            let ended = ended.clone();
            tasks.spawn(async move { sender.run(&users, &ended).await });
        }
        Self { record, tasks, ended }
    }

    /// Waits until each client has its last answer.
    pub async fn finish(self) -> Record {
        self.ended.cancel();
        self.tasks.join_all().await;
        let record = Arc::into_inner(self.record).expect("the clients have ended");
        record.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A user of each partition to whom only its own client does anything, and only through the queue.
pub fn witnesses(partitions: Partitions) -> Vec<i64> {
    let of = |user: &i64| UserId::new("user_id", &user.to_string()).expect("positive").partition(partitions);
    partitions
        .all()
        .map(|partition| (WITNESSES..WITNESSES + 1_000).find(|user| of(user) == partition).expect("a user"))
        .collect()
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client.
struct Sender {
    base: String,
    client: Client,
    requests: usize,
    sent: usize,
    waits: bool,
    record: Arc<Mutex<Record>>,
}

impl Sender {
    async fn run(mut self, users: &[i64], ended: &CancellationToken) {
        let (mut promises, mut turns) = (Promises::new(), interval(PAUSE));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for change in (1..).take_while(|_| !ended.is_cancelled()) {
            for user in users {
                turns.tick().await;
                let id = self.change(*user, change, promises.get(user)).await;
                promises.entry(*user).or_default().push(id);
            }
            turns.tick().await;
            let path = format!("/v1/point?id={}", users[0]);
            // A user whose first change is still in the queue is unknown.
            self.answered("reads", &[StatusCode::OK, StatusCode::NOT_FOUND], |client| client.get(&path))
                .await;
        }
        lock(&self.record).promises.extend(promises);
    }

    /// Returns the request id.
    async fn change(&mut self, user: i64, number: i64, sent: Option<&Vec<String>>) -> String {
        let (action, members) = changes::change(user, number, sent);
        // Nothing but its own changes may show that a partition moves.
        let is_simple = self.waits || user >= WITNESSES;
        let key = format!("{user}-{number}");
        let request = |client: &Client| {
            let request =
                if is_simple { client.change("add", user, 1) } else { client.send(action, &members) };
            request.header("Idempotency-Key", &key)
        };
        let answer = if self.waits {
            let request = |client: &Client| request(client).header("Prefer", "wait");
            self.answered("waited-for changes", &[StatusCode::OK, StatusCode::CONFLICT], request).await
        } else {
            // After a failure, the change may be decided by now.
            let statuses = [StatusCode::ACCEPTED, StatusCode::OK, StatusCode::CONFLICT];
            self.answered("queued changes", &statuses, request).await
        };
        text(&answer["request_id"])
    }

    /// Sends a request until it is answered with one of these statuses.
    async fn answered(
        &mut self,
        kind: &'static str,
        expected: &[StatusCode],
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Value {
        loop {
            if self.sent.is_multiple_of(self.requests) {
                self.client = Client::new(&self.base);
            }
            self.sent += 1;
            let asked = Instant::now();
            let answer = request(&self.client).timeout(ANSWER_TIMEOUT).send().await;
            let took = asked.elapsed();
            let failure = match answer {
                Ok(answer) if expected.contains(&answer.status()) => {
                    lock(&self.record).answered(kind, took);
                    return body(answer).await;
                }
                Ok(answer) => format!("{kind}: {} {}", answer.status(), body(answer).await),
                Err(error) => format!("{kind}: {error:?}"),
            };
            lock(&self.record).failures.push(failure);
            tokio::task::yield_now().await;
        }
    }
}
