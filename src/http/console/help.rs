//! The documents of this version, as pages. Must not contain their text.

use std::{mem, sync::LazyLock};

use actix_web::{HttpResponse, web};
use maud::{Markup, PreEscaped, html};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html::push_html};

use super::{door::Viewer, layout::Page};
use crate::http::error::ApiError;

const HOME: &str = "/console/help";

/// Wraps a table, so that keyboard users can scroll it.
const SCROLL: &str = r#"<div class="scroll" tabindex="0" role="group" aria-label="Table">"#;

/// The header of a column without one, for a screen reader.
const NO_HEADER: &str = r#"<span class="hidden">Row</span>"#;

/// A document, as it is in `docs/`.
struct Document {
    name: &'static str,
    about: &'static str,
    text: &'static str,
}

impl Document {
    fn title(&self) -> &'static str {
        self.text.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a heading")
    }
}

macro_rules! documents {
    ($($name:literal: $about:literal,)*) => {
        /// The documents for those who run the service or use it.
        const DOCUMENTS: &[Document] = &[$(
            Document { name: $name, about: $about, text: include_str!(concat!("../../../docs/", $name, ".md")) },
        )*];
    };
}

documents! {
    "alerts": "What to do about each alert",
    "operations": "Flags, probes, logs, metrics, deploys, failover, backups, dead letters",
    "install": "Installation, with the servers and the load balancer",
    "size": "How many machines it takes",
    "access": "API keys, scopes, TLS and rate limits",
    "guarantees": "What is promised, and what happens when something fails",
    "guide": "Jobs of a business, with commands: points that expire, a checkout, a refund",
    "api": "The API in words",
}

/// The path of the section on an alert.
pub(super) fn alert(name: &str) -> String {
    format!("{HOME}/alerts#{}", anchor(name))
}

/// Lists the documents.
pub(super) async fn index(viewer: Viewer) -> HttpResponse {
    let page = Page { title: "Help", viewer: Some(&viewer), place: None, scripts: &[] };
    page.show(&html! {
        h1 { "Help" }
        dl.card.facts {
            @for document in DOCUMENTS {
                dt { a href={ (HOME) "/" (document.name) } { (document.title()) } }
                dd { (document.about) "." }
            }
        }
    })
}

/// Shows a document.
///
/// # Errors
/// There is no document of this name.
pub(super) async fn document(viewer: Viewer, name: web::Path<String>) -> Result<HttpResponse, ApiError> {
    static PAGES: LazyLock<Vec<Markup>> =
        LazyLock::new(|| DOCUMENTS.iter().map(|document| rendered(document.text)).collect());
    let index = DOCUMENTS.iter().position(|document| document.name == *name).ok_or(ApiError::NotFound)?;
    let page = Page { title: DOCUMENTS[index].title(), viewer: Some(&viewer), place: None, scripts: &[] };
    Ok(page.show(&html! {
        div.stack {
            p { a href=(HOME) { "All documents" } }
            article.card.prose { (PAGES[index]) }
        }
    }))
}

/// A document as HTML. A link to a file that the console lacks becomes plain text.
fn rendered(text: &'static str) -> Markup {
    let mut events: Vec<Event> = Parser::new_ext(text, Options::ENABLE_TABLES).collect();
    name_headings(&mut events);
    let mut shown = Vec::with_capacity(events.len());
    let (mut is_link, mut is_head) = (false, false);
    for event in events {
        match event {
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                if let Some(dest_url) = target(&dest_url) {
                    is_link = true;
                    shown.push(Event::Start(Tag::Link { link_type, dest_url, title, id }));
                }
            }
            Event::End(TagEnd::Link) if !mem::take(&mut is_link) => {}
            // The alignment would be an inline style, which the content security policy forbids.
            Event::Start(Tag::Table(_)) => {
                shown.extend([Event::Html(SCROLL.into()), Event::Start(Tag::Table(Vec::new()))]);
            }
            Event::Start(Tag::TableHead) | Event::End(TagEnd::TableHead) => {
                is_head = !is_head;
                shown.push(event);
            }
            Event::End(TagEnd::TableCell)
                if is_head && matches!(shown.last(), Some(Event::Start(Tag::TableCell))) =>
            {
                shown.extend([Event::InlineHtml(NO_HEADER.into()), event]);
            }
            Event::End(TagEnd::Table) => shown.extend([event, Event::Html("</div>".into())]),
            other => shown.push(other),
        }
    }
    let mut html = String::new();
    push_html(&mut html, shown.into_iter());
    PreEscaped(html)
}

/// Gives each heading the anchor that other documents link to.
fn name_headings(events: &mut [Event]) {
    for start in 0..events.len() {
        let (heading, after) = events[start..].split_first_mut().expect("it starts here");
        let Event::Start(Tag::Heading { id, .. }) = heading else { continue };
        let of_heading = after.iter().take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
        let texts = of_heading.filter_map(|event| match event {
            Event::Text(text) | Event::Code(text) => Some(&**text),
            _ => None,
        });
        *id = Some(anchor(&texts.collect::<String>()).into());
    }
}

/// The anchor of a heading, as GitHub makes it for the first heading of a text.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Where a link of a document leads, if the console has it.
fn target(link: &str) -> Option<CowStr<'static>> {
    if link.starts_with('#') || link.starts_with("https://") {
        return Some(link.to_owned().into());
    }
    let (file, anchor) = link.split_at(link.find('#').unwrap_or(link.len()));
    let name = file.strip_suffix(".md")?;
    DOCUMENTS.iter().any(|document| document.name == name).then(|| format!("{HOME}/{name}{anchor}").into())
}
