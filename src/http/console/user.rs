//! The page of a user: the balance, the held and the expiring points, the chart, and the log. Must not contain rules of
//! the ledger.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use futures_util::future::OptionFuture;
use maud::{Markup, html};
use tokio::try_join;
use url::form_urlencoded;
use uuid::Uuid;

use super::{
    components::{Tone, grouped, notice},
    door::{HX_REQUEST, Viewer, redirect},
    fields::Fields,
    layout::{Page, Place, fragment},
};
use crate::{
    access::Scope,
    domain::{Entry, RequestId, UserId},
    http::{Api, error::ApiError},
};
use chart::Range;
use history::Filter;

pub(super) mod search;
mod summary;
mod chart;
mod history;
pub(super) mod entry;
pub(super) mod correct;
mod ask;

/// Where the page is.
const PATH: &str = "/console/user";

/// A path with a query. Everything in it is encoded.
pub(super) fn address(path: &str, query: &[(&str, &str)]) -> String {
    format!("{path}?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish())
}

/// The path of a user's page.
pub(super) fn path(user_id: &UserId) -> String {
    address(PATH, &[("id", user_id.as_str())])
}

/// A link to the page of a user.
pub(super) fn link(user_id: &UserId) -> Markup {
    html! { a.mono href=(path(user_id)) { (user_id) } }
}

/// A link to the page of a request.
fn request_link(user_id: &UserId, request: RequestId) -> Markup {
    html! { a.mono href=(super::request::path(user_id, request)) { (request) } }
}

/// The user of a page.
fn user_id(fields: &Fields) -> Result<UserId, ApiError> {
    Ok(UserId::new("id", fields.required("id")?)?)
}

/// Shows a user or, to htmx, the next entries of the log.
pub(super) async fn page(
    request: HttpRequest,
    viewer: Viewer,
    fields: Fields,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    if fields.get("id").is_none() {
        return Ok(redirect(search::PATH));
    }
    let user_id = user_id(&fields)?;
    let filter = Filter::of(&user_id, &fields)?;
    if request.headers().contains_key(&HX_REQUEST) {
        let found = filter.read(&api).await?;
        return Ok(fragment(StatusCode::OK, &filter.entries(&found, &viewer)));
    }
    let range = Range::of(&fields)?;
    let done = fields.get("done").and_then(|id| Uuid::try_parse(id).ok()).map(RequestId::from);
    let done = OptionFuture::from(done.map(|done| api.service.outcome(user_id.clone(), done)));
    let (balance, course, found, done) = try_join!(
        async { Ok::<_, ApiError>(api.service.balance(user_id.clone()).await?) },
        async { Ok::<_, ApiError>(api.service.course(range.query(&user_id)).await?) },
        filter.read(&api),
        async { Ok::<_, ApiError>(done.await.transpose()?.flatten()) },
    )?;
    let page = Page {
        title: user_id.as_str(),
        viewer: Some(&viewer),
        place: Some(Place::Users),
        scripts: &["uplot.js", "user.js"],
    };
    Ok(page.show(&html! {
        p.crumb { a href=(search::PATH) { "Users" } }
        div.row.apart.heading {
            h1.mono { (user_id) }
            @if viewer.may(Scope::Write) { (correct::links(&user_id, balance.is_some())) }
        }
        @if let Some(entry) = done { (outcome(&entry)) }
        div.stack {
            @if let Some(balance) = &balance {
                (summary::of(balance))
                (chart::of(&course, balance, range, &filter))
                (summary::holds(balance, &viewer))
                (filter.card(&found, &viewer))
            } @else {
                (notice(Tone::Plain, html! {
                    "This user has no entries. A user is created by the first change. "
                    a href=(address(search::PATH, &[("id", user_id.as_str())])) { "Find users whose ids start with this text." }
                }))
            }
        }
    }))
}

/// Shows the outcome of a correction.
fn outcome(entry: &Entry) -> Markup {
    let before = grouped(entry.balance.saturating_sub(entry.change));
    let balance = grouped(entry.balance);
    html! {
        div.done {
            @if let Some(why) = entry::refusal(entry) {
                (notice(Tone::Bad, html! { strong { "Refused: " } (why) " The balance did not change." }))
            } @else {
                (notice(Tone::Good, html! {
                    strong { "Done: " (entry::title(&entry.action)) " of " (grouped(entry.point)) " points. " }
                    "The balance went from " (before) " to " (balance) "."
                }))
            }
        }
    }
}
