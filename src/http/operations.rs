//! What is asked of a node rather than of the service: alive, ready, metrics. No handler of points may enter.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse, HttpServer,
    http::{
        StatusCode,
        header::{self, CacheControl, CacheDirective, HeaderValue},
    },
    web::{self, ServiceConfig},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{REQUEST_HEAD_TIMEOUT_S, auth::Needs::Nothing, get, not_found};
use crate::{
    health::{Condition, Duty, Health, Report, Seen},
    metrics,
};

/// The `type` of the problem that a node is not ready.
const NOT_READY: &str = "/problems/not-ready";

/// What `/readyz` answers: where the node is not ready, with the members of a problem (RFC 9457).
#[derive(Serialize)]
struct ReadinessResponse {
    #[serde(flatten)]
    problem: Option<NotReady>,
    role: &'static str,
    state: &'static str,
    detail: &'static str,
    rabbitmq: DependencyResponse,
    postgresql: DependencyResponse,
}

#[derive(Serialize)]
struct NotReady {
    r#type: &'static str,
    title: &'static str,
    status: u16,
}

#[derive(Serialize)]
struct DependencyResponse {
    state: &'static str,
    since: jiff::Timestamp,
}

impl From<Seen> for DependencyResponse {
    fn from(seen: Seen) -> Self {
        Self { state: if seen.up { "up" } else { "down" }, since: seen.since }
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
    let server = HttpServer::new(move || {
        App::new()
            .app_data(health.clone())
            .configure(probes)
            .service(get("/metrics", Nothing, exposition))
            .default_service(web::to(not_found))
    })
    .workers(1)
    .client_request_timeout(Duration::from_secs(REQUEST_HEAD_TIMEOUT_S))
    .disable_signals()
    .listen(listener)?
    .run();
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

/// That it answers is the answer: what a node needs may come back, and a restart brings back nothing.
async fn livez() -> HttpResponse {
    HttpResponse::Ok().insert_header(CacheControl(vec![CacheDirective::NoStore])).body("live")
}

async fn readyz(health: web::Data<Health>) -> HttpResponse {
    let Report { duty, condition, rabbitmq, postgresql } = health.report();
    let (status, media_type) = if condition.is_ready() {
        (StatusCode::OK, "application/json")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "application/problem+json")
    };
    let problem = NotReady { r#type: NOT_READY, title: "Not ready", status: status.as_u16() };
    let (state, detail) = described(duty, condition);
    HttpResponse::build(status)
        .insert_header(CacheControl(vec![CacheDirective::NoStore]))
        .insert_header((header::CONTENT_TYPE, HeaderValue::from_static(media_type)))
        .json(ReadinessResponse {
            problem: (!condition.is_ready()).then_some(problem),
            role: duty.as_str(),
            state,
            detail,
            rabbitmq: rabbitmq.into(),
            postgresql: postgresql.into(),
        })
}

fn described(duty: Duty, condition: Condition) -> (&'static str, &'static str) {
    match (condition, duty) {
        (Condition::Starting, _) => ("starting", "waiting for RabbitMQ, PostgreSQL and its migrations"),
        (Condition::Ready, _) => ("ready", "everything is up"),
        (Condition::Degraded, _) => {
            ("degraded", "changes are queued; reads and changes with Prefer: wait are refused")
        }
        (Condition::Unable, Duty::Serve) => {
            ("unable", "queued changes are refused; what needs PostgreSQL alone goes on where that is up")
        }
        (Condition::Unable, Duty::Work) => ("unable", "nothing is applied; the queue keeps what comes"),
        (Condition::Stopping, _) => ("stopping", "what is in hand is finished, and no more is taken"),
    }
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
