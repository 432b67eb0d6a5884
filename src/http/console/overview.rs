//! The page that says whether all is well. Must not contain measurements.

use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde::Serialize;

use super::{
    components::{Tone, badge, card, grouped, number, since, table, time},
    door::Viewer,
    layout::{Page, Place},
    sparklines::Sparklines,
    troubles::{self, name},
};
use crate::{
    http::Api,
    ops::{
        health::{Seen, State},
        overview::{NodeSeen, Picture, Rates, Step},
    },
};

/// How long a quiet process is still shown, in seconds.
const GONE_AFTER_S: i64 = 300;

/// A rate below this is shown with a decimal.
const SMALL_RATE: f64 = 9.95;

/// The charts, in the order of the numbers of a point.
const CHARTS: [(&str, &str); 4] = [
    ("accepted", "Accepted a second"),
    ("applied", "Applied a second"),
    ("refused", "Refused a second"),
    ("oldest", "Oldest change held, in seconds"),
];

/// The page, with the current picture.
pub(super) async fn page(viewer: Viewer, api: web::Data<Api>) -> HttpResponse {
    let picture = api.overview.look().await;
    let page = Page {
        title: "Overview",
        viewer: Some(&viewer),
        place: Some(Place::Overview),
        scripts: &["uplot.js", "overview.js"],
    };
    let shown = picture.as_ref().map(|picture| picture.shown(event)).unwrap_or_default();
    let regions = picture.as_ref().map(|picture| regions(picture));
    let region = |index: usize| regions.as_ref().map(|regions| regions[index].1.clone());
    page.show(&html! {
        div.stack {
            div.row.apart {
                h1 { "Overview" }
                p.quiet #live role="status" data-live="/console/live" data-first=(shown) { "Live" }
            }
            div.stack #status aria-live="polite" { (region(0).unwrap_or_default()) }
            noscript { "Without JavaScript, this page does not update itself: reload it." }
            div #figures { (region(1).unwrap_or_default()) }
            section.card aria-labelledby="charts-title" {
                h2 #charts-title { "The last 15 minutes" }
                div.charts {
                    @for (id, label) in CHARTS {
                        figure { figcaption { (label) } div.chart data-chart=(id) role="img" aria-label=(label) {} }
                    }
                }
            }
            div.grid {
                (card("partitions", "Partitions", html! { div #partitions-body { (region(2).unwrap_or_default()) } }))
                (card("servers", "Servers and processes", html! { div.stack #servers-body { (region(3).unwrap_or_default()) } }))
            }
        }
    })
}

/// The event of a picture: the parts of the page by their ids, and the history for the charts.
#[derive(Serialize)]
struct Event {
    at: i64,
    regions: Vec<(&'static str, String)>,
    history: Vec<[f64; 5]>,
}

/// A picture as an event.
pub(super) fn event(picture: &Picture) -> String {
    let regions = regions(picture).map(|(id, content)| (id, content.0)).into();
    let history =
        picture.told.as_ref().map(|told| told.history.iter().map(point).collect()).unwrap_or_default();
    serde_json::to_string(&Event { at: picture.at.as_second(), regions, history }).expect("texts and numbers")
}

fn point(Step { at, rates: Rates { accepted, applied, refused }, waited_s }: &Step) -> [f64; 5] {
    let rounded = |number: f64| (number * 10.0).round() / 10.0;
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    let at = at.as_second() as f64;
    [at, rounded(*accepted), rounded(*applied), rounded(*refused), rounded(*waited_s)]
}

/// The parts of the page that change, by their ids.
fn regions(picture: &Picture) -> [(&'static str, Markup); 4] {
    [
        ("status", troubles::status(picture)),
        ("figures", figures(picture)),
        ("partitions-body", partitions(picture)),
        ("servers-body", html! { (servers(picture)) (processes(picture)) }),
    ]
}

fn figures(picture: &Picture) -> Markup {
    let told = picture.told.as_ref().ok();
    let sum = |of: fn(&Rates) -> f64| told.map(|told| told.live().map(|node| of(&node.rates)).sum::<f64>());
    let count = |role: &str| told.map(|told| told.live().filter(|node| node.role == role).count());
    let waiting: Option<u32> = picture.here.depths.waiting().sum();
    let oldest = told.map(|told| troubles::oldest(picture, told));
    html! {
        div.figures {
            (figure("Accepted", sum(|rates| rates.accepted).map(rate), "a second"))
            (figure("Applied", sum(|rates| rates.applied).map(rate), "a second"))
            (figure("Refused", sum(|rates| rates.refused).map(rate), "a second"))
            (figure("Oldest change", oldest.map(|oldest| age(picture, oldest)), "waiting"))
            (figure("Messages", waiting.map(|waiting| grouped(waiting.into())), "waiting"))
            (figure("Workers", count("work").map(|count| count.to_string()), "running"))
            (figure("API nodes", count("serve").map(|count| count.to_string()), "running"))
            (figure("Dead letters", picture.here.depths.dead_letters.map(|count| grouped(count.into())), "to decide"))
        }
    }
}

fn figure(label: &str, value: Option<String>, unit: &str) -> Markup {
    let unit = if value.is_some() { unit } else { "unknown" };
    let value = value.unwrap_or_else(|| "–".to_owned());
    html! { div.stat.card { span { (label) } strong { (value) } small { (unit) } } }
}

#[expect(clippy::cast_possible_truncation, reason = "a rate is far below the largest number")]
fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < SMALL_RATE { format!("{rate:.1}") } else { grouped(rate.round() as i64) }
}

/// How long the oldest change has waited.
fn age(picture: &Picture, oldest: Option<jiff::Timestamp>) -> String {
    let Some(oldest) = oldest else { return "none".to_owned() };
    match picture.at.duration_since(oldest).as_secs() {
        ..1 => "< 1 s".to_owned(),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

fn partitions(picture: &Picture) -> Markup {
    let kept = |partition: u16| {
        let told = picture.told.as_ref();
        told.is_ok_and(|told| told.live().any(|node| node.kept.contains(&partition.cast_signed())))
    };
    let histories = picture.told.as_ref().map(|told| told.depths.as_slice()).unwrap_or_default();
    let sparklines = Sparklines::new(histories);
    let rows = html! {
        @for (partition, depth) in (0u16..).zip(&picture.here.depths.partitions) {
            tr {
                td.fit { (partition) }
                @if let Some((messages, consumers)) = depth {
                    td { div.depth { (number((*messages).into())) (sparklines.of(partition)) } }
                    td { (consumers) }
                    td.fit { (state(picture.here.silent.contains(&partition), kept(partition), *consumers)) }
                } @else {
                    td { div.depth { span.number { "–" } (sparklines.of(partition)) } }
                    td { "–" }
                    td.fit { (badge(Tone::Plain, "unknown")) }
                }
            }
        }
    };
    table("Partitions", &["Partition", "Messages waiting", "Workers", "State"], rows)
}

fn state(is_silent: bool, is_kept: bool, workers: u32) -> Markup {
    match (is_silent, is_kept, workers) {
        (true, ..) => badge(Tone::Bad, "silent"),
        (false, true, _) => badge(Tone::Warn, "needs a newer worker"),
        (false, false, 0) => badge(Tone::Bad, "no worker"),
        (false, false, _) => badge(Tone::Good, "ready"),
    }
}

fn servers(picture: &Picture) -> Markup {
    html! {
        dl.facts {
            @for (name, seen) in [("PostgreSQL", &picture.here.postgresql), ("RabbitMQ", &picture.here.rabbitmq)] {
                dt { (name) }
                dd { (up(seen)) " since " (time(seen.since)) }
            }
        }
    }
}

fn up(seen: &Seen) -> Markup {
    match seen.state {
        State::Up => badge(Tone::Good, "up"),
        State::Down => badge(Tone::Bad, "down"),
        State::ReadOnly => badge(Tone::Bad, "read only"),
        State::CommitsWait => badge(Tone::Bad, "commits wait"),
    }
}

fn processes(picture: &Picture) -> Markup {
    let Ok(told) = &picture.told else {
        return html! { p.quiet { "The processes are unknown while PostgreSQL does not answer or its commits wait." } };
    };
    let is_shown =
        |node: &&NodeSeen| !node.is_quiet || picture.at.duration_since(node.told_at).as_secs() < GONE_AFTER_S;
    let rows = html! {
        @for node in told.nodes.iter().filter(is_shown) {
            tr {
                td { (node.role) " " code { (name(node.id)) } }
                td { (node.version) }
                td { (since(node.started_at)) }
                td.fit {
                    @if node.is_quiet { (badge(Tone::Plain, "ended")) }
                    @else if !node.rabbitmq.is_up() { (badge(Tone::Bad, "no RabbitMQ")) }
                    @else { (badge(Tone::Good, "running")) }
                }
            }
        }
    };
    table("Processes", &["Process", "Version", "Started", "State"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_rate_has_a_decimal_and_a_large_one_is_grouped() {
        for (value, text) in [(0.0, "0"), (0.24, "0.2"), (9.94, "9.9"), (9.96, "10"), (12_345.6, "12,346")] {
            assert_eq!(rate(value), text);
        }
    }
}
