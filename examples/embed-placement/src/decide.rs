//! The part that embeds `placement`: from a fleet to its decisions.

use std::collections::BTreeMap;

use placement::plan::explain::{Explanation, explain};
use placement::plan::{MoveHistory, Stability, Verdict};
use placement::problem::ProblemError;
use placement::problem::{DemandError, Exclusion};
use placement::{CostMatrix, CostPolicy, Demand, LatencyMatrix, NodeCapacity, NodeName, Plan, Problem, WeightMatrix};
use thiserror::Error;

use crate::fleet::{Fleet, FleetError, Moment};

/// A fleet with all that was decided about it.
pub(crate) struct Story {
    pub(crate) fleet: Fleet,
    pub(crate) matrix: LatencyMatrix,
    pub(crate) decisions: Vec<Decision>,
}

/// One decision and the reasons for it.
pub(crate) struct Decision {
    /// Replicas that ran before it.
    pub(crate) running: BTreeMap<NodeName, u32>,
    /// Replicas that the demand needs.
    pub(crate) wanted: u32,
    pub(crate) demand: Demand,
    pub(crate) plan: Plan,
    /// Whether the plan moves what ran, and why or why not.
    pub(crate) verdict: Verdict,
    /// Which way the requests of each source node go.
    pub(crate) weights: WeightMatrix,
    pub(crate) explanation: Explanation,
}

#[derive(Debug, Error)]
pub(crate) enum DecideError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error("failed to use the demand of decision {title:?}")]
    Demand { title: String, source: DemandError },
    #[error(transparent)]
    Problem(#[from] ProblemError),
}

/// Makes every decision of the fleet's file, one after the other.
pub(crate) fn decide(fleet: Fleet) -> Result<Story, DecideError> {
    let matrix = fleet.matrix()?;
    let costs = CostPolicy::default().costs(&matrix);
    let mut running: BTreeMap<NodeName, u32> =
        fleet.service.running.iter().map(|(node, count)| (node.as_str().into(), *count)).collect();
    let mut moved_at_seconds = None;
    let mut decisions = Vec::new();
    for moment in &fleet.decisions {
        let history = MoveHistory {
            since_last_seconds: moved_at_seconds.map(|moved_at: f64| moment.at_seconds - moved_at),
            moves_in_window: 0,
        };
        let decision = decide_once(&fleet, moment, &costs, &running, &history)?;
        running.clone_from(&decision.plan.replicas);
        if matches!(decision.verdict, Verdict::Moved | Verdict::MovedPartly | Verdict::Forced) {
            moved_at_seconds = Some(moment.at_seconds);
        }
        decisions.push(decision);
    }
    Ok(Story { fleet, matrix, decisions })
}

fn decide_once(
    fleet: &Fleet,
    moment: &Moment,
    costs: &CostMatrix,
    running: &BTreeMap<NodeName, u32>,
    history: &MoveHistory,
) -> Result<Decision, DecideError> {
    let in_flight = moment.demand.iter().map(|(node, requests)| (node.as_str().into(), *requests));
    let demand =
        Demand::from_concurrency(in_flight).map_err(|source| DecideError::Demand { title: moment.title.clone(), source })?;
    let wanted = replicas_for(demand.total(), fleet.service.requests_per_replica);
    let capacities = fleet.nodes.iter().map(|node| {
        let capacity = NodeCapacity::new(node.name.as_str().into(), node.room);
        let capacity = if moment.cordoned.contains(&node.name) { capacity.cordoned() } else { capacity };
        if moment.not_ready.contains(&node.name) { capacity.excluded(Exclusion::NotReady) } else { capacity }
    });
    let problem = Problem::new(fleet.service.name.as_str(), costs.clone(), wanted, fleet.service.requests_per_replica)
        .with_demand(demand.clone())
        .with_capacities(capacities)
        .with_running(running.clone());
    let (plan, verdict) = Stability::default().choose(&problem, history)?;
    Ok(Decision {
        running: running.clone(),
        wanted,
        weights: WeightMatrix::assigned(&fleet.node_names(), &plan, costs),
        explanation: explain(&problem, &plan),
        demand,
        plan,
        verdict,
    })
}

/// As many replicas as serve all requests in flight.
fn replicas_for(in_flight: f64, requests_per_replica: f64) -> u32 {
    // A cast from f64 saturates, and makes 0 of NaN.
    (in_flight / requests_per_replica).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::COAST;

    fn coast() -> Story {
        decide(Fleet::from_text(COAST, "coast.toml").unwrap()).unwrap()
    }

    #[test]
    fn the_shipped_fleet_is_served_near_its_viewers() {
        let first = &coast().decisions[0];
        assert_eq!(first.verdict, Verdict::Moved);
        assert_eq!(first.plan.total_replicas(), 5);
        assert_eq!(first.plan.replicas_on(&"cloud".into()), 0);
        assert!(first.plan.unplaced.is_none());
    }

    #[test]
    fn the_second_decision_keeps_what_runs() {
        let story = coast();
        assert_eq!(story.decisions[1].verdict, Verdict::GainTooSmall);
        assert_eq!(story.decisions[1].plan.replicas, story.decisions[0].plan.replicas);
    }

    #[test]
    fn the_third_decision_names_what_has_no_place_and_why() {
        let story = coast();
        let third = &story.decisions[2];
        let unplaced = third.plan.unplaced.as_ref().unwrap();
        assert_eq!(third.plan.total_replicas() + unplaced.replicas, third.wanted);
        assert_eq!(unplaced.reasons.len(), story.fleet.nodes.len());
        assert_eq!(third.plan.replicas_on(&"saigon".into()), 0);
    }

    #[test]
    fn replicas_are_rounded_up() {
        assert_eq!(replicas_for(0.0, 12.0), 0);
        assert_eq!(replicas_for(12.0, 12.0), 1);
        assert_eq!(replicas_for(12.1, 12.0), 2);
    }
}
