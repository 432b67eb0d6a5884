//! The page of a request: what became of it. Must not contain rules of the ledger.

use actix_web::HttpResponse;
use maud::html;

use super::{
    door::Viewer,
    layout::{Page, Place},
};

/// Finds a request.
pub(super) async fn page(viewer: Viewer) -> HttpResponse {
    let page = Page { title: "Request", viewer: Some(&viewer), place: Some(Place::Request), scripts: &[] };
    page.show(&html! { h1 { "Request" } })
}
