//! Lines, steps and dots over two axes.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::colour;
use crate::scale::{Axis, Scale, short};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;

/// Values of one colour.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    colour: Option<usize>,
    dashed: bool,
}

impl Series {
    /// A series by the name that the legend shows, with its points from left to right.
    #[must_use]
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), points, colour: None, dashed: false }
    }

    /// In the colour of this number rather than of its place in the list.
    #[must_use]
    pub fn in_colour(self, index: usize) -> Self {
        Self { colour: Some(index), ..self }
    }

    /// Drawn with gaps.
    #[must_use]
    pub fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }
}

/// How points are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Joined by straight lines.
    Line,
    /// A value holds until the next one.
    Steps,
    /// Not joined.
    Dots,
}

/// The plot of some series, with a legend; a sentence when there is nothing to show.
#[must_use]
pub fn plot(series: &[Series], x: &Axis, y: &Axis, shape: Shape) -> Markup {
    if series.iter().all(|one| one.points.is_empty()) {
        return html! { p class="soft" { "Nothing was measured." } };
    }
    let points = || series.iter().flat_map(|one| one.points.iter());
    let (across, up) = (x.over(points().map(|point| point.0)), y.over(points().map(|point| point.1)));
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) width="100%" role="img" {
            @for value in up.ticks() {
                line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(down(&up, value)) y2=(down(&up, value)) {}
                text x=(LEFT - 7.0) y=(down(&up, value) + 4.0) text-anchor="end" { (short(value)) }
            }
            @for value in across.ticks() {
                line class="grid" x1=(right(&across, value)) x2=(right(&across, value)) y1=(TOP) y2=(HEIGHT - BOTTOM) {}
                text x=(right(&across, value)) y=(HEIGHT - BOTTOM + 18.0) text-anchor="middle" { (short(value)) }
            }
            text class="strong" x=((LEFT + WIDTH) / 2.0) y=(HEIGHT - 8.0) text-anchor="middle" { (x.title()) }
            text class="strong" transform=(format!("translate(14 {}) rotate(-90)", (HEIGHT - BOTTOM) / 2.0)) text-anchor="middle" {
                (y.title())
            }
            @for (place, one) in series.iter().enumerate() {
                path class=(if shape == Shape::Dots { "dots" } else { "line" }) stroke=(colour(one.colour.unwrap_or(place)))
                    stroke-dasharray=[one.dashed.then_some("6 4")] d=(path(&one.points, &across, &up, shape)) {}
            }
        }
        p class="legend" {
            @for (place, one) in series.iter().enumerate() {
                span { i style=(format!("background:{}", colour(one.colour.unwrap_or(place)))) {} (one.name) }
            }
        }
    }
}

fn right(scale: &Scale, value: f64) -> f64 {
    tenths(LEFT + scale.place(value) * (WIDTH - LEFT - RIGHT))
}

fn down(scale: &Scale, value: f64) -> f64 {
    tenths(HEIGHT - BOTTOM - scale.place(value) * (HEIGHT - TOP - BOTTOM))
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// One path for all points: thousands of them stay a small page.
fn path(points: &[(f64, f64)], across: &Scale, up: &Scale, shape: Shape) -> String {
    let mut path = String::new();
    for (number, (x, y)) in points.iter().enumerate() {
        let (x, y) = (right(across, *x), down(up, *y));
        // Writing to a string does not fail.
        let _ = match (shape, number) {
            (Shape::Dots, _) => write!(path, "M{x} {y}h0"),
            (_, 0) => write!(path, "M{x} {y}"),
            (Shape::Line, _) => write!(path, "L{x} {y}"),
            (Shape::Steps, _) => write!(path, "H{x}V{y}"),
        };
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_every_series_is_drawn() {
        let series = [Series::new("<b>", vec![(0.0, 0.0), (10.0, 5.0)]), Series::new("two", vec![(0.0, 1.0)]).dashed()];
        let text = plot(&series, &Axis::linear("s & t"), &Axis::linear("pods"), Shape::Steps).into_string();
        assert!(text.contains("&lt;b&gt;") && !text.contains("<b>"), "{text}");
        assert!(text.contains("s &amp; t"), "{text}");
        assert_eq!(text.matches("<path").count(), 2);
        assert!(text.contains("M64 234H846V12"), "{text}");
    }

    #[test]
    fn nothing_is_said_in_words() {
        let text = plot(&[Series::new("a", Vec::new())], &Axis::linear("s"), &Axis::linear("y"), Shape::Line).into_string();
        assert!(text.contains("Nothing was measured."), "{text}");
    }
}
