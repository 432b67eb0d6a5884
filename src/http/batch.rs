//! The handler of batches, and the bodies that it reads and writes. Must not contain rules of the ledger.

use std::{borrow::Cow, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

use super::{Api, error::ApiError, examples, openapi, parameters, points::read, schema};
use crate::{
    domain::{Delta, Entry, Object, Status},
    queue::{PARTITION_CAPACITY_MIN, PublishError},
};

mod parse;

/// The longest body.
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// The most operations of a batch. A partition of an idle node has room for a batch of one user.
pub(super) const OPERATIONS_MAX: usize = 1_000;
const _: () = assert!(OPERATIONS_MAX <= PARTITION_CAPACITY_MIN);

/// A batch of changes.
struct BatchRequest;

impl Object for BatchRequest {
    const MEMBERS: &'static [&'static str] = &["operations"];
}

impl PartialSchema for BatchRequest {
    fn schema() -> RefOr<Schema> {
        schema::object::<Self>(&["operations"]).into()
    }
}

impl ToSchema for BatchRequest {
    fn name() -> Cow<'static, str> {
        "Batch".into()
    }
}

/// An operation of a batch.
pub(super) struct OperationRequest;

impl Object for OperationRequest {
    const MEMBERS: &'static [&'static str] = &[
        "action",
        "user_id",
        "to",
        "point",
        "expires_at",
        "request",
        "hold",
        "partial",
        "reason",
        "metadata",
        "key",
    ];
}

/// What happened to the operations of a batch, in the order of the body.
#[derive(Serialize, ToSchema)]
#[schema(as = PendingBatch)]
pub(super) struct BatchResponse {
    operations: Vec<OperationResponse>,
}

/// What happened to an operation of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PendingOperation)]
pub struct OperationResponse {
    request_id: Uuid,
    #[schema(inline)]
    status: OperationStatus,
    /// Present when the key was used before; the status is then the original outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    replayed: Option<bool>,
}

/// `pending`: queued. `applied`, `rejected`: known before. `refused`: not queued. `unknown`: may be queued.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OperationStatus {
    Pending,
    Applied,
    Rejected,
    Refused,
    Unknown,
}

impl From<&Result<(), PublishError>> for OperationStatus {
    fn from(result: &Result<(), PublishError>) -> Self {
        match result {
            Ok(()) => Self::Pending,
            Err(PublishError::Full { .. }) => Self::Refused,
            Err(PublishError::Unavailable(_)) => Self::Unknown,
        }
    }
}

impl From<Status> for OperationStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Applied => Self::Applied,
            Status::Rejected => Self::Rejected,
        }
    }
}

/// A fault of an operation, and its place in the body.
#[derive(Debug, Serialize, ToSchema)]
pub struct Fault {
    /// The member of the body at fault, as a JSON Pointer (RFC 6901).
    #[schema(format = "json-pointer")]
    pointer: String,
    detail: String,
}

/// Changes the points of many users.
#[utoipa::path(
    post,
    path = "/v1/point/batch",
    tag = "Points",
    params(parameters::BatchHeaders),
    request_body(content = BatchRequest, example = json!(examples::batch())),
    responses(
        (status = 202, description = "Every change is safe in the queue, or was decided before.", body = BatchResponse,
         example = json!(examples::pending_batch())),
        openapi::BatchProblems,
    ),
)]
pub(super) async fn batch(
    request: HttpRequest,
    body: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    let body = read(&request, body, BODY_MAX_BYTES).await?;
    let operations = parse::parse(&body, &request)?;
    let known = known(&api, &operations).await?;
    let ids: Vec<Uuid> = operations.iter().map(|operation| operation.delta.request_id.get()).collect();
    let fresh = operations.into_iter().zip(&known).filter(|(_, known)| known.is_none());
    let fresh: Vec<Delta> = fresh.map(|(operation, _)| operation.delta).collect();
    let count = fresh.len();
    let results = match api.publisher.publish_all(fresh).await {
        Ok(results) => results,
        Err(PublishError::Full { retry_after }) => return Err(ApiError::Overloaded { retry_after }),
        Err(error @ PublishError::Unavailable(_)) => vec![Err(error); count],
    };
    log::debug!("{} of {} operations of a batch are queued", results.iter().flatten().count(), ids.len());
    let mut queued = results.iter();
    let operations = ids.into_iter().zip(known).map(|(request_id, known)| {
        let (status, replayed) = if let Some(entry) = known {
            (entry.status().into(), Some(true))
        } else {
            (queued.next().expect("a result for each").into(), None)
        };
        OperationResponse { request_id, status, replayed }
    });
    let operations = operations.collect();
    if results.iter().all(Result::is_ok) {
        Ok(HttpResponse::Accepted().json(BatchResponse { operations }))
    } else {
        Err(ApiError::PartlyQueued(operations))
    }
}

/// The entries of the operations whose keys are known. A known key of another change fails the whole batch.
async fn known(api: &Api, operations: &[parse::Operation]) -> Result<Vec<Option<Arc<Entry>>>, ApiError> {
    let keyed =
        operations.iter().filter(|operation| operation.key.is_some()).map(|operation| &operation.delta);
    let keyed: Vec<&Delta> = keyed.collect();
    let mut found = api.service.recall(&keyed).await.into_iter();
    let known = operations.iter().map(|operation| operation.key.as_ref().and_then(|_| found.next()?));
    let known: Vec<Option<Arc<Entry>>> = known.collect();
    let pairs = operations.iter().zip(&known).enumerate();
    let reused = pairs.filter_map(|(index, (operation, known))| {
        let first = known.as_ref().filter(|first| !operation.delta.is_of(first))?;
        let detail = format!(
            "its key was already used for another change of this user: {} {}, decided at {}",
            first.action, first.point, first.created_at
        );
        // A JSON Pointer refers to a value in the body. The key of a batch is in a header.
        let member = if let Some(parse::KeyOf::Operation) = operation.key { "/key" } else { "" };
        Some(Fault { pointer: format!("/operations/{index}{member}"), detail })
    });
    let reused: Vec<Fault> = reused.collect();
    if reused.is_empty() { Ok(known) } else { Err(ApiError::KeysReused(reused)) }
}
