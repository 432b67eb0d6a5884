//! The small chart of the messages that wait in a partition. Must not contain measurements.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::components::grouped;

/// The size of the chart, in units of its own.
const WIDTH: f64 = 100.0;
const HEIGHT: f64 = 24.0;

/// The span of the chart, which ends now.
const SPAN: SignedDuration = SignedDuration::from_mins(15);

/// Where no number is known for this long, the line has a gap.
const GAP: SignedDuration = SignedDuration::from_secs(30);

/// Draws the depth of a queue until `now`. The top of the chart is `most`.
pub(super) fn sparkline(depths: &[(Timestamp, u32)], now: Timestamp, most: u32) -> Markup {
    let place = |(at, depth): &(Timestamp, u32)| {
        let age = now.duration_since(*at).as_secs_f64() / SPAN.as_secs_f64();
        let height = f64::from(*depth) / f64::from(most.max(1));
        format!("{:.1},{:.1}", WIDTH * (1.0 - age), HEIGHT * (1.0 - height))
    };
    let lines = depths.chunk_by(|(before, _), (after, _)| after.duration_since(*before) < GAP);
    let largest = depths.iter().map(|(_, depth)| *depth).max();
    let label = largest.map_or_else(
        || "no number in the last 15 minutes".to_owned(),
        |largest| format!("at most {} in the last 15 minutes", grouped(largest.into())),
    );
    html! {
        svg.sparkline viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
            @for line in lines {
                polyline points=(line.iter().map(place).collect::<Vec<_>>().join(" ")) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_now_and_has_a_gap_where_no_number_is_known() {
        let now: Timestamp = "2026-11-01T12:00:00Z".parse().expect("a moment");
        let ago = |seconds: i64| now - SignedDuration::from_secs(seconds);
        let depths = [(ago(900), 0), (ago(890), 1_500), (ago(90), 3_000), (ago(0), 0)];
        let drawn = sparkline(&depths, now, 3_000).into_string();
        let lines: Vec<&str> =
            drawn.split("points=\"").skip(1).filter_map(|line| line.split('"').next()).collect();
        assert_eq!(lines, ["0.0,24.0 1.1,12.0", "90.0,0.0", "100.0,24.0"]);
        assert!(drawn.contains("at most 3,000 in the last 15 minutes"), "{drawn}");
    }
}
