//! The matrix in a terminal: rows are where a request enters, columns where it is answered.

use latency_matrix::{PairState, Quantile};

use super::Matrix;
use crate::output::clean;

/// Up to as many nodes each pair shows its number; beyond that, a shade.
const MOST_NUMBERS: usize = 16;
/// Up to as many nodes there is a picture at all.
const MOST_NODES: usize = 150;
/// Width of a number's column.
const WIDTH: usize = 8;
/// From short to long, on a terminal without colours.
const SHADES: [char; 5] = ['.', '-', '=', '#', '@'];
/// From short to long, as numbers of the 256 colours of terminals: light to dark blue, which
/// people who see colours differently can tell apart, too. Beside each the colour of the text.
const COLOURS: [(u8, u8); 5] = [(195, 16), (153, 16), (111, 16), (68, 231), (25, 231)];

/// The lines of the picture. Names are cleaned; what is left are our own colours.
pub(super) fn lines(matrix: &Matrix, quantile: Quantile, has_colours: bool) -> Vec<String> {
    let nodes = &matrix.nodes;
    let all = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (from, to)));
    let times: Vec<f64> = all.filter_map(|(from, to)| matrix.milliseconds(from, to, quantile)).collect();
    let scale = Scale::over(&times);
    let mut lines = Vec::new();
    if nodes.len() <= MOST_NODES {
        lines.extend(picture(matrix, quantile, &scale, has_colours));
        lines.push(String::new());
    }
    lines.push(summary(matrix, &times));
    if nodes.len() <= MOST_NODES {
        lines.push(
            "Rows: where a request enters; columns: where it is answered. ~ stale, ? unknown, x does not answer.".to_owned(),
        );
    } else {
        lines.push(format!("More than {MOST_NODES} nodes: -o html draws them, -o csv lists them."));
    }
    for (node, why) in &matrix.unread {
        lines.push(clean(&format!("{node} did not say what it measured: {why}")).into_owned());
    }
    lines
}

fn picture(matrix: &Matrix, quantile: Quantile, scale: &Scale, has_colours: bool) -> Vec<String> {
    let nodes = &matrix.nodes;
    let shows_numbers = nodes.len() <= MOST_NUMBERS;
    let digits = nodes.len().to_string().len();
    let label = |number: usize, name: &str| format!("{:>digits$} {}", number + 1, clean(name));
    let title = format!("{} in ms", name_of(quantile));
    let labels = nodes.iter().enumerate().map(|(number, name)| label(number, name).chars().count());
    let widest = labels.chain(shows_numbers.then_some(title.len())).max().unwrap_or(0);
    let mut lines = Vec::new();
    if shows_numbers {
        let head: String = (1..=nodes.len()).map(|number| format!("{number:>WIDTH$}")).collect();
        lines.push(format!("{title:widest$}{head}"));
    }
    for (number, from) in nodes.iter().enumerate() {
        let cells = nodes.iter().map(|to| {
            let (text, time) = if from == to { ("-".to_owned(), None) } else { cell(matrix.state(from, to), quantile) };
            let step = time.map(|time| scale.step(time));
            let text = match (shows_numbers, step) {
                (true, _) => format!("{text:>WIDTH$}"),
                (false, Some(step)) => SHADES[step].to_string(),
                (false, None) => text,
            };
            match step.filter(|_| has_colours) {
                Some(step) => format!("\u{1b}[48;5;{};38;5;{}m{text}\u{1b}[0m", COLOURS[step].0, COLOURS[step].1),
                None => text,
            }
        });
        let cells: String = cells.collect();
        let label = label(number, from);
        let padding = " ".repeat(widest - label.chars().count() + usize::from(!shows_numbers));
        lines.push(format!("{label}{padding}{cells}"));
    }
    lines
}

/// What a pair shows, and its time in milliseconds.
fn cell(state: PairState, quantile: Quantile) -> (String, Option<f64>) {
    let time = state.stats().map(|stats| stats.quantile(quantile) * 1000.0);
    let text = match (state, time) {
        (PairState::Known(_), Some(time)) => short(time),
        (PairState::Stale(_), Some(time)) => format!("~{}", short(time)),
        (PairState::Unreachable, _) => "x".to_owned(),
        _ => "?".to_owned(),
    };
    (text, time)
}

fn short(milliseconds: f64) -> String {
    match milliseconds {
        small if small < 10.0 => format!("{small:.2}"),
        medium if medium < 100.0 => format!("{medium:.1}"),
        large => format!("{large:.0}"),
    }
}

fn name_of(quantile: Quantile) -> &'static str {
    match quantile {
        Quantile::Min => "min",
        Quantile::P50 => "p50",
        Quantile::P90 => "p90",
        Quantile::P99 => "p99",
    }
}

fn summary(matrix: &Matrix, times: &[f64]) -> String {
    let nodes = matrix.nodes.len();
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let pairs = nodes * nodes.saturating_sub(1);
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(middle), Some(longest)) => {
            let (known, middle, longest) = (sorted.len(), short(*middle), short(*longest));
            format!("{nodes} nodes; {known} of {pairs} pairs measured; half of them within {middle} ms, all within {longest} ms.")
        }
        _ => format!("{nodes} nodes; none of {pairs} pairs measured."),
    }
}

/// From times to steps of equal factors.
struct Scale {
    shortest: f64,
    longest: f64,
}

impl Scale {
    fn over(times: &[f64]) -> Self {
        let positive = || times.iter().copied().filter(|time| *time > 0.0);
        Self { shortest: positive().fold(f64::INFINITY, f64::min), longest: positive().fold(0.0, f64::max) }
    }

    fn step(&self, time: f64) -> usize {
        let last = SHADES.len() - 1;
        if time <= self.shortest || self.longest <= self.shortest {
            return 0;
        }
        let share = (time / self.shortest).ln() / (self.longest / self.shortest).ln();
        // From 0 to the last step, whatever rounding does.
        ((share * SHADES.len() as f64).floor() as usize).min(last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::three;
    use super::*;

    #[test]
    fn each_pair_shows_its_number_or_why_it_has_none() {
        let lines = lines(&three(), Quantile::P50, false);
        assert_eq!(
            lines[..4],
            [
                "p50 in ms       1       2       3",
                "1 node1         -    1.10       x",
                "2 node2      1.20       -     250",
                "3 node3         ?       ?       -",
            ]
        );
        assert!(lines[5].starts_with("3 nodes; 3 of 6 pairs measured; half of them within 1.20 ms"), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "node3 did not say what it measured: late");
    }

    #[test]
    fn colours_change_no_text() {
        let (plain, coloured) = (lines(&three(), Quantile::P50, false), lines(&three(), Quantile::P50, true));
        let stripped: Vec<String> = coloured
            .iter()
            .map(|line| {
                let mut parts = line.split('\u{1b}');
                let first = parts.next().unwrap_or_default().to_owned();
                parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
            })
            .collect();
        assert_eq!(stripped, plain);
        assert!(coloured[1].contains("\u{1b}[48;5;195;38;5;16m"), "{coloured:?}");
    }

    proptest! {
        #[test]
        fn steps_rise_with_time(times in prop::collection::vec(0.0..1e5_f64, 1..50), one in 0.0..1e5_f64, other in 0.0..1e5_f64) {
            let scale = Scale::over(&times);
            let (less, more) = (one.min(other), one.max(other));
            prop_assert!(scale.step(less) <= scale.step(more) && scale.step(more) < SHADES.len());
        }
    }
}
