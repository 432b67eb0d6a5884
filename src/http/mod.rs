//! Everything of HTTP: the listener, the routes, the shutdown. No AMQP and no SQL may enter.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, FromRequest, Handler, HttpResponse, Resource, Responder, dev::HttpServiceFactory, guard, web,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{
    access::{Access, Scope},
    domain::PointService,
    infra::build,
    ops::health::Health,
    queue::Publisher,
};
use auth::Needs::{self, Nothing, Right};
pub use problem::ApiError;

mod server;
mod connection;
mod auth;
mod loopback;
pub mod points;
mod bodies;
mod batch;
mod history;
mod outcome;
mod query;
mod problem;
mod sent;
mod catalogue;
mod examples;
mod openapi;
mod access;
mod parameters;
mod schema;
mod pages;
mod probes;
mod traffic;

pub use probes::serve_operations;
pub use server::{HttpLimits, KEEP_ALIVE_S};

/// What the handlers need.
pub struct Api {
    /// Who may do what.
    pub access: Access,
    /// Reads, and writes past the queue.
    pub service: PointService,
    /// Writes through the queue.
    pub publisher: Publisher,
}

/// What runs here.
#[derive(Serialize, ToSchema)]
#[schema(as = About)]
struct AboutResponse {
    name: &'static str,
    version: &'static str,
}

/// Serves until `stop` is cancelled; then takes no new connection and gives the requests under way up to
/// `drain`.
///
/// # Errors
/// Where the listener can't be used.
pub async fn serve(
    listener: TcpListener,
    (api, health): (web::Data<Api>, Arc<Health>),
    limits: HttpLimits,
    (stop, drain): (CancellationToken, Duration),
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let health = web::Data::from(health);
    let stopping = web::Data::new(stop.clone());
    let server = server::start(listener, limits, drain, move || {
        let routes = traffic::Routes::new();
        App::new()
            .app_data(api.clone())
            .app_data(health.clone())
            .app_data(stopping.clone())
            .service(post("/v1/point/add", Right(Scope::Write), points::add))
            .service(post("/v1/point/subtract", Right(Scope::Write), points::subtract))
            .service(post("/v1/point/batch", Right(Scope::Write), batch::batch))
            .service(get("/v1/point", Right(Scope::Read), points::balance))
            .service(get("/v1/point/log", Right(Scope::Read), history::log))
            .service(get("/v1/point/request/{request_id}", Right(Scope::Read), outcome::outcome))
            .service(get("/ping", Nothing, ping))
            .service(get("/", Nothing, about))
            .configure(probes::probes)
            .service(get("/openapi.json", Nothing, pages::description))
            .service(get("/docs", Nothing, pages::docs))
            .service(get("/docs/{file}", Nothing, pages::file))
            .service(get("/problems", Nothing, pages::problems))
            .service(get("/problems/{kind}", Nothing, pages::problem))
            .default_service(web::to(not_found))
            // Outermost, since it counts what the others refuse.
            .wrap_fn(move |request, next| traffic::observe(&routes, request, next))
    })?;
    let handle = server.handle();
    tokio::spawn(async move {
        stop.cancelled().await;
        log::info!("server takes no new requests");
        handle.stop(true).await;
    });
    log::info!("server listen at :{port}");
    server.await
}

fn post<A: FromRequest + 'static>(
    path: &'static str,
    needs: Needs,
    handler: impl Handler<A, Output: Responder + 'static>,
) -> impl HttpServiceFactory {
    guarded(needs, only("POST", path).route(web::post().to(handler)))
}

/// RFC 9110 §9.1 wants HEAD wherever there is GET; the server leaves the body out.
fn get<A: FromRequest + 'static>(
    path: &'static str,
    needs: Needs,
    handler: impl Handler<A, Output: Responder + 'static>,
) -> impl HttpServiceFactory {
    let method = guard::Any(guard::Get()).or(guard::Head());
    guarded(needs, only("GET, HEAD", path).route(web::route().guard(method).to(handler)))
}

/// A path that tells any other method which ones it takes.
fn only(allow: &'static str, path: &'static str) -> Resource {
    let refuse = move || async move { Err::<HttpResponse, _>(ApiError::MethodNotAllowed { allow }) };
    web::resource(path).default_service(web::to(refuse))
}

/// A path that is open to those who have what it needs.
fn guarded(needs: Needs, resource: Resource) -> impl HttpServiceFactory {
    resource.wrap_fn(move |request, service| auth::guard(needs, request, service))
}

async fn not_found() -> Result<HttpResponse, ApiError> {
    Err(ApiError::NotFound)
}

/// What runs here.
#[utoipa::path(
    get,
    path = "/",
    tag = "Service",
    responses((status = 200, description = "Name and version.", body = AboutResponse, example = json!(examples::about()))),
)]
async fn about() -> HttpResponse {
    HttpResponse::Ok().json(AboutResponse { name: env!("CARGO_PKG_NAME"), version: build::VERSION })
}

/// Whether anything answers.
#[utoipa::path(
    get,
    path = "/ping",
    tag = "Service",
    responses((status = 200, description = "It does.", content_type = "text/plain", body = String, example = "pong")),
)]
async fn ping() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("pong")
}
