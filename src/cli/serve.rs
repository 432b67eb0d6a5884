//! The command `serve`: starts the HTTP API on the queue and the database. Must not contain a handler.

use std::net::{SocketAddr, TcpListener};

use actix_web::web;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{
    HttpArgs, NodeArgs,
    operations::Operations,
    start::{ending_within, patiently, ready},
};
use crate::{
    access::Access,
    domain::{Patience, PointService},
    http::{self, Api, HttpLimits},
    infra::postgres,
    ops::health::Duty,
    queue::{Link, Publisher},
};

/// Flags of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Address and port to serve HTTP on.
    #[arg(long, env = "POINT_SYSTEM_LISTEN", default_value = "127.0.0.1:31001", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// How HTTP is served, and to whom.
    #[command(flatten)]
    pub http: HttpArgs,
    /// The servers, the limits and the operations listener.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Serves HTTP on `listener` until `stop` is cancelled. Then finishes work in hand, within the shutdown timeout.
///
/// # Errors
/// The database or the broker is not ready in time; other machines could call without a key and no flag allows that;
/// or the listener fails.
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
    // The service uses all but one; the API keys use the last one.
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
        // Writes the last uses of the keys. If the database is down, they are lost.
        api.access.refresh().await.ok();
        Ok(())
    };
    let served = serving.await;
    link.close().await;
    operations.end().await;
    served
}
