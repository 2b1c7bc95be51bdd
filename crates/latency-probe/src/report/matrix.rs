//! `latency-probe matrix`: the rows of several probers as a table or a heat map. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use latency_matrix::{NodeName, PeerRow, Row, StateKind};

/// A matrix of rows.
#[derive(Clone, Debug)]
pub struct Matrix<'a> {
    rows: &'a [Row],
    nodes: Vec<&'a NodeName>,
}

impl<'a> Matrix<'a> {
    /// All nodes in the rows, as source or target, in order of name.
    #[must_use]
    pub fn new(rows: &'a [Row]) -> Self {
        let targets = rows.iter().flat_map(|row| row.peers.iter().map(|peer| &peer.to));
        let nodes: BTreeSet<&NodeName> = rows.iter().map(|row| &row.from).chain(targets).collect();
        Self { rows, nodes: nodes.into_iter().collect() }
    }

    fn cell(&self, from: &NodeName, to: &NodeName) -> Option<&PeerRow> {
        self.rows.iter().find(|row| row.from == *from)?.peers.iter().find(|peer| peer.to == *to)
    }

    /// A table for a terminal: medians in milliseconds from the node on the left to the node above.
    /// `~` = stale, `?` = unknown, `x` = unreachable, empty = not measured by any of the probers.
    #[must_use]
    pub fn text(&self) -> String {
        let name_width = self.nodes.iter().map(|node| node.as_str().chars().count()).max().unwrap_or(0);
        let width = name_width.max(8);
        let mut text = format!("{:name_width$}", "");
        for node in &self.nodes {
            let _ = write!(text, "  {:>width$}", node.as_str());
        }
        for from in &self.nodes {
            let _ = write!(text, "\n{:name_width$}", from.as_str());
            for to in &self.nodes {
                let shown = if from == to { "-".to_owned() } else { label(self.cell(from, to)) };
                let _ = write!(text, "  {shown:>width$}");
            }
        }
        text.push('\n');
        text
    }

    /// An SVG heat map. Colour shows the logarithm of the median, from 0.1 ms to 1 s.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "pixels")]
    pub fn svg(&self) -> String {
        const CELL: usize = 56;
        const MARGIN: usize = 120;
        let size = MARGIN + CELL * self.nodes.len() + 10;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size} {size}\" width=\"{size}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <title>Round-trip times between nodes, median in ms (from the left to the top)</title>\n"
        );
        for (index, node) in self.nodes.iter().enumerate() {
            let (middle, name) = (MARGIN + index * CELL + CELL / 2, escaped(node.as_str()));
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", MARGIN - 6, middle + 4);
            let _ = writeln!(svg, "<text transform=\"translate({},{}) rotate(-60)\">{name}</text>", middle, MARGIN - 8);
        }
        for (y, from) in self.nodes.iter().enumerate() {
            for (x, to) in self.nodes.iter().enumerate().filter(|(x, _)| *x != y) {
                let cell = self.cell(from, to);
                let (left, top) = (MARGIN + x * CELL, MARGIN + y * CELL);
                let colour = cell.and_then(|peer| peer.rtt_seconds).map_or_else(|| "#dddddd".to_owned(), |rtt| colour(rtt.p50));
                let _ = writeln!(
                    svg,
                    "<rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{}\" fill=\"{colour}\"><title>{} to {}</title></rect>\
                     <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    CELL - 2,
                    CELL - 2,
                    escaped(from.as_str()),
                    escaped(to.as_str()),
                    left as f64 + CELL as f64 / 2.0 - 1.0,
                    top + CELL / 2 + 3,
                    escaped(&label(cell)),
                );
            }
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// An HTML page with the heat map.
    #[must_use]
    pub fn html(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Latency between nodes</title>\n<h1>Latency between nodes</h1>\n\
             <p>Median round-trip time in milliseconds, from the node on the left to the node above. ~ stale, ? not known, x unreachable.</p>\n{}</html>\n",
            self.svg()
        )
    }
}

fn label(cell: Option<&PeerRow>) -> String {
    let Some(peer) = cell else { return String::new() };
    match (peer.rtt_seconds, peer.state) {
        (Some(rtt), StateKind::Stale) => format!("~{:.2}", rtt.p50 * 1e3),
        (Some(rtt), _) => format!("{:.2}", rtt.p50 * 1e3),
        (None, StateKind::Unreachable) => "x".to_owned(),
        (None, _) => "?".to_owned(),
    }
}

/// Green for near, through yellow, to red for far.
fn colour(seconds: f64) -> String {
    let far = ((seconds.max(1e-4).log10() + 4.0) / 4.0).clamp(0.0, 1.0);
    format!("hsl({:.0},70%,65%)", 120.0 * (1.0 - far))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let text = r#"[
            {"from": "node2", "measured_at_unix_seconds": 1.5e9, "peers": [
                {"to": "node1", "state": "stale", "protocol": "udp", "jitter_seconds": 0, "loss_ratio": 0, "age_seconds": 20, "samples": 5,
                 "rtt_seconds": {"min": 0.001, "p50": 0.0012, "p90": 0.002, "p99": 0.003, "ewma": 0.0012}},
                {"to": "<node3>", "state": "unreachable", "protocol": "udp", "jitter_seconds": null, "loss_ratio": 1, "age_seconds": null,
                 "samples": 0, "rtt_seconds": null}]},
            {"from": "node1", "measured_at_unix_seconds": 1.5e9, "peers": [
                {"to": "node2", "state": "known", "protocol": "icmp", "jitter_seconds": 0, "loss_ratio": 0, "age_seconds": 1, "samples": 5,
                 "rtt_seconds": {"min": 0.05, "p50": 0.05123, "p90": 0.06, "p99": 0.07, "ewma": 0.05}},
                {"to": "<node3>", "state": "unknown", "protocol": "udp", "jitter_seconds": null, "loss_ratio": null, "age_seconds": null,
                 "samples": 0, "rtt_seconds": null}]}]"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_table_tells_each_state_apart() {
        let rows = rows();
        assert_eq!(
            Matrix::new(&rows).text(),
            "          <node3>     node1     node2\n\
             <node3>         -                    \n\
             node1           ?         -     51.23\n\
             node2           x     ~1.20         -\n"
        );
    }

    #[test]
    fn the_picture_holds_whatever_names_there_are() {
        let rows = rows();
        let html = Matrix::new(&rows).html();
        assert!(html.contains("&lt;node3&gt;") && !html.contains("<node3>") && html.contains(">51.23<"));
        assert_eq!(html.matches("<rect").count(), 6);
        assert_eq!(Matrix::new(&[]).text(), "\n");
    }

    #[test]
    fn far_is_redder_than_near() {
        assert_eq!(
            (colour(0.0).as_str(), colour(1e-4).as_str(), colour(5.0).as_str()),
            ("hsl(120,70%,65%)", "hsl(120,70%,65%)", "hsl(0,70%,65%)")
        );
    }
}
