//! HTTP load over bare connections, cheap enough to leave the CPU to what is measured. No figure is judged
//! here.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// How long a closed loop runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// The seed of every choice: each run picks the same users.
const SEED: u64 = 1;

/// What every request of a load does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Queue one point: 202.
    Add,
    /// Apply one point at once, with `Prefer: wait`: 200.
    Wait,
    /// Read a balance: 200.
    Read,
}

/// For whom.
#[derive(Clone)]
pub enum Users {
    /// Each of the users from 1 to this as often as any other.
    Uniform(i64),
    /// One user alone.
    Hot,
    /// Zipf's law with exponent 1: the k-th user 1/k as often as the first; the sums of the shares.
    Zipf(Arc<[f64]>),
}

impl Users {
    pub fn zipf(users: u32) -> Self {
        let mut sum = 0.0;
        let shares = (1..=users).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        Self::Zipf(shares.collect())
    }

    pub fn pick(&self, rng: &mut Rng) -> i64 {
        match self {
            Self::Uniform(users) => rng.i64(1..=*users),
            Self::Hot => 1,
            Self::Zipf(sums) => {
                let share = rng.f64() * sums[sums.len() - 1];
                i64::try_from(sums.partition_point(|sum| *sum < share)).expect("a small number") + 1
            }
        }
    }
}

/// A connection of its own; one request at a time.
pub struct Wire(http1::SendRequest<Full<Bytes>>);

impl Wire {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, kind: Kind, user: i64) -> StatusCode {
        self.0.ready().await.expect("an open connection");
        let response = self.0.send_request(request(kind, user)).await.expect("an answer");
        let status = response.status();
        response.into_body().collect().await.expect("a body");
        status
    }

    async fn send_for(&mut self, kind: Kind, user: i64) {
        let expected = if kind == Kind::Add { StatusCode::ACCEPTED } else { StatusCode::OK };
        assert_eq!(self.send(kind, user).await, expected);
    }
}

fn request(kind: Kind, user: i64) -> Request<Full<Bytes>> {
    let request = Request::builder().header("host", "localhost");
    let request = match kind {
        Kind::Read => request.uri(format!("/v1/point?id={user}")).body(Full::default()),
        Kind::Add | Kind::Wait => {
            let mut request =
                request.method("POST").uri("/v1/point/add").header("content-type", "application/json");
            if kind == Kind::Wait {
                request = request.header("prefer", "wait");
            }
            request.body(Full::from(format!(r#"{{"user_id":{user},"point":1}}"#)))
        }
    };
    request.expect("a valid request")
}

/// As many requests as the answers let through: each connection sends one when it has the answer to the last.
#[derive(Clone)]
pub struct Closed {
    pub kind: Kind,
    pub users: Users,
    pub connections: u64,
    /// How long it is measured, after the warm-up.
    pub time: Duration,
    /// Where it ends even so.
    pub at_most: u64,
}

/// What a closed loop came to.
pub struct Answered {
    pub per_second: f64,
    /// All of them, with those of the warm-up.
    pub total: u64,
}

impl Closed {
    pub async fn run(&self, address: SocketAddr) -> Answered {
        let (count, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut connections = JoinSet::new();
        for connection in 0..self.connections {
            let (load, count, enough) = (self.clone(), Arc::clone(&count), Arc::clone(&enough));
            connections.spawn(async move {
                let mut wire = Wire::open(address).await;
                let mut rng = Rng::with_seed(SEED + connection);
                while !enough.load(Ordering::Relaxed) {
                    wire.send_for(load.kind, load.users.pick(&mut rng)).await;
                    if count.fetch_add(1, Ordering::Relaxed) + 1 >= load.at_most {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
        sleep(WARM_UP).await;
        let (began, before) = (Instant::now(), count.load(Ordering::Relaxed));
        tokio::select! {
            () = sleep(self.time) => {}
            _ = connections.join_next() => {}
        }
        let (time, measured) = (began.elapsed(), count.load(Ordering::Relaxed) - before);
        enough.store(true, Ordering::Relaxed);
        connections.join_all().await;
        let per_second = per_second(measured, time);
        Answered { per_second, total: count.load(Ordering::Relaxed) }
    }
}

/// So many requests a second, whatever the answers do.
pub struct Open {
    pub kind: Kind,
    pub users: Users,
    pub connections: u32,
    pub per_second: f64,
    pub time: Duration,
}

impl Open {
    /// The latencies in microseconds, each from the time at which the request was due: a request that had to
    /// wait for its connection counts that as well, so that nothing is omitted where the service is slow. The
    /// timer that sends them has a resolution of 1 ms, which is in the figures.
    pub async fn run(&self, address: SocketAddr) -> Histogram<u64> {
        let period = Duration::from_secs_f64(f64::from(self.connections) / self.per_second);
        let mut wires = Vec::new();
        for _ in 0..self.connections {
            wires.push(Wire::open(address).await);
        }
        let start = Instant::now();
        let mut connections = JoinSet::new();
        for (connection, mut wire) in (0..self.connections).zip(wires) {
            let (kind, users, time) = (self.kind, self.users.clone(), self.time);
            let mut due = start + period.mul_f64(f64::from(connection) / f64::from(self.connections));
            connections.spawn(async move {
                let mut latencies = histogram();
                let mut rng = Rng::with_seed(SEED + u64::from(connection));
                while due < start + time {
                    sleep_until(due).await;
                    wire.send_for(kind, users.pick(&mut rng)).await;
                    record(&mut latencies, due);
                    due += period;
                }
                latencies
            });
        }
        let mut all = histogram();
        for latencies in connections.join_all().await {
            all.add(latencies).expect("the same bounds");
        }
        all
    }
}

/// Latencies from a microsecond to a minute, to three digits.
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
