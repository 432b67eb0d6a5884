//! What is asked of a node rather than of the service: alive, ready, metrics. No handler of points may enter.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse, ResponseError,
    http::header::{self, CacheControl, CacheDirective, HeaderValue},
    web::{self, ServiceConfig},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{
    auth::Needs::Nothing,
    get, not_found, openapi,
    problem::ApiError,
    schema,
    server::{self, HttpLimits},
};
use crate::{
    infra::metrics,
    ops::health::{Condition, Duty, Health, Report, Seen},
};

/// What `/readyz` answers where the node is ready.
#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(super) struct ReadinessResponse {
    /// What the state means, for people to read.
    detail: String,
    #[serde(flatten)]
    node: NodeResponse,
}

/// A node: a member of what it answers, and of the problem where it is not ready.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub struct NodeResponse {
    #[schema(schema_with = schema::role)]
    role: &'static str,
    #[schema(schema_with = schema::node_state)]
    state: &'static str,
    rabbitmq: DependencyResponse,
    postgresql: DependencyResponse,
    /// Partitions where changes were accepted and no worker takes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    silent_partitions: Vec<u16>,
}

/// What a node needs, whether it is there, and since when.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Dependency)]
struct DependencyResponse {
    #[schema(schema_with = schema::dependency_state)]
    state: &'static str,
    #[schema(schema_with = schema::time)]
    since: jiff::Timestamp,
}

impl From<Seen> for DependencyResponse {
    fn from(seen: Seen) -> Self {
        let state = match (seen.up, seen.read_only) {
            (true, _) => "up",
            (false, true) => "read_only",
            (false, false) => "down",
        };
        Self { state, since: seen.since }
    }
}

/// Serves `/metrics`, `/livez` and `/readyz`, and nothing else, until `ended` is cancelled.
///
/// # Errors
/// Where the listener can't be used.
pub async fn serve_operations(
    listener: TcpListener,
    health: Arc<Health>,
    ended: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let health = web::Data::from(health);
    let server = server::start(listener, HttpLimits::for_operations(), Duration::ZERO, move || {
        App::new()
            .app_data(health.clone())
            .configure(probes)
            .service(get("/metrics", Nothing, exposition))
            .default_service(web::to(not_found))
    })?;
    let handle = server.handle();
    tokio::spawn(async move {
        ended.cancelled().await;
        handle.stop(false).await;
    });
    log::info!("operations listen at {address}");
    server.await
}

/// `/livez` and `/readyz`.
pub(super) fn probes(config: &mut ServiceConfig) {
    config.service(get("/livez", Nothing, livez)).service(get("/readyz", Nothing, readyz));
}

/// Whether the process answers.
///
/// That it answers is the answer: what a node needs may come back, and a restart brings back nothing.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "Service",
    responses((status = 200, description = "It does.", content_type = "text/plain", body = String,
        headers(("Cache-Control" = String, description = "`no-store`.")), example = "live")),
)]
pub(super) async fn livez() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header(CacheControl(vec![CacheDirective::NoStore]))
        .body("live")
}

/// Whether this node can do its work.
#[utoipa::path(get, path = "/readyz", tag = "Service", responses(openapi::ReadinessAnswers))]
pub(super) async fn readyz(health: web::Data<Health>) -> HttpResponse {
    let report = health.report();
    let mut response = if report.condition.is_ready() {
        HttpResponse::Ok().json(readiness(&report))
    } else {
        not_ready(&report).error_response()
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn readiness(report: &Report) -> ReadinessResponse {
    let (node, detail) = node(report);
    ReadinessResponse { detail, node }
}

pub(super) fn not_ready(report: &Report) -> ApiError {
    let (node, detail) = node(report);
    ApiError::NotReady { detail, node: Box::new(node) }
}

fn node(report: &Report) -> (NodeResponse, String) {
    let (state, detail) = described(report);
    let node = NodeResponse {
        role: report.duty.as_str(),
        state,
        rabbitmq: report.rabbitmq.into(),
        postgresql: report.postgresql.into(),
        silent_partitions: report.silent.clone(),
    };
    (node, detail)
}

fn described(report: &Report) -> (&'static str, String) {
    let (state, detail) = match (report.condition, report.duty) {
        (Condition::Starting, _) => ("starting", "waiting for RabbitMQ, PostgreSQL and its migrations"),
        (Condition::Ready, _) => ("ready", "everything is up"),
        (Condition::Degraded, _) if !report.silent.is_empty() => {
            let partitions: Vec<String> = report.silent.iter().map(ToString::to_string).collect();
            let partitions = partitions.join(", ");
            return (
                "degraded",
                format!("changes are accepted, and no worker takes those of partition {partitions}"),
            );
        }
        (Condition::Degraded, _) => {
            ("degraded", "changes are queued; reads and changes with Prefer: wait are refused")
        }
        (Condition::Unable, Duty::Serve) => {
            ("unable", "queued changes are refused; what needs PostgreSQL alone goes on where that is up")
        }
        (Condition::Unable, Duty::Work) => ("unable", "nothing is applied; the queue keeps what comes"),
        (Condition::Stopping, _) => ("stopping", "what is in hand is finished, and no more is taken"),
    };
    (state, detail.to_owned())
}

async fn exposition() -> HttpResponse {
    match metrics::render() {
        Ok(text) => {
            HttpResponse::Ok().insert_header((header::CONTENT_TYPE, metrics::CONTENT_TYPE)).body(text)
        }
        Err(error) => {
            log::error!("the metrics can't be written: {error}");
            HttpResponse::InternalServerError().finish()
        }
    }
}
