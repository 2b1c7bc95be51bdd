//! Routing weights of large clusters without a matrix of them.
//!
//! Where costs are factored by site, so are inverse-response-time weights: all sources of a site
//! that add about the same to their round trips see about the same response times, but for a
//! replica on their own node. One row for each such class of sources and one sum per source say
//! everything; a row that is measured for itself replaces the factored one.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{Array2, Axis};

use super::apportion::{WHOLE, apportion, apportion_of, sum};
use crate::latency::{SiteCosts, join};
use crate::solver::flow::UNSERVED_SECONDS;
use crate::solver::tie::{mix, stable_hash};
use latency_matrix::NodeName;

/// Sources are alike whose common part of all responses differs by less than this factor.
const LIKE: f64 = 1.1;

/// Inverse-response-time weights (see [`crate::WeightMatrix::inverse_response_time`]) over
/// [`SiteCosts`]. What a source adds to all its round trips counts as what the sources like it add
/// on average: theirs and the serving time together are within a tenth of each other.
///
/// ```
/// use placement::latency::SiteCosts;
/// use placement::routing::FactoredWeights;
///
/// let costs = SiteCosts::new(
///     ["a1", "a2", "b1"].map(Into::into).to_vec(),
///     vec![0, 0, 1],
///     ndarray::array![[0.0, 0.030], [0.030, 0.0]],
///     vec![0.0; 3],
/// );
/// let serving = ["a1", "b1"].map(Into::into).into();
/// let mut weights = FactoredWeights::new(&costs, &serving, 0.010);
/// assert_eq!(weights.row(1), [80, 0, 20]); // from a2: 1/10 ms against 1/40 ms
/// // a2 measures for itself that both are equally far.
/// weights.set_row(1, &[0.020, 0.0, 0.020]);
/// assert_eq!(weights.row(1), [50, 0, 50]);
/// assert_eq!(weights.row(0), [80, 0, 20]);
/// ```
#[derive(Clone, Debug)]
pub struct FactoredWeights {
    /// For ties only.
    hashes: Vec<u64>,
    /// The class of each node as a source.
    classes: Vec<usize>,
    /// Per class of sources and target: 1 / response seconds, 0 where nothing runs or nothing may
    /// be sent.
    rates: Array2<f64>,
    /// Per node: the rate to itself.
    own: Vec<f64>,
    /// Per source: the sum of its rates.
    sums: Vec<f64>,
    serves: Vec<bool>,
    /// How many serve.
    serving: usize,
    serving_seconds: f64,
    measured: BTreeMap<usize, Vec<(usize, u32)>>,
}

impl FactoredWeights {
    /// The weights for sources on all nodes of `costs`, targets `with_replicas`, and the serving
    /// time of a request in seconds.
    #[must_use]
    pub fn new(costs: &SiteCosts, with_replicas: &BTreeSet<NodeName>, serving_seconds: f64) -> Self {
        let serving_seconds = serving_floor(serving_seconds);
        let nodes = costs.nodes();
        let serves: Vec<bool> = nodes.iter().map(|node| with_replicas.contains(node)).collect();
        let (sites, access, between) = (costs.sites(), costs.access(), costs.between());
        // Steps of a tenth of what is common to all responses to a source.
        let step = |access: f64| ((access + serving_seconds) / serving_seconds).log(LIKE).floor() as u32;
        let mut index: BTreeMap<(usize, u32), usize> = BTreeMap::new();
        let mut members: Vec<(usize, f64, f64)> = Vec::new();
        let mut classes: Vec<usize> = Vec::with_capacity(nodes.len());
        for (site, access) in sites.iter().zip(access) {
            let class = *index.entry((*site, step(*access))).or_insert(members.len());
            if class == members.len() {
                members.push((*site, 0.0, 0.0));
            }
            members[class].1 += access;
            members[class].2 += 1.0;
            classes.push(class);
        }
        let mut rates = Array2::zeros((members.len(), nodes.len()));
        for (mut row, (site, sum, count)) in rates.axis_iter_mut(Axis(0)).zip(&members) {
            let common = sum / count;
            for (target, rate) in row.iter_mut().enumerate() {
                if serves[target] {
                    *rate = 1.0 / (join(between[(*site, sites[target])], common + access[target]) + serving_seconds);
                }
            }
        }
        let totals: Vec<f64> = rates.axis_iter(Axis(0)).map(|row| row.as_slice().map_or(0.0, sum)).collect();
        let own: Vec<f64> = serves.iter().map(|serves| if *serves { 1.0 / serving_seconds } else { 0.0 }).collect();
        let sums = (0..nodes.len()).map(|node| totals[classes[node]] - rates[(classes[node], node)] + own[node]).collect();
        let hashes = nodes.iter().map(|node| stable_hash("", node.as_str())).collect();
        let serving = serves.iter().filter(|serves| **serves).count();
        let mut weights = Self { hashes, classes, rates, own, sums, serves, serving, serving_seconds, measured: BTreeMap::new() };
        // Sources with ways of their own that are cut.
        for source in costs.cut().iter().map(|(from, _)| *from).collect::<BTreeSet<usize>>() {
            let seconds: Vec<f64> = (0..nodes.len()).map(|target| costs.seconds(source, target)).collect();
            weights.set_row(source, &seconds);
        }
        weights
    }

    /// The share of a source's requests that goes to a target, 0 to 1; positions in the order of
    /// the costs' nodes. Where nothing can be reached, they are spread evenly over all targets, as
    /// in [`crate::WeightMatrix`]; where nothing runs, they stay. A position beyond the list has no
    /// share.
    #[must_use]
    pub fn share(&self, source: usize, target: usize) -> f64 {
        if source.max(target) >= self.classes.len() {
            return 0.0;
        }
        if let Some(row) = self.measured.get(&source) {
            let units = row.iter().find(|(position, _)| *position == target).map_or(0, |(_, units)| *units);
            return f64::from(units) / f64::from(WHOLE);
        }
        if self.sums[source] <= 0.0 {
            return match self.serving {
                0 => f64::from(u8::from(source == target)),
                serving => f64::from(u8::from(self.serves[target])) / serving as f64,
            };
        }
        let rate = if source == target { self.own[source] } else { self.rates[(self.classes[source], target)] };
        rate / self.sums[source]
    }

    /// The weights of one source as whole numbers that sum to 100, in node order; none for a
    /// position beyond the list.
    #[must_use]
    pub fn row(&self, source: usize) -> Vec<u32> {
        if source >= self.classes.len() {
            return Vec::new();
        }
        let mut row = vec![0; self.classes.len()];
        let mut set = |entries: &[(usize, u32)]| {
            for (target, units) in entries {
                row[*target] = *units;
            }
        };
        match self.measured.get(&source) {
            Some(entries) => set(entries),
            None => {
                let mut rates = self.rates.row(self.classes[source]).to_vec();
                rates[source] = self.own[source];
                set(&self.rounded(source, &rates));
            }
        }
        row
    }

    fn rounded(&self, source: usize, rates: &[f64]) -> Vec<(usize, u32)> {
        let order = |target: usize| mix(self.hashes[source] ^ self.hashes[target]);
        let sum = sum(rates);
        if sum > 0.0 {
            apportion_of(rates, sum, order)
        } else if self.serving > 0 {
            let evenly: Vec<f64> = self.serves.iter().map(|serves| f64::from(u8::from(*serves))).collect();
            apportion(&evenly, order)
        } else {
            vec![(source, WHOLE)]
        }
    }

    /// Replaces the row of one source by one of its own measured costs in seconds, in node order
    /// (infinite: nothing may be sent); all other rows stay as they are. A number that is no cost
    /// counts as unknown, and so does a missing one. A position beyond the list has no row.
    pub fn set_row(&mut self, source: usize, seconds: &[f64]) {
        if source >= self.classes.len() {
            return;
        }
        let unknown = crate::latency::Rtt::ABSURD.seconds();
        let serving = self.serving_seconds;
        let mut rates: Vec<f64> = (seconds.iter().zip(&self.own))
            .map(|(cost, own)| {
                // Selects, no branches: NaN and negative numbers cost as much as unknown, and
                // infinity gets nothing.
                let sound = if *cost >= 0.0 { *cost } else { unknown };
                let own = if sound < f64::INFINITY { *own } else { 0.0 };
                own * serving / (if sound > unknown { unknown } else { sound } + serving)
            })
            .collect();
        let missing =
            self.serves.iter().skip(rates.len()).map(|serves| if *serves { 1.0 / (unknown + self.serving_seconds) } else { 0.0 });
        rates.extend(missing);
        rates.truncate(self.own.len());
        rates[source] = self.own[source];
        let entries = self.rounded(source, &rates);
        self.measured.insert(source, entries);
    }
}

/// A node's own response time must not be zero, or nothing would ever go elsewhere; a microsecond
/// is less than any real serving time. An hour is more, and its inverse is still a number that can
/// be shared out.
pub(crate) fn serving_floor(serving_seconds: f64) -> f64 {
    if serving_seconds.is_finite() { serving_seconds.clamp(1e-6, UNSERVED_SECONDS) } else { 1e-6 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::synthetic::Random;
    use crate::{CostMatrix, WeightMatrix};

    #[test]
    fn the_same_as_the_whole_matrix() {
        let mut random = Random::new(2);
        let names: Vec<NodeName> = (0..30).map(|number| NodeName::new(format!("n{number}"))).collect();
        let sites: Vec<usize> = (0..30).map(|node| node % 4).collect();
        let between =
            Array2::from_shape_fn((4, 4), |(one, other)| if one == other { 0.0003 } else { random.between(0.001, 0.08) });
        // Without access terms of the sources, the two are the same.
        let costs = SiteCosts::new(names.clone(), sites, between, vec![0.0; 30]);
        let dense = CostMatrix::new(names.clone(), Array2::from_shape_fn((30, 30), |(from, to)| costs.seconds(from, to)));
        let with_replicas: BTreeSet<NodeName> = names.iter().step_by(3).cloned().collect();
        let factored = FactoredWeights::new(&costs, &with_replicas, 0.004);
        let whole = WeightMatrix::inverse_response_time(&names, &with_replicas, &dense, 0.004);
        let mut again = factored.clone();
        for source in 0..30 {
            let shares: f64 = (0..30).map(|target| factored.share(source, target)).sum();
            assert!((shares - 1.0).abs() < 1e-12);
            for target in 0..30 {
                let exact = 100.0 * factored.share(source, target);
                assert!((f64::from(whole.rows()[(source, target)]) - exact).abs() <= 1.0, "{source} {target}");
            }
            assert_eq!(factored.row(source).iter().sum::<u32>(), 100);
            // A measurement equal to the factored cost changes nothing.
            let seconds: Vec<f64> = (0..30).map(|target| costs.seconds(source, target)).collect();
            again.set_row(source, &seconds);
            let differences =
                again.row(source).iter().zip(factored.row(source)).map(|(one, other)| one.abs_diff(other)).sum::<u32>();
            assert!(differences <= 2, "{differences}");
        }
    }

    #[test]
    fn what_a_source_adds_to_all_its_ways_evens_them_out() {
        // 5 ms from the source to anywhere, then 1 and 10 ms, served in 1 ms.
        let names: Vec<NodeName> = ["far", "a", "b", "near"].map(NodeName::from).to_vec();
        let between = ndarray::array![[0.0, 0.001, 0.010], [0.001, 0.0, 0.01], [0.01, 0.01, 0.0]];
        let costs = SiteCosts::new(names.clone(), vec![0, 1, 2, 0], between, vec![0.005, 0.0, 0.0, 0.0]);
        let weights = FactoredWeights::new(&costs, &BTreeSet::from(["a".into(), "b".into()]), 0.001);
        assert_eq!(weights.row(0), [0, 70, 30, 0]);
        assert_eq!(weights.row(3), [0, 85, 15, 0]);
        // A way that is cut gets nothing; positions beyond the list have nothing.
        let mut cut = FactoredWeights::new(&costs.without([(0, 1)]), &BTreeSet::from(["a".into(), "b".into()]), 0.001);
        assert_eq!((cut.row(0), cut.row(3)), (vec![0, 0, 100, 0], vec![0, 85, 15, 0]));
        cut.set_row(9, &[0.0]);
        assert_eq!((cut.row(9), cut.share(9, 0), cut.share(0, 9)), (Vec::new(), 0.0, 0.0));
    }

    #[test]
    fn an_endless_serving_time_still_shares_out_a_hundred() {
        let names: Vec<NodeName> = vec!["a".into(), "b".into()];
        let costs = SiteCosts::new(names.clone(), vec![0, 1], ndarray::array![[0.0, 0.01], [0.01, 0.0]], vec![0.0; 2]);
        for serving_seconds in [1e300, f64::MAX] {
            let weights = FactoredWeights::new(&costs, &names.iter().cloned().collect(), serving_seconds);
            assert_eq!(weights.row(0).iter().sum::<u32>(), 100);
        }
    }

    #[test]
    fn nowhere_to_go_and_nonsense() {
        let names: Vec<NodeName> = vec!["a".into(), "b".into()];
        let cut = SiteCosts::new(names.clone(), vec![0, 1], ndarray::array![[0.0, f64::INFINITY], [0.01, 0.0]], vec![0.0; 2]);
        let mut weights = FactoredWeights::new(&cut, &BTreeSet::from(["b".into()]), f64::NAN);
        assert_eq!(weights.row(0), [0, 100]);
        assert_eq!(weights.share(0, 1), 1.0);
        let idle = FactoredWeights::new(&cut, &BTreeSet::new(), 0.004);
        assert_eq!((idle.row(0), idle.share(1, 1)), (vec![100, 0], 1.0));
        weights.set_row(0, &[f64::NAN, f64::NAN, 3.0]);
        assert_eq!(weights.row(0), [0, 100]);
        weights.set_row(0, &[]);
        assert_eq!(weights.row(0), [0, 100]);
    }
}
