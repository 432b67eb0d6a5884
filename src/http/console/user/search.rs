//! The page that finds users. Must not contain rules of the ledger.

use actix_web::{HttpResponse, web};
use maud::{Markup, html};

use super::{
    super::{
        components::{Field, Tone, notice, number, since, table},
        door::{Viewer, redirect},
        fields::Fields,
        layout::{Page, Place},
    },
    address, link, path,
};
use crate::{
    domain::{Balance, BalancesPage, BalancesQuery, Holds, UserId, UserIdPrefix},
    http::{Api, error::ApiError},
};

/// Where the page is.
pub(in super::super) const PATH: &str = "/console/users";

/// The most users in a page.
const PAGE_MAX: u16 = 50;

/// Finds users by an id or its beginning. A complete id that no other id begins with redirects to its user.
pub(in super::super) async fn page(
    viewer: Viewer,
    fields: Fields,
    api: web::Data<Api>,
) -> Result<HttpResponse, ApiError> {
    let asked = fields.get("id");
    let found = match asked {
        Some(asked) => Some(find(asked, &fields, &api).await?),
        None => None,
    };
    if let Some(BalancesPage { balances, next: None }) = &found
        && let [only] = balances.as_slice()
        && fields.get("after").is_none()
        && asked == Some(only.user_id.as_str())
    {
        return Ok(redirect(&path(&only.user_id)));
    }
    let page = Page { title: "Users", viewer: Some(&viewer), place: Some(Place::Users), scripts: &[] };
    let hint = "The whole id, or its beginning. Upper and lower case differ.";
    Ok(page.show(&html! {
        h1 { "Users" }
        div.stack {
            form.card.stack method="get" action=(PATH) role="search" {
                (Field { name: "id", label: "User id", value: asked.unwrap_or_default(), hint, required: true })
                div { button.primary type="submit" { "Find" } }
            }
            @if let Some((asked, found)) = asked.zip(found.as_ref()) { (users(asked, found)) }
        }
    }))
}

async fn find(asked: &str, fields: &Fields, api: &Api) -> Result<BalancesPage, ApiError> {
    let query = BalancesQuery {
        prefix: UserIdPrefix::new("id", asked)?,
        after: fields.get("after").map(|id| UserId::new("after", id)).transpose()?,
        limit: PAGE_MAX,
    };
    Ok(api.service.balances_page(query).await?)
}

fn users(asked: &str, found: &BalancesPage) -> Markup {
    if found.balances.is_empty() {
        return notice(Tone::Plain, html! { "No user id begins with " strong.mono { (asked) } "." });
    }
    let rows = html! { @for balance in &found.balances { (row(balance, asked)) } };
    html! {
        section.card aria-label="Users found" {
            (table("Users found", &["User", "Balance", "Held", "Entries", "Last change"], rows))
            @if let Some(next) = &found.next {
                div { a.button href=(address(PATH, &[("id", asked), ("after", next.as_str())])) { "Next users" } }
            }
        }
    }
}

fn row(balance: &Balance, asked: &str) -> Markup {
    let held = balance.holds.as_ref().map_or(0, Holds::point);
    html! {
        tr {
            td { (link(&balance.user_id)) @if balance.user_id.as_str() == asked { " " span.badge { "exact" } } }
            td { (number(balance.point)) }
            td { (number(held)) }
            td { (number(balance.seq)) }
            td { (since(balance.updated_at)) }
        }
    }
}
