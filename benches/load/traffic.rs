//! HTTP load over bare connections, cheap enough to leave the CPU to the service. Must not contain a judgement of a
//! figure.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet, time::sleep};
use uuid::Uuid;

/// How long a closed loop runs before the measurement.
const WARM_UP: Duration = Duration::from_secs(1);

/// The number of operations in a batch.
pub const OPERATIONS: u64 = 100;

/// The number of users that are drawn before the load.
const DRAWN: usize = 1 << 20;

/// The seed of every choice: each run picks the same users.
const SEED: u64 = 1;

/// The kind of request that a load sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Queue one point: 202.
    Add,
    /// As `Add`, with a new `Idempotency-Key`.
    KeyedAdd,
    /// As `Add`, for a user whose id is a UUID.
    UuidAdd,
    /// Apply one point at once, with `Prefer: wait`: 200.
    Wait,
    /// Queue one point for each of [`OPERATIONS`] users: 202.
    Batch,
    /// Read a balance: 200.
    Read,
}

impl Kind {
    /// The number of deltas in a request.
    pub fn deltas(self) -> u64 {
        match self {
            Self::Add | Self::KeyedAdd | Self::UuidAdd | Self::Wait => 1,
            Self::Batch => OPERATIONS,
            Self::Read => 0,
        }
    }

    fn expected(self) -> StatusCode {
        match self {
            Self::Add | Self::KeyedAdd | Self::UuidAdd | Self::Batch => StatusCode::ACCEPTED,
            Self::Wait | Self::Read => StatusCode::OK,
        }
    }
}

/// The users of a load.
#[derive(Clone)]
pub enum Users {
    /// The users from 1 to this number, all equally often.
    Uniform(i64),
    /// A single user.
    Hot,
    /// Users that were drawn before the load, so that the choice costs next to nothing.
    Drawn(Arc<[i64]>),
}

impl Users {
    /// Zipf's law with exponent 1: the k-th user occurs 1/k as often as the first.
    pub fn zipf(users: u32) -> Self {
        let mut sum = 0.0;
        let shares = (1..=users).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        let sums: Vec<f64> = shares.collect();
        let mut rng = Rng::with_seed(SEED);
        let draw = || {
            let share = rng.f64() * sum;
            i64::try_from(sums.partition_point(|sum| *sum < share)).expect("a small number") + 1
        };
        Self::Drawn(std::iter::repeat_with(draw).take(DRAWN).collect())
    }

    pub fn pick(&self, rng: &mut Rng) -> i64 {
        match self {
            Self::Uniform(users) => rng.i64(1..=*users),
            Self::Hot => 1,
            Self::Drawn(users) => users[rng.usize(..users.len())],
        }
    }
}

/// A connection that carries one request at a time.
pub struct Wire(http1::SendRequest<Full<Bytes>>);

impl Wire {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request for users of `users`, reads the whole answer, and checks it.
    async fn send_for(&mut self, kind: Kind, users: &Users, rng: &mut Rng) {
        let request = match kind {
            Kind::Add | Kind::Wait | Kind::Read => request(kind, users.pick(rng)),
            Kind::KeyedAdd => {
                let mut request = request(Kind::Add, users.pick(rng));
                request.headers_mut().insert("idempotency-key", HeaderValue::from(rng.u64(..)));
                request
            }
            Kind::UuidAdd => {
                let user = Uuid::from_u128(Rng::with_seed(users.pick(rng).unsigned_abs()).u128(..));
                post("/v1/point/add", format!(r#"{{"user_id":"{user}","point":1}}"#))
            }
            Kind::Batch => {
                let operation = |_| format!(r#"{{"action":"add","user_id":{},"point":1}}"#, users.pick(rng));
                let operations: Vec<String> = (0..OPERATIONS).map(operation).collect();
                post("/v1/point/batch", format!(r#"{{"operations":[{}]}}"#, operations.join(",")))
            }
        };
        assert_eq!(self.send(request).await, kind.expected());
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> StatusCode {
        self.0.ready().await.expect("an open connection");
        let response = self.0.send_request(request).await.expect("an answer");
        let status = response.status();
        response.into_body().collect().await.expect("a body");
        status
    }
}

/// A request for one user whose id is a number, without a key.
pub fn request(kind: Kind, user: i64) -> Request<Full<Bytes>> {
    if kind == Kind::Read {
        let request = Request::builder().uri(format!("/v1/point?id={user}")).header("host", "localhost");
        return request.body(Full::default()).expect("a valid request");
    }
    let mut request = post("/v1/point/add", format!(r#"{{"user_id":{user},"point":1}}"#));
    if kind == Kind::Wait {
        request.headers_mut().insert("prefer", HeaderValue::from_static("wait"));
    }
    request
}

fn post(path: &str, body: String) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
    request.body(Full::from(body)).expect("a valid request")
}

/// A closed loop: each connection sends its next request when it has the answer to the last one.
#[derive(Clone)]
pub struct Closed {
    pub kind: Kind,
    pub users: Users,
    pub connections: u64,
    /// The time of the measurement, after the warm-up.
    pub time: Duration,
    /// The number of requests after which it ends early.
    pub at_most: u64,
}

/// The result of a closed loop.
pub struct Answered {
    pub per_second: f64,
    /// The number of requests, including the warm-up.
    pub total: u64,
    /// The latencies in microseconds, without the warm-up.
    pub latencies: Histogram<u64>,
}

impl Closed {
    pub async fn run(&self, address: SocketAddr) -> Answered {
        let (count, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let is_warm = Instant::now() + WARM_UP;
        let mut connections = JoinSet::new();
        for connection in 0..self.connections {
            let (load, count, enough) = (self.clone(), Arc::clone(&count), Arc::clone(&enough));
            connections.spawn(async move {
                let mut wire = Wire::open(address).await;
                let mut rng = Rng::with_seed(SEED + connection);
                // A histogram for each connection would fill the caches.
                let mut latencies = Vec::new();
                while !enough.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    wire.send_for(load.kind, &load.users, &mut rng).await;
                    if sent >= is_warm {
                        latencies.push(sent.elapsed());
                    }
                    if count.fetch_add(1, Ordering::Relaxed) + 1 >= load.at_most {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
                latencies
            });
        }
        sleep(WARM_UP).await;
        let (began, before) = (Instant::now(), count.load(Ordering::Relaxed));
        let first = tokio::select! {
            () = sleep(self.time) => None,
            first = connections.join_next() => first,
        };
        let (time, measured) = (began.elapsed(), count.load(Ordering::Relaxed) - before);
        enough.store(true, Ordering::Relaxed);
        let mut latencies = histogram();
        let first = first.map(|ended| ended.expect("no panic"));
        for latency in connections.join_all().await.into_iter().chain(first).flatten() {
            latencies.saturating_record(u64::try_from(latency.as_micros()).expect("a short time"));
        }
        let per_second = per_second(measured, time);
        Answered { per_second, total: count.load(Ordering::Relaxed), latencies }
    }
}

/// An open loop: a fixed rate of requests, whenever the answers come.
pub struct Open {
    pub kind: Kind,
    pub users: Users,
    pub connections: u32,
    pub per_second: f64,
    pub time: Duration,
}

impl Open {
    /// Opens all connections.
    pub async fn connect(&self, address: SocketAddr) -> Vec<Wire> {
        join_all((0..self.connections).map(|_| Wire::open(address))).await
    }

    /// Returns the latencies in microseconds. Each counts from the time when the request was due. So it includes the
    /// wait for a free connection, and no slow phase of the service is omitted. A separate thread keeps the time,
    /// because the runtime's timers are only exact to a millisecond.
    pub async fn run(&self, wires: Vec<Wire>) -> Histogram<u64> {
        let mut connections = JoinSet::new();
        let mut queues = Vec::new();
        for (connection, mut wire) in (0..).zip(wires) {
            let (kind, users) = (self.kind, self.users.clone());
            let (queue, mut requests) = mpsc::unbounded_channel();
            queues.push(queue);
            connections.spawn(async move {
                let mut latencies = histogram();
                let mut rng = Rng::with_seed(SEED + connection);
                while let Some(due) = requests.recv().await {
                    wire.send_for(kind, &users, &mut rng).await;
                    record(&mut latencies, due);
                }
                latencies
            });
        }
        let (pause, end) = (Duration::from_secs_f64(1.0 / self.per_second), Instant::now() + self.time);
        std::thread::spawn(move || {
            let mut due = Instant::now();
            for queue in queues.iter().cycle() {
                if due >= end {
                    break;
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                queue.send(due).expect("a connection");
                due += pause;
            }
        });
        let mut all = histogram();
        for latencies in connections.join_all().await {
            all.add(latencies).expect("the same bounds");
        }
        all
    }
}

/// A histogram of latencies from a microsecond to a minute, with three significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds")
}

pub fn record(latencies: &mut Histogram<u64>, since: Instant) {
    latencies.saturating_record(u64::try_from(since.elapsed().as_micros()).expect("a short time"));
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
