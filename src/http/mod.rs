//! All of HTTP: the endpoints, who is admitted to them, and the listeners. Must not contain AMQP or SQL.

use std::{io, net::TcpListener, rc::Rc, sync::Arc};

use actix_web::{App, HttpResponse, web};

use crate::{
    access::Access,
    domain::PointService,
    ops::{health::Health, overview::Overview},
    queue::{LetterDesk, Publisher},
};

mod server;
mod drain;
mod connection;
mod pieces;
mod traffic;
mod endpoints;
mod admission;
mod loopback;
mod holds;
pub mod points;
mod balances;
mod bodies;
mod batch;
mod user_log;
mod outcome;
mod query;
mod sent;
mod about;
mod probes;
mod pages;
mod error;
mod problem;
mod catalogue;
mod openapi;
mod security;
mod console;
mod parameters;
mod schema;
mod examples;

pub use console::PAGES;
pub use drain::Drain;
pub use endpoints::{ENDPOINTS, Endpoint, Method};
pub use error::ApiError;
pub use probes::{described, serve_metrics};
pub use sent::Sent;
pub use server::{HttpLimits, KEEP_ALIVE_S};

/// What the handlers need.
pub struct Api {
    /// Knows the API keys and the rate limits.
    pub access: Access,
    /// Reads, and applies the changes that skip the queue.
    pub service: PointService,
    /// Queues changes.
    pub publisher: Publisher,
    /// Reads and settles the dead letters.
    pub letters: LetterDesk,
    /// Shows the whole installation.
    pub overview: Overview,
}

/// Serves the API until `drain` closes it, then accepts no new connections and lets current requests finish.
///
/// # Errors
/// The listener can't be used.
pub async fn serve(
    listener: TcpListener,
    (api, health): (web::Data<Api>, Arc<Health>),
    limits: HttpLimits,
    Drain { told, closing, limit }: Drain,
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let health = web::Data::from(health);
    let stopping = web::Data::new(closing.clone());
    let server = server::start(listener, limits, limit, move || {
        // Each thread has its own: a token has a lock, and every answer looks at this one.
        let (routes, told) = (traffic::Routes::new(), Rc::new(told.child_token()));
        App::new()
            .app_data(api.clone())
            .app_data(health.clone())
            .app_data(stopping.clone())
            .configure(endpoints::api)
            .configure(endpoints::probes)
            .configure(console::console)
            .default_service(web::to(not_found))
            // Outside of the routes, because it also counts the requests that they refuse.
            .wrap_fn(move |request, next| {
                let answering = traffic::observe(&routes, request, next);
                let told = Rc::clone(&told);
                async move {
                    let mut answer = answering.await?;
                    drain::see_off(&told, &mut answer);
                    Ok(answer)
                }
            })
    })?;
    let handle = server.handle();
    tokio::spawn(async move {
        closing.cancelled().await;
        log::info!("server accepts no new requests");
        handle.stop(true).await;
    });
    log::info!("server listen at :{port}");
    server.await
}

async fn not_found() -> Result<HttpResponse, ApiError> {
    Err(ApiError::NotFound)
}
