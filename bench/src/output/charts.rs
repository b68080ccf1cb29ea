//! The pictures of a report, each an SVG.

use anyhow::anyhow;
use hdrhistogram::Histogram;
use plotters::coord::combinators::IntoLogRange as _;
use plotters::prelude::*;

use crate::compare::Row;
use crate::failover::timeline::Timeline;
use crate::load::report::LoadReport;
use crate::recorder::BINS;

/// Size of a picture, pixels.
const SIZE: (u32, u32) = (860, 340);
/// Colours of curves, in order; told apart by most eyes.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Named curves.
type Curves = Vec<(String, Vec<(f64, f64)>)>;

/// The latency's percentiles, the scale being the distance to 100 %.
pub fn percentiles(loads: &[&(String, LoadReport)]) -> anyhow::Result<String> {
    let mut curves = Curves::new();
    for (name, load) in loads {
        let many = load.tally.latencies.len() > 1 && loads.len() == 1;
        if many {
            for (kind, latencies) in &load.tally.latencies {
                curves.push((kind.to_string(), percentile_curve(latencies)));
            }
        } else {
            curves.push((name.clone(), percentile_curve(&load.tally.all_latencies())));
        }
    }
    curves.retain(|(_, points)| !points.is_empty());
    let points = || curves.iter().flat_map(|(_, points)| points);
    let x_max = points().map(|point| point.0).fold(10.0, f64::max);
    let y_max = points().map(|point| point.1).fold(1.0, f64::max) * 1.2;
    let y_min = points().map(|point| point.1).fold(y_max, f64::min).max(0.1) * 0.8;
    draw(|area| {
        let mut chart = ChartBuilder::on(&area)
            .caption("latency by percentile", ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d((1.0..x_max).log_scale(), (y_min..y_max).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("percentile")
            .y_desc("us")
            .x_label_formatter(&|inverse| format!("{}", percentile_label(*inverse)))
            .y_label_formatter(&|value| crate::compare::table::number(*value))
            .draw()?;
        draw_curves(&mut chart, &curves)
    })
}

/// Points (1 / (1 - quantile), microseconds).
fn percentile_curve(latencies: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps = latencies.iter_quantiles(5).filter(|step| step.quantile_iterated_to() < 1.0);
    steps
        .map(|step| {
            let inverse = 1.0 / (1.0 - step.quantile_iterated_to());
            (inverse, step.value_iterated_to() as f64 / 1e3)
        })
        .collect()
}

/// 1 / (1 - quantile) as a percentile: 1000 is 99.9.
fn percentile_label(inverse: f64) -> f64 {
    ((100.0 - 100.0 / inverse) * 1e6).round() / 1e6
}

/// Answers per second over time, in steps of some milliseconds.
pub fn throughput(
    loads: &[&(String, LoadReport)],
    bins_per_point: usize,
) -> anyhow::Result<String> {
    let mut curves = Curves::new();
    for (name, load) in loads {
        let bins = load.bins();
        let seconds = bins_per_point as f64 / BINS as f64;
        let points = bins.chunks(bins_per_point).zip(0..).map(|(bins, index)| {
            let count: u64 = bins.iter().map(|bin| u64::from(*bin)).sum();
            (f64::from(index) * seconds, count as f64 / seconds)
        });
        curves.push((name.clone(), points.collect()));
    }
    let points = || curves.iter().flat_map(|(_, points)| points);
    let x_max = points().map(|point| point.0).fold(0.1, f64::max);
    let y_max = points().map(|point| point.1).fold(1.0, f64::max) * 1.1;
    draw(|area| {
        let mut chart = ChartBuilder::on(&area)
            .caption("answers per second", ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..x_max, 0.0..y_max)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("seconds")
            .y_label_formatter(&|value| crate::compare::table::number(*value))
            .draw()?;
        draw_curves(&mut chart, &curves)
    })
}

/// Writes acknowledged around the loss of a server: flat where nothing was.
pub fn failovers(timelines: &[&Timeline]) -> anyhow::Result<String> {
    let curves: Curves =
        timelines.iter().map(|timeline| (timeline.name.clone(), timeline.sums())).collect();
    let points = || curves.iter().flat_map(|(_, points)| points);
    let x_min = points().map(|point| point.0).fold(-1.0, f64::min);
    let x_max = points().map(|point| point.0).fold(1.0, f64::max);
    let y_max = points().map(|point| point.1).fold(1.0, f64::max) * 1.1;
    draw(|area| {
        let mut chart = ChartBuilder::on(&area)
            .caption("writes acknowledged, all writers together", ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d(x_min..x_max, 0.0..y_max)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("ms from the loss of the server")
            .y_label_formatter(&|value| crate::compare::table::number(*value))
            .draw()?;
        draw_curves(&mut chart, &curves)
    })
}

/// How many times better than the reference, one bar per work.
pub fn ratios(rows: &[Row]) -> anyhow::Result<String> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.times.is_some()).collect();
    let ends = |row: &&Row| [row.times_min, row.times, row.times_max].into_iter().flatten();
    let all = || rows.iter().flat_map(ends).filter(|times| times.is_finite());
    let most = all().fold(2.0, f64::max) * 1.3;
    let least = all().fold(1.0, f64::min) * 0.7;
    let count = rows.len().max(1);
    let size = (SIZE.0, 90 + 34 * count as u32);
    draw_sized(size, |area| {
        let mut chart = ChartBuilder::on(&area)
            .caption("times better than the reference (line: spread)", ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(30)
            .build_cartesian_2d((least..most).log_scale(), 0.0..count as f64)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .disable_y_mesh()
            .disable_y_axis()
            .x_label_formatter(&|times| crate::compare::table::number(*times))
            .draw()?;
        for (row, index) in rows.iter().zip(0..) {
            let top = count as f64 - f64::from(index) - 0.15;
            let times = row.times.unwrap_or(1.0);
            let colour = if times >= 1.0 { COLOURS[0] } else { COLOURS[1] };
            let bar = Rectangle::new([(1.0, top - 0.3), (times, top)], colour.filled());
            chart.draw_series([bar])?;
            if let (Some(min), Some(max)) = (row.times_min, row.times_max) {
                let line = [(min, top - 0.15), (max, top - 0.15)];
                chart.draw_series([PathElement::new(line, BLACK.stroke_width(2))])?;
            }
            let shown = crate::compare::table::number(times);
            let label = format!("{} ({}): {shown} x", row.work, row.server);
            let place = (least * 1.02, top - 0.35);
            chart.draw_series([Text::new(label, place, ("sans-serif", 13))])?;
        }
        Ok(())
    })
}

type Drawing<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type DrawResult = Result<(), Box<dyn std::error::Error>>;

fn draw(paint: impl FnOnce(Drawing<'_>) -> DrawResult) -> anyhow::Result<String> {
    draw_sized(SIZE, paint)
}

fn draw_sized(
    size: (u32, u32),
    paint: impl FnOnce(Drawing<'_>) -> DrawResult,
) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        paint(area).map_err(|error| anyhow!("a picture cannot be drawn: {error}"))?;
    }
    Ok(svg)
}

/// Draws curves of either chart, with a legend.
fn draw_curves<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    curves: &[(String, Vec<(f64, f64)>)],
) -> DrawResult
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for ((name, points), index) in curves.iter().zip(0..) {
        let colour = COLOURS[index % COLOURS.len()];
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line)
            .map_err(|error| error.to_string())?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(200, 200, 200))
        .draw()
        .map_err(|error| error.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_labels_are_what_people_say() {
        let labels = [2.0, 10.0, 1000.0, 1e5].map(percentile_label);
        assert_eq!(labels, [50.0, 90.0, 99.9, 99.999]);
    }
}
