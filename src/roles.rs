//! The roles: wait for what each needs, run it, finish what is in hand. No work is done here.

use std::{
    net::{SocketAddr, TcpListener},
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::web;
use anyhow::{Context, bail};
use backon::{ConstantBuilder, Retryable};
use deadpool_postgres::Pool;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    access::Access,
    audit,
    config::{DatabaseArgs, HttpArgs, MigrateArgs, NodeArgs, Role},
    dead_letters, dev,
    domain::{PARTITIONS, Patience, PointService},
    health::Duty,
    http::{self, Api, HttpLimits},
    key, manual, migrate,
    operations::Operations,
    postgres::{self, DatabaseUrl, Unfit},
    queue::{Consumer, Link, Publisher},
    worker,
};

/// The pause between tries to reach the database at the start.
const STARTUP_PAUSE_MS: u64 = 1_000;

/// Exit status of a process that a second signal ended: 128 + SIGINT, as shells have it.
const INTERRUPTED: i32 = 130;

/// Runs a role until it ends or a signal stops it.
///
/// # Errors
/// What kept it from starting, or from going on.
pub async fn run(role: Role) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone())?);
    match role {
        Role::Serve(args) => serve(listen("--listen", args.listen)?, &args.node, args.http, stop).await,
        Role::Work(args) => work(&args.node, stop).await,
        Role::Migrate(args) => migrate(&args, stop).await,
        Role::Audit(args) => {
            stop.run_until_cancelled(audit::run(&args)).await.unwrap_or_else(|| bail!("interrupted"))
        }
        Role::DeadLetters { role } => dead_letters::run(role, stop).await,
        Role::Key { role } => {
            stop.run_until_cancelled(key::run(role)).await.unwrap_or_else(|| bail!("interrupted"))
        }
        Role::Dev(args) => Box::pin(dev::run(args, stop)).await,
        Role::Completions(args) => manual::completions(&args),
        Role::Man(args) => manual::man(&args),
    }
}

/// Takes the port before anything else: that another process has it is the likeliest mistake.
pub(crate) fn listen(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("{flag} {address}"))
}

/// Runs a role to its end, which comes `limit` after `stop` is cancelled at the latest.
async fn ending_within(
    limit: Duration,
    stop: CancellationToken,
    role: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let late = async {
        stop.cancelled().await;
        sleep(limit).await;
    };
    tokio::select! {
        ended = role => ended?,
        () = late => {
            log::warn!("not done within {} ms (--shutdown-timeout); ending all the same", limit.as_millis());
        }
    }
    log::info!("stopped");
    Ok(())
}

/// Serves HTTP on `listener` until `stop` is cancelled; then finishes what is in hand, within the shutdown timeout.
///
/// # Errors
/// Where the database or the broker is not there in time, others could call and nothing says that they may, or
/// the listener fails.
pub async fn serve(
    listener: TcpListener,
    node: &NodeArgs,
    http: HttpArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let limit = node.patience.shutdown_timeout;
    ending_within(limit, stop.clone(), Box::pin(serve_until(listener, node, http, stop))).await
}

async fn serve_until(
    listener: TcpListener,
    node: &NodeArgs,
    http: HttpArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let limits = HttpLimits::for_api(http.keep_alive)?;
    // One more than the service may use at once, for the keys.
    let connections = PointService::connections(usize::from(node.concurrency)) + 1;
    let pool = postgres::pool(&node.database.url, connections)?;
    let link = Link::start(node.broker.url.clone(), node.broker.names.clone(), "serve");
    let operations = Operations::start(Duty::Serve, node, (&pool, &link), &stop)?;
    let (listen, limit) = (listener.local_addr()?, node.patience.startup_timeout);
    let serving = async {
        let starting = async {
            ready(&pool, &link, node).await?;
            let open = || async { Ok(Access::open(pool.clone(), http.access.into(), listen).await?) };
            patiently(&node.database, limit, open).await
        };
        let Some(started) = stop.run_until_cancelled(starting).await else { return Ok(()) };
        let access = started?;
        access.check()?;
        operations.health.started();
        let api = web::Data::new(Api {
            access,
            service: PointService::start(pool.clone(), usize::from(node.concurrency), &Patience::Caller),
            publisher: Publisher::start(&link.watch()),
        });
        let published = api.clone();
        operations.beat(|pulse| pulse.accepting(move || published.publisher.accepted_until()));
        let (drain, stop) = (node.patience.shutdown_timeout, stop.clone());
        tokio::select! {
            served = http::serve(listener, (api.clone(), operations.health.clone()), limits, (stop, drain)) => served?,
            never = api.access.keep_up() => match never {},
        }
        // The last uses of the keys; without the database they are lost with the process.
        api.access.refresh().await.ok();
        Ok(())
    };
    let served = serving.await;
    link.close().await;
    operations.end().await;
    served
}

/// Works on the queue until `stop` is cancelled; then finishes what is in hand, within the shutdown timeout. What is not
/// finished comes again, here or elsewhere.
///
/// # Errors
/// Where the database or the broker is not there in time.
pub async fn work(node: &NodeArgs, stop: CancellationToken) -> anyhow::Result<()> {
    ending_within(node.patience.shutdown_timeout, stop.clone(), Box::pin(work_until(node, stop))).await
}

async fn work_until(node: &NodeArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let concurrency = usize::from(node.concurrency);
    // One more for each partition, for its users who have an obstacle.
    let pool = postgres::pool(&node.database.url, concurrency + usize::from(PARTITIONS))?;
    let link = Link::start(node.broker.url.clone(), node.broker.names.clone(), "work");
    let operations = Operations::start(Duty::Work, node, (&pool, &link), &stop)?;
    let working = async {
        let Some(started) = stop.run_until_cancelled(ready(&pool, &link, node)).await else { return Ok(()) };
        started?;
        operations.health.started();
        let service =
            Arc::new(PointService::start(pool.clone(), concurrency, &Patience::Queue(stop.clone())));
        let worker = Uuid::now_v7();
        let consumers = (0..PARTITIONS).map(|p| Consumer::new(p, link.watch(), worker, stop.clone()));
        let consumers: Vec<Consumer> = consumers.collect();
        let (progress, watch) = (consumers.iter().map(Consumer::progress).collect(), link.watch());
        operations.beat(|pulse| pulse.taking(progress, watch));
        log::info!(worker:%; "working on {PARTITIONS} partitions, up to {concurrency} transactions at once");
        let taking = async {
            stop.cancelled().await;
            log::info!("taking no more from the queue");
        };
        tokio::join!(worker::work(consumers, service), taking);
        Ok(())
    };
    let worked = working.await;
    link.close().await;
    operations.end().await;
    worked
}

/// Brings the schema up to date, or tells what is pending.
async fn migrate(args: &MigrateArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let url = &args.database.url;
    let pool = if args.check { postgres::reading_pool(url, 1)? } else { postgres::pool(url, 1)? };
    let migrating = async {
        let reach = || async {
            postgres::check(url).await?;
            Ok(pool.get().await.map(drop)?)
        };
        patiently(&args.database, args.startup_timeout, reach).await?;
        if args.check {
            let pending = migrate::pending(&pool).await?;
            if !pending.is_empty() {
                bail!("pending: {}", pending.join(", "));
            }
            println!("nothing is pending");
            return Ok(());
        }
        let applied = migrate::run(&pool, args.startup_timeout).await?;
        for name in &applied {
            println!("applied {name}");
        }
        if applied.is_empty() {
            println!("nothing to apply");
        }
        Ok(())
    };
    stop.run_until_cancelled(migrating).await.unwrap_or_else(|| bail!("interrupted"))
}

/// Waits until the database has our schema and the broker our queues.
async fn ready(pool: &Pool, link: &Link, node: &NodeArgs) -> anyhow::Result<()> {
    let limit = node.patience.startup_timeout;
    let mut queue = link.watch();
    let broker =
        async { queue.ready(limit).await.map_err(anyhow::Error::msg).with_context(|| gave_up(limit)) };
    tokio::try_join!(patiently(&node.database, limit, || has_schema(&node.database.url, pool)), broker)
        .map(drop)
}

pub(crate) async fn has_schema(url: &DatabaseUrl, pool: &Pool) -> anyhow::Result<()> {
    postgres::check(url).await?;
    let pending = migrate::pending(pool).await?;
    if !pending.is_empty() {
        bail!("migrations are pending ({}): run `point-system migrate`", pending.join(", "));
    }
    Ok(())
}

/// Tries until `limit` has passed, and says so at each try. What no wait changes is an error at once.
async fn patiently<T, F: Future<Output = anyhow::Result<T>>>(
    database: &DatabaseArgs,
    limit: Duration,
    attempt: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let pause = Duration::from_millis(STARTUP_PAUSE_MS);
    attempt
        .retry(ConstantBuilder::new().with_delay(pause).without_max_times())
        .sleep(sleep)
        .when(|error| !error.is::<Unfit>() && started.elapsed() + pause < limit)
        .notify(|error, _| log::warn!("PostgreSQL at {}: {error:#}; trying again", database.url))
        .await
        .map_err(|error| if error.is::<Unfit>() { error } else { error.context(gave_up(limit)) })
        .with_context(|| format!("PostgreSQL at {}", database.url))
}

pub(crate) fn gave_up(limit: Duration) -> String {
    format!("gave up after {} s (--startup-timeout)", limit.as_secs())
}

/// The first SIGTERM or Ctrl-C cancels the token; the second ends the process.
fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                log::warn!("ended by a second signal");
                process::exit(INTERRUPTED);
            }
            log::info!("stopping");
            stop.cancel();
        }
    })
}
