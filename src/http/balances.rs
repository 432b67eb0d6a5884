//! The handler that reads the balances of many users. Must not contain rules of the ledger.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    bodies::BalanceResponse,
    error::ApiError,
    examples, openapi, parameters,
    query::{Query, next_page},
    schema,
};
use crate::domain::{BALANCES_MAX, BalancesQuery, UserId, UserIdPrefix};

/// The balances of many users.
#[derive(Serialize, ToSchema)]
#[schema(as = Balances)]
pub(super) struct BalancesResponse<'a> {
    /// In the order of the request or, in a page, of the ids.
    points: Vec<BalanceResponse<'a>>,
    #[schema(schema_with = schema::unknown_users)]
    unknown: Vec<&'a str>,
}

/// Returns the balances of many users.
#[utoipa::path(
    get,
    path = "/v1/points",
    tag = "Points",
    params(parameters::BalancesQuery),
    responses(
        (status = 200, description = "With `id`, the balances of these users at one moment. With `prefix`, a page of \
            balances.", body = BalancesResponse,
         headers(("Link" = Option<String>, description = "With `prefix`: the next page, if there is one (RFC 8288).")),
         examples(("users" = (value = json!(examples::balances()))), ("page" = (value = json!(examples::balances_page()))))),
        openapi::LogProblems,
    ),
)]
pub(super) async fn balances(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, ApiError> {
    match requested(&request)? {
        Requested::Users(users) => {
            let found = api.service.balances(users.clone()).await?;
            let unknown = users.iter().zip(&found).filter(|(_, found)| found.is_none());
            Ok(HttpResponse::Ok().json(BalancesResponse {
                points: found.iter().flatten().map(BalanceResponse::from).collect(),
                unknown: unknown.map(|(user, _)| user.as_str()).collect(),
            }))
        }
        Requested::Page(query) => {
            let page = api.service.balances_page(query).await?;
            let mut response = HttpResponse::Ok();
            if let Some(after) = page.next {
                response.insert_header(next_page(&request, "after", after.as_str()));
            }
            let points = page.balances.iter().map(BalanceResponse::from).collect();
            Ok(response.json(BalancesResponse { points, unknown: Vec::new() }))
        }
    }
}

/// Which balances a request asks for.
enum Requested {
    Users(Vec<UserId>),
    Page(BalancesQuery),
}

fn requested(request: &HttpRequest) -> Result<Requested, ApiError> {
    let query = Query::with_many(request, &["id", "prefix", "after", "limit"], Some("id"))?;
    let users = query.user_ids(BALANCES_MAX)?;
    let Some(prefix) = query.get("prefix") else {
        if users.is_empty() {
            return Err(ApiError::invalid("id", "is required, unless there is a prefix"));
        }
        return match ["after", "limit"].into_iter().find(|name| query.get(name).is_some()) {
            Some(name) => Err(ApiError::invalid(name, "is allowed only together with prefix")),
            None => Ok(Requested::Users(users)),
        };
    };
    if !users.is_empty() {
        return Err(ApiError::invalid("prefix", "must not be sent together with id"));
    }
    Ok(Requested::Page(BalancesQuery {
        prefix: UserIdPrefix::new("prefix", prefix)?,
        after: query.get("after").map(|id| UserId::new("after", id)).transpose()?,
        limit: query.limit()?,
    }))
}
