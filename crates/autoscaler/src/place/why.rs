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

/// Compares where the pods are to be with each other place that one of them could have, by the
/// demand that they were placed by, on this network and with this room. Meant for a person who
/// asks: it routes all demand anew for each alternative. `None` where there was no demand, or no
/// pod is to run.
///
/// What other revisions have reserved, which nodes refused pods, zones and goals are not looked at.
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
    // What is to run has its place.
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
