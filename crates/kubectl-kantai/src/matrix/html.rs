//! The matrix as a page that needs nothing but itself.

use latency_matrix::{PairState, Quantile};
use maud::html;

use super::Matrix;

pub(super) fn page(matrix: &Matrix, quantile: Quantile) -> String {
    let nodes = &matrix.nodes;
    let value = |row: usize, column: usize| match (nodes.get(row), nodes.get(column)) {
        (Some(from), Some(to)) => matrix.milliseconds(from, to, quantile),
        _ => None,
    };
    let cut: Vec<String> = nodes
        .iter()
        .flat_map(|from| nodes.iter().map(move |to| (from, to)))
        .filter(|(from, to)| matrix.state(from, to) == PairState::Unreachable)
        .map(|(from, to)| format!("{from} to {to}"))
        .collect();
    let body = html! {
        h1 { "Round trips between nodes" }
        p { "In milliseconds. Rows: where a request enters; columns: where it is answered. Empty: not measured." }
        (pictures::heat_map(nodes, value))
        @if !cut.is_empty() { p { "Not answering: " (cut.join(", ")) "." } }
        @for (node, why) in &matrix.unread { p { (node) " did not say what it measured: " (why) } }
    };
    pictures::page("Round trips between nodes", &body)
}

#[cfg(test)]
mod tests {
    use super::super::tests::three;
    use super::*;

    #[test]
    fn every_pair_is_on_the_page() {
        let page = page(&three(), Quantile::P50);
        for part in ["1.1<", "250<", "node1 to node3", "node3 did not say what it measured: late"] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
}
