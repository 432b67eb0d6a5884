//! A deploy under load: two `serve` behind a balancer and two `work` become another version, one by one, and go back.
//! No request may fail.

use std::{
    fmt,
    future::pending,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use point_system::queue::MESSAGE_VERSION;
use serde_json::json;
use tokio::{process::Command, time::timeout};

use crate::support::{
    balancer::Balancer,
    chaos::Verdict,
    client::{Client, REQUESTED, answer},
    process::{EXECUTABLE, Process},
    queues::{message, partition},
    servers::{Database, servers},
    system::{PARTITIONS, System, eventually},
};
use clients::{Clients, Record, witnesses};
use gaps::Watch;

mod clients;
mod gaps;

/// The user of the change that only the new version understands, and the request id of that change.
const NEWCOMER: i64 = 500_000;
const NEW_CHANGE: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// The longest that a partition may be without an applied change.
const GAP_MAX: Duration = Duration::from_secs(30);

/// The failures that a report shows.
const FAILURES_SHOWN: usize = 10;

/// The deploy to do.
pub struct Rolling {
    /// The executable of the old version.
    pub old: PathBuf,
    /// How long all nodes are of one version, before and between the deploys.
    pub pause: Duration,
    /// The clients that queue changes, and those that wait.
    pub clients: i64,
    /// How long a `serve` that is told to stop keeps serving. The balancer needs a tenth of a second to notice.
    pub drain_delay: String,
}

/// A version of the executable.
struct Version {
    executable: PathBuf,
    work: Vec<String>,
    drain_delay: String,
    /// Whether its `serve` fails its probe before it closes its port. If not, the balancer is told before the node.
    drains: bool,
}

impl Version {
    async fn old(executable: &Path, drain_delay: &str) -> Self {
        let help =
            Command::new(executable).args(["serve", "--help"]).output().await.expect("the old executable");
        let drains = String::from_utf8_lossy(&help.stdout).contains("--drain-delay");
        let drain_delay = drain_delay.to_owned();
        Self { executable: executable.to_owned(), work: Vec::new(), drain_delay, drains }
    }

    /// This version, which also understands what the old one does not.
    fn new(drain_delay: &str) -> Self {
        let work = vec!["--understands".to_owned(), (MESSAGE_VERSION + 1).to_string()];
        Self { executable: EXECUTABLE.into(), work, drain_delay: drain_delay.to_owned(), drains: true }
    }

    fn start(&self, system: &System, role: &str, arguments: &[&str]) -> Process {
        Process::start_other(&self.executable, role, arguments, |command| {
            system.set_up(command, "info");
            command.env("POINT_SYSTEM_DRAIN_DELAY", &self.drain_delay);
        })
    }

    async fn serve(&self, system: &System, balancer: &Balancer) -> Server<'_> {
        let process = self.start(system, "serve", &["--listen", "127.0.0.1:0"]);
        let port = process.says("server listen at :").await.parse().expect("a port");
        balancer.add(port).await;
        Server { version: self, process, port }
    }

    async fn work(&self, system: &System) -> Process {
        let own: Vec<&str> = self.work.iter().map(String::as_str).collect();
        let worker = self.start(system, "work", &[&["--metrics-listen", "127.0.0.1:0"], &own[..]].concat());
        eventually("the worker is ready", async || readiness(&worker).await.0 == 200).await;
        worker
    }
}

async fn readiness(worker: &Process) -> (u16, serde_json::Value) {
    let address = worker.says("metrics listen at ").await;
    let (status, body) = answer(Client::new(&format!("http://{address}")).get("/readyz")).await;
    (status.as_u16(), body)
}

/// A running `serve`.
struct Server<'a> {
    version: &'a Version,
    process: Process,
    port: u16,
}

impl Server<'_> {
    async fn end(self, balancer: &Balancer) {
        if !self.version.drains {
            balancer.deregister(self.port).await;
        }
        assert!(self.process.end("-TERM").await.success(), "a clean end");
        balancer.remove(self.port);
    }
}

/// The nodes of the deploy.
struct Site<'a> {
    system: &'a System,
    balancer: Balancer,
    serving: Vec<Server<'a>>,
    working: Vec<Process>,
    steps: Vec<(&'static str, Duration)>,
}

impl<'a> Site<'a> {
    async fn start(version: &'a Version, system: &'a System) -> Self {
        let balancer = Balancer::start().await;
        let serving = vec![version.serve(system, &balancer).await, version.serve(system, &balancer).await];
        let working = vec![version.work(system).await, version.work(system).await];
        Self { system, balancer, serving, working, steps: Vec::new() }
    }

    /// Replaces each `serve`, one after the other. Meanwhile only the other one serves.
    async fn roll_serve(&mut self, to: &'a Version, step: &'static str) {
        for _ in 0..self.serving.len() {
            let began = Instant::now();
            self.serving.remove(0).end(&self.balancer).await;
            self.serving.push(to.serve(self.system, &self.balancer).await);
            self.steps.push((step, began.elapsed()));
        }
    }

    async fn roll_work(&mut self, to: &'a Version, step: &'static str) {
        for _ in 0..self.working.len() {
            let began = Instant::now();
            assert!(self.working.remove(0).end("-TERM").await.success(), "a clean end");
            self.working.push(to.work(self.system).await);
            self.steps.push((step, began.elapsed()));
        }
    }

    /// Queues a change of a client that is of the new version already, and waits until the old workers keep it.
    async fn queue_newer(&self) {
        let [known, newer] =
            [MESSAGE_VERSION, MESSAGE_VERSION + 1].map(|number| format!("\"version\":{number}"));
        let newer = message(NEW_CHANGE, NEWCOMER, 1).replace(&known, &newer);
        self.system.queues().await.publish(partition(NEWCOMER), &newer).await;
        let kept = json!([partition(NEWCOMER)]);
        let keeps = async |worker: &Process| readiness(worker).await.1["kept_partitions"] == kept;
        eventually("the change is kept", async || {
            keeps(&self.working[0]).await || keeps(&self.working[1]).await
        })
        .await;
    }

    async fn end(self) -> Vec<(&'static str, Duration)> {
        for server in self.serving {
            server.end(&self.balancer).await;
        }
        for worker in self.working {
            assert!(worker.end("-TERM").await.success(), "a clean end");
        }
        self.steps
    }
}

/// Rolls forward and back, and leaves nothing behind.
pub async fn run(Rolling { old, pause, clients, drain_delay }: Rolling) -> Report {
    let (old, new) = (Version::old(&old, &drain_delay).await, Version::new(&drain_delay));
    let database = Database::empty().await;
    migrate(&old, &database).await;
    let system = System::on(database, servers().await.amqp_url.clone(), PARTITIONS).await;
    let mut site = Site::start(&old, &system).await;
    let clients = Clients::start(site.balancer.port(), clients, PARTITIONS);
    let witnesses = witnesses(PARTITIONS);
    let watch = Watch::start(system.database.pool(1), witnesses.clone());
    for_a_time(pause).await;
    site.queue_newer().await;
    migrate(&new, &system.database).await;
    site.roll_work(&new, "work, to the new version").await;
    site.roll_serve(&new, "serve, to the new version").await;
    for_a_time(pause).await;
    // Back in the opposite order, so that nobody writes what the workers no longer understand.
    site.roll_serve(&old, "serve, back").await;
    site.roll_work(&old, "work, back").await;
    for_a_time(pause).await;

    let gaps = watch.finish(&witnesses);
    let mut record = clients.finish().await;
    record.promises.insert(NEWCOMER, vec![NEW_CHANGE.to_owned()]);
    let promised = i64::try_from(record.promises.values().map(Vec::len).sum::<usize>()).expect("in range");
    let logged = format!("select count(*) from log where {REQUESTED}");
    eventually("all promises are in the log", async || system.count(&logged).await >= promised).await;
    let steps = site.end().await;
    let verdict = Verdict::of(&record.promises, &system.ledger().await);
    system.finish().await;
    Report { verdict, record, gaps, steps, old_drains: old.drains }
}

/// Lets the load run.
async fn for_a_time(time: Duration) {
    timeout(time, pending::<()>()).await.ok();
}

async fn migrate(version: &Version, database: &Database) {
    let migrate = Process::start_other(&version.executable, "migrate", &[], |command| {
        command.env("DATABASE_URL", &database.url);
    });
    let (status, printed) = migrate.ends().await;
    assert!(status.success(), "{printed}");
}

/// What the clients, the log and the witnesses say.
pub struct Report {
    pub verdict: Verdict,
    record: Record,
    gaps: Vec<Duration>,
    steps: Vec<(&'static str, Duration)>,
    old_drains: bool,
}

impl Report {
    /// Fails unless the deploy went unnoticed.
    pub fn assert_unnoticed(&self) {
        assert!(self.record.failures.is_empty(), "{self}");
        assert_eq!(self.verdict, Verdict::default(), "{self}");
        assert!(self.gaps.iter().all(|gap| *gap < GAP_MAX), "{self}");
        let expected = ["queued changes", "waited-for changes", "reads"];
        assert!(expected.iter().all(|kind| self.record.answered.contains_key(kind)), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, record, gaps, steps, old_drains } = self;
        let mut answered: Vec<String> =
            record.answered.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        answered.sort();
        writeln!(f, "{}; failed requests {}", answered.join(", "), record.failures.len())?;
        for failure in record.failures.iter().take(FAILURES_SHOWN) {
            writeln!(f, "  {failure}")?;
        }
        writeln!(f, "slowest answer {:.2} s", record.slowest.as_secs_f64())?;
        let promised: usize = record.promises.values().map(Vec::len).sum();
        let Verdict { lost, doubled, invented, disordered } = verdict;
        writeln!(
            f,
            "{promised} promises: lost {lost}, doubled {doubled}, never sent {invented}, users out of order \
             {disordered}; audit clean"
        )?;
        for (partition, gap) in gaps.iter().enumerate() {
            let waited = usize::from(self::partition(NEWCOMER)) == partition;
            let which = if waited { ", where a change waited for the new version" } else { "" };
            let gap = gap.as_secs_f64();
            writeln!(f, "partition {partition}: longest without an applied change {gap:.2} s{which}")?;
        }
        for (step, took) in steps {
            writeln!(f, "{step}: ready again after {:.2} s", took.as_secs_f64())?;
        }
        if !old_drains {
            writeln!(f, "the old version has no --drain-delay: the balancer was told before each old serve")?;
        }
        Ok(())
    }
}
