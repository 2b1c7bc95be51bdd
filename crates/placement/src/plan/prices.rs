//! What served requests are worth, and the bound on every placement that follows from it.

use crate::CostMatrix;
use crate::solver::flow::UNSERVED_SECONDS;

/// A source of requests, and what serving one of them is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PricedSource {
    /// Its position among the nodes of the costs.
    pub position: usize,
    /// Its requests in flight.
    pub demand: f64,
    /// Any number gives a valid bound, and those of [`Choice::prices`](super::Choice::prices) a
    /// good one for problems that are about alike.
    pub worth_seconds: f64,
}

/// One source at one node.
struct Offer {
    node: u32,
    gain_seconds: f64,
    demand: f64,
}

/// Costs that are compared side by side: most are too great.
const CHUNK: usize = 8;

/// The sum of demand x network seconds that no placement of `replicas` replicas is below, of which
/// each serves `replica_concurrency` requests at a time, or its share where all together are fewer
/// than the demand. `limits` are the most replicas per node, in the order of the costs; a node
/// beyond them gets none. A request that is not served counts as an hour. Where the costs do not
/// hold every node once, or not every source, the bound is 0.
///
/// Nothing is searched for: it takes as long as looking at each pair of a source and a node once.
///
/// ```
/// use placement::plan::{PricedSource, least_network};
/// use placement::CostMatrix;
///
/// // Two sources 20 ms apart, and one replica: one of them sends its requests that far.
/// let nodes = ["a", "b"].map(Into::into).to_vec();
/// let costs = CostMatrix::from_row_major(nodes, vec![0.0, 0.02, 0.02, 0.0]);
/// let source = |position, demand| PricedSource { position, demand, worth_seconds: 0.02 };
/// let least = least_network(&costs, &[source(0, 3.0), source(1, 1.0)], &[1, 1], 1, 10.0);
/// assert!((least - 0.02).abs() < 1e-12);
/// ```
///
/// Source: the Lagrangian relaxation of "each source is served once"; Beasley 1993.
#[must_use]
pub fn least_network(
    costs: &CostMatrix,
    sources: &[PricedSource],
    limits: &[u32],
    replicas: u32,
    replica_concurrency: f64,
) -> f64 {
    if !costs.is_plain() || sources.iter().any(|source| source.position >= costs.nodes().len()) {
        return 0.0;
    }
    let demand: f64 = sources.iter().map(|source| source.demand).sum();
    let capacity = replica_concurrency.max(demand / f64::from(replicas.max(1)) * (1.0 + 1e-9));
    // Requests that nobody serves are worth no more than what they cost.
    let worth = |source: &PricedSource| source.worth_seconds.clamp(0.0, UNSERVED_SECONDS);
    let mut offers: Vec<Offer> = Vec::new();
    for source in sources {
        add_offers(costs, limits, source, worth(source), &mut offers);
    }
    offers.sort_unstable_by(|one, other| one.node.cmp(&other.node).then(other.gain_seconds.total_cmp(&one.gain_seconds)));
    let mut profits: Vec<f64> = Vec::new();
    for offers in offers.chunk_by(|one, other| one.node == other.node) {
        let most = offers.first().map_or(0, |offer| limits[offer.node as usize].min(replicas));
        add_profits(offers, most as usize, capacity, &mut profits);
    }
    let wanted = replicas as usize;
    if wanted < profits.len() {
        profits.select_nth_unstable_by(wanted, |one, other| other.total_cmp(one));
        profits.truncate(wanted);
    }
    sources.iter().map(|source| source.demand * worth(source)).sum::<f64>() - profits.iter().sum::<f64>()
}

/// Adds the nodes from which a source's requests cost less than they are worth.
fn add_offers(costs: &CostMatrix, limits: &[u32], source: &PricedSource, worth: f64, offers: &mut Vec<Offer>) {
    let row = costs.row(source.position);
    for (chunk, (costs, limits)) in row.chunks(CHUNK).zip(limits.chunks(CHUNK)).enumerate() {
        let is_any = costs.iter().fold(false, |any, cost| any | (*cost < worth));
        if !is_any {
            continue;
        }
        for (place, (cost, limit)) in costs.iter().zip(limits).enumerate() {
            if *cost < worth && *limit > 0 {
                let node = (chunk * CHUNK + place) as u32;
                offers.push(Offer { node, gain_seconds: worth - cost, demand: source.demand });
            }
        }
    }
}

/// Adds what each further replica of a node gains, given the sources there, best first.
fn add_profits(offers: &[Offer], most: usize, capacity: f64, profits: &mut Vec<f64>) {
    let end = profits.len() + most;
    let (mut profit, mut room) = (0.0, capacity);
    for offer in offers {
        let mut left = offer.demand;
        while left > 0.0 && profits.len() < end {
            let amount = room.min(left);
            profit += amount * offer.gain_seconds;
            left -= amount;
            room -= amount;
            if room <= 0.0 {
                profits.push(profit);
                (profit, room) = (0.0, capacity);
            }
        }
    }
    if profit > 0.0 && profits.len() < end {
        profits.push(profit);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{MoveHistory, Stability};
    use crate::{Demand, NodeCapacity, NodeName, Problem};

    const NODES: usize = 6;
    const CONCURRENCY: f64 = 2.0;

    fn name(node: usize) -> NodeName {
        NodeName::new(format!("n{node:02}"))
    }

    fn problem(costs: &CostMatrix, demand: &[f64], limits: &[u32], replicas: u32) -> Problem {
        Problem::new("hello", costs.clone(), replicas, CONCURRENCY)
            .with_demand(Demand::from_concurrency(demand.iter().enumerate().map(|(node, demand)| (name(node), *demand))).unwrap())
            .with_capacities(limits.iter().enumerate().map(|(node, limit)| NodeCapacity::new(name(node), *limit)))
    }

    fn priced(demand: &[f64], prices: &[f64]) -> Vec<PricedSource> {
        let pairs = demand.iter().zip(prices).enumerate();
        pairs.map(|(position, (demand, price))| PricedSource { position, demand: *demand, worth_seconds: *price }).collect()
    }

    proptest! {
        /// Whatever requests are worth, no plan costs less; and what a plan's search has learnt
        /// comes near to it.
        #[test]
        fn no_plan_costs_less_than_the_bound(
            cells in prop::collection::vec(prop_oneof![8 => 0.0..0.1_f64, 1 => Just(f64::INFINITY)], NODES * NODES),
            demand in prop::collection::vec(0.1..4.0_f64, NODES),
            limits in prop::collection::vec(0..4_u32, NODES),
            prices in prop::collection::vec(0.0..0.2_f64, NODES),
            share in 0.0..1.0_f64,
        ) {
            let room: u32 = limits.iter().sum();
            prop_assume!(room > 0);
            let replicas = 1 + (share * f64::from(room - 1)) as u32;
            let costs = CostMatrix::from_row_major((0..NODES).map(name).collect(), cells);
            let problem = problem(&costs, &demand, &limits, replicas);
            let choice = Stability::default().choose_and_show(&problem, &MoveHistory::default()).unwrap();
            prop_assume!(choice.best.unplaced.is_none());
            let served: f64 = choice.best.flows.iter().map(|flow| flow.concurrency).sum();
            let unserved: f64 = choice.best.unserved.iter().map(|left| left.concurrency).sum();
            let total = choice.best.cost.network_seconds * served + UNSERVED_SECONDS * unserved;
            for prices in [&prices, &choice.prices, &vec![1e6; NODES], &vec![0.0; NODES]] {
                let least = least_network(&costs, &priced(&demand, prices), &limits, replicas, CONCURRENCY);
                prop_assert!(least <= total + 1e-6 * total.max(1.0), "{least} above {total}");
            }
        }
    }

    #[test]
    fn prices_of_a_search_make_a_bound_near_the_plan() {
        const MANY: usize = 40;
        let place = |node: usize| ((node % 7) as f64, (node / 7) as f64);
        let seconds = |from: usize, to: usize| {
            let ((x, y), (u, v)) = (place(from), place(to));
            if from == to { 0.0 } else { 0.0005 + 0.002 * (x - u).hypot(y - v) }
        };
        let cells = (0..MANY * MANY).map(|cell| seconds(cell / MANY, cell % MANY)).collect();
        let costs = CostMatrix::from_row_major((0..MANY).map(name).collect(), cells);
        let demand: Vec<f64> = (0..MANY).map(|node| if node % 3 == 0 { 1.0 + (node % 5) as f64 / 4.0 } else { 0.0 }).collect();
        let (limits, replicas) = (vec![2; MANY], 12);
        let problem = problem(&costs, &demand, &limits, replicas);
        let choice = Stability::default().choose_and_show(&problem, &MoveHistory::default()).unwrap();
        // Sources without demand have no price.
        let mut prices = choice.prices.iter();
        let all: Vec<f64> = demand.iter().map(|demand| if *demand > 0.0 { *prices.next().unwrap() } else { 0.0 }).collect();
        assert_eq!(prices.next(), None);
        let total = choice.best.cost.network_seconds * demand.iter().sum::<f64>();
        let least = least_network(&costs, &priced(&demand, &all), &limits, replicas, CONCURRENCY);
        // Whole replicas of two requests each are what the bound does not see.
        assert!(least <= total && least > 0.9 * total, "{least} of {total}");
    }
}
