//! The pages of a correction: the form, the preview and the confirmation. Must not contain rules of the ledger.

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use maud::{Markup, Render, html};

use super::{
    super::{
        components::{Field, Tone, grouped, notice},
        door::Viewer,
        layout::{Page, Place},
    },
    correct::{CORRECT, Wanted},
    entry::{refusal, title},
    link, path, request_link,
};
use crate::{
    domain::{Action, Balance, Entry, Obstacle, Preview},
    http::error::ApiError,
};

/// A correction that a page asks about.
pub(super) struct Ask<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) viewer: &'a Viewer,
    pub(super) balance: Option<Balance>,
    /// Its preview.
    pub(super) preview: Option<Preview>,
    /// The fault in the form.
    pub(super) fault: Option<ApiError>,
}

impl Ask<'_> {
    /// The form and, once it is filled in, the preview.
    pub(super) fn show(&self, status: StatusCode) -> HttpResponse {
        let now = self.balance.as_ref().map_or(0, |balance| balance.point);
        self.page(status, &html! {
            @if let Some(fault) = &self.fault { (notice(Tone::Bad, words(fault))) }
            div.card.stack {
                p { "Balance of " (link(&self.wanted.user_id)) ": " strong.number { (grouped(now)) } " points" }
                (self.form())
            }
            @if let Some(preview) = &self.preview { (self.foreseen(preview)) }
        })
    }

    /// Asks to send the correction again: nobody knows whether it was applied.
    pub(super) fn again(&self, error: &ApiError) -> HttpResponse {
        let why = match error {
            ApiError::DatabaseUnavailable(_) => html! { "PostgreSQL can't be reached now." },
            ApiError::UserBlocked(Obstacle::Locked, _) => html! { "Another session has locked this user." },
            other => html! { (title(&other.to_string())) "." },
        };
        self.page(error.status_code(), &html! {
            (notice(Tone::Warn, html! {
                strong { "Not confirmed. " } (why) " The correction may have been applied. Send it again in a moment: it counts once."
            }))
            div.card.stack { (self.confirm("Send it again", false)) }
        })
    }

    fn page(&self, status: StatusCode, content: &Markup) -> HttpResponse {
        let title = self.title();
        let page = Page { title, viewer: Some(self.viewer), place: Some(Place::Users), scripts: &[] };
        page.answer(
            status,
            &html! {
                div.narrow {
                    p.crumb { a href=(super::search::PATH) { "Users" } " / " (link(&self.wanted.user_id)) }
                    h1 { (title) }
                    (content)
                }
            },
        )
    }

    fn title(&self) -> &'static str {
        match self.wanted.action {
            Action::Subtract => "Subtract points",
            Action::Reverse => "Reverse a change",
            Action::Release => "Release a hold",
            Action::Add | Action::Transfer | Action::Hold | Action::Capture | Action::Expire => "Add points",
        }
    }

    fn form(&self) -> Markup {
        let Wanted { user_id, request, point, reason, is_partial, action, .. } = self.wanted;
        let takes_points = request.is_none();
        let may_be_partial = matches!(action, Action::Subtract | Action::Reverse);
        let hint = "Up to 200 characters. Everybody who can read the log sees it.";
        html! {
            form.stack method="get" action=(CORRECT) {
                (self.hidden())
                @if let Some(request) = request { p { "Request: " (request_link(user_id, *request)) } }
                @if takes_points {
                    (Field { name: "point", label: "Points", value: point, hint: "A whole number, such as 300.", required: true })
                }
                (Field { name: "reason", label: "Reason", value: reason, hint, required: true })
                @if may_be_partial {
                    label.check {
                        input type="checkbox" name="partial" value="true" checked[*is_partial];
                        span { "Take the whole balance if it is smaller" }
                    }
                }
                div.row {
                    button.primary[self.preview.is_none()] type="submit" { "Preview" }
                    a.button href=(path(user_id)) { "Cancel" }
                }
            }
        }
    }

    /// The fields that the form does not ask for.
    fn hidden(&self) -> Markup {
        let Wanted { user_id, action, request, key, .. } = self.wanted;
        html! {
            input type="hidden" name="id" value=(user_id);
            input type="hidden" name="action" value=(action.as_str());
            input type="hidden" name="key" value=(key);
            @if let Some(request) = request { input type="hidden" name="request" value=(request); }
            @if let Some(actor) = self.viewer.actor() { input type="hidden" name="actor" value=(actor); }
        }
    }

    fn foreseen(&self, Preview { outcome, other }: &Preview) -> Markup {
        let entry = outcome.entry.as_ref();
        let is_ready = self.fault.is_none() && !self.wanted.reason.is_empty();
        html! {
            section.card.stack aria-labelledby="preview-title" id="preview" {
                h2 id="preview-title" { "Preview" }
                @if outcome.replayed {
                    p { "This form was sent before, and counts once. " a href=(path(&entry.user_id)) { "To the user" } }
                } @else if let Some(why) = refusal(entry) {
                    (notice(Tone::Warn, html! { strong { "It would be refused. " } (why) }))
                } @else {
                    (moved(entry))
                    @if let Some(other) = other { (moved(other)) }
                    @if is_ready { (self.confirm(self.verb(), self.wanted.action != Action::Add)) }
                    @else { p.hint { "Enter a reason and preview again to confirm." } }
                }
            }
        }
    }

    fn verb(&self) -> &'static str {
        match self.wanted.action {
            Action::Subtract => "Subtract",
            Action::Reverse => "Reverse",
            Action::Release => "Release",
            Action::Add | Action::Transfer | Action::Hold | Action::Capture | Action::Expire => "Add",
        }
    }

    fn confirm(&self, verb: &str, is_danger: bool) -> Markup {
        let Wanted { point, reason, is_partial, .. } = self.wanted;
        html! {
            form.stack method="post" action=(CORRECT) {
                (self.hidden())
                @if !point.is_empty() { input type="hidden" name="point" value=(point); }
                @if *is_partial { input type="hidden" name="partial" value="true"; }
                input type="hidden" name="reason" value=(reason);
                p.quiet { "Reason: " (reason) }
                div.row {
                    button.danger[is_danger].primary[!is_danger] #confirm type="submit" { "Confirm: " (verb.to_lowercase()) }
                }
            }
        }
    }
}

/// "1,000 → 700".
fn moved(entry: &Entry) -> Markup {
    let before = entry.balance.saturating_sub(entry.change);
    html! {
        p.moves {
            span.quiet.mono { (entry.user_id) }
            span.figures-of {
                strong.number { (grouped(before)) } span aria-hidden="true" { " → " } span.hidden { " becomes " }
                strong.number { (grouped(entry.balance)) }
            }
            @if entry.partial && entry.change.abs() < entry.point {
                span.hint { (grouped(entry.change.abs())) " of " (grouped(entry.point)) " points" }
            }
        }
    }
}

/// A fault of the form, by the label of its field.
fn words(fault: &ApiError) -> impl Render {
    match fault {
        ApiError::InvalidField { field, rule } => {
            let field = if field == "point" { "points" } else { field };
            format!("{} {rule}.", title(field))
        }
        other => format!("{}.", title(&other.to_string())),
    }
}
