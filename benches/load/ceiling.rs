//! The ceilings: HTTP without a broker or a database, and transactions without HTTP or a broker. Must not contain other
//! code than the service's own in between.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    process::Stdio,
    time::{Duration, Instant},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use jiff::Timestamp;
use point_system::{
    domain::{Action, Balance, Change, Delta, Holds, Lots, Points, RequestId, UserId},
    http::{ApiError, Sent, points},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
};

use crate::{
    support::system::System,
    traffic::{Users, per_second},
};

/// The argument that makes this executable the server of [`HttpCeiling`].
pub const ARGUMENT: &str = "--http-ceiling";

/// The handlers of `serve` in their own process, with nothing behind them. They read the request, validate it, and
/// answer as if it were queued or found.
pub struct HttpCeiling {
    pub address: SocketAddr,
    _process: Child,
}

impl HttpCeiling {
    pub async fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("ourselves"));
        command.arg(ARGUMENT).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("ourselves");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let address = lines.next_line().await.expect("a line").expect("an address");
        Self { address: address.parse().expect("an address"), _process: process }
    }
}

/// The server itself.
pub async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let app =
        || App::new().route("/v1/point/add", web::post().to(add)).route("/v1/point", web::get().to(read));
    HttpServer::new(app).listen(listener)?.run().await
}

async fn add(request: HttpRequest, body: web::Payload) -> Result<HttpResponse, ApiError> {
    let delta = points::requested_change(Action::Add, &request, body).await?;
    Ok(points::queued(&Sent::from(&delta)))
}

async fn read(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let (user_id, _) = points::requested_balance(&request)?;
    Ok(points::found_balance(&Balance {
        user_id,
        point: 1,
        seq: 1,
        updated_at: Timestamp::UNIX_EPOCH,
        expires: Lots::default(),
        holds: Some(Holds::default()),
    }))
}

/// Applies `deltas` in transactions of `batch` each, `lanes` at a time.
pub async fn apply(system: &System, users: &Users, deltas: usize, batch: usize, lanes: usize) {
    let mut rng = fastrand::Rng::with_seed(2);
    let mut of_lane: Vec<Vec<Delta>> = vec![Vec::new(); lanes];
    for _ in 0..deltas {
        let delta = delta(users.pick(&mut rng));
        of_lane[usize::from(delta.user_id.partition(system.partitions())) % lanes].push(delta);
    }
    let mut tasks = JoinSet::new();
    for deltas in of_lane {
        let service = system.service(1);
        tasks.spawn(async move {
            for group in deltas.chunks(batch) {
                let outcomes = service.apply_deltas(group.to_vec()).await.expect("an answer");
                assert!(outcomes.iter().all(Result::is_ok));
            }
        });
    }
    tasks.join_all().await;
}

/// The rate of deltas per second if each has its own transaction and the next waits for it.
pub async fn one_by_one(system: &System, users: &Users, time: Duration) -> f64 {
    let service = system.service(1);
    let (mut rng, mut count) = (fastrand::Rng::with_seed(3), 0);
    let started = Instant::now();
    while started.elapsed() < time {
        service.apply_delta(delta(users.pick(&mut rng))).await.expect("applied");
        count += 1;
    }
    per_second(count, started.elapsed())
}

/// Adds a point to each of the users from 1 to `users`. Returns the number of users.
pub async fn see_all(system: &System, users: i64) -> u64 {
    let service = system.service(1);
    let deltas: Vec<Delta> = (1..=users).map(delta).collect();
    for group in deltas.chunks(1_000) {
        service.apply_deltas(group.to_vec()).await.expect("an answer");
    }
    u64::try_from(users).expect("a count")
}

fn delta(user: i64) -> Delta {
    Delta {
        request_id: RequestId::random(),
        user_id: UserId::new("user_id", &user.to_string()).expect("positive"),
        change: Change::Add { point: Points::new(1).expect("positive"), expires_at: None },
        actor: None,
        metadata: None,
        reason: None,
        requested_at: Timestamp::UNIX_EPOCH,
        traceparent: None,
    }
}

/// The rate of reads per second in PostgreSQL's own benchmark: `pgbench -S`, prepared, in the database of `system`.
pub async fn pgbench(system: &System, connections: u64, time: Duration) -> f64 {
    let run = async |arguments: &[&str]| {
        let output = Command::new("pgbench").args(arguments).arg(&system.database.url).output().await;
        let output = output.expect("pgbench, which comes with PostgreSQL, on the PATH");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{printed} {}", String::from_utf8_lossy(&output.stderr));
        printed
    };
    run(&["--initialize", "--quiet", "--scale=10"]).await;
    let (clients, seconds) = (format!("--client={connections}"), format!("--time={}", time.as_secs()));
    let printed = run(&["--select-only", "--protocol=prepared", "--jobs=2", &clients, &seconds]).await;
    let tps = printed.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next());
    tps.expect("a rate").parse().expect("a number")
}
