//! The handler that reads a user's log. Must not contain rules of the ledger.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    bodies::EntryResponse,
    error::ApiError,
    examples, openapi, parameters,
    query::{Query, next_page},
};
use crate::domain::HistoryQuery;

/// A page of the log.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub(super) struct PageResponse<'a> {
    entries: Vec<EntryResponse<'a>>,
}

/// Returns a page of the user's log, newest entries first.
#[utoipa::path(
    get,
    path = "/v1/point/log",
    tag = "Points",
    params(parameters::LogQuery),
    responses(
        (status = 200, description = "The entries. An unknown user has none.", body = PageResponse,
         headers(("Link" = Option<String>, description = "The next page, if there is one (RFC 8288).")),
         example = json!(examples::page())),
        openapi::LogProblems,
    ),
)]
pub(super) async fn log(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, ApiError> {
    let query = requested_page(&request)?;
    let page = api.service.history(query).await?;
    let mut response = HttpResponse::Ok();
    if let Some(before) = page.next {
        response.insert_header(next_page(&request, "before", &before.to_string()));
    }
    Ok(response.json(PageResponse { entries: page.entries.iter().map(EntryResponse::from).collect() }))
}

fn requested_page(request: &HttpRequest) -> Result<HistoryQuery, ApiError> {
    let query = Query::of(request, &["id", "limit", "before", "from", "to", "status"])?;
    Ok(HistoryQuery {
        user_id: query.user_id()?,
        limit: query.limit()?,
        before: query.number("before", i64::MAX)?,
        from: query.time("from")?,
        to: query.time("to")?,
        status: query.parsed("status", "must be applied or rejected", |name| name.parse().ok())?,
        action: None,
    })
}
