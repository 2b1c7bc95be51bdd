//! The fewest replicas that keep most requests within a response time.
//!
//! A request is within the objective when the cost of its way plus the serving time at its node's
//! utilisation is. Serving time grows with utilisation, so filling replicas less lets them answer
//! from farther away: for each of some utilisations, ways that are too long at it are made dear and
//! the least number of replicas is found for which little enough demand has to take one. Then nodes
//! are filled differently ([`filling`]), which may save more.

mod filling;

use std::ops::RangeInclusive;

use filling::Filling;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::problem::{Problem, ProblemError};
use crate::problem::{Segment, ServingCurve};
use crate::solver::posed::{Posed, most_each};
use crate::solver::search::{self, Found};
use crate::solver::solve::{Routed, assemble};
use crate::solver::zones;
use latency_matrix::NodeName;

/// What a way costs on top that is too long, seconds: more than any way, less than leaving demand
/// unserved.
const TOO_LONG_SECONDS: f64 = 100.0;
/// Utilisations that are tried at most.
const LEVELS: usize = 24;

/// A share of all requests and the response time that they must not exceed: `p95 <= 50 ms` is 0.95
/// and 0.050. The cost policy says which statistic of a way counts, and the serving curve which of
/// the serving time; what is within them is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceLevel {
    /// Share of the demand, above 0 and at most 1.
    pub share: f64,
    /// Response time in seconds: network and serving.
    pub seconds: f64,
}

/// What stands between a service and its objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocker {
    /// Serving alone takes longer, however idle a replica is.
    Serving {
        /// Serving time of an idle replica, seconds.
        seconds: f64,
    },
    /// No node that may run a replica is near enough to this source.
    TooFar {
        /// The source.
        source: NodeName,
        /// Its demand.
        concurrency: f64,
        /// Response time from the nearest such node, seconds; infinite (in JSON, null) if there is
        /// none.
        #[serde(with = "infinite")]
        seconds: f64,
    },
    /// The nodes have no room for as many replicas as were allowed.
    Room {
        /// Replicas that fit.
        replicas: u32,
    },
    /// More replicas than were allowed may do it.
    Replicas {
        /// How many were allowed.
        allowed: u32,
    },
}

/// A plan for a service level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelPlan {
    /// The plan: with the fewest replicas found that meet the level, or else the one that comes
    /// nearest. Its replica capacity is what the emptiest node is filled to on purpose, so that
    /// routes of sources without demand do not fill it further.
    pub plan: Plan,
    /// Whether it meets the level.
    pub met: bool,
    /// Share of the demand within the response time.
    pub share_within: f64,
    /// What blocks it where it is not met.
    pub blockers: Vec<Blocker>,
}

/// Seconds that may be infinite, which JSON has no number for.
mod infinite {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        seconds.is_finite().then_some(*seconds).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
    }
}

struct Candidate {
    found: Found,
    routed: Routed,
    replicas: u32,
    within: f64,
    /// Demand that one replica may get: what the emptiest node is filled to on purpose.
    capacity: f64,
}

impl Problem {
    /// The fewest replicas within a range that meet a service level, and where they go. The number
    /// of replicas that the problem itself names does not count; nor does its cost model: requests
    /// go where the plan's flows lead them.
    ///
    /// ```
    /// use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem};
    /// use placement::problem::{ServiceLevel, ServingCurve};
    ///
    /// // Two places 80 ms apart; a tenth of the requests comes from the second.
    /// let nodes: Vec<NodeName> = ["here", "there"].map(NodeName::from).to_vec();
    /// let costs = CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.080], [0.080, 0.0]]);
    /// let problem = Problem::new("hello", costs, 0, 10.0)
    ///     .with_capacities(nodes.iter().map(|node| NodeCapacity::new(node.clone(), 5)))
    ///     .with_demand(Demand::from_concurrency([("here".into(), 4.5), ("there".into(), 0.5)])?)
    ///     .with_serving(ServingCurve::flat(0.010)?);
    /// let p90 = problem.fewest_replicas(ServiceLevel { share: 0.90, seconds: 0.050 }, 1..=10)?;
    /// assert_eq!((p90.met, p90.plan.total_replicas()), (true, 1));
    /// let p95 = problem.fewest_replicas(ServiceLevel { share: 0.95, seconds: 0.050 }, 1..=10)?;
    /// assert_eq!((p95.met, p95.plan.total_replicas()), (true, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the problem's numbers make no sense.
    pub fn fewest_replicas(&self, level: ServiceLevel, range: RangeInclusive<u32>) -> Result<LevelPlan, ProblemError> {
        let (least, most) = range.into_inner();
        let whole = self.stated(most.max(1));
        whole.check()?;
        let base = Posed::new(&whole);
        let demand = base.instance.demand();
        if base.idle {
            let plan = Self { replicas: least, ..self.clone() }.solve()?;
            return Ok(LevelPlan { plan, met: true, share_within: 1.0, blockers: Vec::new() });
        }
        let room = base.instance.replicas;
        // Minima and zones need replicas of their own.
        let zones = u32::try_from(zones::reachable(&base, &whole)).unwrap_or(u32::MAX);
        let least = least.max(base.least.iter().sum()).max(zones);
        let mut best: Option<Candidate> = None;
        for utilisation in self.levels(&base, level) {
            let capacity = utilisation * self.replica_concurrency;
            let enough = (demand / capacity - 1e-9).ceil().max(1.0) as u32;
            // Fewer than what a lighter load has already been found to need, or as many and better.
            let high = best.as_ref().filter(|best| meets(best, level)).map_or(room, |best| best.replicas.saturating_sub(1));
            let counts = self.counts(&base, enough.max(least)..=high);
            let Some(most) = counts.last() else { continue };
            let at_most = self.attempt(level, utilisation, *most);
            if !meets(&at_most, level) {
                if best.as_ref().is_none_or(|best| at_most.within > best.within) {
                    best = Some(at_most);
                }
                continue;
            }
            let mut reached = at_most;
            let (mut low, mut high) = (0, counts.len() - 1);
            while low < high {
                let middle = low + (high - low) / 2;
                let attempt = self.attempt(level, utilisation, counts[middle]);
                if meets(&attempt, level) {
                    high = middle;
                    reached = attempt;
                } else {
                    low = middle + 1;
                }
            }
            best = Some(reached);
        }
        let best = best.map(|best| self.with_fewer(&base, level, least, best));
        let Some(best) = best else {
            let plan = Self { replicas: most, ..self.clone() }.solve()?;
            let blockers = self.blockers(&base, level, most);
            return Ok(LevelPlan { plan, met: false, share_within: 0.0, blockers });
        };
        let met = meets(&best, level);
        let stated = self.stated(best.replicas);
        let blockers = if met { Vec::new() } else { self.blockers(&base, level, most) };
        let share_within = best.within;
        let plan = assemble(&Posed::new(&stated), &stated, &best.found, &best.routed);
        Ok(LevelPlan { plan: Plan { replica_capacity: best.capacity, ..plan }, met, share_within, blockers })
    }

    /// Those of some numbers of replicas that fit on the nodes, each of which may have a share of
    /// them: where four fit, two at a node, three may not, one at a node.
    fn counts(&self, base: &Posed<'_>, range: RangeInclusive<u32>) -> Vec<u32> {
        let fit = |replicas: &u32| {
            let most = most_each(self, *replicas);
            base.most.iter().map(|limit| u64::from(*limit.min(&most))).sum::<u64>() >= u64::from(*replicas)
        };
        range.filter(|replicas| self.node_share.is_none() || fit(replicas)).collect()
    }

    /// The same problem with `replicas` replicas that are free to move.
    fn stated(&self, replicas: u32) -> Self {
        Self { replicas, keep_running: false, ..self.clone() }
    }

    /// Fewer replicas than a candidate that meets the level has, as long as nodes that are filled
    /// differently allow it.
    fn with_fewer(&self, base: &Posed<'_>, level: ServiceLevel, least: u32, mut best: Candidate) -> Candidate {
        if !meets(&best, level) {
            return best;
        }
        let mut choices = self.levels(base, level);
        // Filled to the brim with what may be late.
        choices.insert(0, 1.0);
        choices.dedup();
        let enough = (base.instance.demand() / self.replica_concurrency - 1e-9).ceil().max(1.0) as u32;
        let counts = self.counts(base, least.max(enough)..=best.replicas.saturating_sub(1));
        for fewer in counts.into_iter().rev() {
            let stated = self.stated(fewer);
            match (Filling { problem: &stated, base: Posed::new(&stated), level, choices: &choices }).meet() {
                Some(fewer) => best = fewer,
                None => break,
            }
        }
        best
    }

    /// Utilisations at which some way is just short enough, highest first.
    fn levels(&self, base: &Posed<'_>, level: ServiceLevel) -> Vec<f64> {
        let mut left: Vec<f64> = base.instance.costs.iter().map(|cost| level.seconds - cost).collect();
        left.retain(|left| *left >= 0.0);
        let mut levels: Vec<f64> = left.iter().filter_map(|left| highest_utilisation(&self.serving, *left)).collect();
        levels.sort_by(|one, other| other.total_cmp(one));
        levels.dedup_by(|one, other| (*one - *other).abs() < 1e-6);
        let step = levels.len().div_ceil(LEVELS).max(1);
        levels.into_iter().step_by(step).collect()
    }

    /// The best plan of `replicas` replicas of which none is filled beyond `utilisation`.
    fn attempt(&self, level: ServiceLevel, utilisation: f64, replicas: u32) -> Candidate {
        let serving = self.serving.mean_seconds(utilisation);
        let stated = self.stated(replicas);
        let base = Posed::new(&stated);
        let mut judged = base.clone();
        let instance = &mut judged.instance;
        instance.replica_capacity = utilisation * self.replica_concurrency;
        instance.segments = vec![Segment { width: 1.0, marginal_seconds: 0.0 }];
        instance.costs.mapv_inplace(|cost| if cost + serving > level.seconds + 1e-12 { cost + TOO_LONG_SECONDS } else { cost });
        let capacity = instance.replica_capacity;
        let found = zones::spread(&mut judged, &stated, |posed| search::solve(&posed.instance, posed.budget(self)));
        let instance = judged.instance;
        let (servers, routing) = instance.route(&found.placement);
        let mut routed = Routed { unserved: routing.unserved, ..Routed::default() };
        let mut within = 0.0;
        for (server, tenants) in servers.iter().zip(&routing.tenants) {
            let load: f64 = tenants.iter().map(|(_, amount)| amount).sum();
            let full = f64::from(found.placement[server.row]) * self.replica_concurrency;
            routed.serving += load * self.serving.mean_seconds(load / full);
            for (source, amount) in tenants {
                routed.flows.push((*source, server.row, *amount));
                routed.network += amount * base.instance.costs[(server.row, *source)];
                if instance.costs[(server.row, *source)] < TOO_LONG_SECONDS {
                    within += amount;
                }
            }
        }
        // The bound is for the search's own objective, in which long ways are dear.
        let found = Found {
            total: routed.network + routed.serving + base.instance.openings(&found.placement),
            lower_bound: 0.0,
            proven: false,
            ..found
        };
        Candidate { found, routed, replicas, within: within / instance.demand(), capacity }
    }

    fn blockers(&self, base: &Posed<'_>, level: ServiceLevel, allowed: u32) -> Vec<Blocker> {
        let idle = self.serving.mean_seconds(0.0);
        if idle > level.seconds {
            return vec![Blocker::Serving { seconds: idle }];
        }
        let mut blockers = Vec::new();
        for (source, supply) in base.instance.supplies.iter().enumerate() {
            let open = (0..base.nodes.len()).filter(|node| base.instance.limits[*node] > 0);
            let nearest = open.map(|node| base.instance.costs[(node, source)]).fold(f64::INFINITY, f64::min) + idle;
            if nearest > level.seconds {
                blockers.push(Blocker::TooFar { source: base.sources[source].clone(), concurrency: *supply, seconds: nearest });
            }
        }
        if base.instance.replicas < allowed {
            blockers.push(Blocker::Room { replicas: base.instance.replicas });
        } else {
            blockers.push(Blocker::Replicas { allowed });
        }
        blockers
    }
}

fn meets(candidate: &Candidate, level: ServiceLevel) -> bool {
    let routed = &candidate.routed;
    let served: f64 = routed.flows.iter().map(|flow| flow.2).sum();
    // With fewer placed than asked for, the share of a node would be that of a number that is not
    // there.
    let whole = candidate.found.placement.iter().sum::<u32>() == candidate.replicas;
    whole && candidate.within >= level.share - 1e-9 && routed.unserved.iter().sum::<f64>() <= 1e-9 * served
}

/// The highest utilisation at which serving takes no longer than `seconds`; none if it never is
/// that fast.
fn highest_utilisation(curve: &ServingCurve, seconds: f64) -> Option<f64> {
    if curve.mean_seconds(1.0) <= seconds {
        return Some(1.0);
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if curve.mean_seconds(middle) <= seconds { low = middle } else { high = middle }
    }
    (low > 1e-3).then_some(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CostMatrix, Demand, NodeCapacity};

    fn problem() -> Problem {
        let nodes: Vec<NodeName> = ["a", "b"].map(NodeName::from).to_vec();
        let costs = CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.030], [0.030, 0.0]]);
        Problem::new("any", costs, 0, 10.0)
            .with_capacities([NodeCapacity::new("a".into(), 3)])
            .with_demand(Demand::from_concurrency([("a".into(), 9.0), ("b".into(), 6.0)]).unwrap())
            .with_serving(ServingCurve::queue(0.010, 1).unwrap())
    }

    #[test]
    fn replicas_are_filled_less_to_answer_in_time() {
        let level = |seconds| ServiceLevel { share: 1.0, seconds };
        let roomy = problem().fewest_replicas(level(0.080), 1..=5).unwrap();
        assert_eq!((roomy.met, roomy.plan.total_replicas()), (true, 2)); // 0.75 busy: 40 ms, and 30 to go
        let tight = problem().fewest_replicas(level(0.051), 1..=5).unwrap();
        assert_eq!((tight.met, tight.plan.total_replicas()), (true, 3)); // half busy: 20 ms
        let never = problem().fewest_replicas(level(0.035), 1..=5).unwrap();
        assert!(!never.met);
        assert!(matches!(&never.blockers[0], Blocker::TooFar { source, .. } if *source == "b".into()));
        assert_eq!(never.blockers[1], Blocker::Room { replicas: 3 });
        let slow = problem().fewest_replicas(level(0.005), 1..=5).unwrap();
        assert!(matches!(slow.blockers[..], [Blocker::Serving { seconds }] if seconds >= 0.010));
    }

    #[test]
    fn a_level_keeps_to_shares_of_nodes_and_to_zones() {
        let two = problem()
            .with_capacities(["a", "b"].map(|node| NodeCapacity::new(node.into(), 50)))
            .with_demand(Demand::from_concurrency([("a".into(), 35.0)]).unwrap())
            .with_serving(ServingCurve::flat(0.010).unwrap());
        let level = ServiceLevel { share: 1.0, seconds: 0.050 };
        let found = two.clone().with_node_share(0.5).fewest_replicas(level, 1..=100).unwrap();
        assert_eq!((found.met, found.plan.total_replicas()), (true, 4));
        assert_eq!(found.plan.replicas, [("a".into(), 2), ("b".into(), 2)].into());
        let zones = [("a", "west"), ("b", "east")].map(|(node, zone)| (node.into(), zone.to_owned()));
        let spread = two.clone().with_zones(zones.clone(), 2).fewest_replicas(level, 1..=100).unwrap();
        assert_eq!((spread.met, spread.plan.total_replicas(), spread.plan.zones_missing), (true, 4, None));
        // One replica would do, but for the zones.
        let few = two.clone().with_demand(Demand::from_concurrency([("a".into(), 5.0)]).unwrap());
        let found = few.with_zones(zones.clone(), 2).fewest_replicas(level, 1..=100).unwrap();
        assert_eq!(found.plan.replicas, [("a".into(), 1), ("b".into(), 1)].into());
        // Only a is near enough, and one zone more takes one replica more.
        let near = ServiceLevel { share: 1.0, seconds: 0.015 };
        assert_eq!(two.clone().fewest_replicas(near, 1..=100).unwrap().plan.replicas, [("a".into(), 4)].into());
        let spread = two.with_zones(zones, 2).fewest_replicas(near, 1..=100).unwrap();
        assert_eq!((spread.met, spread.plan.replicas), (true, [("a".into(), 4), ("b".into(), 1)].into()));
    }

    #[test]
    fn a_level_leaves_room_that_it_needs_to_answer_in_time() {
        let level = ServiceLevel { share: 1.0, seconds: 0.051 };
        let found = problem().fewest_replicas(level, 1..=5).unwrap();
        assert!(found.met && found.plan.replica_capacity < 6.0, "{}", found.plan.replica_capacity);
        let little = problem().with_demand(Demand::from_concurrency([("b".into(), 1e-7)]).unwrap());
        let cut = CostMatrix::new(["a", "b"].map(Into::into).to_vec(), ndarray::array![[0.0, 0.1], [f64::INFINITY, 0.0]]);
        let lost =
            Problem { costs: cut.into(), ..little }.fewest_replicas(ServiceLevel { share: 0.0, seconds: 1.0 }, 1..=5).unwrap();
        assert!(!lost.met);
    }

    #[test]
    fn nobody_asks_and_nonsense() {
        let idle =
            problem().with_demand(Demand::default()).fewest_replicas(ServiceLevel { share: 0.95, seconds: 0.02 }, 1..=5).unwrap();
        assert_eq!((idle.met, idle.plan.total_replicas()), (true, 1));
        assert!(
            Problem { replica_concurrency: 0.0, ..problem() }
                .fewest_replicas(ServiceLevel { share: 0.9, seconds: 1.0 }, 1..=2)
                .is_err()
        );
    }
}
