//! A latency matrix as a heat map.

use std::fmt::Write as _;

use super::RttTable;
use super::html::escape;

const CELL: f64 = 74.0;
const LEFT: f64 = 92.0;
const TOP: f64 = 34.0;

/// A value's place between pale (0) and deep (1), and its text.
type Shade<'a> = &'a dyn Fn(f64) -> (f64, String);

/// Round trips. The colour is logarithmic, so that short and long round trips can both be told
/// apart.
pub(super) fn heat_map(nodes: &[String], table: &RttTable, largest_ms: f64) -> String {
    map(nodes, &|from, to| table.get(from)?.get(to).copied(), &|ms| (heat(ms, largest_ms), format_ms(ms)), colour)
}

/// By how much measured round trips differ; deep is `tolerance_ms` and more.
pub(super) fn difference_map(nodes: &[String], injected: &RttTable, measured: &RttTable, tolerance_ms: f64) -> String {
    let difference = |from: &str, to: &str| Some(measured.get(from)?.get(to)? - injected.get(from)?.get(to)?);
    map(nodes, &difference, &|ms| ((ms.abs() / tolerance_ms).min(1.0), format!("{ms:+.2}")), alarm)
}

/// Rows are source nodes.
fn map(nodes: &[String], value: &dyn Fn(&str, &str) -> Option<f64>, shade: Shade<'_>, colour: fn(f64) -> String) -> String {
    #[allow(clippy::cast_precision_loss)]
    let size = nodes.len() as f64 * CELL;
    let (width, height) = (LEFT + size + 2.0, TOP + size + 2.0);
    let mut svg = format!("<svg class=\"matrix\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\">");
    for (row, from) in nodes.iter().enumerate() {
        let y = at(row) + TOP;
        let _ = write!(
            svg,
            "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            LEFT - 10.0,
            y + CELL / 2.0 + 4.0,
            escape(from),
            LEFT + at(row) + CELL / 2.0,
            TOP - 11.0,
            escape(from),
        );
        for (column, to) in nodes.iter().enumerate() {
            let x = LEFT + at(column);
            let (class, fill, text) = match value(from, to) {
                _ if row == column => ("none", "#f3f4f6".to_owned(), String::new()),
                Some(ms) => {
                    let (heat, text) = shade(ms);
                    (if heat > 0.55 { "light" } else { "dark" }, colour(heat), text)
                }
                None => ("dark", "#fff".to_owned(), "unknown".to_owned()),
            };
            let _ = write!(
                svg,
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"5\" fill=\"{fill}\"/><text class=\"cell {class}\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                x + 1.5,
                y + 1.5,
                CELL - 3.0,
                CELL - 3.0,
                x + CELL / 2.0,
                y + CELL / 2.0 + 5.0,
            );
        }
    }
    svg + "</svg>"
}

#[allow(clippy::cast_precision_loss)]
fn at(index: usize) -> f64 {
    index as f64 * CELL
}

fn heat(ms: f64, largest_ms: f64) -> f64 {
    ((1.0 + ms.max(0.0)).ln() / (1.0 + largest_ms.max(1.0)).ln()).clamp(0.0, 1.0)
}

/// From a pale yellow by way of green to a deep blue: steady in lightness, so that it also reads in
/// grey.
fn colour(heat: f64) -> String {
    const STOPS: [[f64; 3]; 5] =
        [[255.0, 255.0, 217.0], [199.0, 233.0, 180.0], [65.0, 182.0, 196.0], [34.0, 94.0, 168.0], [8.0, 29.0, 88.0]];
    let place = heat * 4.0;
    let below = if place >= 3.0 {
        3
    } else if place >= 2.0 {
        2
    } else {
        usize::from(place >= 1.0)
    };
    #[allow(clippy::cast_precision_loss)]
    let part = place - below as f64;
    let mix = |channel: usize| STOPS[below][channel] + (STOPS[below + 1][channel] - STOPS[below][channel]) * part;
    format!("rgb({:.0},{:.0},{:.0})", mix(0), mix(1), mix(2))
}

/// From white to a deep orange.
fn alarm(part: f64) -> String {
    let mix = |from: f64, to: f64| from + (to - from) * part;
    format!("rgb({:.0},{:.0},{:.0})", mix(250.0, 190.0), mix(250.0, 70.0), mix(250.0, 10.0))
}

fn format_ms(ms: f64) -> String {
    if ms < 9.995 { format!("{ms:.2}") } else { format!("{ms:.1}") }
}
