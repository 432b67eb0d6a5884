//! The handler that reads the outcome of a request, and the preference to wait. Must not contain rules of the ledger.

use std::time::{Duration, Instant};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderName},
    web,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Api,
    bodies::{EntryResponse, PendingResponse},
    error::ApiError,
    openapi, parameters,
    query::Query,
};
use crate::domain::RequestId;

/// The longest wait for an outcome, well below the time limits of proxies.
const WAIT_MAX_S: u64 = 30;

/// When to ask again about a pending request.
const PENDING_RETRY_AFTER_S: u64 = 1;

/// Returns the outcome of a request.
#[utoipa::path(
    get,
    path = "/v1/point/request/{request_id}",
    tag = "Points",
    params(parameters::OutcomePath),
    responses(openapi::OutcomeAnswers)
)]
pub(super) async fn outcome(
    request: HttpRequest,
    path: web::Path<String>,
    api: web::Data<Api>,
    stop: web::Data<CancellationToken>,
) -> Result<HttpResponse, ApiError> {
    let user_id = Query::of(&request, &["id"])?.user_id()?;
    let id = Uuid::try_parse(&path).map_err(|_| ApiError::invalid("request_id", "must be a UUID"))?;
    let request_id = RequestId::from(id);
    let (asked, wait) = (Instant::now(), preferred_wait(&request));
    let found = match wait {
        Some(limit) => {
            let waiting = api.service.outcome_within(user_id, request_id, limit);
            stop.run_until_cancelled(waiting).await.transpose()?.flatten()
        }
        None => api.service.outcome(user_id, request_id).await?,
    };
    let mut response = HttpResponse::Ok();
    // Absent when too many requests wait already, or the server stops.
    if let Some(limit) = wait.filter(|limit| found.is_some() || asked.elapsed() >= *limit) {
        let applied = format!("wait={}", limit.as_secs());
        response.insert_header((HeaderName::from_static("preference-applied"), applied));
    }
    Ok(match &found {
        Some(entry) => response.json(EntryResponse::from(entry.as_ref())),
        None => response
            .insert_header((header::RETRY_AFTER, PENDING_RETRY_AFTER_S))
            .json(PendingResponse::from(request_id)),
    })
}

/// Reads `Prefer: wait=SECONDS` among other preferences (RFC 7240 §4.3). The limit is [`WAIT_MAX_S`], which is also the
/// meaning of `wait` alone. A preference that can't be read is ignored.
pub(super) fn preferred_wait(request: &HttpRequest) -> Option<Duration> {
    let values = request.headers().get_all("Prefer").filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    let seconds: u64 = preferences.find_map(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        match preference.split_once('=') {
            None if preference.trim().eq_ignore_ascii_case("wait") => Some(WAIT_MAX_S),
            Some((name, seconds)) if name.trim().eq_ignore_ascii_case("wait") => {
                let seconds = seconds.trim().trim_matches('"');
                // Longer than any number is longer than the limit.
                let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
                is_number.then(|| seconds.parse().unwrap_or(WAIT_MAX_S))
            }
            _ => None,
        }
    })?;
    Some(Duration::from_secs(seconds.min(WAIT_MAX_S)))
}
