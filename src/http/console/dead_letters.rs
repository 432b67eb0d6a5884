//! The page of the dead letters. Must not contain how anything is measured or stored.

use actix_web::HttpResponse;
use maud::html;

use super::{
    door::Viewer,
    layout::{Page, Place},
};

/// The page.
pub(super) async fn page(viewer: Viewer) -> HttpResponse {
    let page =
        Page { title: "Dead letters", viewer: Some(&viewer), place: Some(Place::DeadLetters), scripts: &[] };
    page.show(&html! { h1 { "Dead letters" } })
}
