//! The small charts of the messages that wait in the partitions. Must not contain measurements.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::components::grouped;
use crate::ops::overview::DepthHistory;

/// The size of a chart, in units of its own.
const WIDTH: f64 = 100.0;
const HEIGHT: f64 = 24.0;

/// The span of a chart, which ends with the last step that is known of any partition.
const SPAN: SignedDuration = SignedDuration::from_mins(15);

/// Where no number is known for this long, a line has a gap.
const GAP: SignedDuration = SignedDuration::from_secs(30);

/// Charts of the same times and the same scale. They change only with the numbers, so an idle page stays as it is.
pub(super) struct Sparklines<'a> {
    histories: &'a [DepthHistory],
    end: Timestamp,
    most: u32,
}

impl<'a> Sparklines<'a> {
    pub(super) fn new(histories: &'a [DepthHistory]) -> Self {
        let end = histories.iter().flatten().map(|(at, _)| *at).max().unwrap_or_default();
        let most = histories.iter().flatten().map(|(_, depth)| *depth).max().unwrap_or_default();
        Self { histories, end, most: most.max(1) }
    }

    /// The chart of a partition.
    pub(super) fn of(&self, partition: u16) -> Markup {
        let history = self.histories.get(usize::from(partition)).map_or(&[][..], Vec::as_slice);
        let lines = history.chunk_by(|(before, _), (after, _)| after.duration_since(*before) < GAP);
        let largest = history.iter().map(|(_, depth)| *depth).max();
        let said = largest.map_or_else(
            || "not known in the last 15 minutes".to_owned(),
            |largest| format!("at most {} in the last 15 minutes", grouped(largest.into())),
        );
        let label = format!("Messages waiting in partition {partition}: {said}");
        html! {
            svg.sparkline viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
                title { (label) }
                @for line in lines {
                    polyline points=(self.points(line)) {}
                }
            }
        }
    }

    /// The corners of a line without those that lie on it. A line of one corner has it twice, or it would not be seen.
    fn points(&self, line: &[(Timestamp, u32)]) -> String {
        let depth = |index: usize| line.get(index).map(|(_, depth)| *depth);
        let is_corner = |index: usize| {
            let before = index.checked_sub(1).and_then(depth);
            before != depth(index) || depth(index + 1) != depth(index)
        };
        let place = |(at, depth): &(Timestamp, u32)| {
            let age = self.end.duration_since(*at).as_secs_f64() / SPAN.as_secs_f64();
            let height = f64::from(*depth) / f64::from(self.most);
            format!("{:.1},{:.1}", WIDTH * (1.0 - age).max(0.0), HEIGHT * (1.0 - height))
        };
        let corners = (0..line.len()).filter(|index| is_corner(*index)).map(|index| place(&line[index]));
        let mut corners: Vec<String> = corners.collect();
        if let [only] = corners.as_slice() {
            corners.push(only.clone());
        }
        corners.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_corners_and_a_gap_where_no_number_is_known() {
        let end: Timestamp = "2026-11-01T12:00:00Z".parse().expect("a moment");
        let ago = |seconds: i64| end - SignedDuration::from_secs(seconds);
        let rising =
            vec![(ago(905), 0), (ago(890), 1_500), (ago(870), 1_500), (ago(850), 1_500), (ago(90), 3_000)];
        let histories = [rising, Vec::new(), vec![(ago(0), 0)]];
        let lines = |partition: u16| {
            let drawn = Sparklines::new(&histories).of(partition).into_string();
            let lines = drawn.split("points=\"").skip(1).filter_map(|line| line.split('"').next());
            (lines.map(ToOwned::to_owned).collect::<Vec<_>>(), drawn)
        };
        let (rising, drawn) = lines(0);
        assert_eq!(rising, ["0.0,24.0 1.1,12.0 5.6,12.0", "90.0,0.0 90.0,0.0"]);
        let label = "Messages waiting in partition 0: at most 3,000 in the last 15 minutes";
        assert!(drawn.contains(label), "{drawn}");
        assert!(
            lines(1).0.is_empty() && lines(1).1.contains("partition 1: not known in the last 15 minutes")
        );
        assert_eq!(lines(2).0, ["100.0,24.0 100.0,24.0"]);
    }
}
