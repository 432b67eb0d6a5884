//! An entry of the log, with all its fields. Must not contain rules of the ledger.

use std::borrow::Cow;

use maud::{Markup, html};

use super::{
    super::{
        components::{Tone, badge, change, number, time},
        door::Viewer,
        request,
    },
    correct, link,
};
use crate::{
    access::Scope,
    domain::{Entry, Metadata, Rejection},
    http::error::detail_of,
};

/// The title of an action.
pub(in super::super) fn title(action: &str) -> Cow<'_, str> {
    let mut letters = action.chars();
    letters
        .next()
        .map_or(action.into(), |first| format!("{}{}", first.to_uppercase(), letters.as_str()).into())
}

/// Why an entry was rejected, as a sentence.
pub(in super::super) fn refusal(entry: &Entry) -> Option<String> {
    let why = entry.rejection.as_ref()?;
    if *why == Rejection::KeyReused {
        return Some("Its idempotency key was used before for another change of this user.".to_owned());
    }
    let detail = detail_of(entry, why);
    Some(format!("{}.", title(&detail)))
}

/// The headings of the columns below. For screen readers, each entry has its own labels.
pub(super) fn head() -> Markup {
    html! {
        div.entry-head aria-hidden="true" {
            span { "Decided" } span { "Action" } span.moved { "Change" } span.after { "Balance after" } span { "Actor and reason" }
        }
    }
}

/// An entry of the list. A click opens it.
pub(super) fn item(entry: &Entry, is_open: bool, viewer: &Viewer) -> Markup {
    let is_rejected = entry.rejection.is_some();
    html! {
        li id={ "entry-" (entry.seq) } {
            details.entry open[is_open] {
                summary {
                    span.when { (time(entry.created_at)) }
                    span.what {
                        (title(&entry.action))
                        @if is_rejected { " " (badge(Tone::Bad, "rejected")) }
                        @if let Some(other) = &entry.counterparty {
                            span.quiet { @if entry.change > 0 { " from " } @else { " to " } span.mono { (other) } }
                        }
                    }
                    span.moved {
                        @if is_rejected { span.quiet { (number(entry.point)) " asked" } } @else { (change(entry.change)) }
                    }
                    span.after { span.hidden { "Balance after: " } (number(entry.balance)) }
                    span.why {
                        @if let Some(actor) = &entry.actor { strong { (actor) } }
                        @if let Some(reason) = &entry.reason { " " (reason.as_str()) }
                    }
                }
                div.stack { (details(entry)) (actions(entry, viewer)) }
            }
        }
    }
}

/// All fields of an entry.
pub(in super::super) fn details(entry: &Entry) -> Markup {
    let metadata = entry.metadata.as_ref().map(Metadata::as_str);
    html! {
        dl.facts {
            @if let Some(why) = refusal(entry) { dt { "Rejected" } dd { (why) } }
            dt { "Entry" } dd { (number(entry.seq)) " of this user" }
            dt { "Request id" } dd.mono { (entry.request_id) }
            dt { "Asked for" } dd { (number(entry.point)) " points" @if entry.partial { ", or fewer if the balance is smaller" } }
            dt { "Change" } dd { (change(entry.change)) ", balance after it " (number(entry.balance)) }
            @if let Some(other) = &entry.counterparty { dt { "Other user" } dd { (link(other)) } }
            @if let Some(about) = entry.reference {
                dt { "Refers to" }
                dd { a.mono href=(request::path(&entry.user_id, about)) { (about) } }
            }
            @if let Some(at) = entry.expires_at {
                dt { @if entry.action == "hold" { "Held until" } @else { "Expires at" } }
                dd { (time(at)) }
            }
            @if !entry.lots.as_slice().is_empty() {
                dt { "Of these expire" }
                dd { @for lot in entry.lots.as_slice() { div { (number(lot.point)) " at " (time(lot.at)) } } }
            }
            dt { "Asked by" }
            dd { @if let Some(actor) = &entry.actor { (actor) } @else { span.quiet { "a caller without a key" } } }
            @if let Some(reason) = &entry.reason { dt { "Reason" } dd { (reason.as_str()) } }
            @if let Some(metadata) = metadata { dt { "Metadata" } dd { pre { (metadata) } } }
            @if let Some(id) = entry.trace_id { dt { "Trace id" } dd.mono { (id) } }
            dt { "Requested" } dd { (time(entry.requested_at)) }
            dt { "Decided" } dd { (time(entry.created_at)) }
        }
    }
}

/// The actions on an entry.
fn actions(entry: &Entry, viewer: &Viewer) -> Markup {
    let is_hold = entry.action == "hold" && entry.rejection.is_none();
    let to = |action| correct::of_request(&entry.user_id, action, entry.request_id);
    html! {
        div.row {
            a.small.button href=(request::path(&entry.user_id, entry.request_id)) { "Link to this request" }
            @if viewer.may(Scope::Write) {
                @if entry.is_reversible() { a.small.button href=(to("reverse")) { "Reverse…" } }
                @if is_hold { a.small.button href=(to("release")) { "Release…" } }
            }
        }
    }
}
