//! Why pods are where they are: what the next best would be, and by how much it is worse.

use std::collections::BTreeMap;
use std::sync::Arc;

use placement::NodeCapacity;
use placement::plan::explain::{Explanation, explain};
use placement::problem::ProblemError;

use super::candidates::candidates;
use super::{Question, pose, spread, stand};
use crate::decide::Decision;
use crate::memory::{Memory, RevisionMemory};
use crate::picture::{Inputs, Network, Now, Picture};
use crate::room::NodeRoom;

/// Compares the placement with each alternative that moves one pod, by the same demand, network and
/// room. For explanations only: it routes all demand again for each alternative. `None` without
/// demand or without pods.
///
/// Reservations of other revisions, refusals, zones and goals are not considered.
///
/// # Errors
/// Where the revision's settings make no problem of it.
pub fn runner_up(
    now: Now,
    network: &Arc<Network>,
    room: &Arc<Vec<NodeRoom>>,
    inputs: &Inputs,
    decision: &Decision,
) -> Result<Option<Explanation>, ProblemError> {
    let facts = &*inputs.facts;
    let mut pods = decision.target.pods.clone();
    pods.retain(|node, _| !decision.target.kept.contains_key(node));
    let replicas: u32 = pods.values().sum();
    if replicas == 0 || decision.demand.is_empty() {
        return Ok(None);
    }
    let picture = Picture { now, network: network.clone(), room: room.clone(), revisions: BTreeMap::new() };
    let mut standing = stand(&picture, facts, &Memory::default(), &RevisionMemory::default());
    spread(facts, &mut standing, replicas);
    // The placed pods have their room.
    standing.running.clone_from(&pods);
    for capacity in &mut standing.capacities {
        if let Some(count) = pods.get(&capacity.node) {
            *capacity = NodeCapacity::new(capacity.node.clone(), capacity.max_replicas.max(*count));
        }
    }
    let question = Question {
        replicas,
        pod_target: facts.settings.target,
        demand: &decision.demand,
        is_steady: true,
        requests_per_second: None,
        ways: None,
    };
    let before = candidates(&picture.network, &standing, None, &question);
    let problem = pose(&decision.key, &picture, &standing, None, &question, &before.nodes, true);
    for capacity in &mut standing.capacities {
        capacity.min_replicas = pods.get(&capacity.node).copied().unwrap_or(0);
    }
    let looked_at = candidates(&picture.network, &standing, None, &question);
    let plan = pose(&decision.key, &picture, &standing, None, &question, &looked_at.nodes, true).solve()?;
    Ok(Some(explain(&problem, &plan)))
}
