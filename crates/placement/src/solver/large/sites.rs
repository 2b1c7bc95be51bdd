//! What is near where costs are given by site: the nodes of a site are looked at as one.

use crate::latency::{Columns, Costs, NodeName, SiteCosts, join};
use crate::solver::bound::Offer;
use crate::solver::flow::UNSERVED_SECONDS;
use crate::solver::posed::{Reach, Sources};
use crate::solver::reduce::Nearest;

/// The open nodes of each site, and where the sources are.
pub(super) struct Sites<'a> {
    costs: &'a SiteCosts,
    /// Access seconds and node, by site, nearest first.
    members: Vec<(f64, u32)>,
    /// Where each site's members end.
    ends: Vec<usize>,
    /// Per source: its position in the costs, and which of the nodes it is.
    sources: Vec<(usize, Option<usize>)>,
}

impl<'a> Sites<'a> {
    /// Nothing where some node or source is not known, or costs are not sums of terms.
    pub(super) fn new(costs: &'a Costs, columns: &Columns, sources: &[&NodeName], limits: &[u32]) -> Option<Self> {
        let (by_site, order) = costs.by_site()?;
        let mut nodes = vec![u32::MAX; by_site.nodes().len()];
        for (node, position) in columns.positions().iter().enumerate() {
            *nodes.get_mut(*position as usize)? = u32::try_from(node).ok()?;
        }
        let sources = sources.iter().map(|source| {
            let position = costs.position(source)?;
            Some((position, (nodes[position] != u32::MAX).then_some(nodes[position] as usize)))
        });
        let sources = sources.collect::<Option<Vec<_>>>()?;
        let mut members = Vec::with_capacity(columns.positions().len());
        let mut ends = vec![0; by_site.between().nrows()];
        for position in order {
            let position = *position as usize;
            let node = nodes[position];
            if node != u32::MAX && limits[node as usize] > 0 {
                members.push((by_site.access()[position], node));
            }
            ends[by_site.sites()[position]] = members.len();
        }
        // A site without nodes ends where the one before does.
        let mut last = 0;
        for end in &mut ends {
            last = last.max(*end);
            *end = last;
        }
        Some(Self { costs: by_site, members, ends, sources })
    }

    fn members(&self, site: usize) -> &[(f64, u32)] {
        let start = if site == 0 { 0 } else { self.ends[site - 1] };
        &self.members[start..self.ends[site]]
    }

    /// What the costs of all pairs come to per node.
    pub(super) fn reach(&self, columns: &Columns, sources: &Sources<'_>, limits: &[u32]) -> Reach {
        let (sites, access, between) = (self.costs.sites(), self.costs.access(), self.costs.between());
        let count = between.nrows();
        // Of the sources of each site: their demand, and that times what they add.
        let mut asked = vec![(0.0, 0.0); count];
        for ((position, _), supply) in self.sources.iter().zip(&sources.supplies) {
            let (demand, added) = &mut asked[sites[*position]];
            *demand += supply;
            *added += supply * access[*position];
        }
        // Of each site as a target: the sum without what its nodes add, and whom that is for.
        let mut totals = vec![(0.0, 0.0); count];
        for (from, (demand, added)) in asked.iter().enumerate().filter(|(_, (demand, _))| *demand > 0.0) {
            for (cost, (sum, served)) in between.row(from).iter().zip(&mut totals) {
                if cost.is_finite() {
                    *sum += demand * cost + added;
                    *served += demand;
                } else {
                    *sum += demand * UNSERVED_SECONDS;
                }
            }
        }
        let positions = columns.positions().iter().map(|position| *position as usize);
        let mut unreachable = vec![false; limits.len()];
        let mut sums = Vec::with_capacity(limits.len());
        for (position, unreachable) in positions.zip(&mut unreachable) {
            let (sum, served) = totals[sites[position]];
            sums.push(sum + served * access[position]);
            *unreachable = !sources.idle && served <= 0.0;
        }
        let mut reached = 0.0;
        for ((position, own), supply) in self.sources.iter().zip(&sources.supplies) {
            let site = sites[*position];
            if let Some(own) = *own {
                let cost = between[(site, site)];
                let counted = if cost.is_finite() { cost + 2.0 * access[*position] } else { UNSERVED_SECONDS };
                sums[own] = f64::max(sums[own] - supply * counted, 0.0);
                unreachable[own] = false;
            }
            let open = |site: usize| !self.members(site).is_empty();
            let served = own.is_some_and(|own| limits[own] > 0)
                || between.row(site).iter().enumerate().any(|(other, cost)| cost.is_finite() && open(other));
            reached += if served { *supply } else { 0.0 };
        }
        Reach::known(unreachable, sums, reached)
    }

    /// The sites with open nodes, each with the least cost that any of its nodes may have.
    fn distances(&self, source: usize) -> impl Iterator<Item = (f64, usize)> {
        let position = self.sources[source].0;
        let added = self.costs.access()[position];
        let between = self.costs.between().row(self.costs.sites()[position]);
        (0..between.len()).filter_map(move |site| {
            let (least, _) = self.members(site).first()?;
            Some((join(between[site], added + least), site))
        })
    }

    /// The open nodes of a site with their costs, nearest first, but for the source itself.
    fn nodes(&self, source: usize, site: usize) -> impl Iterator<Item = (f64, u32)> {
        let (position, own) = self.sources[source];
        let added = self.costs.access()[position];
        let between = self.costs.between()[(self.costs.sites()[position], site)];
        let members = self.members(site).iter().filter(move |(_, node)| own != Some(*node as usize));
        members.map(move |(access, node)| (join(between, added + access), *node))
    }

    fn own(&self, source: usize, limits: &[u32]) -> Option<u32> {
        self.sources[source].1.filter(|own| limits[*own] > 0).map(|own| own as u32)
    }

    /// Adds what is near to a source.
    pub(super) fn survey(&self, source: usize, nearest: &mut Nearest, limits: &[u32], hashes: &[u64], extra: usize) {
        let mut near: Vec<(f64, usize)> = self.distances(source).collect();
        near.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let own = self.own(source, limits).into_iter().map(|own| (0.0, own));
        let groups = near.into_iter().map(|(least, site)| (least, Either::Many(self.nodes(source, site))));
        nearest.add(std::iter::once((0.0, Either::One(own))).chain(groups), hashes, extra);
    }

    /// Adds the nodes that a source is worth more to than it costs.
    pub(super) fn offers(&self, source: usize, worth: f64, limits: &[u32], offers: &mut Vec<Offer>) {
        let mut offer = |cost: f64, node| offers.push(Offer { node, source: source as u32, gain: worth - cost });
        if let Some(own) = self.own(source, limits)
            && worth > 0.0
        {
            offer(0.0, own);
        }
        for (_, site) in self.distances(source).filter(|(least, _)| *least < worth) {
            self.nodes(source, site).take_while(|(cost, _)| *cost < worth).for_each(|(cost, node)| offer(cost, node));
        }
    }
}

/// One of two kinds of iterators.
enum Either<One, Many> {
    One(One),
    Many(Many),
}

impl<Item, One: Iterator<Item = Item>, Many: Iterator<Item = Item>> Iterator for Either<One, Many> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        match self {
            Self::One(one) => one.next(),
            Self::Many(many) => many.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;
    use crate::latency::Costs;
    use crate::problem::{Demand, NodeCapacity, Problem};
    use crate::solver::large::rows::Minima;
    use crate::solver::tie::stable_hash;

    proptest! {
        #[test]
        fn the_same_as_reading_whole_rows(
            sites in prop::collection::vec(0..4_usize, 40),
            between in prop::collection::vec(prop_oneof![6 => 0.0002..0.1_f64, 1 => Just(0.0), 1 => Just(f64::INFINITY)], 16),
            access in prop::collection::vec(prop_oneof![0.0..0.002_f64, Just(0.001)], 40),
            limits in prop::collection::vec(0..3_u32, 40),
            demands in prop::collection::vec((0..40_usize, 0.1..9.0_f64), 1..6),
            known in 30..=40_usize,
            worth in 0.0..0.15_f64,
        ) {
            let names: Vec<NodeName> = (0..40).map(|node| NodeName::new(format!("n{node:02}"))).collect();
            let costs: Costs =
                SiteCosts::new(names.clone(), sites, Array2::from_shape_vec((4, 4), between).unwrap(), access).into();
            // Candidates are some of the nodes; sources may be others.
            let problem = Problem::new("any", costs, 1, 10.0)
                .with_capacities(names[40 - known..].iter().map(|node| NodeCapacity::new(node.clone(), 1)))
                .with_demand(Demand::from_concurrency(demands.into_iter().map(|(node, asked)| (names[node].clone(), asked))).unwrap());
            let nodes: Vec<&NodeName> = problem.capacities.keys().collect();
            let limits = &limits[..known];
            let hashes: Vec<u64> = nodes.iter().map(|node| stable_hash("any", node.as_str())).collect();
            let columns = problem.costs.columns(&nodes);
            let sources = Sources::new(&problem);
            let by_site = Sites::new(&problem.costs, &columns, &sources.names, limits).unwrap();
            let reach = by_site.reach(&columns, &sources, limits);

            let mut minima = Minima::new(sources.names.len(), known);
            let mut expected = Reach::new(known, false);
            let open = limits.iter().any(|limit| *limit > 0);
            let (mut near, mut nearest) = (Nearest::new(sources.names.len(), 64), Nearest::new(sources.names.len(), 64));
            let mut row = Vec::new();
            for (at, (source, supply)) in sources.names.iter().zip(&sources.supplies).enumerate() {
                let row = problem.costs.row(source, &columns, || nodes.binary_search(source).ok(), &mut row);
                let most = minima.add(row);
                expected.add(row, most, *supply, limits, open);
                nearest.add(minima.groups(at, row, limits), &hashes, at);
                by_site.survey(at, &mut near, limits, &hashes, at);
                let (mut offers, mut all) = (Vec::new(), Vec::new());
                by_site.offers(at, worth, limits, &mut offers);
                minima.offers(at, row, worth, &mut all);
                let sorted = |offers: &[Offer]| {
                    let open = offers.iter().filter(|offer| limits[offer.node as usize] > 0);
                    let mut sorted: Vec<(u32, u64)> = open.map(|offer| (offer.node, offer.gain.to_bits())).collect();
                    sorted.sort_unstable();
                    sorted
                };
                prop_assert_eq!(sorted(&offers), sorted(&all));
            }
            prop_assert_eq!(&near.found, &nearest.found);
            prop_assert_eq!(reach.unreachable, expected.unreachable);
            prop_assert!((reach.reached - expected.reached).abs() < 1e-9);
            for (sum, expected) in reach.sums.iter().zip(&expected.sums) {
                prop_assert!((sum - expected).abs() <= 1e-9 * expected.max(1.0), "{sum} {expected}");
            }
        }
    }
}
