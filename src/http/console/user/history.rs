//! The log of a user: its filters, and its entries page by page. Must not contain rules of the ledger.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use maud::{Markup, html};
use strum::IntoEnumIterator;

use super::{
    super::{
        components::{card, grouped, time},
        door::Viewer,
        fields::Fields,
    },
    PATH, address, entry,
};
use crate::{
    domain::{Action, HistoryQuery, Page, Status, UserId, whole_number},
    http::{Api, error::ApiError},
};

/// The most entries of a page.
const PAGE_MAX: u16 = 50;

/// Which entries to show.
pub(super) struct Filter {
    query: HistoryQuery,
    range: Option<String>,
    /// The entry whose details are open.
    open: Option<i64>,
}

/// A page, and how far back it has searched if it has too few entries.
pub(super) struct Found {
    page: Page,
    searched: Option<(i64, Timestamp)>,
}

impl Filter {
    /// Reads the filter of a page.
    pub(super) fn of(user_id: &UserId, fields: &Fields) -> Result<Self, ApiError> {
        let number = |name| fields.get(name).and_then(whole_number).filter(|number| *number > 0);
        let query = HistoryQuery {
            user_id: user_id.clone(),
            limit: PAGE_MAX,
            before: number("before"),
            from: moment(fields, "from")?,
            to: moment(fields, "to")?,
            status: chosen(fields, "status")?,
            action: chosen(fields, "action")?,
        };
        let range = fields.get("range").map(str::to_owned);
        Ok(Self { query, range, open: number("open") })
    }

    /// Reads its entries.
    pub(super) async fn read(&self, api: &Api) -> Result<Found, ApiError> {
        let page = api.service.history(self.query.clone()).await?;
        let is_full = page.entries.len() >= usize::from(PAGE_MAX);
        let searched = match page.next.filter(|_| !is_full) {
            None => None,
            Some(next) => {
                let last = HistoryQuery {
                    limit: 1,
                    before: Some(next + 1),
                    status: None,
                    action: None,
                    ..self.query.clone()
                };
                api.service.history(last).await?.entries.first().map(|entry| (entry.seq, entry.created_at))
            }
        };
        Ok(Found { page, searched })
    }

    /// The address of the page with this filter, from an entry on.
    fn address(&self, before: Option<i64>) -> String {
        self.with(before, self.range.as_deref())
    }

    /// The address of the page with this filter and another range of the chart.
    pub(super) fn with_range(&self, range: &str) -> String {
        format!("{}#chart", self.with(self.query.before, Some(range)))
    }

    fn with(&self, before: Option<i64>, range: Option<&str>) -> String {
        let HistoryQuery { user_id, status, action, from, to, .. } = &self.query;
        let (from, to) = (from.map(|at| at.to_string()), to.map(|at| at.to_string()));
        let before = before.map(|before| before.to_string());
        let parts = [
            ("id", Some(user_id.as_str())),
            ("status", status.map(Status::as_str)),
            ("action", action.map(Action::as_str)),
            ("from", from.as_deref()),
            ("to", to.as_deref()),
            ("range", range),
            ("before", before.as_deref()),
        ];
        let parts: Vec<(&str, &str)> =
            parts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        address(PATH, &parts)
    }

    fn is_set(&self) -> bool {
        let HistoryQuery { status, action, from, to, .. } = &self.query;
        status.is_some() || action.is_some() || from.is_some() || to.is_some()
    }

    /// The card of the log.
    pub(super) fn card(&self, found: &Found, viewer: &Viewer) -> Markup {
        card(
            "log",
            "Log",
            html! {
                (self.form())
                @if let Some(before) = self.query.before {
                    p.quiet { "Entries before number " (grouped(before)) ". " a href={ (self.address(None)) "#log" } { "Back to the newest" } }
                }
                @if !found.page.entries.is_empty() { (entry::head()) }
                (self.entries(found, viewer))
            },
        )
    }

    fn form(&self) -> Markup {
        let HistoryQuery { user_id, status, action, from, to, .. } = &self.query;
        let local = |at: &Option<Timestamp>| at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%S").to_string());
        html! {
            form.row.filters method="get" action={ (PATH) "#log" } {
                input type="hidden" name="id" value=(user_id);
                @if let Some(range) = &self.range { input type="hidden" name="range" value=(range); }
                (select("status", "Status", Status::iter().map(Status::as_str), status.map(Status::as_str)))
                (select("action", "Action", Action::iter().map(Action::as_str), action.map(Action::as_str)))
                (moment_field("from", "From", local(from)))
                (moment_field("to", "Until", local(to)))
                div.row.buttons {
                    button type="submit" { "Filter" }
                    @if self.is_set() {
                        a href={ (address(PATH, &[("id", user_id.as_str())])) "#log" } { "All entries" }
                    }
                }
            }
        }
    }

    /// The entries, and the link to the next ones. htmx replaces that link with them.
    pub(super) fn entries(&self, found: &Found, viewer: &Viewer) -> Markup {
        let Found { page, .. } = found;
        html! {
            @if !page.entries.is_empty() {
                ol.log aria-label="Entries, newest first" {
                    @for entry in &page.entries { (entry::item(entry, self.open == Some(entry.seq), viewer)) }
                }
            }
            (self.more(found))
        }
    }

    fn more(&self, Found { page, searched }: &Found) -> Markup {
        let Some(next) = page.next else {
            let words = match (page.entries.is_empty(), self.is_set()) {
                (true, true) => "No further entry matches the filter.",
                (true, false) => "There are no further entries.",
                (false, true) => "These were the last entries that match the filter.",
                (false, false) => "This is the beginning of the log.",
            };
            return html! { p.empty #more { (words) } };
        };
        let address = self.address(Some(next));
        // A search that may find nothing continues only on request.
        let trigger = if searched.is_some() { "click" } else { "click, revealed" };
        html! {
            div.more #more {
                @if let Some((seq, at)) = searched {
                    p { "Searched back to entry " (grouped(*seq)) ", of " (time(*at)) "." }
                }
                a.button href=(address) hx-get=(address) hx-target="#more" hx-swap="outerHTML" hx-trigger=(trigger) hx-replace-url="true" {
                    @if searched.is_some() { "Search further back" } @else { "Older entries" }
                }
            }
        }
    }
}

fn select<'a>(
    name: &str,
    label: &str,
    values: impl Iterator<Item = &'a str>,
    chosen: Option<&str>,
) -> Markup {
    html! {
        div.field {
            label for=(name) { (label) }
            select id=(name) name=(name) {
                option value="" { "any" }
                @for value in values { option value=(value) selected[chosen == Some(value)] { (value) } }
            }
        }
    }
}

/// A time in UTC. `user.js` makes it one of the viewer's zone.
fn moment_field(name: &str, label: &str, value: Option<String>) -> Markup {
    html! {
        div.field {
            label for=(name) { (label) " " span.quiet data-zone { "(UTC)" } }
            input id=(name) name=(name) type="datetime-local" step="1" value=[value] data-moment;
        }
    }
}

/// A name of an enum, or nothing.
fn chosen<T: std::str::FromStr>(fields: &Fields, name: &str) -> Result<Option<T>, ApiError> {
    let known = |text: &str| text.parse().map_err(|_| ApiError::invalid(name, "is not one of the choices"));
    fields.get(name).map(known).transpose()
}

/// A time: of RFC 3339, or without a zone, which is then UTC.
fn moment(fields: &Fields, name: &str) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = fields.get(name) else { return Ok(None) };
    let is_year = text.starts_with(|first: char| first.is_ascii_digit());
    let at = text.parse().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    });
    let wrong = || ApiError::invalid(name, "must be a time such as 2026-11-01T00:00:00Z");
    at.filter(|_| is_year).map(Some).ok_or_else(wrong)
}
