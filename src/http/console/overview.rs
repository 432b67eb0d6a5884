//! The page that says whether all is well. Must not contain how anything is measured or stored.

use actix_web::HttpResponse;
use maud::html;

use super::{
    door::Viewer,
    layout::{Page, Place},
};

/// The page.
pub(super) async fn page(viewer: Viewer) -> HttpResponse {
    let page = Page { title: "Overview", viewer: Some(&viewer), place: Some(Place::Overview), scripts: &[] };
    page.show(&html! { h1 { "Overview" } })
}
