//! The handlers of changes and balances. Must not contain rules of the ledger.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, ResponseError, http::header, web};
use futures_util::future::OptionFuture;
use jiff::{Timestamp, Unit};
use tokio::time::timeout;

use super::{
    Api, admission,
    bodies::{
        AddRequest, BalanceResponse, ChangeRequest, EntryResponse, PendingResponse, ReverseRequest,
        SubtractRequest, TransferRequest,
    },
    error::ApiError,
    examples, openapi,
    outcome::preferred_wait,
    parameters,
    query::Query,
    sent::Sent,
    traffic,
};
use crate::domain::{
    Action, Balance, Change, Delta, Entry, IdempotencyKey, Invalid, Members, Rejection, RequestId, UserId,
};

/// The longest body.
pub(super) const BODY_MAX_BYTES: usize = 16 * 1024;

/// The time limit for a body to arrive.
pub(super) const BODY_TIMEOUT_S: u64 = 10;

pub(super) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Adds points to a user, with or without an expiry. The first change creates the user.
#[utoipa::path(
    post,
    path = "/v1/point/add",
    tag = "Points",
    params(parameters::ChangeHeaders),
    request_body(content = AddRequest, example = json!({"user_id": "1", "point": 1000, "reason": "welcome"})),
    responses(openapi::ChangeAnswers),
)]
pub(super) async fn add(
    request: HttpRequest,
    body: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    change(Action::Add, &request, body, &api).await
}

/// Subtracts points from a user who has enough. With `partial`, a smaller balance is subtracted as a whole.
#[utoipa::path(
    post,
    path = "/v1/point/subtract",
    tag = "Points",
    params(parameters::ChangeHeaders),
    request_body(content = SubtractRequest, example = json!({"user_id": "1", "point": 300, "reason": "order 7"})),
    responses(openapi::ChangeAnswers),
)]
pub(super) async fn subtract(
    request: HttpRequest,
    body: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    change(Action::Subtract, &request, body, &api).await
}

/// Undoes an earlier add, subtract, transfer or capture of the same user, once.
#[utoipa::path(
    post,
    path = "/v1/point/reverse",
    tag = "Points",
    params(parameters::ChangeHeaders),
    request_body(content = ReverseRequest, example = json!(examples::reverse())),
    responses(openapi::ReversalAnswers),
)]
pub(super) async fn reverse(
    request: HttpRequest,
    body: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    change(Action::Reverse, &request, body, &api).await
}

/// Moves points from a user who has enough to another user.
#[utoipa::path(
    post,
    path = "/v1/point/transfer",
    tag = "Points",
    params(parameters::ChangeHeaders),
    request_body(content = TransferRequest, example = json!({"user_id": "1", "to": "2", "point": 300, "reason": "gift"})),
    responses(openapi::ChangeAnswers),
)]
pub(super) async fn transfer(
    request: HttpRequest,
    body: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    change(Action::Transfer, &request, body, &api).await
}

/// Returns a user's balance.
#[utoipa::path(
    get,
    path = "/v1/point",
    tag = "Points",
    params(parameters::BalanceQuery),
    responses(
        (status = 200, description = "The balance after the last applied change or, with `at`, at that time.", body = BalanceResponse,
         example = json!(examples::balance())),
        openapi::BalanceProblems,
    ),
)]
pub(super) async fn balance(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, ApiError> {
    let found = match requested_balance(&request)? {
        (user_id, None) => api.service.balance(user_id).await?.ok_or(ApiError::UnknownUser)?,
        (user_id, Some(at)) => api.service.balance_at(user_id, at).await?.ok_or(ApiError::UnknownUserThen)?,
    };
    Ok(found_balance(&found))
}

/// Reads which balance a request asks for: the user, and the time unless it is now.
///
/// # Errors
/// [`ApiError::InvalidField`].
pub fn requested_balance(request: &HttpRequest) -> Result<(UserId, Option<Timestamp>), ApiError> {
    let query = Query::of(request, &["id", "at"])?;
    Ok((query.user_id()?, query.time("at")?))
}

/// The answer to a request for a balance.
#[must_use]
pub fn found_balance(balance: &Balance) -> HttpResponse {
    HttpResponse::Ok().json(BalanceResponse::from(balance))
}

/// Queues the change, or applies it immediately if the client waits for it (RFC 7240 §4.3). A change whose key is known
/// is answered with its first outcome.
pub(super) async fn change(
    action: Action,
    request: &HttpRequest,
    body: web::Payload,
    api: &Api,
) -> Result<HttpResponse, ApiError> {
    let delta = requested_change(action, request, body).await?;
    traffic::identify(request, &delta);
    let waits = preferred_wait(request).is_some();
    if request.headers().contains_key(IDEMPOTENCY_KEY)
        && let Some(entry) = api.service.recall(&[&delta]).await.remove(0)
    {
        return if delta.is_of(&entry) {
            Ok(decided(entry, true, waits, api).await)
        } else {
            Err(ApiError::KeyReused(entry))
        };
    }
    let sent = Sent::from(&delta);
    if waits {
        let outcome = api.service.apply_delta(delta).await.map_err(|error| sent.not_applied(error))?;
        return match outcome.first {
            Some(first) => Err(ApiError::KeyReused(first)),
            None => Ok(decided(outcome.entry, outcome.replayed, waits, api).await),
        };
    }
    api.publisher.publish(delta).await.map_err(|error| sent.clone().not_queued(&error))?;
    Ok(queued(&sent))
}

/// Reads the change that a request asks for.
///
/// # Errors
/// [`ApiError`], naming the field or the header at fault.
pub async fn requested_change(
    action: Action,
    request: &HttpRequest,
    body: web::Payload,
) -> Result<Delta, ApiError> {
    parse(action, request, &read(request, body, BODY_MAX_BYTES).await?)
}

/// The answer to a change that is in the queue, with the path of its outcome.
#[must_use]
pub fn queued(sent: &Sent) -> HttpResponse {
    HttpResponse::Accepted()
        .insert_header((header::LOCATION, sent.location()))
        .json(PendingResponse::from(sent.request_id))
}

/// Reads a body of JSON of at most `limit_bytes`.
pub(super) async fn read(
    request: &HttpRequest,
    body: web::Payload,
    limit_bytes: usize,
) -> Result<web::Bytes, ApiError> {
    let media_type = header_text(request, header::CONTENT_TYPE.as_str())?.unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::UnsupportedMediaType);
    }
    let body = timeout(Duration::from_secs(BODY_TIMEOUT_S), body.to_bytes_limited(limit_bytes))
        .await
        .map_err(|_| ApiError::BodyTimeout { limit_s: BODY_TIMEOUT_S })?
        .map_err(|_| ApiError::BodyTooLarge { limit_bytes })?
        .map_err(|error| ApiError::MalformedBody(error.to_string()))?;
    if body.is_empty() { Err(ApiError::EmptyBody) } else { Ok(body) }
}

fn parse(action: Action, request: &HttpRequest, body: &[u8]) -> Result<Delta, ApiError> {
    let members = Members::<ChangeRequest>::read(body)?;
    if let Some(name) = members.unknown() {
        return Err(ApiError::invalid(name, action.refusal::<ChangeRequest>()));
    }
    let user_id: UserId = members.required("user_id")?;
    let requested_at = now();
    let change = Change::read(action, &members).map_err(Invalid::first)?.in_time(requested_at)?;
    let (reason, metadata) = (members.optional("reason")?, members.optional("metadata")?);
    let actor = admission::actor(request);
    let request_id = match header_text(request, IDEMPOTENCY_KEY)? {
        Some(key) => RequestId::from_key(actor.as_ref(), &user_id, &IdempotencyKey::new(key)?),
        None => RequestId::random(),
    };
    let traceparent = traffic::trace(request);
    Ok(Delta { request_id, user_id, change, actor, reason, metadata, requested_at, traceparent })
}

/// The current time in microseconds, the precision of PostgreSQL: a replayed answer then equals the first one.
pub(super) fn now() -> Timestamp {
    Timestamp::now().round(Unit::Microsecond).expect("far from the end of time")
}

/// The answer to a change that is decided: now, or when its key was first used.
async fn decided(entry: Arc<Entry>, replayed: bool, waits: bool, api: &Api) -> HttpResponse {
    let mut response = match entry.rejection.clone() {
        Some(Rejection::HoldOver) => {
            let ending = entry.reference.map(|id| api.service.outcome(entry.user_id.clone(), id));
            let ending = OptionFuture::from(ending).await.and_then(|found| found.ok().flatten());
            ApiError::HoldOver(entry, ending).error_response()
        }
        Some(why) => ApiError::Rejected(entry, why).error_response(),
        None => HttpResponse::Ok().json(EntryResponse::from(entry.as_ref())),
    };
    let headers = response.headers_mut();
    let mut tell = |name, value| {
        headers.insert(header::HeaderName::from_static(name), header::HeaderValue::from_static(value));
    };
    if waits {
        tell("preference-applied", "wait");
    }
    if replayed {
        tell("idempotency-replayed", "true");
    }
    response
}

/// Reads a header that may appear once.
pub(super) fn header_text<'a>(
    request: &'a HttpRequest,
    name: &'static str,
) -> Result<Option<&'a str>, ApiError> {
    let mut values = request.headers().get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::invalid(name, "must be sent only once"));
    }
    value.to_str().map(Some).map_err(|_| ApiError::invalid(name, "must be visible ASCII characters"))
}
