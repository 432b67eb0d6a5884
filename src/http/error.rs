//! Every error of the API: its words, its kind, and the facts in its response. Must not contain handlers.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{
    batch::{Fault, OperationResponse},
    catalogue::Kind,
    probes::NodeResponse,
    sent::Sent,
};
use crate::domain::{Entry, HOLDS_MAX, Invalid, LOTS_MAX, Obstacle, Rejection, ServiceError};

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
    #[error("the batch has invalid operations or fields ({}); nothing was queued", .0.len())]
    InvalidOperations(Vec<Fault>),
    #[error("some operations are not known to be queued; send the whole batch again with the same keys")]
    PartlyQueued(Vec<OperationResponse>),
    #[error(
        "the Idempotency-Key was already used for another change of this user: {} {}, decided at {}",
        .0.action, .0.point, .0.created_at
    )]
    KeyReused(Arc<Entry>),
    #[error("operations reuse an Idempotency-Key of another change ({}); nothing was queued", .0.len())]
    KeysReused(Vec<Fault>),
    #[error("{}", detail_of(.0, .1))]
    Rejected(Arc<Entry>, Rejection),
    #[error("{}", over(.1.as_deref()))]
    HoldOver(Arc<Entry>, Option<Arc<Entry>>),
    #[error(
        "the queue did not confirm the change, which may be queued; ask for its outcome at the Location, or send it \
         again with the same Idempotency-Key"
    )]
    QueueUnavailable(Sent),
    #[error("{}", unreachable_database(.0.as_ref()))]
    DatabaseUnavailable(Option<Sent>),
    #[error("{}; other users are served", .0)]
    UserBlocked(Obstacle, Option<Sent>),
    #[error("a newer version of the service wrote data of this user that this node does not understand")]
    NewerVersion(Option<Sent>),
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

fn kind_of(rejection: &Rejection) -> Kind {
    match rejection {
        Rejection::InsufficientPoints => Kind::InsufficientPoints,
        Rejection::BalanceLimit => Kind::BalanceLimit,
        Rejection::KeyReused => Kind::KeyReused,
        Rejection::UnknownRequest => Kind::UnknownRequest,
        Rejection::NotReversible => Kind::NotReversible,
        Rejection::AlreadyReversed => Kind::AlreadyReversed,
        Rejection::Expired => Kind::Expired,
        Rejection::LotLimit => Kind::LotLimit,
        Rejection::HoldLimit => Kind::HoldLimit,
        Rejection::UnknownHold => Kind::UnknownHold,
        Rejection::HoldOver => Kind::HoldOver,
        Rejection::HoldTooSmall => Kind::HoldTooSmall,
        Rejection::Unknown(_) => Kind::Rejected,
    }
}

/// Why an entry was rejected, in words.
pub(super) fn detail_of(entry: &Entry, rejection: &Rejection) -> Cow<'static, str> {
    match rejection {
        Rejection::InsufficientPoints => match entry.action.as_ref() {
            "hold" => "the balance is smaller than the points to hold".into(),
            "transfer" => "the balance is smaller than the points to transfer".into(),
            "reverse" if entry.counterparty.is_some() => {
                "the other user has fewer points than the transfer gave".into()
            }
            _ => "the balance is smaller than the points to subtract".into(),
        },
        Rejection::BalanceLimit => {
            format!("the balance of {} would exceed 9007199254740991", receiver(entry)).into()
        }
        Rejection::KeyReused => "the Idempotency-Key was already used for another change of this user".into(),
        Rejection::UnknownRequest => "the user has no log entry of the request to reverse".into(),
        Rejection::NotReversible => {
            "the request to reverse was rejected, or can't be undone by this user".into()
        }
        Rejection::AlreadyReversed => match entry.reference {
            Some(reversal) => format!("the request was already reversed, by the request {reversal}").into(),
            None => "the request was already reversed".into(),
        },
        Rejection::Expired => "expires_at had passed when the change was decided".into(),
        Rejection::LotLimit => {
            let who = receiver(entry);
            format!("{who} would have points that expire at more than {LOTS_MAX} different times").into()
        }
        Rejection::HoldLimit => format!("the user has {HOLDS_MAX} open holds").into(),
        Rejection::UnknownHold => "the user has no log entry of the hold".into(),
        Rejection::HoldOver => over(None).into(),
        Rejection::HoldTooSmall => "the capture asks for more points than the hold has".into(),
        Rejection::Unknown(name) => format!("the change was rejected: {name}").into(),
    }
}

/// Who gets the points of a change that was rejected.
fn receiver(entry: &Entry) -> &'static str {
    if entry.action == "transfer" { "the other user" } else { "the user" }
}

/// What ended a hold, if the log could be read.
fn over(ending: Option<&Entry>) -> String {
    let Some(Entry { action, point, request_id, created_at, .. }) = ending else {
        return "the hold was already captured or released".to_owned();
    };
    format!("the hold is over: {action} of {point} points at {created_at}, by the request {request_id}")
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::InvalidField { field: invalid.field.to_owned(), rule: invalid.rule }
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self::MalformedBody(error.to_string())
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
            ServiceError::NotUnderstood(why) => {
                log::warn!("a newer node must serve a request: {why}");
                Self::NewerVersion(None)
            }
            ServiceError::Refused(why) => {
                log::error!("a delta was refused: {why}");
                Self::Refused
            }
        }
    }
}

/// The facts in the response to an error, beside the words of its kind.
#[derive(Default)]
pub(super) struct Facts<'a> {
    /// The methods that the path takes.
    pub(super) allow: Option<&'static str>,
    /// What the caller must send (RFC 6750 §3).
    pub(super) challenge: Option<String>,
    /// How long the client should wait before it tries again (RFC 9110 §10.2.3).
    pub(super) retry_after: Option<Duration>,
    /// The field, parameter or header at fault.
    pub(super) field: Option<&'a str>,
    /// The change that may still take effect despite the error.
    pub(super) sent: Option<&'a Sent>,
    /// The entry of the rejected change.
    pub(super) rejected: Option<&'a Entry>,
    pub(super) faults: Option<&'a [Fault]>,
    pub(super) operations: Option<&'a [OperationResponse]>,
    pub(super) node: Option<&'a NodeResponse>,
}

impl ApiError {
    /// A field, parameter or header that breaks its rule. The rule completes a sentence that begins with the name.
    pub(super) fn invalid(field: &str, rule: impl Into<String>) -> Self {
        Self::InvalidField { field: field.to_owned(), rule: rule.into() }
    }

    /// The kind of every error, and the facts in its response.
    pub(super) fn facts(&self) -> (Kind, Facts<'_>) {
        let none = Facts::default();
        let field = |name| Facts { field: Some(name), ..Facts::default() };
        let challenge = |text| Facts { challenge: Some(text), ..Facts::default() };
        let again = |after| Facts { retry_after: Some(after), ..Facts::default() };
        match self {
            Self::NotFound => (Kind::NotFound, none),
            Self::MethodNotAllowed { allow } => {
                (Kind::MethodNotAllowed, Facts { allow: Some(allow), ..none })
            }
            Self::UnsupportedMediaType => (Kind::UnsupportedMediaType, field("Content-Type")),
            Self::BodyTooLarge { .. } => (Kind::BodyTooLarge, none),
            Self::BodyTimeout { .. } => (Kind::BodyTimeout, none),
            Self::EmptyBody => (Kind::EmptyBody, none),
            Self::MalformedBody(_) => (Kind::MalformedBody, none),
            Self::InvalidField { field: name, .. } => (Kind::InvalidField, field(name)),
            Self::InvalidOperations(faults) => {
                (Kind::InvalidField, Facts { faults: Some(faults), ..field("operations") })
            }
            Self::UnknownUser | Self::UnknownUserThen => (Kind::UnknownUser, none),
            Self::KeyReused(_) => (Kind::KeyReused, field("Idempotency-Key")),
            Self::KeysReused(faults) => {
                (Kind::KeyReused, Facts { faults: Some(faults), ..field("operations") })
            }
            Self::Rejected(entry, rejection) => (kind_of(rejection), Facts { rejected: Some(entry), ..none }),
            Self::HoldOver(entry, _) => (Kind::HoldOver, Facts { rejected: Some(entry), ..none }),
            Self::QueueUnavailable(sent) => {
                (Kind::QueueUnavailable, Facts { sent: Some(sent), ..again(RETRY_AFTER) })
            }
            Self::PartlyQueued(operations) => {
                (Kind::QueueUnavailable, Facts { operations: Some(operations), ..again(RETRY_AFTER) })
            }
            Self::DatabaseUnavailable(sent) => {
                (Kind::DatabaseUnavailable, Facts { sent: sent.as_ref(), ..again(RETRY_AFTER) })
            }
            Self::UserBlocked(_, sent) => {
                (Kind::UserBlocked, Facts { sent: sent.as_ref(), ..again(RETRY_AFTER) })
            }
            Self::NewerVersion(sent) => {
                (Kind::NewerVersion, Facts { sent: sent.as_ref(), ..again(RETRY_AFTER) })
            }
            Self::Overloaded { retry_after } => (Kind::Overloaded, again(*retry_after)),
            Self::Refused => (Kind::Refused, none),
            Self::Unauthorized { key_given: false } => (Kind::Unauthorized, challenge(REALM.to_owned())),
            Self::Unauthorized { key_given: true } => {
                (Kind::Unauthorized, challenge(format!(r#"{REALM}, error="invalid_token""#)))
            }
            Self::InsufficientScope { scope } => {
                let text = format!(r#"{REALM}, error="insufficient_scope", scope="{scope}""#);
                (Kind::InsufficientScope, challenge(text))
            }
            Self::LoopbackOnly { header } => {
                (Kind::LoopbackOnly, Facts { field: Some(header), ..challenge(REALM.to_owned()) })
            }
            Self::RateLimited { retry_after } => (Kind::RateLimited, again(*retry_after)),
            Self::NotReady { node, .. } => (Kind::NotReady, Facts { node: Some(node), ..none }),
        }
    }
}
