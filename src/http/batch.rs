//! The handler of batches, and the bodies that it reads and writes. Must not contain rules of the ledger.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

use super::{
    Api, admission,
    error::ApiError,
    examples, openapi, parameters,
    points::{IDEMPOTENCY_KEY, header_text, now, read},
    schema, traffic,
};
use crate::{
    domain::{
        self, Actor, Change, Delta, Entry, IdempotencyKey, Invalid, Members, Object, RequestId, Status,
        TraceParent, UserId,
    },
    queue::{PARTITION_CAPACITY, PublishError},
};

/// The longest body.
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// The most operations of a batch. A partition of an idle node has room for a batch of one user.
pub(super) const OPERATIONS_MAX: usize = 1_000;
const _: () = assert!(OPERATIONS_MAX <= PARTITION_CAPACITY);

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
    const MEMBERS: &'static [&'static str] = &["action", "user_id", "point", "reason", "metadata", "key"];
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

/// Adds and subtracts points for many users.
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
    let operations = parse(&body, &request)?;
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
async fn known(api: &Api, operations: &[Operation]) -> Result<Vec<Option<Arc<Entry>>>, ApiError> {
    let keyed = operations.iter().filter(|operation| operation.is_keyed).map(|operation| &operation.delta);
    let keyed: Vec<&Delta> = keyed.collect();
    let mut found = api.service.recall(&keyed).await.into_iter();
    let known = operations.iter().map(|operation| if operation.is_keyed { found.next()? } else { None });
    let known: Vec<Option<Arc<Entry>>> = known.collect();
    let pairs = operations.iter().zip(&known).enumerate();
    let reused = pairs.filter_map(|(index, (operation, known))| {
        let first = known.as_ref().filter(|first| !operation.delta.is_of(first))?;
        let detail = format!(
            "was already used for another change of this user: {} {}, decided at {}",
            first.action, first.point, first.created_at
        );
        Some(Fault { pointer: format!("/operations/{index}/key"), detail })
    });
    let reused: Vec<Fault> = reused.collect();
    if reused.is_empty() { Ok(known) } else { Err(ApiError::KeysReused(reused)) }
}

/// An operation that was read.
struct Operation {
    delta: Delta,
    /// Whether the client can send it again.
    is_keyed: bool,
}

/// Returns the operations of a batch, or every fault in it.
fn parse(body: &[u8], request: &HttpRequest) -> Result<Vec<Operation>, ApiError> {
    let members = Members::<BatchRequest>::read(body)?;
    if let Some(name) = members.unknown() {
        return Err(ApiError::invalid(name, "is not a field of a batch, which takes operations"));
    }
    let batch_key = header_text(request, IDEMPOTENCY_KEY)?.map(IdempotencyKey::new).transpose()?;
    let operations =
        members.get("operations").ok_or_else(|| ApiError::invalid("operations", "is required"))?;
    let rule =
        || ApiError::invalid("operations", format!("must be an array of 1 to {OPERATIONS_MAX} elements"));
    let operations: Vec<&RawValue> = serde_json::from_str(operations.get()).map_err(|_| rule())?;
    if operations.is_empty() || operations.len() > OPERATIONS_MAX {
        return Err(rule());
    }
    let (actor, trace, requested_at) = (admission::actor(request), traffic::trace(request), now());
    let mut batch = Batch { actor, trace, requested_at, key: batch_key, of_users: HashMap::new() };
    let (mut faults, mut ids) = (Vec::new(), HashSet::new());
    let mut parsed = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        let mut judge = Judge { index, faults: Vec::new() };
        if let Some(operation) = judge.operation(&mut batch, operation) {
            if !ids.insert((operation.delta.user_id.clone(), operation.delta.request_id)) {
                judge.fault("/key", "is the key of an earlier operation for this user");
            }
            parsed.push(operation);
        }
        faults.extend(judge.faults);
    }
    if faults.is_empty() { Ok(parsed) } else { Err(ApiError::InvalidOperations(faults)) }
}

/// What the operations of a batch share.
struct Batch<'a> {
    actor: Option<Actor>,
    trace: Option<TraceParent>,
    requested_at: Timestamp,
    key: Option<IdempotencyKey<'a>>,
    /// The number of operations so far of each user.
    of_users: HashMap<UserId, usize>,
}

impl Batch<'_> {
    fn request_id(&mut self, user_id: &UserId, key: Option<IdempotencyKey>) -> RequestId {
        let nth = self.of_users.entry(user_id.clone()).or_default();
        *nth += 1;
        match (key, &self.key) {
            (Some(key), _) => RequestId::from_key(self.actor.as_ref(), user_id, &key),
            (None, Some(key)) => RequestId::from_batch_key(self.actor.as_ref(), user_id, key, *nth - 1),
            (None, None) => RequestId::random(),
        }
    }
}

/// Reads one operation and notes its faults.
struct Judge {
    index: usize,
    faults: Vec<Fault>,
}

impl Judge {
    fn operation(&mut self, batch: &mut Batch, operation: &RawValue) -> Option<Operation> {
        let members = Members::<OperationRequest>::read(operation.get().as_bytes());
        let members = members.map_err(|why| self.fault("", &format!("is not valid: {why}"))).ok()?;
        if let Some(name) = members.unknown() {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            let known = OperationRequest::MEMBERS.join(", ");
            self.fault(&pointer, &format!("is not a field of an operation, which takes {known}"));
        }
        let action = self.note(members.required("action"));
        let user_id: Option<UserId> = self.note(members.required("user_id"));
        let point = self.note(members.required("point"));
        let reason = self.note(members.optional("reason")).flatten();
        let metadata = self.note(members.optional("metadata")).flatten();
        let key = members.get("key").map(|key| domain::text(key.get()).unwrap_or_default());
        let key = key.as_deref().map(IdempotencyKey::new).transpose();
        let key = key.map_err(|invalid| self.fault("/key", &invalid.rule)).ok().flatten();
        let (action, user_id, point) = (action?, user_id?, point?);
        let is_keyed = key.is_some() || batch.key.is_some();
        let delta = Delta {
            request_id: batch.request_id(&user_id, key),
            user_id,
            change: Change::new(action, point),
            actor: batch.actor.clone(),
            reason,
            metadata,
            requested_at: batch.requested_at,
            traceparent: batch.trace.clone(),
        };
        Some(Operation { delta, is_keyed })
    }

    fn note<T>(&mut self, parsed: Result<T, Invalid>) -> Option<T> {
        parsed.map_err(|invalid| self.fault(&format!("/{}", invalid.field), &invalid.rule)).ok()
    }

    /// `pointer` is relative to the operation.
    fn fault(&mut self, pointer: &str, detail: &str) {
        let pointer = format!("/operations/{}{pointer}", self.index);
        self.faults.push(Fault { pointer, detail: detail.to_owned() });
    }
}
