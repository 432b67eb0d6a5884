//! The page of a request: its outcome. Must not contain rules of the ledger.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use futures_util::future::try_join_all;
use maud::{Markup, html};
use uuid::Uuid;

use super::{
    components::{Field, Tone, badge, notice},
    door::Viewer,
    fields::Fields,
    layout::{Page, Place},
    user::{self, address, entry},
};
use crate::{
    access::Scope,
    domain::{Actor, Entry, IdempotencyKey, RequestId, UserId},
    http::{Api, error::ApiError},
};

/// Where the page is.
const PATH: &str = "/console/request";

/// The operations of a batch with one key that are looked up, for each user.
const OPERATIONS_MAX: usize = 100;

/// The path of the page with the outcome of a request.
pub(super) fn path(user_id: &UserId, request: RequestId) -> String {
    address(PATH, &[("id", user_id.as_str()), ("request", &request.to_string())])
}

/// Finds a request.
pub(super) async fn page(
    viewer: Viewer,
    fields: Fields,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    let found = match asked(&fields)? {
        Some((user_id, requests)) => Some((find(&user_id, &requests, &api).await?, user_id, requests)),
        None => None,
    };
    let page = Page { title: "Request", viewer: Some(&viewer), place: Some(Place::Request), scripts: &[] };
    Ok(page.show(&html! {
        h1 { "Request" }
        div.stack {
            @if let Some((entries, user_id, requests)) = &found { (result(entries, user_id, requests, &viewer)) }
            (form(&fields))
        }
    }))
}

/// The requests that may be meant: the one with the id, or those whose ids come from the key.
fn asked(fields: &Fields) -> Result<Option<(UserId, Vec<RequestId>)>, ApiError> {
    let (request, key) = (fields.get("request"), fields.get("key"));
    let Some(id) = fields.get("id").filter(|_| request.or(key).is_some()) else { return Ok(None) };
    let user_id = UserId::new("id", id)?;
    if let Some(request) = request {
        let id = Uuid::try_parse(request).map_err(|_| ApiError::invalid("request", "must be a UUID"))?;
        return Ok(Some((user_id, vec![id.into()])));
    }
    let actor = fields.get("actor").map(Actor::new).transpose()?;
    let key = IdempotencyKey::new(key.unwrap_or_default())?;
    let of_change = RequestId::from_key(actor.as_ref(), &user_id, &key);
    let of_batch =
        (0..OPERATIONS_MAX).map(|nth| RequestId::from_batch_key(actor.as_ref(), &user_id, &key, nth));
    let requests = [of_change].into_iter().chain(of_batch).collect();
    Ok(Some((user_id, requests)))
}

async fn find(user_id: &UserId, requests: &[RequestId], api: &Api) -> Result<Vec<Arc<Entry>>, ApiError> {
    let each = requests.iter().map(|request| api.service.outcome(user_id.clone(), *request));
    Ok(try_join_all(each).await?.into_iter().flatten().collect())
}

fn result(entries: &[Arc<Entry>], user_id: &UserId, requests: &[RequestId], viewer: &Viewer) -> Markup {
    html! {
        @for entry in entries { (decided(entry)) }
        @if entries.is_empty() {
            (notice(Tone::Warn, html! {
                p { strong { "Pending or unknown. " } "The log of " (user::link(user_id)) " has no entry of this request." }
                ul {
                    li { "It may wait in the queue. " a href="/console" { "The overview" } " says how long changes wait." }
                    @if viewer.may(Scope::Admin) { li { "It may be a " a href="/console/dead-letters" { "dead letter" } "." } }
                    li { "It may never have been accepted: its sender got no " code { "202" } "." }
                    @if requests.len() > 1 { li { "Each actor has its own keys: check the name of the API key." } }
                }
                @if let [request] = requests { p.quiet { "Request id: " span.mono { (request) } } }
            }))
        }
    }
}

fn decided(entry: &Entry) -> Markup {
    let (seq, next) = (entry.seq.to_string(), entry.seq.saturating_add(1).to_string());
    let query = [("id", entry.user_id.as_str()), ("before", &next), ("open", &seq)];
    let place = format!("{}#entry-{seq}", address("/console/user", &query));
    html! {
        section.card aria-label="Outcome" {
            div.row {
                h2 { (entry::title(&entry.action)) " for " (user::link(&entry.user_id)) }
                @if entry.rejection.is_some() { (badge(Tone::Bad, "rejected")) } @else { (badge(Tone::Good, "applied")) }
            }
            (entry::details(entry))
            div { a.button href=(place) { "Show it in the log" } }
        }
    }
}

fn form(fields: &Fields) -> Markup {
    let field = |name, label, hint, required| {
        let value = fields.get(name).unwrap_or_default();
        html! { (Field { name, label, value, hint, required }) }
    };
    html! {
        form.card.stack method="get" action=(PATH) {
            (field("id", "User id", "", true))
            fieldset.grid {
                legend { "The request" }
                (field("request", "Request id", "From the answer to the change.", false))
                div.stack {
                    (field("key", "or its Idempotency-Key", "The key of the change, or of its batch.", false))
                    (field("actor", "and the actor", "The name of the API key that sent it. Empty for a caller without a key.", false))
                }
            }
            div { button.primary type="submit" { "Find" } }
        }
    }
}
