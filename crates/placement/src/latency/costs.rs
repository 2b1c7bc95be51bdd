//! Costs of pairs in either form: one number a pair, or by site.

use std::collections::HashMap;
use std::sync::Arc;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::latency::CostMatrix;
use crate::latency::SiteCosts;
use latency_matrix::{NodeName, Rtt};

/// What a problem knows of its network: a [`CostMatrix`], or [`SiteCosts`], which take
/// `sites x sites + nodes` numbers where a matrix takes `nodes x nodes`. Clones share the numbers.
///
/// ```
/// use placement::{Demand, NodeCapacity, NodeName, Problem};
/// use placement::latency::SiteCosts;
///
/// // Two sites 30 ms apart, two nodes in each.
/// let nodes: Vec<NodeName> = ["a1", "a2", "b1", "b2"].map(NodeName::from).to_vec();
/// let between = ndarray::array![[0.0002, 0.030], [0.030, 0.0002]];
/// let costs = SiteCosts::new(nodes.clone(), vec![0, 0, 1, 1], between, vec![0.0; 4]);
/// let plan = Problem::new("hello", costs, 1, 10.0)
///     .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 1)))
///     .with_demand(Demand::from_concurrency([("b2".into(), 4.0)])?)
///     .solve()?;
/// assert_eq!(plan.replicas_on(&"b2".into()), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
#[serde(from = "Form", into = "Form")]
pub struct Costs(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Dense(CostMatrix),
    Sites(Arc<Located>),
}

/// Costs by site, and where each node is in them.
#[derive(Debug, PartialEq)]
struct Located {
    costs: SiteCosts,
    index: HashMap<NodeName, usize>,
    /// The nodes by site, those with the least access term first.
    order: Vec<u32>,
}

/// Where some nodes are in costs; beyond the list where these are not known.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    positions: Vec<u32>,
    /// Whether they are all nodes, in order.
    in_place: bool,
}

impl Columns {
    /// Each node's position; beyond the list where it is not known.
    pub(crate) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Those of some of the nodes.
    pub(crate) fn pick(&self, members: &[usize]) -> Self {
        Self { positions: members.iter().map(|node| self.positions[*node]).collect(), in_place: false }
    }
}

/// As they are written: in the form that they have.
#[derive(Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
#[serde(untagged)]
enum Form {
    Sites(SiteCosts),
    Dense(CostMatrix),
}

impl From<Form> for Costs {
    fn from(form: Form) -> Self {
        match form {
            Form::Sites(costs) => costs.into(),
            Form::Dense(costs) => costs.into(),
        }
    }
}

impl From<Costs> for Form {
    fn from(costs: Costs) -> Self {
        match costs.0 {
            Kind::Sites(located) => Self::Sites(located.costs.clone()),
            Kind::Dense(costs) => Self::Dense(costs),
        }
    }
}

impl From<CostMatrix> for Costs {
    fn from(costs: CostMatrix) -> Self {
        Self(Kind::Dense(costs))
    }
}

impl From<SiteCosts> for Costs {
    fn from(costs: SiteCosts) -> Self {
        let mut index = HashMap::with_capacity(costs.nodes().len());
        for (position, node) in costs.nodes().iter().enumerate() {
            index.entry(node.clone()).or_insert(position);
        }
        let (sites, access) = (costs.sites(), costs.access());
        let mut order: Vec<u32> = (0..u32::try_from(costs.nodes().len()).unwrap_or(u32::MAX)).collect();
        order.sort_unstable_by(|one, other| {
            let (one, other) = (*one as usize, *other as usize);
            sites[one].cmp(&sites[other]).then(access[one].total_cmp(&access[other])).then(one.cmp(&other))
        });
        Self(Kind::Sites(Arc::new(Located { costs, index, order })))
    }
}

impl Costs {
    /// The nodes; positions in this list stand for them.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        self.either(CostMatrix::nodes, SiteCosts::nodes)
    }

    /// The position of a node; none where its costs are not known.
    pub fn position(&self, node: impl AsRef<str>) -> Option<usize> {
        match &self.0 {
            Kind::Dense(costs) => costs.position(node),
            Kind::Sites(located) => located.index.get(node.as_ref()).copied(),
        }
    }

    /// The cost of an ordered pair of positions in seconds; that of an unknown pair for a position
    /// beyond the list.
    #[must_use]
    pub fn at(&self, from: usize, to: usize) -> f64 {
        self.either(|dense| dense.at(from, to), |sites| sites.seconds(from, to))
    }

    /// The cost of an ordered pair in seconds; that of an unknown pair where a node is not known; 0
    /// from a node to itself.
    #[must_use]
    pub fn seconds(&self, from: &NodeName, to: &NodeName) -> f64 {
        match (self.position(from), self.position(to)) {
            _ if from == to => 0.0,
            (Some(from), Some(to)) => self.at(from, to),
            _ => Rtt::ABSURD.seconds(),
        }
    }

    /// What these costs are asked, in the form that they have.
    pub(crate) fn either<'a, T>(&'a self, dense: impl FnOnce(&'a CostMatrix) -> T, sites: impl FnOnce(&'a SiteCosts) -> T) -> T {
        match &self.0 {
            Kind::Dense(costs) => dense(costs),
            Kind::Sites(located) => sites(&located.costs),
        }
    }

    /// Whether two are clones of one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Dense(one), Kind::Dense(other)) => one.is_same(other),
            (Kind::Sites(one), Kind::Sites(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Costs by site, where the cost of any pair is the sum of its terms, and the nodes by site,
    /// those with the least access term first.
    pub(crate) fn by_site(&self) -> Option<(&SiteCosts, &[u32])> {
        match &self.0 {
            Kind::Sites(located) if located.costs.cut().is_empty() && !located.costs.tops() => {
                Some((&located.costs, &located.order))
            }
            _ => None,
        }
    }

    /// Where these nodes are in the costs.
    pub(crate) fn columns(&self, nodes: &[&NodeName]) -> Columns {
        let (known, whole) = (self.nodes(), self.is_plain());
        let mut next = 0;
        let positions: Vec<u32> = (nodes.iter())
            .map(|node| {
                // Lists of nodes are usually in the same order.
                let at =
                    if whole && known.get(next).is_some_and(|known| known == *node) { Some(next) } else { self.position(node) };
                next = at.map_or(next, |at| at + 1);
                at.map_or(u32::MAX, |at| u32::try_from(at).unwrap_or(u32::MAX))
            })
            .collect();
        let in_place = positions.len() == known.len() && positions.iter().enumerate().all(|(at, column)| at == *column as usize);
        Columns { positions, in_place }
    }

    /// Whether every node has a position, its own.
    fn is_plain(&self) -> bool {
        match &self.0 {
            Kind::Dense(costs) => costs.is_plain(),
            Kind::Sites(located) => located.index.len() == located.costs.nodes().len(),
        }
    }

    /// The costs from a source to the nodes of `columns`; `own` is the source's place among them.
    pub(crate) fn row<'a>(
        &'a self,
        source: &NodeName,
        columns: &Columns,
        own: impl FnOnce() -> Option<usize>,
        row: &'a mut Vec<f64>,
    ) -> &'a [f64] {
        let from = self.position(source);
        match (&self.0, from) {
            (Kind::Dense(costs), Some(from)) if columns.in_place => return costs.row(from),
            (Kind::Dense(costs), Some(from)) => {
                let known = costs.row(from);
                row.clear();
                let cost = |column: &u32| known.get(*column as usize).copied().unwrap_or(Rtt::ABSURD.seconds());
                row.extend(columns.positions.iter().map(cost));
            }
            (Kind::Sites(located), Some(from)) => located.costs.fill_row(from, &columns.positions, row),
            (_, None) => {
                row.clear();
                row.resize(columns.positions.len(), Rtt::ABSURD.seconds());
                if let Some(own) = own() {
                    row[own] = 0.0;
                }
            }
        }
        row
    }

    /// The costs of the given pairs of nodes as an array, rows are the sources.
    pub(crate) fn select(&self, sources: &[&NodeName], targets: &[&NodeName]) -> Array2<f64> {
        let located = match &self.0 {
            Kind::Dense(costs) => return costs.select(sources, targets),
            Kind::Sites(located) => located,
        };
        let columns: Vec<usize> = targets.iter().map(|node| self.position(node).unwrap_or(usize::MAX)).collect();
        let mut selected = Array2::from_elem((sources.len(), targets.len()), Rtt::ABSURD.seconds());
        for (mut row, source) in selected.rows_mut().into_iter().zip(sources) {
            if let Some(from) = self.position(source) {
                for (cost, to) in row.iter_mut().zip(&columns) {
                    *cost = located.costs.seconds(from, *to);
                }
            } else if let Some(own) = targets.iter().position(|target| target == source) {
                row[own] = 0.0;
            }
        }
        selected
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Demand, NodeCapacity, Problem};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn plans_by_site_are_those_of_the_whole_matrix(
            sites in prop::collection::vec(0..4_usize, 8),
            between in prop::collection::vec(prop_oneof![8 => 0.0002..0.1_f64, 1 => Just(f64::INFINITY), 1 => Just(f64::NAN)], 9),
            access in prop::collection::vec(-0.001..0.002_f64, 8),
            demands in prop::collection::vec(0.0..9.0_f64, 8),
            cut in (0..8_usize, 0..8_usize),
            replicas in 1..5_u32,
        ) {
            let names: Vec<NodeName> = (0..8).map(|node| NodeName::new(format!("n{node}"))).collect();
            let known = names[..7].to_vec();
            let factored = SiteCosts::new(known.clone(), sites, Array2::from_shape_vec((3, 3), between).unwrap(), access).without([cut]);
            let dense = CostMatrix::new(known, Array2::from_shape_fn((7, 7), |(from, to)| factored.seconds(from, to)));
            // Of the last node nothing is known.
            let problem = |costs: Costs| {
                Problem::new("any", costs, replicas, 10.0)
                    .with_capacities(names.iter().map(|node| NodeCapacity::new(node.clone(), 2)))
                    .with_demand(Demand::from_concurrency(names.iter().cloned().zip(demands.iter().copied())).unwrap())
            };
            let (by_site, whole) = (problem(factored.into()), problem(dense.into()));
            prop_assert_eq!(by_site.solve().unwrap(), whole.solve().unwrap());
            for problem in [by_site, whole] {
                let text = serde_json::to_string(&problem).unwrap();
                prop_assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
            }
        }
    }
}
