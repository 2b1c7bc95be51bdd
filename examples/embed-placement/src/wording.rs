//! Decisions in words, one line per fact. The terminal and the page say the same.

use placement::NodeName;
use placement::latency::PairState;
use placement::plan::explain::LeftOut;
use placement::plan::{Proof, UnplacedReason, Verdict};

use crate::decide::{Decision, Story};

/// Below this, two plans are equally good: the cost of a tie.
const NOTHING_SECONDS: f64 = 1e-4;

/// A round trip in milliseconds, with the state of what is known of it.
pub(crate) fn round_trip(state: &PairState) -> String {
    match state {
        PairState::Known(stats) => format!("{:.1}", stats.p50 * 1000.0),
        PairState::Stale(stats) => format!("~{:.1}", stats.p50 * 1000.0),
        PairState::Unknown => "?".to_owned(),
        PairState::Unreachable => "x".to_owned(),
    }
}

pub(crate) const LEGEND: &str = "milliseconds; ~ stale, ? unknown, x unreachable";

pub(crate) fn fleet(story: &Story) -> String {
    format!(
        "{} nodes; service {}, of which one replica serves {} requests at a time",
        story.fleet.nodes.len(),
        story.fleet.service.name,
        story.fleet.service.requests_per_replica
    )
}

pub(crate) fn demand(decision: &Decision) -> String {
    let sources: Vec<String> = decision.demand.iter().map(|(node, requests)| format!("{node} {requests}")).collect();
    format!("{} in flight, which need {} replicas", sources.join(", "), decision.wanted)
}

/// Replicas per node, with what changes.
pub(crate) fn replicas(story: &Story, decision: &Decision) -> Vec<(NodeName, String)> {
    let mut lines = Vec::new();
    for node in story.fleet.node_names() {
        let (before, after) = (decision.running.get(&node).copied().unwrap_or(0), decision.plan.replicas_on(&node));
        let change = match (before, after) {
            (0, 0) => continue,
            _ if before == after => "as before".to_owned(),
            _ if before < after => format!("{} started", after - before),
            _ => format!("{} stopped", before - after),
        };
        let line = match after {
            0 => format!("no replicas, {change}"),
            _ => format!("{after} replicas for {:.1} requests, {change}", decision.plan.load_on(&node)),
        };
        lines.push((node, line));
    }
    lines
}

pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NoMoveNeeded => "no replica has to move",
        Verdict::Moved => "replicas move: the gain is worth it",
        Verdict::GainTooSmall => "what runs is kept: the best plan gains too little to move replicas for it",
        Verdict::CoolingDown => "what runs is kept: the last move was a short time ago",
        Verdict::MovedPartly => "some replicas move: the budget of moves covers no more",
        Verdict::BudgetSpent => "what runs is kept: the budget of moves is spent",
        Verdict::Forced => "replicas move whatever it gains: where they are they cannot stay or cannot serve all",
    }
}

pub(crate) fn cost(decision: &Decision) -> String {
    let plan = &decision.plan;
    let proof = match plan.proof {
        Proof::Optimal => "no placement under the same rules is better (proven)".to_owned(),
        Proof::AtLeast { objective } => {
            let gap = (plan.cost.objective - objective) / plan.cost.objective.max(f64::MIN_POSITIVE);
            format!("at most {:.1} % from the best", 100.0 * gap)
        }
    };
    format!(
        "mean network time {:.2} ms, replicas {:.0} % busy; {proof}",
        plan.cost.network_seconds * 1000.0,
        plan.utilisation * 100.0
    )
}

/// Where the requests of each source node go.
pub(crate) fn routes(decision: &Decision) -> Vec<(NodeName, String)> {
    let route = |source: &NodeName| {
        let targets: Vec<String> =
            decision.weights.targets(source).map(|(target, weight)| format!("{target} {weight} %")).collect();
        targets.join(", ")
    };
    decision.weights.nodes().iter().map(|source| (source.clone(), route(source))).collect()
}

/// Why each node has replicas, or none.
pub(crate) fn reasons(decision: &Decision) -> Vec<(NodeName, String)> {
    let mut lines = Vec::new();
    for chosen in &decision.explanation.chosen {
        let margin = match (&chosen.runner_up, chosen.margin) {
            (Some(other), Some(margin)) => format!("one of them on {other} instead would {}", compared(margin, decision)),
            _ => "nowhere else is room for one of them".to_owned(),
        };
        lines.push((chosen.node.clone(), format!("chosen: {margin}")));
    }
    for (node, reason) in &decision.explanation.left_out {
        let reason = match reason {
            LeftOut::Blocked(reason) => unplaced_reason(reason),
            LeftOut::Costlier(margin) => format!("a replica here instead of elsewhere would {}", compared(*margin, decision)),
            LeftOut::NothingToMove => "no replica can be taken from another node for it".to_owned(),
        };
        lines.push((node.clone(), format!("left out: {reason}")));
    }
    lines
}

/// A difference in demand x seconds, as the mean time of a request.
fn compared(margin: f64, decision: &Decision) -> String {
    let per_request = margin / decision.demand.total().max(f64::MIN_POSITIVE);
    if per_request.abs() < NOTHING_SECONDS {
        "change next to nothing".to_owned()
    } else if per_request.is_infinite() || per_request > 1.0 {
        "leave requests unserved".to_owned()
    } else if per_request < 0.0 {
        format!("save {:.1} ms per request", -1000.0 * per_request)
    } else {
        format!("cost {:.1} ms more per request", 1000.0 * per_request)
    }
}

/// What has no place; nothing where all has one.
pub(crate) fn unplaced(decision: &Decision) -> Option<(String, Vec<(NodeName, String)>)> {
    let unplaced = decision.plan.unplaced.as_ref()?;
    let reasons = unplaced.reasons.iter().map(|(node, reason)| (node.clone(), unplaced_reason(reason))).collect();
    Some((format!("{} of {} replicas have no place", unplaced.replicas, decision.wanted), reasons))
}

fn unplaced_reason(reason: &UnplacedReason) -> String {
    match reason {
        UnplacedReason::Full { max_replicas } => format!("full: there is room for {max_replicas}"),
        UnplacedReason::Cordoned => "cordoned: takes no new replicas".to_owned(),
        UnplacedReason::Excluded(exclusion) => format!("excluded: {exclusion}"),
        UnplacedReason::Unreachable => "no source with demand reaches it".to_owned(),
    }
}
