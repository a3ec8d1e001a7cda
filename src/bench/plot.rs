//! A picture of a run: how latency, processor time, throughput and memory went.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Report;
use super::meter::Sample;

/// The size of one panel, in pixels.
const PANEL: (u32, u32) = (960, 240);
/// Room for the title.
const TITLE: u32 = 44;
/// Panels with fewer points than this show the points as well, as a line through one point is nothing.
const FEW: usize = 60;

/// One diagram over time.
struct Panel {
    title: String,
    curves: Vec<Curve>,
}

/// A line of it: seconds and values.
struct Curve {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// The samples of a report as an SVG document.
///
/// # Errors
/// What the drawing library says, if it cannot lay out the picture.
pub(crate) fn svg(report: &Report) -> Result<String, String> {
    let panels = panels(report.samples(), report.counted());
    if panels.is_empty() {
        return Err("the run was too short for a picture".to_owned());
    }
    let mut text = String::new();
    let size = (PANEL.0, TITLE + PANEL.1 * panels.len() as u32);
    let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
    draw(&root, &report.title(), &panels).map_err(|error| error.to_string())?;
    drop(root);
    Ok(text)
}

fn draw(root: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, panels: &[Panel]) -> Drawn {
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(TITLE);
    head.draw(&Text::new(title.to_owned(), (16, 16), ("sans-serif", 15)))?;
    for (area, panel) in body.split_evenly((panels.len(), 1)).iter().zip(panels) {
        panel.draw(area)?;
    }
    root.present()
}

impl Panel {
    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let end = points().map(|point| point.0).fold(0.0, f64::max);
        let top = points().map(|point| point.1).fold(0.0, f64::max) * 1.1;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 16))
            .margin(8)
            .margin_right(24)
            .x_label_area_size(32)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..end.max(0.001), 0.0..top.max(0.001))?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .axis_style(BLACK.mix(0.5))
            .label_style(("sans-serif", 12))
            .x_desc("seconds")
            .x_labels(10)
            .y_labels(6)
            .y_label_formatter(&|value| label(*value))
            .draw()?;
        for curve in &self.curves {
            let color = curve.color;
            chart
                .draw_series(LineSeries::new(curve.points.iter().copied(), color.stroke_width(2)))?
                .label(curve.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2)));
            if curve.points.len() < FEW {
                chart.draw_series(curve.points.iter().map(|&point| Circle::new(point, 2, color.filled())))?;
            }
        }
        if self.curves.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE.mix(0.85))
                .border_style(BLACK.mix(0.2))
                .label_font(("sans-serif", 12))
                .draw()?;
        }
        Ok(())
    }
}

const BLUE_LINE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const ORANGE_LINE: RGBColor = RGBColor(0xe0, 0x7b, 0x1a);
const RED_LINE: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
const GREEN_LINE: RGBColor = RGBColor(0x2e, 0x8b, 0x57);

/// The diagrams for which there is something to show.
fn panels(samples: &[Sample], counted: &str) -> Vec<Panel> {
    let curve = |name, color, value: &dyn Fn(&Sample, f64) -> Option<f64>| {
        let mut before = 0;
        let points = samples.iter().filter_map(|sample| {
            // The last sample of a phase may be much shorter than the others, and says little.
            let seconds = (sample.at.saturating_sub(before)) as f64 / 1e9;
            before = sample.at;
            let value = if seconds < 0.02 && samples.len() > 1 { None } else { value(sample, seconds) };
            value.map(|value| (sample.at as f64 / 1e9, value))
        });
        Curve { name, color, points: points.collect() }
    };
    let latency = |index: usize| move |sample: &Sample, _: f64| Some(sample.latency_us?[index] as f64 / 1e3);
    let processor = |sample: &Sample, _: f64| {
        (sample.count > 0).then_some(())?;
        Some(sample.cpu_ns? as f64 / 1e3 / sample.count as f64)
    };
    let throughput = |sample: &Sample, seconds: f64| Some(sample.count as f64 / seconds);
    let memory = |sample: &Sample, _: f64| Some(sample.rss_bytes? as f64 / f64::from(1 << 20));
    let panels = [
        Panel {
            title: "latency, ms".to_owned(),
            curves: vec![
                curve("highest", RED_LINE, &latency(2)),
                curve("99th percentile", ORANGE_LINE, &latency(1)),
                curve("50th percentile", BLUE_LINE, &latency(0)),
            ],
        },
        Panel {
            title: format!("processor time per {counted}, µs"),
            curves: vec![curve("processor time", GREEN_LINE, &processor)],
        },
        Panel {
            title: format!("{} per second", plural(counted)),
            curves: vec![curve("throughput", BLUE_LINE, &throughput)],
        },
        Panel { title: "memory, MiB".to_owned(), curves: vec![curve("memory", ORANGE_LINE, &memory)] },
    ];
    panels.into_iter().filter(|panel| panel.curves.iter().any(|curve| !curve.points.is_empty())).collect()
}

/// More than one of what was counted.
fn plural(counted: &str) -> String {
    match counted.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{counted}s"),
    }
}

/// A number at an axis.
fn label(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value if value >= 10.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample(at: u64, cpu_ns: Option<u64>) -> Sample {
        Sample { at, count: 10, cpu_ns, rss_bytes: None, latency_us: Some([100, 200, 300]) }
    }

    #[test]
    fn a_picture_has_a_panel_for_each_thing_that_is_known() {
        let mut report = Report::new("fanout", "http://a".to_owned(), json!({}), "delivery");
        report.samples = vec![sample(250_000_000, None), sample(500_000_000, None)];
        let text = svg(&report).unwrap();
        assert!(
            text.contains("deliveries per second") && text.contains("latency, ms") && text.contains("99th percentile"),
            "{text}"
        );
        assert!(!text.contains("processor time"), "{text}");
        report.samples = vec![sample(250_000_000, Some(20_000))];
        let text = svg(&report).unwrap();
        assert!(text.contains("processor time per delivery, µs"), "{text}");
    }

    #[test]
    fn a_run_without_samples_has_no_picture() {
        assert!(svg(&Report::new("fanout", "http://a".to_owned(), json!({}), "delivery")).is_err());
    }
}
