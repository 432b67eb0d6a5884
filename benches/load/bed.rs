//! The test bed: its own database and queues on private servers, the release executable, and the cost of its processes.
//! Must not contain a judgement of a figure.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use point_system::queue::Link;
use procfs::process::{Stat, all_processes};
use tokio::time::interval;

use crate::{
    backlog,
    scenes::Size,
    support::{process::Process, system::System},
    traffic::{Closed, Users},
};

/// The longest that a backlog may take to be applied.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Bed {
    pub system: System,
    /// The number of deltas that were acknowledged or put on the queue.
    pub expected: u64,
}

/// The figures of a drained backlog.
pub struct Drained {
    pub per_second: f64,
    /// The mean number of deltas in a transaction.
    pub batch: f64,
}

impl Bed {
    pub async fn new(size: &Size) -> Self {
        let system = Box::pin(System::with(size.partitions)).await;
        let link = Link::start(system.node().broker.url, system.names(), "bench");
        link.watch().ready(PATIENCE).await.expect("the queues are declared");
        link.close().await;
        Self { system, expected: 0 }
    }

    pub async fn serve(&self) -> (Process, SocketAddr) {
        let serve =
            self.system.process_with_log("serve", &["--listen", "127.0.0.1:0"], "warn,point_system=info");
        let port = serve.says("server listen at :").await;
        (serve, format!("127.0.0.1:{port}").parse().expect("an address"))
    }

    pub async fn work(&self, concurrency: u16) -> Process {
        let concurrency = concurrency.to_string();
        let arguments = ["--concurrency", &concurrency];
        let work = self.system.process_with_log("work", &arguments, "warn,point_system=info");
        work.says("working on").await;
        work
    }

    /// Runs a closed loop that writes.
    pub async fn load(&mut self, address: SocketAddr, load: &Closed) -> f64 {
        let answered = load.run(address).await;
        self.expected += answered.total * load.kind.deltas();
        answered.per_second
    }

    /// Puts deltas on the queue, without HTTP. Returns the rate of confirmed messages per second.
    pub async fn publish(&mut self, users: &Users, deltas: u64, of_message: usize) -> f64 {
        self.expected += deltas;
        backlog::publish(&self.system.amqp_url, &self.system.names(), users, deltas, of_message).await
    }

    /// The number of waiting messages.
    pub async fn messages(&self) -> u32 {
        self.system.queues().await.waiting().await
    }

    /// The number of applied deltas. The query is cheap, so that it does not distort the figures.
    pub async fn applied(&self) -> u64 {
        let applied = self.system.count("select coalesce(sum(seq), 0)::bigint from user_point").await;
        u64::try_from(applied).expect("a count")
    }

    /// Waits until all expected deltas are applied.
    pub async fn all_applied(&self) {
        let (started, mut looks) = (Instant::now(), interval(Duration::from_millis(100)));
        while self.applied().await < self.expected {
            assert!(started.elapsed() < PATIENCE, "the backlog is not applied");
            looks.tick().await;
        }
    }

    /// Applies the waiting deltas with one worker.
    pub async fn drain(&self, concurrency: u16) -> Drained {
        self.pace_of(async {
            let work = self.work(concurrency).await;
            self.all_applied().await;
            assert!(work.end("-TERM").await.success(), "a clean end");
        })
        .await
    }

    /// How fast `applying` applies deltas, by the clock of the database. It measures the second half of the deltas: by
    /// then every connection has been used and has the pages of its users in its cache.
    pub async fn pace_of(&self, applying: impl Future<Output = ()>) -> Drained {
        let now = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
        let since = self.system.count(now).await;
        applying.await;
        let figure = async |figure: &str| {
            let query = format!(
                "with entries as (select created_at from log where created_at > to_timestamp({since} / 1000000.0)) \
                 select ({figure})::bigint from entries where created_at > \
                     (select percentile_disc(0.5) within group (order by created_at) from entries)"
            );
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let figure = self.system.count(&query).await as f64;
            figure
        };
        let seconds = figure("extract(epoch from max(created_at) - min(created_at)) * 1000000").await / 1e6;
        let deltas = figure("count(*)").await;
        let transactions = figure("count(distinct created_at)").await;
        Drained { per_second: deltas / seconds, batch: deltas / transactions }
    }

    /// Checks that all is applied and sound, and removes the database and the queues.
    pub async fn finish(self) {
        self.all_applied().await;
        self.system.finish().await;
    }
}

/// The resident memory of a process, in MiB.
pub fn resident_mib(process: &Process) -> f64 {
    let id = i32::try_from(process.id()).expect("an id");
    let stat = procfs::process::Process::new(id).and_then(|process| process.stat()).expect("running");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let mib = (stat.rss * procfs::page_size()) as f64 / f64::from(1 << 20);
    mib
}

/// The CPU seconds that a process has used.
pub fn cpu_s(process: &Process) -> f64 {
    let id = i32::try_from(process.id()).expect("an id");
    seconds(&procfs::process::Process::new(id).and_then(|process| process.stat()).expect("running"))
}

/// The CPU seconds that this process has used.
pub fn cpu_s_of_us() -> f64 {
    seconds(&procfs::process::Process::myself().and_then(|process| process.stat()).expect("running"))
}

/// The CPU seconds that all processes of a program below this one have used.
pub fn cpu_s_of(program: &str) -> f64 {
    let all: Vec<Stat> =
        all_processes().expect("/proc").filter_map(|process| process.ok()?.stat().ok()).collect();
    let ours = i32::try_from(std::process::id()).expect("an id");
    let below = |stat: &&Stat| {
        let mut parent = stat.ppid;
        while let Some(next) = all.iter().find(|stat| stat.pid == parent && parent != ours) {
            parent = next.ppid;
        }
        parent == ours
    };
    all.iter().filter(|stat| stat.comm == program).filter(below).map(seconds).sum()
}

fn seconds(stat: &Stat) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
    seconds
}
