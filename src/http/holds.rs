//! The handlers of holds: points that are reserved, captured and released. Must not contain rules of the ledger.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api,
    bodies::{CaptureRequest, HoldRequest, LotResponse, ReleaseRequest},
    error::ApiError,
    examples, openapi, parameters,
    points::change,
    query::Query,
    schema,
};
use crate::domain::{Action, Hold};

/// Takes points out of a user's balance until they are captured, released, or the hold's time comes.
#[utoipa::path(
    post,
    path = "/v1/point/hold",
    tag = "Points",
    params(parameters::ChangeHeaders),
    request_body(content = HoldRequest, example = json!({"user_id": "1", "point": 300, "reason": "order 7"})),
    responses(openapi::HoldAnswers),
)]
pub(super) async fn hold(
    request: HttpRequest,
    body: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    change(Action::Hold, &request, body, &api).await
}

/// Takes held points for good: all of them, or some, and the rest returns to the balance.
#[utoipa::path(
    post,
    path = "/v1/point/capture",
    tag = "Points",
    params(parameters::ChangeHeaders),
    request_body(content = CaptureRequest, example = json!(examples::capture())),
    responses(openapi::CaptureAnswers),
)]
pub(super) async fn capture(
    request: HttpRequest,
    body: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    change(Action::Capture, &request, body, &api).await
}

/// Returns held points to the balance.
#[utoipa::path(
    post,
    path = "/v1/point/release",
    tag = "Points",
    params(parameters::ChangeHeaders),
    request_body(content = ReleaseRequest, example = json!(examples::release())),
    responses(openapi::ReleaseAnswers),
)]
pub(super) async fn release(
    request: HttpRequest,
    body: web::Payload,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    change(Action::Release, &request, body, &api).await
}

/// The open holds of a user.
#[derive(Serialize, ToSchema)]
#[schema(as = Holds)]
pub(super) struct HoldsResponse<'a> {
    #[schema(schema_with = schema::user_id)]
    user_id: &'a str,
    #[schema(schema_with = schema::held)]
    held: i64,
    /// In the order in which they end.
    #[schema(max_items = 100)]
    holds: Vec<HoldResponse>,
}

/// An open hold.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenHold)]
pub(super) struct HoldResponse {
    /// The request of the hold, which a capture or a release names.
    hold: Uuid,
    #[schema(schema_with = schema::point)]
    point: i64,
    /// When the points return to the balance.
    expires_at: Timestamp,
    /// Which of the points expire, if any do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    lots: Vec<LotResponse>,
}

impl From<&Hold> for HoldResponse {
    fn from(Hold { at, request, point, lots }: &Hold) -> Self {
        let lots = lots.as_slice().iter().map(LotResponse::from).collect();
        Self { hold: request.get(), point: *point, expires_at: *at, lots }
    }
}

/// Returns the open holds of a user.
#[utoipa::path(
    get,
    path = "/v1/point/holds",
    tag = "Points",
    params(parameters::HoldsQuery),
    responses(
        (status = 200, description = "The holds that are not over yet.", body = HoldsResponse,
         example = json!(examples::holds())),
        openapi::BalanceProblems,
    ),
)]
pub(super) async fn holds(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, ApiError> {
    let user_id = Query::of(&request, &["id"])?.user_id()?;
    let found = api.service.balance(user_id).await?.ok_or(ApiError::UnknownUser)?;
    let holds = found.holds.unwrap_or_default();
    let response = HoldsResponse {
        user_id: found.user_id.as_str(),
        held: holds.point(),
        holds: holds.as_slice().iter().map(HoldResponse::from).collect(),
    };
    Ok(HttpResponse::Ok().json(response))
}
