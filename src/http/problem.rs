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

/// When to come back after an outage, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The protection space of every key (RFC 9110 §11.5).
const REALM: &str = r#"Bearer realm="point-system""#;

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
    #[error(
        "the queue did not confirm the change, which may be queued: ask for its outcome at the Location, or send it \
         again with the same Idempotency-Key"
    )]
    QueueUnavailable(Sent),
    #[error("{}", unreached(.0.as_ref()))]
    DatabaseUnavailable(Option<Sent>),
    #[error("{}; the other users are served", .0)]
    UserBlocked(Obstacle, Option<Sent>),
    #[error("more requests are waiting than the service holds; nothing was queued and nothing was changed")]
    Overloaded { retry_after: Duration },
    #[error("the database refuses this change; the log of this node says why")]
    Refused,
    #[error("{}", if *.key_given { "the API key is not valid" } else { "an API key is needed: Authorization: Bearer KEY" })]
    Unauthorized { key_given: bool },
    #[error("the API key lacks the required scope {scope}")]
    InsufficientScope { scope: &'static str },
    #[error(
        "{header} shows that the request is not from a client on this machine; to serve others, create a key with \
         `point-system key create` and send it: Authorization: Bearer KEY"
    )]
    LoopbackOnly { header: String },
    #[error("this key or address has sent as many requests as it may")]
    RateLimited { retry_after: Duration },
    #[error("{detail}")]
    NotReady { detail: String, node: Box<NodeResponse> },
}

fn unreached(sent: Option<&Sent>) -> &'static str {
    match sent {
        Some(_) => {
            "the database can't be reached now, and the change may be applied: ask for its outcome at the Location, \
             or send it again with the same Idempotency-Key"
        }
        None => "the database can't be reached now",
    }
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

/// What went wrong, as RFC 9457 has it. More members may be added.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemResponse<'a> {
    /// The kind of problem: a name that never changes, and the path of the page that explains it.
    #[schema(format = "uri-reference", pattern = "^/problems/[a-z-]+$")]
    r#type: String,
    /// The kind in words.
    title: &'a str,
    /// The response's status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request, for people to read.
    detail: String,
    /// The field, parameter or header at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
    /// The request that was rejected, or that may count all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uuid")]
    request_id: Option<String>,
    /// The balance that the rejected request left as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, schema_with = schema::balance)]
    balance: Option<i64>,
    /// All that is wrong with a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    errors: Option<&'a [Fault]>,
    /// What became of each operation of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    operations: Option<&'a [OperationResponse]>,
    /// The node that is not ready.
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

    /// A field, parameter or header that breaks its rule, which reads on from its name.
    pub(super) fn invalid(field: &str, rule: impl Into<String>) -> Self {
        Self::InvalidField { field: field.to_owned(), rule: rule.into() }
    }

    /// When a client that was turned away for now should come back (RFC 9110 §10.2.3).
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

    /// The change that may count.
    fn sent(&self) -> Option<Sent> {
        match self {
            Self::QueueUnavailable(sent) => Some(*sent),
            Self::DatabaseUnavailable(sent) | Self::UserBlocked(_, sent) => *sent,
            _ => None,
        }
    }

    /// What a client would need to be let in (RFC 6750 §3).
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
