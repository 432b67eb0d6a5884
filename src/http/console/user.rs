//! The page of a user. Must not contain rules of the ledger.

use actix_web::HttpResponse;
use maud::html;

use super::{
    components::Field,
    door::Viewer,
    fields::Fields,
    layout::{Page, Place},
};

/// Finds a user.
pub(super) async fn find(viewer: Viewer, fields: Fields) -> HttpResponse {
    let page = Page { title: "Users", viewer: Some(&viewer), place: Some(Place::Users), scripts: &[] };
    page.show(&html! {
        h1 { "Users" }
        form.card.stack method="get" action="/console/users" role="search" {
            (Field { name: "id", label: "User id", value: fields.get("id").unwrap_or_default(), hint: "", required: true })
            div { button.primary type="submit" { "Find" } }
        }
    })
}
