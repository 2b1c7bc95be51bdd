//! `matrix`: the round trips between all nodes, as the probers measured them.

mod html;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use latency_matrix::{PairState, Quantile, Row};
use serde::Serialize;

use crate::cluster::Cluster;
use crate::daemons::{self, DaemonPod, PROBER, PROBER_HTTP};
use crate::error::PluginError;
use crate::known::{Known, Unread};
use crate::options::{MatrixForm, MatrixOptions};
use crate::output::{Output, clean};

/// What a prober serves.
const ROW: &str = "/v1/row";

pub(crate) async fn run(cluster: &Cluster, options: MatrixOptions, out: &mut Output<'_>) -> Result<(), PluginError> {
    let matrix = read(cluster).await?;
    match options.output {
        MatrixForm::Json => out.json(&matrix),
        MatrixForm::Csv => Ok(matrix.csv().iter().try_for_each(|line| out.line(line))?),
        MatrixForm::Html => Ok(out.page(&html::page(&matrix, options.stat.into()))?),
        MatrixForm::Text => {
            let lines = text::lines(&matrix, options.stat.into(), out.is_terminal && std::env::var_os("NO_COLOR").is_none());
            Ok(lines.iter().try_for_each(|line| out.coloured(line))?)
        }
    }
}

/// Asks every prober for its row.
pub(crate) async fn read(cluster: &Cluster) -> Result<Matrix, PluginError> {
    let pods = daemons::pods(cluster, PROBER).await?;
    if pods.is_empty() {
        let says = format!("there is no pod of {PROBER} in namespace {}", cluster.system);
        return Err(PluginError::Nobody { doing: "read the matrix".to_owned(), says });
    }
    Ok(Matrix::of(daemons::ask_each(cluster, &pods, PROBER_HTTP, ROW).await))
}

/// What all probers measured.
#[derive(Debug, Serialize)]
pub(crate) struct Matrix {
    /// All nodes, in name order.
    nodes: Vec<String>,
    /// What each prober measured.
    rows: Vec<Row>,
    /// Nodes whose prober gave no row, and why.
    unread: BTreeMap<String, Unread>,
    #[serde(skip)]
    pairs: BTreeMap<(String, String), PairState>,
}

impl Matrix {
    fn of(answers: Vec<(DaemonPod, Known<String>)>) -> Self {
        let (mut rows, mut unread) = (Vec::new(), BTreeMap::new());
        for (pod, page) in answers {
            let row =
                page.and_then(|page| serde_json::from_str::<Row>(&page).map_err(|error| Unread::because(error.to_string())));
            match row {
                Ok(row) => rows.push(row),
                Err(why) => drop(unread.insert(if pod.node.is_empty() { pod.name } else { pod.node }, why)),
            }
        }
        // While a prober is replaced there are two on a node, and one of them may be silent.
        unread.retain(|node, _| rows.iter().all(|row: &Row| row.from.as_str() != node));
        let named = rows.iter().flat_map(|row| row.peers.iter().map(|peer| &peer.to).chain([&row.from]));
        let nodes: BTreeSet<String> = named.map(ToString::to_string).chain(unread.keys().cloned()).collect();
        let pairs = rows
            .iter()
            .flat_map(|row| row.peers.iter().map(|peer| ((row.from.to_string(), peer.to.to_string()), peer.pair_state())));
        Self { nodes: nodes.into_iter().collect(), pairs: pairs.collect(), rows, unread }
    }

    /// What is known of the way from one node to another.
    fn state(&self, from: &str, to: &str) -> PairState {
        self.pairs.get(&(from.to_owned(), to.to_owned())).copied().unwrap_or_default()
    }

    /// In milliseconds, where known or stale.
    fn milliseconds(&self, from: &str, to: &str, quantile: Quantile) -> Option<f64> {
        self.state(from, to).stats().map(|stats| stats.quantile(quantile) * 1000.0)
    }

    fn csv(&self) -> Vec<String> {
        let head = "from,to,state,rtt_min_ms,rtt_p50_ms,rtt_p90_ms,rtt_p99_ms,jitter_ms,loss_ratio,age_seconds,samples";
        let mut lines = vec![head.to_owned()];
        for from in &self.nodes {
            for to in self.nodes.iter().filter(|to| *to != from) {
                let state = self.state(from, to);
                let name = match state {
                    PairState::Known(_) => "known",
                    PairState::Stale(_) => "stale",
                    PairState::Unknown => "unknown",
                    PairState::Unreachable => "unreachable",
                };
                let numbers = match state.stats() {
                    None => ",,,,,,,".to_owned(),
                    Some(stats) => {
                        let times = [stats.min, stats.p50, stats.p90, stats.p99, stats.jitter].map(|seconds| seconds * 1000.0);
                        let times = times.map(|time| format!("{time:.3}")).join(",");
                        format!("{times},{},{:.1},{}", stats.loss_ratio, stats.age_seconds, stats.samples)
                    }
                };
                lines.push(format!("{},{},{name},{numbers}", csv_field(from), csv_field(to)));
            }
        }
        lines
    }
}

/// A field that no reader of CSV takes for several, or for a formula.
fn csv_field(text: &str) -> String {
    let text = clean(text);
    let is_plain = text.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_'));
    if is_plain && !text.starts_with('-') { text.into_owned() } else { format!("\"'{}\"", text.replace('"', "\"\"")) }
}

impl Output<'_> {
    /// A page of ours, in which every text of others is escaped.
    fn page(&mut self, page: &str) -> io::Result<()> {
        page.lines().try_for_each(|line| self.line(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three nodes, of which the third did not answer.
    pub(super) fn three() -> Matrix {
        let pod = |node: &str| DaemonPod {
            name: format!("latency-probe-{node}"),
            node: node.to_owned(),
            is_ready: true,
            is_started: true,
        };
        let peer = |to: &str, seconds: f64| {
            format!(
                r#"{{"to":"{to}","state":"known","age_seconds":0.4,"samples":30,"loss_ratio":0.0,"jitter_seconds":0.0001,
                "rtt_seconds":{{"min":{seconds},"p50":{seconds},"p90":{seconds},"p99":{seconds},"ewma":{seconds}}}}}"#
            )
        };
        let far = r#"{"to":"node3","state":"unreachable","loss_ratio":1.0}"#;
        let row = |from: &str, peers: &str| Ok(format!(r#"{{"from":"{from}","peers":[{peers}]}}"#));
        Matrix::of(vec![
            (pod("node1"), row("node1", &format!("{},{far}", peer("node2", 0.0011)))),
            (pod("node2"), row("node2", &format!("{},{}", peer("node1", 0.0012), peer("node3", 0.25)))),
            (pod("node3"), Err(Unread::because("late"))),
        ])
    }

    #[test]
    fn who_did_not_answer_is_a_node_of_which_nothing_is_known() {
        let matrix = three();
        assert_eq!(matrix.nodes, ["node1", "node2", "node3"]);
        assert_eq!(matrix.state("node3", "node1"), PairState::Unknown);
        assert_eq!(matrix.unread["node3"], Unread::because("late"));
        let csv = matrix.csv();
        assert_eq!(csv.len(), 7);
        assert_eq!(csv[1], "node1,node2,known,1.100,1.100,1.100,1.100,0.100,0,0.4,30");
        assert_eq!(csv[2], "node1,node3,unreachable,,,,,,,,");
        assert_eq!(csv[5], "node3,node1,unknown,,,,,,,,");
        assert!(csv.iter().all(|line| line.matches(',').count() == csv[0].matches(',').count()), "{csv:?}");
    }

    #[test]
    fn names_that_are_formulas_stay_text() {
        assert_eq!(csv_field("node-1.east"), "node-1.east");
        assert_eq!(csv_field("=cmd|a"), "\"'=cmd|a\"");
        assert_eq!(csv_field("a,\"b"), "\"'a,\"\"b\"");
        assert_eq!(csv_field("-1+2"), "\"'-1+2\"");
    }
}
