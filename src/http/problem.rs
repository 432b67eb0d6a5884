//! Every error of the API, as `application/problem+json` (RFC 9457). No handler may build one by hand.

use std::time::Duration;

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::Serialize;

use super::batch::{Fault, OperationResponse};
use crate::{
    domain::{Entry, Invalid, Rejection, ServiceError},
    queue::PublishError,
};

/// When to come back after an outage, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What can go wrong with a request.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each says what it is")]
pub enum ApiError {
    #[error("there is nothing at this path")]
    NotFound,
    #[error("this path takes {allow} only")]
    MethodNotAllowed { allow: &'static str },
    #[error("the header Content-Type must be application/json")]
    UnsupportedMediaType,
    #[error("the body is longer than {limit_bytes} bytes")]
    BodyTooLarge { limit_bytes: usize },
    #[error("the body did not arrive within {limit_s} s")]
    BodyTimeout { limit_s: u64 },
    #[error("the body is empty, where a JSON object was expected")]
    EmptyBody,
    #[error("the body is not valid: {0}")]
    MalformedBody(String),
    #[error("{field} {rule}")]
    InvalidField { field: String, rule: String },
    #[error("no points were ever added to or subtracted from this user")]
    UnknownUser,
    #[error("no points were added to or subtracted from this user by then")]
    UnknownUserThen,
    #[error("faults in the operations: {}; none was queued", .0.len())]
    InvalidOperations(Vec<Fault>),
    #[error("not every operation is known to be queued; send all of them again with the same keys")]
    PartlyQueued(Vec<OperationResponse>),
    #[error("the Idempotency-Key was used for another change of this user")]
    KeyReused,
    #[error("{}", detail_of(*.1))]
    Rejected(Box<Entry>, Rejection),
    #[error("the request can't be queued now; send it again with the same Idempotency-Key")]
    QueueUnavailable,
    #[error("the database can't be reached now; a change may be sent again with the same Idempotency-Key")]
    DatabaseUnavailable,
    #[error("more requests are waiting than this node holds")]
    Overloaded { retry_after: Duration },
    #[error("the database refuses this change; the log of this node says why")]
    Refused,
}

fn detail_of(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::InsufficientPoints => "the balance is smaller than the points to subtract",
        Rejection::BalanceLimit => "the balance would pass 9007199254740991",
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::InvalidField { field: invalid.field.to_owned(), rule: invalid.rule }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Unavailable(_) => Self::QueueUnavailable,
            PublishError::Full { retry_after } => Self::Overloaded { retry_after },
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Unavailable(_) => Self::DatabaseUnavailable,
            ServiceError::Overloaded => Self::Overloaded { retry_after: RETRY_AFTER },
            ServiceError::Refused(why) => {
                log::error!("a delta was refused: {why}");
                Self::Refused
            }
        }
    }
}

/// RFC 9457 §3.1, and the members that are ours.
#[derive(Serialize)]
struct ProblemResponse<'a> {
    /// A stable name, relative to the service.
    r#type: String,
    title: &'a str,
    status: u16,
    detail: String,
    /// The field, parameter or header at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// The rejected request, and the balance that it left as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<i64>,
    /// All that is wrong with a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a [Fault]>,
    /// What became of each operation of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    operations: Option<&'a [OperationResponse]>,
}

impl ApiError {
    /// Status, the last part of the `type`, and title.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed")
            }
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type")
            }
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large"),
            Self::BodyTimeout { .. } => (StatusCode::REQUEST_TIMEOUT, "body-timeout", "Body timeout"),
            Self::EmptyBody => (StatusCode::BAD_REQUEST, "empty-body", "Empty body"),
            Self::MalformedBody(_) => (StatusCode::BAD_REQUEST, "malformed-body", "Malformed body"),
            Self::InvalidField { .. } | Self::InvalidOperations(_) => {
                (StatusCode::BAD_REQUEST, "invalid-field", "Invalid field")
            }
            Self::UnknownUser | Self::UnknownUserThen => {
                (StatusCode::NOT_FOUND, "unknown-user", "Unknown user")
            }
            Self::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "key-reused", "Idempotency key reused"),
            Self::Rejected(_, Rejection::InsufficientPoints) => {
                (StatusCode::CONFLICT, "insufficient-points", "Insufficient points")
            }
            Self::Rejected(_, Rejection::BalanceLimit) => {
                (StatusCode::CONFLICT, "balance-limit", "Balance limit")
            }
            Self::QueueUnavailable | Self::PartlyQueued(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "queue-unavailable", "Queue unavailable")
            }
            Self::DatabaseUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "database-unavailable", "Database unavailable")
            }
            Self::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded"),
            Self::Refused => (StatusCode::INTERNAL_SERVER_ERROR, "refused", "Refused by the database"),
        }
    }
}

impl ApiError {
    /// A field, parameter or header that breaks its rule, which reads on from its name.
    pub(super) fn invalid(field: &str, rule: impl Into<String>) -> Self {
        Self::InvalidField { field: field.to_owned(), rule: rule.into() }
    }

    /// When a client that was turned away for now should come back (RFC 9110 §10.2.3).
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after } => Some(*retry_after),
            Self::QueueUnavailable | Self::PartlyQueued(_) | Self::DatabaseUnavailable => Some(RETRY_AFTER),
            _ => None,
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.kind().0
    }

    fn error_response(&self) -> HttpResponse {
        let (status, kind, title) = self.kind();
        let mut problem = ProblemResponse {
            r#type: format!("/problems/{kind}"),
            title,
            status: status.as_u16(),
            detail: self.to_string(),
            field: None,
            request_id: None,
            balance: None,
            errors: None,
            operations: None,
        };
        match self {
            Self::InvalidField { field, .. } => problem.field = Some(field),
            Self::UnsupportedMediaType => problem.field = Some("Content-Type"),
            Self::InvalidOperations(faults) => {
                problem.field = Some("operations");
                problem.errors = Some(faults);
            }
            Self::PartlyQueued(operations) => problem.operations = Some(operations),
            Self::KeyReused => problem.field = Some("Idempotency-Key"),
            Self::Rejected(entry, _) => {
                problem.request_id = Some(entry.delta.request_id.to_string());
                problem.balance = Some(entry.balance);
            }
            _ => {}
        }
        let mut response = HttpResponse::build(status);
        if let Self::MethodNotAllowed { allow } = self {
            response.insert_header((header::ALLOW, *allow));
        }
        if let Some(retry_after) = self.retry_after() {
            response.insert_header((header::RETRY_AFTER, retry_after.as_secs().to_string()));
        }
        let mut response = response.json(problem);
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response
    }
}
