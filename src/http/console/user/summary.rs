//! The points of a user: the balance, the held points, and the points that expire. Must not contain rules of the
//! ledger.

use maud::{Markup, Render, html};

use super::{
    super::{
        components::{card, grouped, number, since, table, time},
        door::Viewer,
    },
    correct,
};
use crate::{
    access::Scope,
    domain::{Balance, Hold, Holds, Lot},
};

/// The most lots that the page lists.
const LOTS_SHOWN: usize = 10;

/// The figures of a user.
pub(super) fn of(balance: &Balance) -> Markup {
    let holds = balance.holds.clone().unwrap_or_default();
    let lots = balance.expires.as_slice();
    html! {
        div.grid.tight {
            (stat("Balance", balance.point, html! { "points" }))
            (stat("Held", holds.point(), match holds.as_slice() {
                [] => html! { "no open holds" },
                [hold] => html! { "1 hold, ends " (since(hold.at)) },
                many => html! { (many.len()) " holds, the first ends " (since(many[0].at)) },
            }))
            (stat("Expires next", lots.first().map_or(0, |lot| lot.point), match lots.first() {
                None => html! { "nothing expires" },
                Some(lot) => html! { (since(lot.at)) },
            }))
            (stat("Entries", balance.seq, html! { "last change " (since(balance.updated_at)) }))
        }
        @if lots.len() > 1 { (expiring(lots)) }
    }
}

fn stat(label: &str, figure: i64, note: impl Render) -> Markup {
    html! { div.card.stat { span { (label) } strong { (grouped(figure)) } small { (note) } } }
}

fn expiring(lots: &[Lot]) -> Markup {
    let rows = html! {
        @for lot in lots.iter().take(LOTS_SHOWN) { tr { td { (number(lot.point)) } td { (time(lot.at)) } td { (since(lot.at)) } } }
    };
    let content = html! {
        details {
            summary { (lots.len()) " times at which points expire" }
            (table("Points that expire", &["Points", "At", ""], rows))
            @if lots.len() > LOTS_SHOWN { p.hint { "These are the first " (LOTS_SHOWN) "." } }
        }
    };
    html! { div.card { (content) } }
}

/// The open holds, if there are any.
pub(super) fn holds(balance: &Balance, viewer: &Viewer) -> Markup {
    let holds = balance.holds.as_ref().map_or(&[][..], Holds::as_slice);
    if holds.is_empty() {
        return html! {};
    }
    let may_release = viewer.may(Scope::Write);
    let columns: &[&str] = if may_release {
        &["Points", "Release", "Until", "Request"]
    } else {
        &["Points", "Until", "Request"]
    };
    let rows = html! { @for hold in holds { (row(balance, hold, may_release)) } };
    card("holds", "Open holds", table("Open holds", columns, rows))
}

fn row(balance: &Balance, hold: &Hold, may_release: bool) -> Markup {
    html! {
        tr {
            td { (number(hold.point)) }
            @if may_release {
                td.fit { a.button.small href=(correct::of_request(&balance.user_id, "release", hold.request)) { "Release…" } }
            }
            td { (time(hold.at)) }
            td.mono.fit { (hold.request) }
        }
    }
}
