//! The handler of batches, and the bodies that it reads and writes. Must not contain rules of the ledger.

use std::{borrow::Cow, collections::HashSet, fmt};

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api,
    error::ApiError,
    examples, openapi, parameters,
    points::{IDEMPOTENCY_KEY, expect_object, header_text, now, read},
    schema, traffic,
};
use crate::{
    domain::{Action, Delta, IdempotencyKey, Invalid, Points, Reason, RequestId, UserId, whole_number},
    queue::{PARTITION_CAPACITY_MIN, PublishError},
};

/// The longest body.
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// The most operations of a batch. A partition of an idle node has room for a batch of one user.
pub(super) const OPERATIONS_MAX: usize = 1_000;
const _: () = assert!(OPERATIONS_MAX <= PARTITION_CAPACITY_MIN);

/// A batch of changes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Batch)]
struct BatchRequest<'a> {
    #[serde(borrow)]
    #[schema(schema_with = schema::operations, required)]
    operations: Option<Vec<&'a RawValue>>,
}

/// The raw fields of an operation: each is checked on its own, and a number by its digits.
#[derive(Default)]
struct OperationRequest<'a> {
    action: Option<&'a RawValue>,
    user_id: Option<&'a RawValue>,
    point: Option<&'a RawValue>,
    reason: Option<&'a RawValue>,
    key: Option<&'a RawValue>,
    unknown: Option<String>,
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for OperationRequest<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

impl<'de> Visitor<'de> for OperationRequest<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an operation")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Self, A::Error> {
        while let Some((Name(name), value)) = fields.next_entry::<Name<'de>, &RawValue>()? {
            let field = match &*name {
                "action" => &mut self.action,
                "user_id" => &mut self.user_id,
                "point" => &mut self.point,
                "reason" => &mut self.reason,
                "key" => &mut self.key,
                _ => {
                    // The first by name: the answer does not depend on the order.
                    self.unknown =
                        Some(self.unknown.map_or(name.to_string(), |known| known.min(name.into())));
                    continue;
                }
            };
            if field.replace(value).is_some() {
                return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
            }
        }
        Ok(self)
    }
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
}

/// `pending`: queued. `refused`: not queued. `unknown`: may be queued.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OperationStatus {
    Pending,
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
        (status = 202, description = "Every change is safe in the queue.", body = BatchResponse,
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
    let mut deltas = parse(&body, header_text(&request, IDEMPOTENCY_KEY)?)?;
    if let Some(trace) = traffic::trace(&request) {
        for delta in &mut deltas {
            delta.traceparent = Some(trace.clone());
        }
    }
    let ids: Vec<Uuid> = deltas.iter().map(|delta| delta.request_id.get()).collect();
    let results = match api.publisher.publish_all(deltas).await {
        Ok(results) => results,
        Err(PublishError::Full { retry_after }) => return Err(ApiError::Overloaded { retry_after }),
        Err(error @ PublishError::Unavailable(_)) => vec![Err(error); ids.len()],
    };
    let operations = ids.into_iter().zip(&results);
    let operations =
        operations.map(|(request_id, result)| OperationResponse { request_id, status: result.into() });
    let operations = operations.collect();
    let (queued, all) = (results.iter().flatten().count(), results.len());
    log::debug!("{queued} of {all} operations of a batch are queued");
    if results.iter().all(Result::is_ok) {
        Ok(HttpResponse::Accepted().json(BatchResponse { operations }))
    } else {
        Err(ApiError::PartlyQueued(operations))
    }
}

/// Returns the deltas of a batch, or every fault in it.
fn parse(body: &[u8], batch_key: Option<&str>) -> Result<Vec<Delta>, ApiError> {
    expect_object(body).map_err(ApiError::MalformedBody)?;
    let BatchRequest { operations } =
        serde_json::from_slice(body).map_err(|error| ApiError::MalformedBody(error.to_string()))?;
    let batch_key = batch_key.map(IdempotencyKey::new).transpose()?;
    let operations = operations.ok_or_else(|| ApiError::invalid("operations", "is required"))?;
    if operations.is_empty() || operations.len() > OPERATIONS_MAX {
        return Err(ApiError::invalid("operations", format!("must have 1 to {OPERATIONS_MAX} elements")));
    }
    let (mut faults, mut ids) = (Vec::new(), HashSet::new());
    let mut deltas = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        let mut judge = Judge { index, batch_key, faults: Vec::new() };
        if let Some(delta) = judge.delta(operation) {
            if !ids.insert((delta.user_id, delta.request_id)) {
                judge.fault("/key", "is the key of an earlier operation for this user");
            }
            deltas.push(delta);
        }
        faults.extend(judge.faults);
    }
    if faults.is_empty() { Ok(deltas) } else { Err(ApiError::InvalidOperations(faults)) }
}

/// Reads one operation and notes its faults.
struct Judge<'a> {
    index: usize,
    batch_key: Option<IdempotencyKey<'a>>,
    faults: Vec<Fault>,
}

impl Judge<'_> {
    fn delta(&mut self, operation: &RawValue) -> Option<Delta> {
        let text = operation.get();
        let read = expect_object(text.as_bytes())
            .and_then(|()| serde_json::from_str(text).map_err(|error| error.to_string()));
        let OperationRequest { action, user_id, point, reason, key, unknown } =
            read.map_err(|why| self.fault("", &format!("is not valid: {why}"))).ok()?;
        if let Some(name) = unknown {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            let known = "action, user_id, point, reason and key";
            self.fault(&pointer, &format!("is not a field of an operation, which takes {known}"));
        }
        // A value of another type also breaks the rule of the field.
        let number = |value: &RawValue| whole_number(value.get()).unwrap_or(0);
        let words = |value: &RawValue| serde_json::from_str::<String>(value.get()).unwrap_or_default();
        let action = self.required("action", action, |value| Action::new(&words(value)));
        let user_id = self.required("user_id", user_id, |value| UserId::new("user_id", number(value)));
        let point = self.required("point", point, |value| Points::new(number(value)));
        let reason = self.optional("reason", present(reason), |value| Reason::new(words(value)));
        let key = present(key).map(words);
        let key = self.optional("key", key.as_deref(), IdempotencyKey::new);
        let (action, user_id, point) = (action?, user_id?, point?);
        let request_id = match (key, self.batch_key) {
            (Some(key), _) => RequestId::from_key(user_id, key),
            (None, Some(key)) => RequestId::from_batch_key(user_id, key, self.index),
            (None, None) => RequestId::random(),
        };
        Some(Delta { request_id, user_id, action, point, reason, requested_at: now(), traceparent: None })
    }

    fn required<T>(
        &mut self,
        field: &str,
        value: Option<&RawValue>,
        parse: impl FnOnce(&RawValue) -> Result<T, Invalid>,
    ) -> Option<T> {
        let value = present(value);
        if value.is_none() {
            self.fault(&format!("/{field}"), "is required");
        }
        self.optional(field, value, parse)
    }

    fn optional<V, T>(
        &mut self,
        field: &str,
        value: Option<V>,
        parse: impl FnOnce(V) -> Result<T, Invalid>,
    ) -> Option<T> {
        parse(value?).map_err(|invalid| self.fault(&format!("/{field}"), &invalid.rule)).ok()
    }

    /// `pointer` is relative to the operation.
    fn fault(&mut self, pointer: &str, detail: &str) {
        let pointer = format!("/operations/{}{pointer}", self.index);
        self.faults.push(Fault { pointer, detail: detail.to_owned() });
    }
}

/// A field that is null counts as absent.
fn present(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| value.get() != "null")
}
