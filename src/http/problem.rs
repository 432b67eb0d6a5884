//! Every error of the API, as `application/problem+json` (RFC 9457). Must not contain handlers.

use std::time::Duration;

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    batch::{Fault, OperationResponse},
    catalogue::Kind,
    probes::NodeResponse,
    schema,
    sent::Sent,
};
use crate::domain::{Entry, Invalid, Obstacle, Rejection, ServiceError};

/// The media type of every problem (RFC 9457 §6.1).
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// The default pause before a client tries again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The protection space of API keys (RFC 9110 §11.5).
const REALM: &str = r#"Bearer realm="point-system""#;

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant explains it")]
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
    #[error("the body is empty; a JSON object is expected")]
    EmptyBody,
    #[error("the body is not valid: {0}")]
    MalformedBody(String),
    #[error("{field} {rule}")]
    InvalidField { field: String, rule: String },
    #[error("this user has no log entries")]
    UnknownUser,
    #[error("this user had no log entries at that time")]
    UnknownUserThen,
    #[error("faults in the batch: {}; nothing was queued", .0.len())]
    InvalidOperations(Vec<Fault>),
    #[error("some operations are not known to be queued; send the whole batch again with the same keys")]
    PartlyQueued(Vec<OperationResponse>),
    #[error("the Idempotency-Key stands for another change of this user")]
    KeyReused,
    #[error("{}", detail_of(*.1))]
    Rejected(Box<Entry>, Rejection),
    #[error(
        "the queue did not confirm the change, which may be queued; ask for its outcome at the Location, or send it \
         again with the same Idempotency-Key"
    )]
    QueueUnavailable(Sent),
    #[error("{}", unreachable_database(.0.as_ref()))]
    DatabaseUnavailable(Option<Sent>),
    #[error("{}; other users are served", .0)]
    UserBlocked(Obstacle, Option<Sent>),
    #[error("too many requests are waiting; nothing was queued and nothing was changed")]
    Overloaded { retry_after: Duration },
    #[error("the database refuses this change; the log of this node says why")]
    Refused,
    #[error("{}", if *.key_given { "the API key is not valid" } else { "an API key is required: Authorization: Bearer KEY" })]
    Unauthorized { key_given: bool },
    #[error("the API key lacks the required scope {scope}")]
    InsufficientScope { scope: &'static str },
    #[error(
        "{header} shows that the request does not come from a client on this machine; to serve others, create a key \
         with `point-system key create` and send it: Authorization: Bearer KEY"
    )]
    LoopbackOnly { header: String },
    #[error("this API key or address has reached its rate limit")]
    RateLimited { retry_after: Duration },
    #[error("{detail}")]
    NotReady { detail: String, node: Box<NodeResponse> },
}

fn unreachable_database(sent: Option<&Sent>) -> &'static str {
    match sent {
        Some(_) => {
            "the database can't be reached now, and the change may be applied; ask for its outcome at the Location, \
             or send it again with the same Idempotency-Key"
        }
        None => "the database can't be reached now",
    }
}

fn detail_of(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::InsufficientPoints => "the balance is smaller than the points to subtract",
        Rejection::BalanceLimit => "the balance would exceed 9007199254740991",
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::InvalidField { field: invalid.field.to_owned(), rule: invalid.rule }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Unavailable(_) => Self::DatabaseUnavailable(None),
            ServiceError::Overloaded => Self::Overloaded { retry_after: RETRY_AFTER },
            ServiceError::Blocked(obstacle) => {
                log::warn!("a request can't be served: {obstacle}");
                Self::UserBlocked(obstacle, None)
            }
            ServiceError::Refused(why) => {
                log::error!("a delta was refused: {why}");
                Self::Refused
            }
        }
    }
}

/// An error (RFC 9457). More members may be added.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemResponse<'a> {
    /// Identifies the kind of problem and never changes. It is also the path of the page that explains it.
    #[schema(format = "uri-reference", pattern = "^/problems/[a-z-]+$")]
    r#type: String,
    /// The kind of problem, for people.
    title: &'a str,
    /// The status of the response.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request, for people.
    detail: String,
    /// The field, parameter or header at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
    /// The change that was rejected, or that may count despite the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uuid")]
    request_id: Option<String>,
    /// The unchanged balance of a rejected change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, schema_with = schema::balance)]
    balance: Option<i64>,
    /// Every fault of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    errors: Option<&'a [Fault]>,
    /// What happened to each operation of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    operations: Option<&'a [OperationResponse]>,
    /// The state of a node that is not ready.
    #[serde(flatten)]
    #[schema(ignore)]
    node: Option<&'a NodeResponse>,
}

impl ApiError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound => Kind::NotFound,
            Self::MethodNotAllowed { .. } => Kind::MethodNotAllowed,
            Self::UnsupportedMediaType => Kind::UnsupportedMediaType,
            Self::BodyTooLarge { .. } => Kind::BodyTooLarge,
            Self::BodyTimeout { .. } => Kind::BodyTimeout,
            Self::EmptyBody => Kind::EmptyBody,
            Self::MalformedBody(_) => Kind::MalformedBody,
            Self::InvalidField { .. } | Self::InvalidOperations(_) => Kind::InvalidField,
            Self::UnknownUser | Self::UnknownUserThen => Kind::UnknownUser,
            Self::KeyReused => Kind::KeyReused,
            Self::Rejected(_, Rejection::InsufficientPoints) => Kind::InsufficientPoints,
            Self::Rejected(_, Rejection::BalanceLimit) => Kind::BalanceLimit,
            Self::QueueUnavailable(_) | Self::PartlyQueued(_) => Kind::QueueUnavailable,
            Self::DatabaseUnavailable(_) => Kind::DatabaseUnavailable,
            Self::Overloaded { .. } => Kind::Overloaded,
            Self::UserBlocked(..) => Kind::UserBlocked,
            Self::Refused => Kind::Refused,
            Self::Unauthorized { .. } => Kind::Unauthorized,
            Self::InsufficientScope { .. } => Kind::InsufficientScope,
            Self::LoopbackOnly { .. } => Kind::LoopbackOnly,
            Self::RateLimited { .. } => Kind::RateLimited,
            Self::NotReady { .. } => Kind::NotReady,
        }
    }

    /// A field, parameter or header that breaks its rule. The rule completes a sentence that begins with the name.
    pub(super) fn invalid(field: &str, rule: impl Into<String>) -> Self {
        Self::InvalidField { field: field.to_owned(), rule: rule.into() }
    }

    /// How long the client should wait before it tries again (RFC 9110 §10.2.3).
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after } | Self::RateLimited { retry_after } => Some(*retry_after),
            Self::QueueUnavailable(_)
            | Self::PartlyQueued(_)
            | Self::DatabaseUnavailable(_)
            | Self::UserBlocked(..) => Some(RETRY_AFTER),
            _ => None,
        }
    }

    /// The change that may count despite the error.
    fn sent(&self) -> Option<Sent> {
        match self {
            Self::QueueUnavailable(sent) => Some(*sent),
            Self::DatabaseUnavailable(sent) | Self::UserBlocked(_, sent) => *sent,
            _ => None,
        }
    }

    /// What the caller must send (RFC 6750 §3).
    fn challenge(&self) -> Option<String> {
        match self {
            Self::Unauthorized { key_given: false } | Self::LoopbackOnly { .. } => Some(REALM.to_owned()),
            Self::Unauthorized { key_given: true } => Some(format!(r#"{REALM}, error="invalid_token""#)),
            Self::InsufficientScope { scope } => {
                Some(format!(r#"{REALM}, error="insufficient_scope", scope="{scope}""#))
            }
            _ => None,
        }
    }

    /// The body of the response.
    pub(super) fn problem(&self) -> ProblemResponse<'_> {
        let about = self.kind().about();
        let mut problem = ProblemResponse {
            r#type: about.path(),
            title: about.title,
            status: about.status.as_u16(),
            detail: self.to_string(),
            field: None,
            request_id: self.sent().map(|sent| sent.request_id.to_string()),
            balance: None,
            errors: None,
            operations: None,
            node: None,
        };
        match self {
            Self::InvalidField { field, .. } | Self::LoopbackOnly { header: field } => {
                problem.field = Some(field);
            }
            Self::UnsupportedMediaType => problem.field = Some("Content-Type"),
            Self::InvalidOperations(faults) => {
                problem.field = Some("operations");
                problem.errors = Some(faults);
            }
            Self::PartlyQueued(operations) => problem.operations = Some(operations),
            Self::NotReady { node, .. } => problem.node = Some(node),
            Self::KeyReused => problem.field = Some("Idempotency-Key"),
            Self::Rejected(entry, _) => {
                problem.request_id = Some(entry.delta.request_id.to_string());
                problem.balance = Some(entry.balance);
            }
            _ => {}
        }
        problem
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.kind().about().status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Self::MethodNotAllowed { allow } = self {
            response.insert_header((header::ALLOW, *allow));
        }
        if let Some(challenge) = self.challenge() {
            response.insert_header((header::WWW_AUTHENTICATE, challenge));
        }
        if let Some(sent) = self.sent() {
            response.insert_header((header::LOCATION, sent.location()));
        }
        if let Some(retry_after) = self.retry_after() {
            response.insert_header((header::RETRY_AFTER, retry_after.as_secs().to_string()));
        }
        let mut response = response.json(self.problem());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}
