//! Draws the charts of `docs/performance.md` as SVG. Must not contain a measurement.

use std::path::Path;

use hdrhistogram::Histogram;
use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    prelude::{
        BLACK, Circle, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries, PathElement, SVGBackend, WHITE,
    },
    style::{Color, RGBColor},
};

use crate::{
    report::Line,
    scenes::latency::{Latency, milliseconds},
};

const SIZE: (u32, u32) = (760, 380);

/// Colours that colour-blind readers can tell apart (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The title and the labels of the horizontal axis.
struct Axis {
    title: &'static str,
    label: fn(&f64) -> String,
}

/// `batch.svg`: the throughput by the number of deltas in a message.
pub fn batch(folder: &Path, lines: &[Line], batches: &[usize]) {
    let points =
        batches.iter().zip(of_topic(lines, "batch")).map(|(batch, line)| (count(*batch), line.value()));
    let series = [Series { name: "applied a second".to_owned(), points: points.collect() }];
    let axis = Axis { title: "deltas in a message", label: |batch| format!("{batch:.0}") };
    draw(&folder.join("batch.svg"), "Applied a second, against the deltas in a message", &axis, &series);
}

/// `growth.svg`: the throughput by the length of the log.
pub fn growth(folder: &Path, lines: &[Line], log_rows: &[u64]) {
    let of = |kind: usize, name: &str| {
        let lines = of_topic(lines, "growth").skip(kind).step_by(2);
        let rows = log_rows.iter().map(|rows| count(usize::try_from(*rows).expect("a count")).max(100_000.0));
        Series { name: name.to_owned(), points: rows.zip(lines.map(Line::value)).collect() }
    };
    let series = [of(0, "applied a second"), of(1, "reads a second, 512 connections")];
    let label =
        |rows: &f64| if *rows <= 100_000.0 { "0".to_owned() } else { format!("{:.1} million", rows / 1e6) };
    let axis = Axis { title: "rows in the log", label };
    draw(&folder.join("growth.svg"), "Throughput, against the length of the log", &axis, &series);
}

/// `latency.svg`: the latencies at each quantile.
pub fn latency(folder: &Path, latencies: &[Latency]) {
    let of = |name: &str, rate: f64, all: &Histogram<u64>| Series {
        name: format!("{name} at {rate:.0}/s"),
        points: QUANTILES.map(|quantile| (1.0 / (1.0 - quantile), milliseconds(all, quantile))).to_vec(),
    };
    let series: Vec<Series> = latencies
        .iter()
        .flat_map(|latency| {
            [
                of("202", latency.per_second, &latency.accepted),
                of("202 to visible", latency.per_second, &latency.visible),
            ]
        })
        .collect();
    let axis = Axis { title: "quantile", label: |one_in| format!("{:.4}", 1.0 - 1.0 / one_in) };
    draw(&folder.join("latency.svg"), "Latency in milliseconds, at each quantile", &axis, &series);
}

const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999];

fn of_topic<'a>(lines: &'a [Line], topic: &'static str) -> impl Iterator<Item = &'a Line> {
    lines.iter().filter(move |line| line.topic == topic)
}

fn draw(file: &Path, title: &str, axis: &Axis, series: &[Series]) {
    let all = || series.iter().flat_map(|series| &series.points);
    let most = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(0.0, f64::max);
    let least = all().map(|point| point.0).fold(f64::MAX, f64::min);
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE).expect("drawn");
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18).into_font())
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((least..most(|point| point.0)).log_scale(), 0.0..most(|point| point.1) * 1.1)
        .expect("drawn");
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(axis.title)
        .x_label_formatter(&axis.label)
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style(("sans-serif", 14))
        .max_light_lines(0)
        .draw()
        .expect("drawn");
    for (series, colour) in series.iter().zip(COLOURS) {
        let line = LineSeries::new(series.points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line)
            .expect("drawn")
            .label(&series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        let dots = series.points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
        chart.draw_series(dots).expect("drawn");
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(("sans-serif", 14))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .expect("drawn");
    area.present().expect("written");
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}
