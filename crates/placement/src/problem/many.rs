//! Many services on shared nodes.
//!
//! Services are planned one after the other, each exactly for what is left, by falling priority and
//! then in the order of a hash. Where there is not enough for all of one priority, replicas are
//! shared out by progressive filling: all get the same number, as far as all can have it; a service
//! that can have no more, for want of a device, of room or of reachable nodes, stays at its number,
//! and the others go on. No service could get one more without taking it from another that has no
//! more itself (max-min fairness). On clusters of more than a few dozen nodes a service looks at
//! those near its sources only, so the plans are good rather than proven; the order of services is
//! a heuristic in any case.

mod field;

use std::collections::BTreeMap;

use field::{Field, Stock};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::plan::{Plan, Proof};
use crate::problem::NodeCapacity;
use crate::problem::{Effort, Problem, ProblemError};
use crate::solver::tie::stable_hash;
use latency_matrix::NodeName;

/// Amounts of resources by name (`cpu` in millicores, `memory` in bytes, `pods`,
/// `devices.example/kvm`, ...), all whole numbers.
pub type ResourceAmounts = BTreeMap<String, u64>;

/// A service that competes with others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Its problem; the limits in it hold besides the shared resources.
    pub problem: Problem,
    /// What one replica needs. Every replica also needs one of `pods` where a node counts them.
    pub needs: ResourceAmounts,
    /// Higher goes first.
    pub priority: i32,
}

/// What a node without enough resources lacks most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// The service.
    pub service: String,
    /// Replicas without a place.
    pub replicas: u32,
    /// Per node, the resource that allows the fewest further replicas there; none where the
    /// service's own limit holds.
    pub binding: BTreeMap<NodeName, Option<String>>,
}

/// The plans of all services, in the order given, and what found no place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManyPlans {
    /// One plan per claim.
    pub plans: Vec<Plan>,
    /// Services of which something found no place.
    pub shortages: Vec<Shortage>,
}

/// Why services cannot be planned together.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ManyError {
    /// One of the problems is not sensible.
    #[error(transparent)]
    Problem(#[from] ProblemError),
}

/// Plans all claims. `free` is what each node has for these services in all, running replicas
/// included; a resource that a node does not list is not there, except `pods`, which is then not
/// counted.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use placement::problem::many::{Claim, plan_many};
/// use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem};
///
/// // All demand is at a, where there is a whole core: enough for two replicas. The one of
/// // higher priority gets it.
/// let nodes: Vec<NodeName> = ["a", "b"].map(NodeName::from).to_vec();
/// let costs = CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.02], [0.02, 0.0]]);
/// let demand = Demand::from_concurrency([("a".into(), 9.0)])?;
/// let claim = |service: &str, priority| Claim {
///     problem: Problem::new(service, costs.clone(), 2, 10.0)
///         .with_demand(demand.clone())
///         .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 2))),
///     needs: [("cpu".to_owned(), 500)].into(),
///     priority,
/// };
/// let free: BTreeMap<_, _> =
///     nodes.iter().map(|node| (node.clone(), [("cpu".to_owned(), 1000)].into())).collect();
/// let planned = plan_many(&[claim("batch", 0), claim("shop", 5)], &free)?;
/// assert_eq!(planned.plans[1].replicas, [("a".into(), 2)].into());
/// assert_eq!(planned.plans[0].replicas, [("b".into(), 2)].into());
/// assert!(planned.shortages.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When one of the problems cannot be solved as stated.
pub fn plan_many(claims: &[Claim], free: &BTreeMap<NodeName, ResourceAmounts>) -> Result<ManyPlans, ManyError> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|claim| {
        let service = &claims[*claim].problem.service;
        (std::cmp::Reverse(claims[*claim].priority), stable_hash("", service))
    });
    // Where there is enough for all claims, one round suffices; otherwise equals advance step by
    // step.
    let names: Vec<&NodeName> = free.keys().collect();
    let mut field = Field::new(claims, &names);
    let mut left = field.stock(free);
    let mut plans: Vec<Option<Plan>> = vec![None; claims.len()];
    let mut start = 0;
    while start < order.len() {
        let end =
            (start..order.len()).find(|at| claims[order[*at]].priority != claims[order[start]].priority).unwrap_or(order.len());
        let class = &order[start..end];
        let mut trial = left.clone();
        let whole = |_: usize| u32::MAX;
        if place(claims, &mut field, class, &mut trial, &mut plans, false, whole)? {
            left = trial;
        } else {
            share(claims, &mut field, class, &mut left, &mut plans)?;
        }
        start = end;
    }
    let mut shortages = Vec::new();
    let mut done = Vec::with_capacity(claims.len());
    for (number, (claim, plan)) in claims.iter().zip(plans).enumerate() {
        let plan = match plan {
            Some(plan) => plan,
            None => Problem { replicas: 0, ..claim.problem.clone() }.solve()?,
        };
        let missing = claim.problem.replicas.saturating_sub(plan.total_replicas());
        if missing > 0 {
            let binding = claim.problem.capacities.keys().map(|node| {
                let at = names.binary_search(&node).ok();
                (node.clone(), field.binding(number, at.map(|at| left.of(at))).map(str::to_owned))
            });
            shortages.push(Shortage { service: claim.problem.service.clone(), replicas: missing, binding: binding.collect() });
        }
        done.push(plan);
    }
    Ok(ManyPlans { plans: done, shortages })
}

/// Shares out among a class what is not enough for all of it.
fn share(
    claims: &[Claim],
    field: &mut Field<'_>,
    class: &[usize],
    left: &mut Stock,
    plans: &mut [Option<Plan>],
) -> Result<(), ManyError> {
    // What each could have if it were alone: a claim that needs a rare device holds no other up.
    // Those that have the least choice choose first.
    let mut most = vec![0; claims.len()];
    let mut rooms = Vec::with_capacity(class.len());
    for claim in class {
        let room = field.reachable_room(&claims[*claim], *claim, left);
        most[*claim] = claims[*claim].problem.replicas.min(u32::try_from(room).unwrap_or(u32::MAX));
        rooms.push((room, *claim));
    }
    rooms.sort_by_key(|(room, _)| *room);
    let class: Vec<usize> = rooms.into_iter().map(|(_, claim)| claim).collect();
    // The most that all can have at once, planned in order.
    let (mut low, mut high) = (0, class.iter().map(|claim| most[*claim]).max().unwrap_or(0));
    while low < high {
        let level = low + (high - low).div_ceil(2);
        let mut trial = left.clone();
        if place(claims, field, &class, &mut trial, plans, true, |claim| level.min(most[claim]))? {
            low = level;
        } else {
            high = level - 1;
        }
    }
    place(claims, field, &class, left, plans, false, |claim| low.min(most[claim]))?;
    // From here on each keeps what it has, and those go on that can.
    let mut level = low;
    let mut growing = class.clone();
    while !growing.is_empty() {
        let mut grown = Vec::new();
        for claim in growing {
            if level < most[claim] && raise(&claims[claim], field, claim, left, &mut plans[claim], level + 1)? {
                grown.push(claim);
            }
        }
        growing = grown;
        level += 1;
        let mut high = growing.iter().map(|claim| most[*claim]).max().unwrap_or(level);
        while level < high {
            let next = level + (high - level).div_ceil(2);
            let (mut trial, mut raised) = (left.clone(), plans.to_vec());
            let mut all = true;
            for claim in &growing {
                let portion = next.min(most[*claim]);
                all = all && raise(&claims[*claim], field, *claim, &mut trial, &mut raised[*claim], portion)?;
            }
            if all {
                *left = trial;
                plans.clone_from_slice(&raised);
                level = next;
            } else {
                high = next - 1;
            }
        }
    }
    // Whoever moved while it grew may have left room for others.
    for claim in &class {
        while let Some(held) = plans[*claim].as_ref().map(Plan::total_replicas).filter(|held| *held < most[*claim]) {
            if !raise(&claims[*claim], field, *claim, left, &mut plans[*claim], held + 1)? {
                break;
            }
        }
    }
    Ok(())
}

/// Plans a claim again for more replicas than it has, on what is left and what it holds; returns
/// false and changes nothing where they do not fit.
fn raise(
    claim: &Claim,
    field: &mut Field<'_>,
    number: usize,
    left: &mut Stock,
    plan: &mut Option<Plan>,
    portion: u32,
) -> Result<bool, ManyError> {
    let held = plan.as_ref().map(|plan| plan.replicas.clone()).unwrap_or_default();
    field.give_back(number, left, &held);
    // Whether there is room is known sooner than where it is best.
    if field.reachable_room(claim, number, left) >= u64::from(portion) {
        let raised = place_one(claim, field, number, portion, left)?;
        if raised.total_replicas() == portion {
            field.take_all(number, left, &raised.replicas);
            *plan = Some(raised);
            return Ok(true);
        }
    }
    field.take_all(number, left, &held);
    Ok(false)
}

/// Plans a class within its portions; false, and the rest is not planned, as soon as not all
/// replicas asked for find a place. Where room is said to be `sparse`, whether there is enough is
/// looked at first.
fn place(
    claims: &[Claim],
    field: &mut Field<'_>,
    class: &[usize],
    left: &mut Stock,
    plans: &mut [Option<Plan>],
    sparse: bool,
    portion: impl Fn(usize) -> u32,
) -> Result<bool, ManyError> {
    for &number in class {
        let asked = claims[number].problem.replicas.min(portion(number));
        if sparse && field.reachable_room(&claims[number], number, left) < u64::from(asked) {
            return Ok(false);
        }
        let plan = place_one(&claims[number], field, number, asked, left)?;
        let all = plan.total_replicas() == asked;
        field.take_all(number, left, &plan.replicas);
        plans[number] = Some(plan);
        if !all {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Plans `replicas` replicas of a claim on what is left.
fn place_one(claim: &Claim, field: &mut Field<'_>, number: usize, asked: u32, left: &Stock) -> Result<Plan, ManyError> {
    let (room, cut) = field.candidates(claim, number, asked, left);
    let mut plan = posed(claim, asked, &room, field).solve()?;
    if cut && plan.total_replicas() < asked {
        let room = field.room(claim, number, left);
        plan = posed(claim, asked, &room, field).solve()?;
    }
    if cut {
        // What the nodes left aside could do is not known.
        plan.proof = Proof::AtLeast { objective: 0.0 };
    }
    Ok(plan)
}

/// A claim's problem for `replicas` replicas on the given nodes.
fn posed(claim: &Claim, asked: u32, room: &[(usize, &NodeCapacity, u32)], field: &Field<'_>) -> Problem {
    let problem = &claim.problem;
    let capacities = room
        .iter()
        .map(|(at, capacity, most)| (field.names[*at].clone(), NodeCapacity { max_replicas: *most, ..(*capacity).clone() }));
    Problem {
        service: problem.service.clone(),
        costs: problem.costs.clone(),
        replicas: asked,
        demand: problem.demand.clone(),
        capacities: capacities.collect(),
        running: problem.running.clone(),
        serving: problem.serving.clone(),
        zones: problem.zones.clone(),
        effort: Effort::Quick,
        ..*problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CostMatrix, Demand};

    fn claim(service: &str, priority: i32, replicas: u32, kvm: u64) -> Claim {
        let costs = CostMatrix::new(vec!["a".into(), "b".into()], ndarray::array![[0.0, 0.02], [0.02, 0.0]]);
        let problem = Problem::new(service, costs, replicas, 10.0)
            .with_capacities([NodeCapacity::new("a".into(), 9), NodeCapacity::new("b".into(), 9)])
            .with_demand(Demand::from_concurrency([("a".into(), 1.0)]).unwrap());
        let needs = [("cpu".to_owned(), 500), ("kvm".to_owned(), kvm)].into_iter().filter(|(_, need)| *need > 0).collect();
        Claim { problem, needs, priority }
    }

    fn cluster(cpu: u64) -> BTreeMap<NodeName, ResourceAmounts> {
        let node = |kvm: u64| ResourceAmounts::from([("cpu".to_owned(), cpu), ("kvm".to_owned(), kvm), ("pods".to_owned(), 10)]);
        BTreeMap::from([("a".into(), node(0)), ("b".into(), node(1))])
    }

    #[test]
    fn a_device_that_only_one_node_has_decides() {
        let plans = plan_many(&[claim("vm", 0, 2, 1)], &cluster(4000)).unwrap();
        assert_eq!(plans.plans[0].replicas, BTreeMap::from([("b".into(), 1)]));
        assert_eq!(plans.shortages[0].replicas, 1);
        assert_eq!(plans.shortages[0].binding["a"], Some("kvm".to_owned()));
    }

    #[test]
    fn a_shared_cluster_leaves_excluded_nodes_aside() {
        // The nodes nearest to the source are excluded; beyond a few dozen nodes only near ones are
        // looked at.
        let nodes: Vec<NodeName> = (0..60).map(|at| NodeName::new(format!("n{at:02}"))).collect();
        let costs = ndarray::Array2::from_shape_fn((60, 60), |(from, to)| 0.001 * from.abs_diff(to) as f64);
        let problem = Problem::new("edge", CostMatrix::new(nodes.clone(), costs), 1, 10.0)
            .with_demand(Demand::from_concurrency([("n00".into(), 1.0)]).unwrap())
            .with_capacities(nodes.iter().enumerate().map(|(at, node)| {
                let capacity = NodeCapacity::new(node.clone(), 1);
                if at < 8 { capacity.excluded(crate::problem::Exclusion::NotReady) } else { capacity }
            }));
        let claim = Claim { problem, needs: ResourceAmounts::new(), priority: 0 };
        let free = nodes.iter().map(|node| (node.clone(), ResourceAmounts::new())).collect();
        let planned = plan_many(&[claim], &free).unwrap();
        assert_eq!(planned.plans[0].replicas, [("n08".into(), 1)].into());
    }

    #[test]
    fn who_can_have_no_more_holds_nobody_up() {
        let counts = |claims: &[Claim], cluster| {
            let planned = plan_many(claims, &cluster).unwrap();
            planned.plans.iter().map(Plan::total_replicas).collect::<Vec<_>>()
        };
        // One device, and sixteen places for the rest.
        assert_eq!(counts(&[claim("vm", 0, 2, 1), claim("web", 0, 8, 0)], cluster(8000)), [1, 8]);
        assert_eq!(counts(&[claim("gpu", 0, 2, 9), claim("web", 0, 8, 0)], cluster(8000)), [0, 8]);
        // Six places: two for each, but what one does not want is for the others.
        assert_eq!(counts(&[claim("one", 0, 1, 0), claim("two", 0, 9, 0), claim("six", 0, 9, 0)], cluster(1500)), [1, 2, 3]);
        // A service that reaches only one of the nodes.
        let lost = CostMatrix::new(vec!["a".into(), "b".into()], ndarray::array![[0.0, f64::INFINITY], [f64::INFINITY, 0.0]]);
        let lost = Claim { problem: Problem { costs: lost.into(), ..claim("lost", 0, 3, 0).problem }, ..claim("lost", 0, 3, 0) };
        assert_eq!(counts(&[lost, claim("web", 0, 9, 0)], cluster(2000)), [3, 5]);
    }

    #[test]
    fn a_resource_without_end_is_there() {
        let mut free = cluster(4000);
        for resources in free.values_mut() {
            resources.insert("kvm".to_owned(), u64::MAX);
        }
        assert_eq!(plan_many(&[claim("vm", 0, 8, 1)], &free).unwrap().plans[0].total_replicas(), 8);
    }

    proptest::proptest! {
        #[test]
        fn nobody_can_get_more_without_taking_it_from_one_who_has_no_more(
            wanted in proptest::collection::vec((0..7_u32, 0..2_u64), 1..5),
            cpu in 1..5_u64,
        ) {
            let names = ["one", "two", "three", "four"];
            let claims: Vec<Claim> = wanted.iter().zip(names).map(|((replicas, kvm), name)| claim(name, 0, *replicas, *kvm)).collect();
            let planned = plan_many(&claims, &cluster(500 * cpu)).unwrap();
            let got: Vec<u32> = planned.plans.iter().map(Plan::total_replicas).collect();
            // One place with a device, on a node that also has places without.
            let places = 2 * cpu as u32;
            proptest::prop_assert!(got.iter().sum::<u32>() <= places);
            let devices: u32 = (0..claims.len()).filter(|at| wanted[*at].1 > 0).map(|at| got[at]).sum();
            proptest::prop_assert!(devices <= 1);
            for (at, (replicas, kvm)) in wanted.iter().enumerate().filter(|(at, _)| got[*at] < wanted[*at].0) {
                if *kvm > 0 {
                    continue;
                }
                let free = got.iter().sum::<u32>() < places;
                let richer = (0..claims.len()).any(|other| got[other] > got[at] + 1);
                proptest::prop_assert!(!free && !richer, "{got:?} of {wanted:?} in {places} places: {at} of {replicas}");
            }
        }
    }

    #[test]
    fn priority_goes_first_and_equals_share() {
        // Room for four replicas in all.
        let plans = plan_many(&[claim("low", 0, 3, 0), claim("high", 5, 3, 0)], &cluster(1000)).unwrap();
        let counts: Vec<u32> = plans.plans.iter().map(Plan::total_replicas).collect();
        assert_eq!(counts, [1, 3]);
        let plans = plan_many(&[claim("one", 0, 4, 0), claim("two", 0, 4, 0)], &cluster(1000)).unwrap();
        let counts: Vec<u32> = plans.plans.iter().map(Plan::total_replicas).collect();
        assert_eq!(counts, [2, 2]);
        assert_eq!(plans.shortages.len(), 2);
    }
}
