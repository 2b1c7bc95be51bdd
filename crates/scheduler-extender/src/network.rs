//! The network as scores see it: costs of pairs and where nodes are. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use latency_matrix::{NodeName, Rtt};
use placement::CostMatrix;

use crate::wire::before_score;

/// The label of a node's zone.
pub(crate) const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The label of a node's region.
pub(crate) const REGION_LABEL: &str = "topology.kubernetes.io/region";

/// What a round trip between two nodes takes, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    /// So many seconds.
    Seconds(f64),
    /// The nodes do not reach each other.
    Unreachable,
    /// Nothing is known.
    Unknown,
}

/// All nodes by position, with what lies between them.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    costs: CostMatrix,
    names: Arc<Vec<NodeName>>,
    /// By position: the begin of an entry in an answer, so that no name is written as JSON twice.
    before_scores: Vec<Box<str>>,
    /// Pairs that do not answer, which cost as much as those that are not known.
    unreachable: HashSet<(u32, u32)>,
    zones: BTreeMap<String, Vec<usize>>,
    regions: BTreeMap<String, Vec<usize>>,
    index: HashMap<String, usize, ahash::RandomState>,
}

impl Default for Network {
    fn default() -> Self {
        Self::new(CostMatrix::from_row_major(Vec::new(), Vec::new()), [], |_| BTreeMap::new())
    }
}

impl Network {
    /// From costs, the pairs of positions that do not answer, and the labels of a node.
    pub(crate) fn new(
        costs: CostMatrix,
        unreachable: impl IntoIterator<Item = (usize, usize)>,
        labels: impl Fn(&str) -> BTreeMap<String, String>,
    ) -> Self {
        let (mut zones, mut regions) = (BTreeMap::<String, Vec<usize>>::new(), BTreeMap::<String, Vec<usize>>::new());
        let mut index = HashMap::with_capacity_and_hasher(costs.nodes().len(), ahash::RandomState::default());
        for (position, node) in costs.nodes().iter().enumerate() {
            index.insert(node.as_str().to_owned(), position);
            let mut labels = labels(node.as_str());
            for (label, places) in [(ZONE_LABEL, &mut zones), (REGION_LABEL, &mut regions)] {
                if let Some(place) = labels.remove(label) {
                    places.entry(place).or_default().push(position);
                }
            }
        }
        let narrow = |position: usize| u32::try_from(position).unwrap_or(u32::MAX);
        let unreachable = unreachable.into_iter().map(|(from, to)| (narrow(from), narrow(to))).collect();
        let names = Arc::new(costs.nodes().to_vec());
        let before_scores = names.iter().map(|name| before_score(name.as_str())).collect();
        Self { costs, names, before_scores, unreachable, zones, regions, index }
    }

    /// Number of nodes.
    pub(crate) fn size(&self) -> usize {
        self.costs.nodes().len()
    }

    /// The names by position, to be kept.
    pub(crate) fn names(&self) -> Arc<Vec<NodeName>> {
        self.names.clone()
    }

    /// What an answer says of a node at a position, up to its score.
    pub(crate) fn before_score(&self, position: usize) -> Option<&str> {
        self.before_scores.get(position).map(|text| &**text)
    }

    /// Position of a node.
    pub(crate) fn position(&self, node: &str) -> Option<usize> {
        self.index.get(node).copied()
    }

    /// Positions of the nodes of a zone.
    pub(crate) fn zone(&self, zone: &str) -> &[usize] {
        self.zones.get(zone).map_or(&[], Vec::as_slice)
    }

    /// Positions of the nodes of a region.
    pub(crate) fn region(&self, region: &str) -> &[usize] {
        self.regions.get(region).map_or(&[], Vec::as_slice)
    }

    /// What is known of a pair of positions. A round trip is the same loop in both directions.
    pub(crate) fn way(&self, from: usize, to: usize) -> Way {
        let seconds = self.costs.at(from, to);
        if seconds < Rtt::ABSURD.seconds() {
            return Way::Seconds(seconds);
        }
        let pair = (u32::try_from(from).unwrap_or(u32::MAX), u32::try_from(to).unwrap_or(u32::MAX));
        if self.unreachable.contains(&pair) { Way::Unreachable } else { Way::Unknown }
    }
}
