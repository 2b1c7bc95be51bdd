//! Costs between regions and zones from tables that an operator wrote.

use std::collections::BTreeMap;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// The cost of a pair without an entry in the tables.
pub const MAX_COST: f64 = 100.0;
/// What a pair inside one zone costs.
pub const SAME_ZONE_COST: f64 = 1.0;

/// Where a node is; empty where it carries no such label.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Its region (`topology.kubernetes.io/region`).
    pub region: String,
    /// Its zone (`topology.kubernetes.io/zone`).
    pub zone: String,
}

/// An entry of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableCost {
    /// Region or zone of the pod that calls.
    pub origin: String,
    /// Region or zone of the pod that is called.
    pub destination: String,
    /// The cost, without unit; not negative.
    pub cost: f64,
}

/// Costs between nodes by region and zone, with the meaning that the network-aware scheduler
/// plugins of Kubernetes give them: 0 on the same node, 1 in the same zone, what the zone table
/// says within a region, what the region table says between regions, and 100 where they say nothing
/// or the pod that is called is on a node without region and zone.
///
/// ```
/// use placement::score::{Place, TableCost, TopologyCosts};
///
/// let place = |region: &str, zone: &str| Place { region: region.into(), zone: zone.into() };
/// let entry = |origin: &str, destination: &str, cost| TableCost {
///     origin: origin.into(),
///     destination: destination.into(),
///     cost,
/// };
/// let costs = TopologyCosts::new(
///     &[place("west", "z1"), place("west", "z1"), place("west", "z2"), place("east", "z3")],
///     &[entry("west", "east", 20.0)],
///     &[entry("z1", "z2", 5.0)],
/// );
/// let from_first: Vec<_> = (0..4).map(|to| costs.cost(0, to)).collect();
/// assert_eq!(from_first, [Some(0.0), Some(1.0), Some(5.0), Some(20.0)]);
/// assert_eq!(costs.cost(3, 0), None); // no entry for this direction
/// ```
#[derive(Clone, Debug)]
pub struct TopologyCosts {
    /// The place of each node.
    places: Vec<usize>,
    /// Costs between places; NaN where the tables have no entry.
    between: Array2<f64>,
    /// Per place: whether it has a name.
    named: Vec<bool>,
}

impl TopologyCosts {
    /// From the place of each node and the two tables. A later entry for a pair replaces an earlier
    /// one; a cost that is negative or not finite is no entry.
    #[must_use]
    pub fn new(nodes: &[Place], regions: &[TableCost], zones: &[TableCost]) -> Self {
        let table = |entries: &[TableCost]| -> BTreeMap<(String, String), f64> {
            let sound = entries.iter().filter(|entry| entry.cost.is_finite() && entry.cost >= 0.0);
            sound.map(|entry| ((entry.origin.clone(), entry.destination.clone()), entry.cost)).collect()
        };
        let (regions, zones) = (table(regions), table(zones));
        let mut index: BTreeMap<&Place, usize> = BTreeMap::new();
        let mut distinct: Vec<&Place> = Vec::new();
        let places = (nodes.iter())
            .map(|place| {
                *index.entry(place).or_insert_with(|| {
                    distinct.push(place);
                    distinct.len() - 1
                })
            })
            .collect();
        let between = Array2::from_shape_fn((distinct.len(), distinct.len()), |(from, to)| {
            let (from, to) = (distinct[from], distinct[to]);
            let entry = |table: &BTreeMap<(String, String), f64>, one: &str, other: &str| {
                table.get(&(one.to_owned(), other.to_owned())).copied().unwrap_or(f64::NAN)
            };
            if to.region.is_empty() && to.zone.is_empty() {
                f64::NAN
            } else if from.region != to.region {
                entry(&regions, &from.region, &to.region)
            } else if from.zone == to.zone {
                SAME_ZONE_COST
            } else {
                entry(&zones, &from.zone, &to.zone)
            }
        });
        let named = distinct.iter().map(|place| !(place.region.is_empty() && place.zone.is_empty())).collect();
        Self { places, between, named }
    }

    /// The cost of a pair of nodes by their positions; `None` where the tables have no entry, or
    /// for a position beyond the list.
    #[must_use]
    pub fn cost(&self, from: usize, to: usize) -> Option<f64> {
        if from == to {
            return Some(0.0);
        }
        let (from, to) = (*self.places.get(from)?, *self.places.get(to)?);
        Some(self.between[(from, to)]).filter(|cost| !cost.is_nan())
    }

    /// Whether two nodes are in the same zone of the same region.
    pub(crate) fn same_zone(&self, from: usize, to: usize) -> bool {
        match (self.places.get(from), self.places.get(to)) {
            (Some(from), Some(to)) => from == to && self.named[*from],
            _ => false,
        }
    }

    pub(crate) fn places(&self) -> &[usize] {
        &self.places
    }

    /// Between places, [`MAX_COST`] where the tables have no entry.
    pub(crate) fn between(&self, from: usize, to: usize) -> f64 {
        let cost = self.between[(from, to)];
        if cost.is_nan() { MAX_COST } else { cost }
    }

    pub(crate) fn distinct(&self) -> usize {
        self.between.nrows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_labels_and_spoilt_entries_are_unknown() {
        let place = |region: &str, zone: &str| Place { region: region.into(), zone: zone.into() };
        let entry = |cost| TableCost { origin: "a".into(), destination: "b".into(), cost };
        let nodes = [place("a", ""), place("b", ""), Place::default(), Place::default()];
        for cost in [f64::NAN, -1.0, f64::INFINITY] {
            assert_eq!(TopologyCosts::new(&nodes, &[entry(cost)], &[]).cost(0, 1), None);
        }
        let costs = TopologyCosts::new(&nodes, &[entry(3.0)], &[]);
        assert_eq!(costs.cost(0, 1), Some(3.0));
        // Two nodes without labels are not in the same zone.
        assert_eq!(costs.cost(2, 3), None);
        assert_eq!(costs.cost(0, 3), None);
    }
}
