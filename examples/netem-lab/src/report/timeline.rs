//! Response times over time: a panel per source node, a colour per serving node, a band per step.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::html::{escape, node_colour};
use super::{Report, RequestReport};

const WIDTH: f64 = 1080.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 24.0;
const PANEL: f64 = 170.0;
const GAP: f64 = 26.0;
const BOTTOM: f64 = 40.0;

/// Maps time and response time to the page.
struct Scale {
    begin: f64,
    end: f64,
    least_log: f64,
    most_log: f64,
}

impl Scale {
    fn of(requests: &[RequestReport]) -> Option<Self> {
        let times = || requests.iter().map(|request| request.at_unix_seconds);
        let begin = times().min_by(f64::total_cmp)?;
        let last_answer = requests.iter().map(|request| request.at_unix_seconds + request.seconds).max_by(f64::total_cmp)?;
        let margin = ((last_answer - begin) * 0.01).max(0.5);
        let seconds = || requests.iter().map(|request| request.seconds.max(0.000_1));
        let (below, above) = bounds(seconds().min_by(f64::total_cmp)?, seconds().max_by(f64::total_cmp)?);
        Some(Self { begin: begin - margin, end: last_answer + margin, least_log: below.log10(), most_log: above.log10() })
    }

    fn x(&self, unix_seconds: f64) -> f64 {
        LEFT + ((unix_seconds - self.begin) / (self.end - self.begin)).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, panel: usize, seconds: f64) -> f64 {
        let height = (seconds.max(0.0001).log10() - self.least_log) / (self.most_log - self.least_log);
        panel_top(panel) + PANEL * (1.0 - height.clamp(0.0, 1.0))
    }
}

#[allow(clippy::cast_precision_loss)]
fn panel_top(panel: usize) -> f64 {
    TOP + panel as f64 * (PANEL + GAP)
}

/// The plot; a sentence when there was no request.
pub(super) fn timeline(report: &Report) -> String {
    let Some(scale) = Scale::of(&report.requests) else { return "<p>No request was sent.</p>".to_owned() };
    let sources: Vec<&String> =
        report.run.nodes.iter().filter(|node| report.requests.iter().any(|request| request.from_node == **node)).collect();
    let height = panel_top(sources.len()) - GAP + BOTTOM;
    let mut svg = format!("<svg class=\"timeline\" viewBox=\"0 0 {WIDTH} {height}\" width=\"100%\" role=\"img\">");
    bands(&mut svg, report, &scale, height);
    for (panel, source) in sources.iter().enumerate() {
        frame(&mut svg, &scale, panel, source);
        points(&mut svg, report, &scale, panel, source);
    }
    time_axis(&mut svg, &scale, height);
    svg + "</svg>" + &legend(report)
}

fn bands(svg: &mut String, report: &Report, scale: &Scale, height: f64) {
    let (top, tall) = (TOP - 4.0, height - TOP - BOTTOM + 8.0);
    let mut label_free_from = LEFT;
    for (index, step) in report.steps.iter().enumerate() {
        let ends = step.began_at_unix_seconds + step.seconds;
        if ends < scale.begin || step.began_at_unix_seconds > scale.end {
            continue;
        }
        let (x, right) = (scale.x(step.began_at_unix_seconds), scale.x(ends));
        let class = if !step.ok {
            "failed"
        } else if index % 2 == 0 {
            "even"
        } else {
            "odd"
        };
        let _ = write!(
            svg,
            "<rect class=\"band {class}\" x=\"{x:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{tall}\"><title>{}. {}</title></rect>",
            right - x,
            index + 1,
            escape(&step.name),
        );
        let middle = f64::midpoint(x, right);
        if middle >= label_free_from + 8.0 {
            let _ = write!(
                svg,
                "<text class=\"number\" x=\"{middle:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                TOP - 9.0,
                index + 1
            );
            label_free_from = middle + 9.0;
        }
    }
}

fn frame(svg: &mut String, scale: &Scale, panel: usize, source: &str) {
    for seconds in ticks(10_f64.powf(scale.least_log), 10_f64.powf(scale.most_log)) {
        let y = scale.y(panel, seconds);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\"/><text class=\"axis small\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 7.0,
            y + 3.5,
            label(seconds),
        );
    }
    let middle = panel_top(panel) + PANEL / 2.0;
    let _ = write!(
        svg,
        "<text class=\"axis strong\" transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">from {}</text>",
        escape(source)
    );
}

/// The round numbers (1, 2 and 5 of every decade) next below and above these, with some room.
fn bounds(least: f64, most: f64) -> (f64, f64) {
    let round: Vec<f64> = round_numbers().collect();
    let below = round.iter().rev().find(|number| **number <= least * 0.9).or(round.first());
    let above = round.iter().find(|number| **number >= most * 1.1).or(round.last());
    (below.copied().unwrap_or(least), above.copied().unwrap_or(most))
}

fn ticks(below: f64, above: f64) -> impl Iterator<Item = f64> {
    // The bounds have been through a logarithm.
    round_numbers().filter(move |number| *number > below * 0.99 && *number < above * 1.01)
}

/// From a tenth of a millisecond to a quarter of an hour and more.
fn round_numbers() -> impl Iterator<Item = f64> {
    (-4..4).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
}

fn label(seconds: f64) -> String {
    let (number, unit) = if seconds < 0.99 { (seconds * 1e3, "ms") } else { (seconds, "s") };
    if number < 0.99 { format!("{number:.1} {unit}") } else { format!("{number:.0} {unit}") }
}

/// All points of a colour are one path of round dots: thousands of requests stay a small page.
fn points(svg: &mut String, report: &Report, scale: &Scale, panel: usize, source: &str) {
    let mut answered: BTreeMap<&str, String> = BTreeMap::new();
    let mut failed = String::new();
    for request in report.requests.iter().filter(|request| request.from_node == source) {
        let (x, y) = (scale.x(request.at_unix_seconds), scale.y(panel, request.seconds));
        if request.succeeded() {
            let path = answered.entry(request.served_by_node.as_deref().unwrap_or_default()).or_default();
            let _ = write!(path, "M{x:.1} {y:.1}h0");
        } else {
            let _ = write!(failed, "M{:.1} {:.1}l8 8m0 -8l-8 8", x - 4.0, y - 4.0);
        }
    }
    for (node, path) in answered {
        let _ = write!(svg, "<path class=\"dots\" stroke=\"{}\" d=\"{path}\"/>", node_colour(&report.run.nodes, node));
    }
    if !failed.is_empty() {
        let _ = write!(svg, "<path class=\"cross\" d=\"{failed}\"/>");
    }
}

fn time_axis(svg: &mut String, scale: &Scale, height: f64) {
    let span = scale.end - scale.begin;
    let tick = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0]
        .into_iter()
        .find(|tick| span / tick <= 12.0)
        .unwrap_or(1_800.0);
    let mut at = 0.0;
    while at <= span {
        let x = scale.x(scale.begin + at);
        let _ = write!(
            svg,
            "<text class=\"axis small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at:.0}</text>",
            height - BOTTOM + 20.0
        );
        at += tick;
    }
    let _ = write!(
        svg,
        "<text class=\"axis small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">seconds since the first request</text>",
        f64::midpoint(LEFT, WIDTH),
        height - 4.0
    );
}

fn legend(report: &Report) -> String {
    let mut legend = "<p class=\"legend\">answered on".to_owned();
    for node in &report.run.nodes {
        let _ =
            write!(legend, " <span><i style=\"background:{}\"></i>{}</span>", node_colour(&report.run.nodes, node), escape(node));
    }
    legend + " <span class=\"bad\"><b>&#x2715;</b>failed</span> &middot; bands are the steps, numbered as below</p>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_begins_and_ends_at_round_numbers() {
        assert_eq!(bounds(0.105, 0.83), (0.05, 1.0));
        assert_eq!(ticks(0.05, 1.0).map(label).collect::<Vec<_>>(), ["50 ms", "100 ms", "200 ms", "500 ms", "1 s"]);
    }
}
