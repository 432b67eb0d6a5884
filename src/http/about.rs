//! The handlers that tell what runs here. Must not contain anything about points.

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::examples;
use crate::infra::build;

/// The name and the version of the service.
#[derive(Serialize, ToSchema)]
#[schema(as = About)]
struct AboutResponse {
    name: &'static str,
    version: &'static str,
}

/// Name and version of the service.
#[utoipa::path(
    get,
    path = "/",
    tag = "Service",
    responses((status = 200, description = "Name and version.", body = AboutResponse, example = json!(examples::about()))),
)]
pub(super) async fn about() -> HttpResponse {
    HttpResponse::Ok().json(AboutResponse { name: env!("CARGO_PKG_NAME"), version: build::VERSION })
}

/// Answers pong.
#[utoipa::path(
    get,
    path = "/ping",
    tag = "Service",
    responses((status = 200, description = "The service answers.", content_type = "text/plain", body = String, example = "pong")),
)]
pub(super) async fn ping() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("pong")
}
