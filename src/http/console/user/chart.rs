//! The chart of a user's balance. Must not contain rules of the ledger.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::{
    super::{
        components::{card, grouped, time},
        fields::Fields,
    },
    history::Filter,
};
use crate::{
    domain::{Balance, Course, CourseQuery, UserId},
    http::error::ApiError,
};

/// The ranges: name, words, and days unless it is the whole log.
const RANGES: [(&str, &str, Option<i64>); 5] = [
    ("day", "24 hours", Some(1)),
    ("week", "7 days", Some(7)),
    ("month", "30 days", Some(30)),
    ("year", "365 days", Some(365)),
    ("all", "All", None),
];

/// How far back the chart goes.
#[derive(Clone, Copy)]
pub(super) struct Range {
    name: &'static str,
    from: Option<Timestamp>,
}

impl Range {
    /// The range in the request of a page.
    pub(super) fn of(fields: &Fields) -> Result<Self, ApiError> {
        let asked = fields.get("range").unwrap_or("all");
        let found = RANGES.iter().find(|(name, ..)| *name == asked);
        let &(name, _, days) =
            found.ok_or_else(|| ApiError::invalid("range", "must be day, week, month, year or all"))?;
        let from = days.map(|days| Timestamp::now() - SignedDuration::from_hours(24 * days));
        Ok(Self { name, from })
    }

    pub(super) fn query(self, user_id: &UserId) -> CourseQuery {
        CourseQuery { user_id: user_id.clone(), from: self.from }
    }
}

/// The chart, with the choice of its range and a summary in words.
pub(super) fn of(course: &Course, balance: &Balance, range: Range, filter: &Filter) -> Markup {
    let points = points(course, balance, range);
    card(
        "chart",
        "Balance over time",
        html! {
            figure.course {
                nav.row.ranges aria-label="Range of the chart" {
                    @for (name, words, _) in RANGES {
                        a href=(filter.with_range(name)) aria-current=[(range.name == name).then_some("true")] { (words) }
                    }
                }
                div.chart data-course=(json(&points)) {}
                figcaption.hint { (caption(course, &points)) }
            }
        },
    )
}

/// The times and balances to draw. A balance holds until the next one: the first since the beginning of the range, and the
/// last until now.
fn points(course: &Course, balance: &Balance, range: Range) -> Vec<(Timestamp, i64)> {
    let clipped = |at: Timestamp| range.from.map_or(at, |from| at.max(from));
    let mut points: Vec<_> = course.points.iter().map(|point| (clipped(point.at), point.balance)).collect();
    points.push((Timestamp::now().max(balance.updated_at), balance.point));
    points
}

fn json(points: &[(Timestamp, i64)]) -> String {
    let pairs: Vec<_> = points.iter().map(|(at, balance)| (at.as_millisecond(), balance)).collect();
    serde_json::to_string(&pairs).expect("numbers are always JSON")
}

fn caption(course: &Course, points: &[(Timestamp, i64)]) -> Markup {
    let balances = || points.iter().map(|(_, balance)| *balance);
    let (least, most) = (balances().min().unwrap_or_default(), balances().max().unwrap_or_default());
    let shown = course.points.len();
    html! {
        @if let [(from, first), .., (_, last)] = points {
            "From " (grouped(*first)) " at " (time(*from)) " to " (grouped(*last)) " now. "
        }
        @if usize::try_from(course.entries).is_ok_and(|entries| entries > shown) {
            "The chart shows " (shown) " of " (grouped(course.entries)) " entries, at equal intervals in the log; between them \
             the balance may have been higher or lower. Among those shown, the lowest balance is "
        } @else {
            "The chart shows every entry of the range. The lowest balance is "
        }
        (grouped(least)) ", the highest " (grouped(most)) "."
    }
}
