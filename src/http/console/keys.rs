//! The page of the API keys: lists, creates and revokes them. Must not contain SQL.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use maud::{Markup, html};

use super::{
    components::{Dialog, Field, Tone, badge, card, counted, notice, since, table, time},
    door::{self, Viewer},
    fields::Fields,
    layout::{Page, Place},
};
use crate::{
    access::{self, AccessError, ApiKey, KeyName, KeyRecord, Scope, WhichKey},
    http::{Api, admission, error::ApiError},
};

const PATH: &str = "/console/keys";

/// The most active keys on a page, and the most revoked ones.
const SHOWN_MAX: usize = 100;

const FIRST_KEY: &str = "This service answers without an API key until the first one exists. Give that one the scope admin, \
     and keep it: you need it to sign in here again.";

/// The scopes, with the purpose of each.
const SCOPES: [(Scope, &str); 3] = [
    (Scope::Read, "reads balances and logs"),
    (Scope::Write, "also changes balances"),
    (Scope::Admin, "also sees dead letters and keys"),
];

/// Lists the keys.
///
/// # Errors
/// The database does not answer.
pub(super) async fn page(
    viewer: Viewer,
    api: web::Data<Api>,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let told = fields.get("revoked").and_then(|id| id.parse::<i64>().ok());
    let told = told
        .map(|id| notice(Tone::Good, html! { "Key " (id) " is revoked. Every node refuses it within 5 s." }));
    show(&viewer, &api, StatusCode::OK, told, &fields).await
}

/// Creates a key, and shows it once.
///
/// # Errors
/// The database does not answer, or a field of the form is wrong.
pub(super) async fn create(
    request: HttpRequest,
    viewer: Viewer,
    api: web::Data<Api>,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let scope: Scope = fields
        .required("scope")?
        .parse()
        .map_err(|_| ApiError::invalid("scope", "must be read, write or admin"))?;
    let name: KeyName = match fields.get("name").unwrap_or_default().parse() {
        Ok(name) => name,
        Err(rule) => {
            let why = wrong(&format!("The name {rule}."));
            return show(&viewer, &api, StatusCode::BAD_REQUEST, Some(why), &fields).await;
        }
    };
    match access::create(api.access.pool(), &name, scope).await {
        Ok((id, key)) => {
            api.access.refresh().await.ok();
            tell(&request, &format!("created key {id} ({})", name.as_str()));
            Ok(created(&viewer, &name, &key))
        }
        Err(error) => refused(&viewer, &api, &error, &fields).await,
    }
}

/// Revokes a key.
///
/// # Errors
/// The database does not answer, or there is no such key.
pub(super) async fn revoke(
    request: HttpRequest,
    viewer: Viewer,
    api: web::Data<Api>,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let id =
        fields.required("id")?.parse().map_err(|_| ApiError::invalid("id", "must be the number of a key"))?;
    match access::revoke(api.access.pool(), &WhichKey::Id(id)).await {
        Ok(revoked) => drop(revoked.ok_or(ApiError::NotFound)?),
        Err(error) => return refused(&viewer, &api, &error, &fields).await,
    }
    api.access.refresh().await.ok();
    tell(&request, &format!("revoked key {id}"));
    Ok(door::redirect(&format!("{PATH}?revoked={id}")))
}

fn wrong(why: &str) -> Markup {
    notice(Tone::Bad, html! { (why) })
}

/// The page, with the reason why nothing was done.
async fn refused(
    viewer: &Viewer,
    api: &Api,
    error: &AccessError,
    fields: &Fields,
) -> Result<HttpResponse, ApiError> {
    let status = match error {
        AccessError::Unavailable(_) => return Err(unavailable(error)),
        AccessError::NotPermitted(_) => StatusCode::FORBIDDEN,
        _ => StatusCode::CONFLICT,
    };
    let why = wrong(&format!("Nothing was changed: {error}."));
    show(viewer, api, status, Some(why), fields).await
}

fn tell(request: &HttpRequest, what: &str) {
    let actor = admission::actor(request).map_or_else(|| "nobody".to_owned(), |actor| actor.to_string());
    log::info!(actor:%; "console: {what}");
}

fn unavailable(error: &AccessError) -> ApiError {
    log::warn!("console: {error}");
    ApiError::DatabaseUnavailable(None)
}

async fn show(
    viewer: &Viewer,
    api: &Api,
    status: StatusCode,
    told: Option<Markup>,
    fields: &Fields,
) -> Result<HttpResponse, ApiError> {
    let keys = access::list(api.access.pool()).await.map_err(|error| unavailable(&error))?;
    let (mut active, mut revoked): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key.revoked_at.is_none());
    let after = fields.get("after").and_then(|id| id.parse::<i64>().ok());
    active.retain(|key| after.is_none_or(|after| key.id > after));
    revoked.sort_by_key(|key| key.revoked_at);
    let next = (active.len() > SHOWN_MAX).then(|| active[SHOWN_MAX - 1].id);
    active.truncate(SHOWN_MAX);
    let last_revoked = &revoked[revoked.len().saturating_sub(SHOWN_MAX)..];
    let page = Page { title: "Keys", viewer: Some(viewer), place: Some(Place::Keys), scripts: &[] };
    Ok(page.answer(
        status,
        &html! {
            div.stack {
                h1 { "Keys" }
                @if let Some(told) = told { (told) }
                @if keys.is_empty() { (notice(Tone::Warn, FIRST_KEY)) }
                (card("create", "Create a key", form(fields, keys.is_empty())))
                (card("active", "Active keys", list(viewer, &active, (after, next))))
                @if !revoked.is_empty() {
                    details.card {
                        summary { (counted(revoked.len())) " revoked" @if last_revoked.len() < revoked.len() { "; the last " (last_revoked.len()) " are shown" } }
                        (table("Revoked keys", &["Name", "Id", "Scope", "Created", "Last used", "Revoked"], html! {
                            @for key in last_revoked { tr { td { (key.name) } (facts(key)) td { @if let Some(at) = key.revoked_at { (time(at)) } } } }
                        }))
                    }
                }
            }
        },
    ))
}

/// The first key signs in the viewer, who has had none so far.
fn form(fields: &Fields, is_first: bool) -> Markup {
    let chosen = fields.get("scope").unwrap_or(if is_first { "admin" } else { "read" });
    html! {
        form.row.fields method="post" action=(PATH) {
            (Field {
                name: "name",
                label: "Name",
                value: fields.get("name").unwrap_or_default(),
                hint: "The actor in every log entry. A name can't be reused.",
                required: true,
            })
            div.field {
                label for="scope" { "Scope" }
                select #scope name="scope" aria-describedby="scope-hint" {
                    @for (scope, _) in SCOPES {
                        option value=(scope.as_str()) selected[scope.as_str() == chosen] { (scope.as_str()) }
                    }
                }
                p.hint #scope-hint {
                    @for (index, (scope, what)) in SCOPES.iter().enumerate() {
                        @if index > 0 { ", " } strong { (scope.as_str()) } " " (what)
                    } "."
                }
            }
            button.primary type="submit" { "Create" }
        }
    }
}

/// A page of the active keys, and the ids after which it and the next page begin.
fn list(viewer: &Viewer, keys: &[&KeyRecord], (after, next): (Option<i64>, Option<i64>)) -> Markup {
    if keys.is_empty() && after.is_none() {
        return html! { p.empty { "There is no active key." } };
    }
    let rows = html! {
        @for key in keys {
            @let id = format!("revoke-{}", key.id);
            tr {
                td { (key.name) }
                td.fit { button.small type="button" data-opens=(id) { "Revoke…" span.hidden { " " (key.name) } } }
                (facts(key))
            }
        }
    };
    html! {
        @if keys.is_empty() {
            p.empty { "There are no more active keys." }
        } @else {
            (table("Active keys", &["Name", "Action", "Id", "Scope", "Created", "Last used"], rows))
        }
        @if after.is_some() || next.is_some() {
            div.row {
                @if after.is_some() { a.button href=(PATH) { "First keys" } }
                @if let Some(next) = next { a.button href={ (PATH) "?after=" (next) } { "Next keys" } }
            }
        }
        @for key in keys { (ask(viewer, key)) }
    }
}

fn ask(viewer: &Viewer, key: &KeyRecord) -> Markup {
    let is_own = viewer.actor().is_some_and(|actor| actor.as_str() == key.name);
    let dialog = Dialog {
        id: &format!("revoke-{}", key.id),
        title: &format!("Revoke key {} of {}?", key.id, key.name),
        action: "/console/keys/revoke",
        verb: "Revoke",
        is_danger: true,
        typed: None,
    };
    dialog.with(html! {
        input type="hidden" name="id" value=(key.id);
        p { "Every node refuses it within 5 s, permanently. " @if let Some(at) = key.last_used_at { "It was last used " (since(at)) "." } @else { "It was never used." } }
        @if is_own { (notice(Tone::Warn, "You may be signed in with this key.")) }
    })
}

fn facts(key: &KeyRecord) -> Markup {
    let tone = if key.scope == Scope::Admin { Tone::Warn } else { Tone::Plain };
    html! {
        td.fit { (key.id) }
        td { (badge(tone, key.scope.as_str())) }
        td { (since(key.created_at)) }
        td { @match key.last_used_at { Some(at) => (since(at)), None => span.quiet { "never" } } }
    }
}

/// The only page that ever shows a key. It is the response to the form, so it has no address.
fn created(viewer: &Viewer, name: &KeyName, key: &ApiKey) -> HttpResponse {
    let page = Page { title: "Key created", viewer: Some(viewer), place: Some(Place::Keys), scripts: &[] };
    page.show(&html! {
        div.narrow {
            h1 { "A key for " (name.as_str()) }
            (notice(Tone::Warn, "Copy it now: it is not stored, and this page is the only one that shows it."))
            div.card.stack {
                div.field {
                    label for="new-key" { "API key" }
                    input.mono #new-key readonly value=(key.reveal()) autocomplete="off" spellcheck="false";
                }
                div.row {
                    button.primary type="button" data-copies="new-key" { "Copy" }
                    a href=(PATH) { "Back to the keys" }
                }
            }
        }
    })
}
