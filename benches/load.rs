//! The load bench: the release executable under load on private servers, every delta accounted for at the end.
//! Its figures are ratios within the run; the harness is that of the tests.

#![expect(unreachable_pub, dead_code, reason = "the harness has more than a bench needs")]

use std::time::{Duration, Instant};

use clap::Parser;
use reqwest::StatusCode;
use tokio::task::JoinSet;

use client::Client;
use load::Load;
use system::{System, eventually};

#[path = "../tests/it/client.rs"]
mod client;
#[path = "../tests/it/load.rs"]
mod load;
#[path = "../tests/it/logs.rs"]
mod logs;
#[path = "../tests/it/process.rs"]
mod process;
#[path = "../tests/it/queues.rs"]
mod queues;
#[path = "../tests/it/servers.rs"]
mod servers;
#[path = "../tests/it/system.rs"]
mod system;

/// How long the ceiling is measured.
const CEILING_S: u64 = 3;

/// Loads `serve` and two `work` processes with adds and subtracts, and proves that each 202 was applied once
/// and in order.
#[derive(Parser)]
struct Options {
    /// Connections that send at once.
    #[arg(long, default_value_t = 64)]
    connections: i64,
    /// Users, each of one connection.
    #[arg(long, default_value_t = 1_000)]
    users: i64,
    /// Changes of each user.
    #[arg(long, default_value_t = 100)]
    changes_per_user: i64,
    /// Have one worker, kill it with SIGKILL in the middle, and start another.
    #[arg(long)]
    kill: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let load = Load {
        users: options.users,
        changes_per_user: options.changes_per_user,
        connections: options.connections,
    };
    let system = System::new().await;
    let serve = system.process("serve", &["--listen", "127.0.0.1:0"]);
    let client = Client::new(&format!("http://127.0.0.1:{}", serve.says("server listen at :").await));
    let mut workers: Vec<_> =
        (0..if options.kill { 1 } else { 2 }).map(|_| system.process("work", &[])).collect();
    for worker in &workers {
        worker.says("working on").await;
    }

    let ceiling = ceiling(&client, options.connections).await;
    let started = Instant::now();
    let loading = {
        let client = client.clone();
        tokio::spawn(async move { load.run(&client).await })
    };
    if options.kill {
        let half = i64::try_from(load.changes() / 2).expect("a small number");
        eventually("half is applied", async || system.count("select count(*) from log").await > half).await;
        let killed = workers.remove(0).end("-KILL").await;
        println!("the only worker was killed ({killed}) after {:?}", started.elapsed());
        workers.push(system.process("work", &[]));
    }
    let promises = loading.await.expect("no panic");
    let accepted = started.elapsed();
    system.drain(load.changes()).await;
    let applied = started.elapsed();

    assert!(system.ledger().await == promises, "a log is not in the order of the 202s");
    let changes = u32::try_from(load.changes()).expect("a small number");
    let rate = |time: Duration| f64::from(changes) / time.as_secs_f64();
    println!("{changes} changes for {} users from {} connections", load.users, load.connections);
    println!("HTTP ceiling (GET /ping)  {ceiling:>8.0}/s");
    println!(
        "202s                      {:>8.0}/s  {:.2} of the ceiling",
        rate(accepted),
        rate(accepted) / ceiling
    );
    println!(
        "applied                   {:>8.0}/s  {:.2} of the ceiling",
        rate(applied),
        rate(applied) / ceiling
    );
    for process in workers.into_iter().chain([serve]) {
        assert!(process.end("-TERM").await.success(), "a clean end");
    }
    system.finish().await;
    println!("every 202 is applied once, in its user's order; every balance is what its log comes to");
}

/// Answers a second that do nothing, from as many connections.
async fn ceiling(client: &Client, connections: i64) -> f64 {
    let until = Instant::now() + Duration::from_secs(CEILING_S);
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let client = client.clone();
        tasks.spawn(async move {
            let mut answers = 0u32;
            while Instant::now() < until {
                let answer = client.get("/ping").send().await.expect("an answer");
                assert_eq!(answer.status(), StatusCode::OK);
                answer.bytes().await.expect("a body");
                answers += 1;
            }
            answers
        });
    }
    let answers: u32 = tasks.join_all().await.into_iter().sum();
    f64::from(answers) / Duration::from_secs(CEILING_S).as_secs_f64()
}
