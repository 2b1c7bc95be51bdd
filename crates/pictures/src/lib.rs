//! Plots as SVG in HTML pages that need nothing but themselves: no script, no file, no network.
//!
//! Everything returns [`Markup`], so that every text is escaped by construction.
//!
//! ```
//! use pictures::{Axis, Series, Shape, plot};
//!
//! let series = [Series::new("a & b", vec![(0.0, 1.0), (1.0, 3.0)])];
//! let (x, y) = (Axis::linear("seconds"), Axis::linear("pods"));
//! let svg = plot(&series, &x, &y, Shape::Steps).into_string();
//! assert!(svg.contains("a &amp; b"));
//! ```

mod distribution;
mod heat_map;
mod page;
mod plot;
mod scale;

pub use distribution::distribution;
pub use heat_map::heat_map;
pub use maud::Markup;
pub use page::page;
pub use plot::{Series, Shape, plot};
pub use scale::Axis;

/// Colours that people who see colours differently can tell apart, too.
const COLOURS: [&str; 8] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d1f", "#6a51a3"];

/// The colour of the series at this place; from the ninth on they come again.
#[must_use]
pub fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}
