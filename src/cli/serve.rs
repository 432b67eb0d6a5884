//! The command `serve`: starts the HTTP API on the queue and the database. Must not contain a handler.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_web::web;
use anyhow::ensure;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{
    HttpArgs, NodeArgs,
    args::parse_time,
    start::{Deadline, ending_within, installed, patiently},
    telemetry::Telemetry,
};
use crate::{
    access::Access,
    domain::{Patience, PointService},
    http::{self, Api, Drain, HttpLimits},
    infra::postgres::{self, Pool},
    ops::{health::Duty, pulse::Counts},
    queue::{LetterDesk, Link, Publisher},
};

/// The longest that the start waits for the broker.
const CONNECT_MAX_S: u64 = 15;

/// Flags of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Address and port to serve HTTP on.
    #[arg(long, env = "POINT_SYSTEM_LISTEN", default_value = "127.0.0.1:31001", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// How HTTP is served, and to whom.
    #[command(flatten)]
    pub http: HttpArgs,
    /// How long to keep serving after SIGTERM or Ctrl-C while /readyz already fails, so that load balancers stop
    /// sending requests before the port closes. Make it longer than a load balancer takes to notice. It is part of
    /// --shutdown-timeout and must be shorter. "0s" closes the port immediately.
    #[arg(long, env = "POINT_SYSTEM_DRAIN_DELAY", default_value = "5s", value_name = "TIME",
          value_parser = parse_time)]
    pub drain_delay: Duration,
    /// The servers, the limits and the metrics listener.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Serves HTTP on `listener` until `stop` is cancelled, and for `drain_delay` longer. Then finishes work in hand. All of
/// that ends within the shutdown timeout.
///
/// # Errors
/// The delay is not shorter than the shutdown timeout; the database is not ready in time; other machines could call
/// without a key and no flag allows that; or the listener fails.
pub async fn serve(
    listener: TcpListener,
    node: &NodeArgs,
    (http, drain_delay): (HttpArgs, Duration),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let limit = node.patience.shutdown_timeout;
    ensure!(
        drain_delay.is_zero() || drain_delay < limit,
        "--drain-delay ({} ms) must be shorter than --shutdown-timeout ({} ms), which includes it",
        drain_delay.as_millis(),
        limit.as_millis()
    );
    let drain = Drain::new(stop.clone(), drain_delay, limit);
    ending_within(limit, stop.clone(), Box::pin(serve_until(listener, node, (http, drain), stop))).await
}

async fn serve_until(
    listener: TcpListener,
    node: &NodeArgs,
    (http, drain): (HttpArgs, Drain),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let limits = HttpLimits::for_api(http.keep_alive)?;
    // The service uses all but one; the API keys use the last one.
    let connections = PointService::connections(usize::from(node.concurrency)) + 1;
    let pool = postgres::pool(&node.database.url, connections)?;
    let telemetry = Telemetry::start(Duty::Serve, node, &pool, &stop)?;
    let serving = async {
        let deadline = Deadline::after(node.patience.startup_timeout);
        let installed = installed(&pool, &node.database, deadline);
        let Some(installation) = stop.run_until_cancelled(installed).await else { return Ok(()) };
        let link = Link::start(node.broker.url.clone(), node.broker.names(&installation?), "serve");
        telemetry.watch(&link);
        let served =
            serve_with(listener, (node, http, limits), (&pool, &link, &telemetry, deadline), (&stop, drain))
                .await;
        link.close().await;
        served
    };
    let served = Box::pin(serving).await;
    telemetry.end().await;
    served
}

/// Serves HTTP through `link`. Without the broker, it can still read and apply changes that do not wait in the queue.
async fn serve_with(
    listener: TcpListener,
    (node, http, limits): (&NodeArgs, HttpArgs, HttpLimits),
    (pool, link, telemetry, deadline): (&Pool, &Link, &Telemetry, Deadline),
    (stop, drain): (&CancellationToken, Drain),
) -> anyhow::Result<()> {
    let listen = listener.local_addr()?;
    let starting = async {
        let limit = deadline.left_to_connect().min(Duration::from_secs(CONNECT_MAX_S));
        if let Err(why) = link.watch().ready(limit).await {
            log::warn!("{why}; serving without RabbitMQ until it can be used");
        }
        let open = || async { Ok(Access::open(pool.clone(), http.access.into(), listen).await?) };
        patiently(&node.database, deadline, open).await
    };
    let Some(started) = stop.run_until_cancelled(starting).await else { return Ok(()) };
    let access = started?;
    access.check()?;
    telemetry.health.started();
    let api = web::Data::new(Api {
        access,
        service: PointService::start(pool.clone(), usize::from(node.concurrency), &Patience::Caller),
        publisher: Publisher::start(&link.watch()),
        letters: LetterDesk::new(node.broker.url.clone(), &link.watch()),
        overview: telemetry.overview(),
    });
    let (published, counted) = (api.clone(), api.clone());
    let latest = move || published.publisher.latest();
    let counts = move || {
        let (applied, refused) = counted.service.settled();
        Counts { accepted: counted.publisher.confirmed() + applied + refused, applied, refused }
    };
    telemetry.beat(link.watch().partitions(), |pulse| pulse.accepting(latest, counts));
    tokio::select! {
        served = http::serve(listener, (api.clone(), telemetry.health.clone()), limits, drain) => served?,
        never = api.access.keep_up() => match never {},
        never = api.overview.keep_up() => match never {},
    }
    // If the database is down, the last uses of the keys are lost.
    api.access.tell_used().await.ok();
    Ok(())
}
