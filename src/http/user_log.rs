//! The handler that reads a user's log. Must not contain rules of the ledger.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, bodies::EntryResponse, error::ApiError, examples, openapi, parameters, query::Query};
use crate::domain::{HistoryQuery, PAGE_MAX};

/// The entries of a page if the client names no limit.
const PAGE_DEFAULT: i64 = 50;

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
        response.insert_header((header::LINK, next_link(&request, before)));
    }
    Ok(response.json(PageResponse { entries: page.entries.iter().map(EntryResponse::from).collect() }))
}

fn requested_page(request: &HttpRequest) -> Result<HistoryQuery, ApiError> {
    let query = Query::of(request, &["id", "limit", "before", "from", "to", "status"])?;
    let limit = query.number("limit", PAGE_MAX.into())?.unwrap_or(PAGE_DEFAULT);
    Ok(HistoryQuery {
        user_id: query.user_id()?,
        limit: u16::try_from(limit).expect("in its range"),
        before: query.number("before", i64::MAX)?,
        from: query.time("from")?,
        to: query.time("to")?,
        status: query.parsed("status", "must be applied or rejected", |name| name.parse().ok())?,
    })
}

/// Links the next page (RFC 8288): the same request with another `before`.
fn next_link(request: &HttpRequest, before: i64) -> String {
    let parameters = url::form_urlencoded::parse(request.query_string().as_bytes());
    let next = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters.filter(|(name, _)| name != "before"))
        .append_pair("before", &before.to_string())
        .finish();
    format!("<{}?{next}>; rel=\"next\"", request.path())
}
