//! Everything of HTTP: the listener, the routes, the shutdown. No AMQP and no SQL may enter.

use std::{io, net::TcpListener, time::Duration};

use actix_web::{App, FromRequest, Handler, HttpResponse, HttpServer, Resource, Responder, guard, web};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{domain::PointService, queue::Publisher};
pub use problem::ApiError;

pub mod points;
mod bodies;
mod batch;
mod history;
mod requests;
mod query;
mod problem;
mod catalogue;
mod examples;
mod openapi;
mod parameters;
mod schema;
mod pages;

/// The longest that a client may take to send the head of a request.
const REQUEST_HEAD_TIMEOUT_S: u64 = 10;

/// What the handlers need.
pub struct Api {
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
    api: web::Data<Api>,
    stop: CancellationToken,
    drain: Duration,
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let stopping = web::Data::new(stop.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(api.clone())
            .app_data(stopping.clone())
            .service(post("/v1/point/add", points::add))
            .service(post("/v1/point/subtract", points::subtract))
            .service(post("/v1/point/batch", batch::batch))
            .service(get("/v1/point", points::balance))
            .service(get("/v1/point/log", history::log))
            .service(get("/v1/point/request/{request_id}", requests::outcome))
            .service(get("/ping", ping))
            .service(get("/", about))
            .service(get("/openapi.json", pages::description))
            .service(get("/docs", pages::docs))
            .service(get("/docs/{file}", pages::file))
            .service(get("/problems", pages::problems))
            .service(get("/problems/{kind}", pages::problem))
            .default_service(web::to(async || Err::<HttpResponse, _>(ApiError::NotFound)))
    })
    .client_request_timeout(Duration::from_secs(REQUEST_HEAD_TIMEOUT_S))
    .shutdown_timeout(drain.as_secs())
    .disable_signals()
    .listen(listener)?
    .run();
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
    handler: impl Handler<A, Output: Responder + 'static>,
) -> Resource {
    only("POST", path).route(web::post().to(handler))
}

/// RFC 9110 §9.1 wants HEAD wherever there is GET; the server leaves the body out.
fn get<A: FromRequest + 'static>(
    path: &'static str,
    handler: impl Handler<A, Output: Responder + 'static>,
) -> Resource {
    let method = guard::Any(guard::Get()).or(guard::Head());
    only("GET, HEAD", path).route(web::route().guard(method).to(handler))
}

/// A path that tells any other method which ones it takes.
fn only(allow: &'static str, path: &'static str) -> Resource {
    let refuse = move || async move { Err::<HttpResponse, _>(ApiError::MethodNotAllowed { allow }) };
    web::resource(path).default_service(web::to(refuse))
}

/// What runs here.
#[utoipa::path(
    get,
    path = "/",
    tag = "Service",
    responses((status = 200, description = "Name and version.", body = AboutResponse, example = json!(examples::about()))),
)]
async fn about() -> HttpResponse {
    let version = env!("CARGO_PKG_VERSION");
    HttpResponse::Ok().json(AboutResponse { name: env!("CARGO_PKG_NAME"), version })
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
