//! The fleet file: nodes, links, a service, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use placement::latency::{PairState, PairStats};
use placement::{LatencyMatrix, NodeName};
use serde::Deserialize;
use thiserror::Error;

/// The fleet that ships with this program.
pub(crate) const COAST: &str = include_str!("../fleets/coast.toml");

/// A fleet and the decisions to make about it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fleet {
    pub(crate) service: Service,
    pub(crate) nodes: Vec<Node>,
    #[serde(default)]
    links: Vec<Link>,
    pub(crate) decisions: Vec<Moment>,
}

/// What has to run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// Requests in flight that one replica serves.
    pub(crate) requests_per_replica: f64,
    /// Replicas that run before the first decision.
    #[serde(default)]
    pub(crate) running: BTreeMap<String, u32>,
}

/// Where it can run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Replicas of the service that fit here.
    pub(crate) room: u32,
}

/// The round trip between two nodes, the same both ways.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    between: [String; 2],
    #[serde(default)]
    rtt_ms: Option<f64>,
    #[serde(default)]
    loss_ratio: f64,
    #[serde(default)]
    state: LinkState,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LinkState {
    #[default]
    Known,
    Stale,
    Unreachable,
}

/// What holds when a decision is made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Moment {
    pub(crate) title: String,
    /// Seconds since the beginning of the story.
    pub(crate) at_seconds: f64,
    /// Requests in flight by the node that they enter.
    pub(crate) demand: BTreeMap<String, f64>,
    /// Nodes that do not answer.
    #[serde(default)]
    pub(crate) not_ready: BTreeSet<String>,
    /// Nodes that take no new replicas.
    #[serde(default)]
    pub(crate) cordoned: BTreeSet<String>,
}

/// Why a file is no fleet.
#[derive(Debug, Error)]
pub(crate) enum FleetError {
    #[error("failed to read the fleet file {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("failed to understand the fleet file {name}")]
    Parse { name: String, source: toml::de::Error },
    #[error("failed to understand the fleet file: {place} names node {node}, which is not among its nodes")]
    UnknownNode { place: String, node: String },
    #[error("failed to understand the fleet file: the link between {one} and {other} needs rtt_ms, unless it is unreachable")]
    NoRoundTrip { one: String, other: String },
    #[error("failed to understand the fleet file: rtt_ms or loss_ratio of the link between {one} and {other} cannot be true")]
    Incredible { one: String, other: String },
    #[error(transparent)]
    Matrix(#[from] placement::latency::MatrixError),
}

impl Fleet {
    pub(crate) fn from_file(path: &Path) -> Result<Self, FleetError> {
        let text = std::fs::read_to_string(path).map_err(|source| FleetError::Read { path: path.to_owned(), source })?;
        Self::from_text(&text, &path.display().to_string())
    }

    pub(crate) fn from_text(text: &str, name: &str) -> Result<Self, FleetError> {
        let fleet: Self = toml::from_str(text).map_err(|source| FleetError::Parse { name: name.to_owned(), source })?;
        let nodes: BTreeSet<&str> = fleet.nodes.iter().map(|node| node.name.as_str()).collect();
        let known = |place: String, node: &String| {
            if nodes.contains(node.as_str()) { Ok(()) } else { Err(FleetError::UnknownNode { place, node: node.clone() }) }
        };
        for node in fleet.service.running.keys() {
            known("service.running".to_owned(), node)?;
        }
        for node in fleet.links.iter().flat_map(|link| &link.between) {
            known("a link".to_owned(), node)?;
        }
        for moment in &fleet.decisions {
            for node in moment.demand.keys().chain(&moment.not_ready).chain(&moment.cordoned) {
                known(format!("decision {:?}", moment.title), node)?;
            }
        }
        Ok(fleet)
    }

    pub(crate) fn node_names(&self) -> Vec<NodeName> {
        self.nodes.iter().map(|node| NodeName::from(node.name.as_str())).collect()
    }

    /// Measurements -> matrix. What no link names stays unknown.
    pub(crate) fn matrix(&self) -> Result<LatencyMatrix, FleetError> {
        let mut matrix = LatencyMatrix::new(self.node_names())?;
        for link in &self.links {
            let [one, other] = &link.between;
            let stats = || {
                let rtt_ms = link.rtt_ms.ok_or_else(|| FleetError::NoRoundTrip { one: one.clone(), other: other.clone() })?;
                let stats = PairStats { loss_ratio: link.loss_ratio, ..PairStats::constant(rtt_ms / 1000.0) };
                if stats.is_credible() {
                    Ok(stats)
                } else {
                    Err(FleetError::Incredible { one: one.clone(), other: other.clone() })
                }
            };
            let state = match link.state {
                LinkState::Known => PairState::Known(stats()?),
                LinkState::Stale => PairState::Stale(stats()?),
                LinkState::Unreachable => PairState::Unreachable,
            };
            matrix.set_symmetric(&one.as_str().into(), &other.as_str().into(), state)?;
        }
        Ok(matrix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        service = { name = "s", requests_per_replica = 10.0 }
        nodes = [{ name = "a", room = 1 }, { name = "b", room = 1 }]
        decisions = [{ title = "t", at_seconds = 0.0, demand = { a = 1.0 } }]
    "#;

    #[test]
    fn a_pair_that_no_link_names_is_unknown_and_not_zero() {
        let fleet = Fleet::from_text(SMALL, "small").unwrap();
        assert_eq!(fleet.matrix().unwrap().state(&"a".into(), &"b".into()), PairState::Unknown);
    }

    #[test]
    fn a_node_that_does_not_exist_is_named_with_its_place() {
        let text = SMALL.replace("demand = { a", "demand = { z");
        let error = Fleet::from_text(&text, "small").unwrap_err().to_string();
        assert_eq!(error, r#"failed to understand the fleet file: decision "t" names node z, which is not among its nodes"#);
    }

    #[test]
    fn a_round_trip_that_cannot_be_true_is_refused() {
        let link = |link: &str| {
            let text = format!("{SMALL}\n[[links]]\nbetween = [\"a\", \"b\"]\n{link}\n");
            Fleet::from_text(&text, "small").unwrap().matrix()
        };
        assert!(link("rtt_ms = 1.0").is_ok());
        assert!(link(r#"state = "unreachable""#).is_ok());
        assert!(matches!(link("rtt_ms = -1.0"), Err(FleetError::Incredible { .. })));
        assert!(matches!(link("rtt_ms = 1.0\nloss_ratio = 2.0"), Err(FleetError::Incredible { .. })));
        assert!(matches!(link(r#"state = "stale""#), Err(FleetError::NoRoundTrip { .. })));
    }
}
