//! The page of the API keys. Must not contain how anything is measured or stored.

use actix_web::HttpResponse;
use maud::html;

use super::{
    door::Viewer,
    layout::{Page, Place},
};

/// The page.
pub(super) async fn page(viewer: Viewer) -> HttpResponse {
    let page = Page { title: "Keys", viewer: Some(&viewer), place: Some(Place::Keys), scripts: &[] };
    page.show(&html! { h1 { "Keys" } })
}
