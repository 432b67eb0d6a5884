//! The handlers about a node rather than the service: the probes and the metrics. Must not contain anything about
//! points.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse, ResponseError,
    http::header::{self, CacheControl, CacheDirective, HeaderValue},
    web,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{
    endpoints,
    error::ApiError,
    not_found, openapi, schema,
    server::{self, HttpLimits},
};
use crate::{
    infra::metrics,
    ops::health::{Condition, Duty, Health, Report, Seen, State},
};

/// The answer of a node that is ready.
#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(super) struct ReadinessResponse {
    /// What the state means, for people.
    detail: String,
    #[serde(flatten)]
    node: NodeResponse,
}

/// The state of a node, which is a part of the answer when it is ready and of the problem when it is not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub struct NodeResponse {
    #[schema(schema_with = schema::role)]
    role: &'static str,
    #[schema(inline)]
    state: NodeState,
    rabbitmq: DependencyResponse,
    postgresql: DependencyResponse,
    /// The partitions whose accepted changes no worker takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    silent_partitions: Vec<u16>,
    /// The partitions whose next message waits for a newer worker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    kept_partitions: Vec<u16>,
    /// The queues that the node can't use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    unusable_queues: Vec<String>,
}

/// What the node can do; `detail` explains it.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum NodeState {
    Starting,
    Ready,
    Degraded,
    Unable,
    Stopping,
}

/// A server that a node needs, and since when it is in this state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Dependency)]
struct DependencyResponse {
    #[schema(inline)]
    state: DependencyState,
    #[schema(schema_with = schema::time)]
    since: jiff::Timestamp,
}

/// PostgreSQL is `read_only` when it answers but accepts no writes, as a standby does, and `commits_wait` when it
/// accepts writes, but no synchronous standby confirms their commits.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DependencyState {
    Up,
    Down,
    ReadOnly,
    CommitsWait,
}

impl From<Seen> for DependencyResponse {
    fn from(seen: Seen) -> Self {
        let state = match seen.state {
            State::Up => DependencyState::Up,
            State::Down => DependencyState::Down,
            State::ReadOnly => DependencyState::ReadOnly,
            State::CommitsWait => DependencyState::CommitsWait,
        };
        Self { state, since: seen.since }
    }
}

/// Serves the metrics listener, which has the probes and the metrics only, until `ended` is cancelled.
///
/// # Errors
/// The listener can't be used.
pub async fn serve_metrics(
    listener: TcpListener,
    health: Arc<Health>,
    ended: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let health = web::Data::from(health);
    let server = server::start(listener, HttpLimits::for_metrics(), Duration::ZERO, move || {
        App::new().app_data(health.clone()).configure(endpoints::metrics).default_service(web::to(not_found))
    })?;
    let handle = server.handle();
    tokio::spawn(async move {
        ended.cancelled().await;
        handle.stop(false).await;
    });
    log::info!("metrics listen at {address}");
    server.await
}

/// Tells whether the process answers.
///
/// It does not check RabbitMQ or PostgreSQL: a restart would not bring them back.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "Service",
    responses((status = 200, description = "The process answers.", content_type = "text/plain", body = String,
        headers(("Cache-Control" = String, description = "`no-store`.")), example = "live")),
)]
pub(super) async fn livez() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header(CacheControl(vec![CacheDirective::NoStore]))
        .body("live")
}

/// Tells whether this node can do its work.
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

/// The answer of a node that is ready.
pub(super) fn readiness(report: &Report) -> ReadinessResponse {
    let (node, detail) = node(report);
    ReadinessResponse { detail, node }
}

/// The answer of a node that is not ready.
pub(super) fn not_ready(report: &Report) -> ApiError {
    let (node, detail) = node(report);
    ApiError::NotReady { detail, node: Box::new(node) }
}

/// The state of a node, in words.
#[must_use]
pub fn described(report: &Report) -> String {
    state(report).1
}

fn node(report: &Report) -> (NodeResponse, String) {
    let (state, detail) = state(report);
    let node = NodeResponse {
        role: report.duty.as_str(),
        state,
        rabbitmq: report.rabbitmq.into(),
        postgresql: report.postgresql.into(),
        silent_partitions: report.silent.clone(),
        kept_partitions: report.kept.clone(),
        unusable_queues: report.unusable.clone(),
    };
    (node, detail)
}

fn state(report: &Report) -> (NodeState, String) {
    let (state, detail) = match (report.condition, report.duty) {
        (Condition::Starting, _) => {
            (NodeState::Starting, "waiting for RabbitMQ, PostgreSQL and its migrations")
        }
        (Condition::Ready, _) => (NodeState::Ready, "everything is up"),
        (Condition::Degraded, _) if !report.unusable.is_empty() => {
            let queues = report.unusable.join(", ");
            return (NodeState::Degraded, format!("these queues can't be used: {queues}"));
        }
        (Condition::Degraded, _) if !report.silent.is_empty() => {
            let partitions = listed(&report.silent);
            return (
                NodeState::Degraded,
                format!("changes are accepted, but no worker takes the changes of partition {partitions}"),
            );
        }
        (Condition::Degraded, _) if !report.kept.is_empty() => {
            let partitions = listed(&report.kept);
            return (
                NodeState::Degraded,
                format!("a message of a newer version waits for a newer worker in partition {partitions}"),
            );
        }
        (Condition::Degraded, _) if report.postgresql.state == State::CommitsWait => {
            (NodeState::Degraded, "changes are queued; changes with Prefer: wait are refused")
        }
        (Condition::Degraded, _) => {
            (NodeState::Degraded, "changes are queued; reads and changes with Prefer: wait are refused")
        }
        (Condition::Unable, Duty::Serve) => (
            NodeState::Unable,
            "queued changes are refused; reads, and changes with Prefer: wait, work if PostgreSQL is up",
        ),
        (Condition::Unable, Duty::Work) => {
            (NodeState::Unable, "nothing is applied; the queue keeps new changes")
        }
        (Condition::Stopping, Duty::Serve) => (
            NodeState::Stopping,
            "draining: the node still answers, but will soon close its port; send requests to other nodes",
        ),
        (Condition::Stopping, Duty::Work) => {
            (NodeState::Stopping, "the node takes no new work and finishes its work in hand")
        }
    };
    (state, detail.to_owned())
}

fn listed(partitions: &[u16]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the metrics in the text format of Prometheus.
pub(super) async fn exposition() -> HttpResponse {
    match metrics::render() {
        Ok(text) => {
            HttpResponse::Ok().insert_header((header::CONTENT_TYPE, metrics::CONTENT_TYPE)).body(text)
        }
        Err(error) => {
            log::error!("the metrics can't be rendered: {error}");
            HttpResponse::InternalServerError().finish()
        }
    }
}
