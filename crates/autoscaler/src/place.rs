//! Where: how many pods each node gets. Missing room never removes a ready pod.

mod candidates;
mod evidence;
mod goal;
mod standing;
mod why;
mod wishes;

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_link::RevisionKey;
use latency_matrix::NodeName;
use placement::plan::{MoveHistory, Stability, Unplaced, Verdict, ZonesMissing};
use placement::problem::ProblemError;
use placement::{Demand, NodeCapacity, Problem};
use serde::{Deserialize, Serialize};

use self::candidates::{LookedAt, candidates};
use self::evidence::{PlanEvidence, Weight};
use crate::earned;
use crate::memory::RevisionMemory;
use crate::picture::{Facts, Picture};
use crate::rollout::Counts;

pub use self::goal::GoalState;
use self::goal::source_name;
pub(crate) use self::goal::{GoalCosts, GoalMemory, fewest};
use self::standing::spread;
pub(crate) use self::standing::{Standing, stand};
pub use self::why::runner_up;
pub use self::wishes::ShareMissed;
use self::wishes::{Zones, bound_by_share, share_missed};

/// A pod moves for a gain of at least a quarter of a millisecond and a fifth of the mean network
/// time, not sooner than ten seconds after the last move: noise of the network moves nothing. Half
/// the demand at 1 ms from its pod is worth a move, where there are enough requests: see
/// [`Question::stability`].
const STABILITY: Stability = Stability { gain_seconds: 0.000_25, gain_ratio: 0.2, cooldown_seconds: 10.0, moves_per_window: 2 };
/// The window of the budget of moves.
const MOVE_WINDOW: Duration = Duration::from_secs(60);
/// A demand that differs from the last by less than this share calls for no new plan.
const SAME_DEMAND: f64 = 0.1;
/// Fewer requests per second than one in a quarter of an hour count as that.
const LEAST_RATE: f64 = 0.001;
/// At most this many reasons are in a message.
const MOST_REASONS: usize = 5;

/// The last placement and what it was made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Placed {
    target: Counts,
    verdict: Option<Verdict>,
    demand: Vec<(NodeName, f64)>,
    network_version: u64,
    zones_missing: Option<ZonesMissing>,
    /// The gain per request that a move had to bring.
    #[serde(default)]
    gain_seconds: f64,
    /// What requests took at the pods of each node, where a goal asks.
    service: BTreeMap<NodeName, f64>,
    /// What the plan showed, where it left nothing to be done.
    evidence: Option<PlanEvidence>,
}

impl Placed {
    /// Whether the plan stays valid as time passes. A placement that was made before any source was
    /// steady, or that waits for the interval between moves, is planned again.
    fn is_final(&self) -> bool {
        match self.verdict {
            Some(Verdict::NoMoveNeeded | Verdict::Moved | Verdict::GainTooSmall | Verdict::Forced) => true,
            Some(Verdict::CoolingDown | Verdict::MovedPartly | Verdict::BudgetSpent) | None => false,
        }
    }
}

/// The placement of one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RevisionPlacement {
    /// Pods per node.
    pub pods: Counts,
    /// Of these, pods on nodes whose kubelet is silent. They stay, since they may serve, and are
    /// not counted as capacity.
    pub kept: Counts,
    /// Pods that found no node, and why.
    pub unplaced: Option<Unplaced>,
    /// Zones asked for in which there is no pod, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones_missing: Option<ZonesMissing>,
    /// A node that has more than the allowed share of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_missed: Option<ShareMissed>,
    /// Why pods were moved, or not; absent where no plan was needed.
    pub verdict: Option<Verdict>,
}

/// Plans `replicas` pods. `steady` says that the demand is steady enough to move pods by.
pub(crate) fn place(
    key: &RevisionKey,
    picture: &Picture,
    facts: &Facts,
    standing: &mut Standing,
    memory: &mut RevisionMemory,
    question: &Question<'_>,
) -> Result<RevisionPlacement, ProblemError> {
    let now = picture.now.monotonic;
    spread(facts, standing, question.replicas);
    if let Some(share) = facts.settings.node_share {
        bound_by_share(share, standing, question.replicas);
    }
    let standing = &*standing;
    let stability = question.stability();
    let zones = Zones::new(&picture.room, facts.settings.zones.min(question.replicas));
    let within = |counts: &Counts| counts.iter().all(|(node, count)| *count <= standing.limit(node));
    let done = |pods: Counts, unplaced, zones_missing, verdict| {
        let share_missed = share_missed(facts.settings.node_share, &pods, question.replicas);
        let mut all = pods;
        for (node, count) in &standing.kept {
            all.insert(node.clone(), *count);
        }
        Ok(RevisionPlacement { pods: all, kept: standing.kept.clone(), unplaced, zones_missing, share_missed, verdict })
    };
    let runs_enough = standing.running.values().sum::<u32>() == question.replicas && within(&standing.running);
    let are_zones_met = zones.as_ref().is_none_or(|zones| zones.are_met(standing, &standing.running));
    if runs_enough && !question.is_steady && are_zones_met {
        return done(standing.running.clone(), None, None, None);
    }
    if let Some(placed) = &memory.placed
        && question.is_steady
        && placed.is_final()
        && placed.network_version == picture.network.version
        && placed.target.values().sum::<u32>() == question.replicas
        && within(&placed.target)
        && is_like(&placed.demand, question.demand)
        && (placed.gain_seconds - stability.gain_seconds).abs() <= SAME_DEMAND * stability.gain_seconds
        && question.ways.is_none_or(|ways| ways.are_like(&placed.service))
        && zones.as_ref().is_none_or(|zones| zones.are_best(standing, &placed.target))
    {
        return done(placed.target.clone(), None, placed.zones_missing.clone(), placed.verdict);
    }
    // A plan for zones, for a goal or for a least number of pods on a node minimises more than the
    // network time that the evidence is of.
    let is_plain =
        zones.is_none() && question.ways.is_none() && standing.capacities.iter().all(|capacity| capacity.min_replicas == 0);
    let mut best_before = None;
    let weight = match &memory.placed {
        Some(Placed { evidence: Some(evidence), target, verdict, .. })
            if is_plain && runs_enough && question.is_steady && *target == standing.running =>
        {
            let weight = evidence.weigh(&picture.network, standing, question, &stability);
            match weight {
                Weight::NoMove => return done(standing.running.clone(), None, None, *verdict),
                Weight::GainTooSmall => return done(standing.running.clone(), None, None, Some(Verdict::GainTooSmall)),
                Weight::Unsure { .. } | Weight::Nothing => {}
            }
            best_before = Some(&evidence.best);
            weight
        }
        _ => Weight::Nothing,
    };
    let looked_at = candidates(&picture.network, standing, zones.as_ref(), question);
    let problem = pose(key, picture, standing, zones.as_ref(), question, &looked_at.nodes, true);
    if let (Weight::Unsure { moves_below_seconds }, Some(best)) = (weight, best_before)
        && problem.response_seconds_near(best, moves_below_seconds)? > moves_below_seconds
    {
        return done(standing.running.clone(), None, None, Some(Verdict::GainTooSmall));
    }
    let (plan, verdict, shown) = if question.is_steady {
        memory.moved.retain(|at| now.saturating_sub(*at) < MOVE_WINDOW);
        let history = MoveHistory {
            since_last_seconds: memory.moved.back().map(|at| now.saturating_sub(*at).as_secs_f64()),
            moves_in_window: u32::try_from(memory.moved.len()).unwrap_or(u32::MAX),
        };
        let budget = stability.moves_per_window.max(question.replicas / 4);
        let choice = Stability { moves_per_window: budget, ..stability }.choose_and_show(&problem, &history)?;
        (choice.plan, Some(choice.verdict), Some((choice.best, choice.prices)))
    } else {
        (problem.keeping_what_runs().solve()?, None, None)
    };
    let started: u32 =
        plan.replicas.iter().map(|(node, count)| count.saturating_sub(standing.running.get(node).copied().unwrap_or(0))).sum();
    let added = question.replicas.saturating_sub(standing.running.values().sum());
    if matches!(verdict, Some(Verdict::Moved | Verdict::MovedPartly)) {
        // Bounded: older moves than the window were dropped above, and a decision moves few.
        memory.moved.extend(std::iter::repeat_n(now, (started.saturating_sub(added) as usize).min(64)));
    }
    let shown =
        shown.filter(|_| is_plain && matches!(verdict, Some(Verdict::NoMoveNeeded | Verdict::Moved | Verdict::GainTooSmall)));
    let LookedAt { nodes, farthest } = &looked_at;
    let evidence = shown.and_then(|(best, prices)| {
        PlanEvidence::of(&picture.network, standing, question, nodes, farthest, &plan, (&best, &prices))
    });
    memory.placed = plan.unplaced.is_none().then(|| Placed {
        target: plan.replicas.clone(),
        verdict,
        demand: question.demand.to_vec(),
        gain_seconds: stability.gain_seconds,
        network_version: picture.network.version,
        zones_missing: plan.zones_missing.clone(),
        service: question.ways.map(|ways| ways.service().clone()).unwrap_or_default(),
        evidence,
    });
    done(plan.replicas, plan.unplaced, plan.zones_missing, verdict)
}

/// What is asked of a placement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    /// Pods in all.
    pub(crate) replicas: u32,
    /// Target demand of one pod.
    pub(crate) pod_target: f64,
    /// Demand per source node, in name order.
    pub(crate) demand: &'a [(NodeName, f64)],
    /// Whether pods may move for it.
    pub(crate) is_steady: bool,
    /// How many requests per second it is; `None` where some of it is expected only.
    pub(crate) requests_per_second: Option<f64>,
    /// What ways cost, where the revision has a goal for its response time.
    pub(crate) ways: Option<GoalCosts<'a>>,
}

impl Question<'_> {
    /// When pods move. A move costs the start of a pod, as one that a source earns does, so it has
    /// to save as much: requests now and then over a short link move nothing.
    fn stability(&self) -> Stability {
        let worth = earned::Policy::default().saved_seconds_per_second;
        let per_request = self.requests_per_second.map_or(0.0, |rate| worth / rate.max(LEAST_RATE));
        Stability { gain_seconds: STABILITY.gain_seconds.max(per_request), ..STABILITY }
    }
}

/// Whether two demands differ by little enough that the same placement serves both.
fn is_like(one: &[(NodeName, f64)], other: &[(NodeName, f64)]) -> bool {
    let total: f64 = one.iter().map(|(_, demand)| demand).sum();
    let names_agree = one.len() == other.len() && one.iter().zip(other).all(|((a, _), (b, _))| a == b);
    let difference: f64 = one.iter().zip(other).map(|((_, a), (_, b))| (a - b).abs()).sum();
    names_agree && difference <= SAME_DEMAND * total
}

fn pose(
    key: &RevisionKey,
    picture: &Picture,
    standing: &Standing,
    zones: Option<&Zones<'_>>,
    question: &Question<'_>,
    looked_at: &[usize],
    is_late_dear: bool,
) -> Problem {
    let capacities: Vec<NodeCapacity> = looked_at.iter().map(|position| standing.capacities[*position].clone()).collect();
    let sources = question.demand.iter();
    let (costs, demand) = match &question.ways {
        Some(ways) => {
            let nodes: Vec<NodeName> = capacities.iter().map(|capacity| capacity.node.clone()).collect();
            let costs = ways.costs(&picture.network, sources.clone().map(|(node, _)| node), &nodes, is_late_dear);
            (costs, Demand::from_concurrency(sources.map(|(node, demand)| (source_name(node), *demand))))
        }
        None => (picture.network.costs.clone(), Demand::from_concurrency(sources.cloned())),
    };
    let demand = demand.unwrap_or_default();
    let running = zones.map_or_else(|| standing.running.clone(), |zones| zones.release(standing, question.replicas));
    let problem = Problem::new(key.to_string(), costs, question.replicas, question.pod_target)
        .with_demand(demand)
        .with_capacities(capacities)
        .with_running(running)
        .with_model(picture.network.model);
    match zones {
        Some(zones) => problem.with_zones(zones.by_node(standing), zones.asked),
        None => problem,
    }
}

/// Keeps what runs, within its nodes' limits.
pub(crate) fn keep(standing: &Standing) -> RevisionPlacement {
    let mut pods = standing.running.clone();
    for (node, count) in &standing.kept {
        pods.insert(node.clone(), *count);
    }
    RevisionPlacement { pods, kept: standing.kept.clone(), ..RevisionPlacement::default() }
}

impl RevisionPlacement {
    /// Pods that found no node and why, as a message; `None` if every pod has a node.
    #[must_use]
    pub fn shortage(&self) -> Option<String> {
        let unplaced = self.unplaced.as_ref()?;
        let mut nodes_by_reason: BTreeMap<String, Vec<&NodeName>> = BTreeMap::new();
        for (node, reason) in &unplaced.reasons {
            nodes_by_reason.entry(reason_text(reason)).or_default().push(node);
        }
        let words = nodes_by_reason.into_iter().take(MOST_REASONS).map(|(text, nodes)| match nodes.as_slice() {
            [first, .., _] => format!("{first} and {} more: {text}", nodes.len() - 1),
            [one] => format!("{one}: {text}"),
            [] => text,
        });
        let reasons = words.collect::<Vec<_>>().join("; ");
        Some(format!("{} pods found no node ({reasons})", unplaced.replicas))
    }
}

fn reason_text(reason: &placement::plan::UnplacedReason) -> String {
    use placement::plan::UnplacedReason;
    match reason {
        UnplacedReason::Full { max_replicas } => format!("room for {max_replicas} pods, all taken"),
        UnplacedReason::Cordoned => "takes no new pods".to_owned(),
        UnplacedReason::Excluded(exclusion) => exclusion.to_string(),
        UnplacedReason::Unreachable => "no source reaches it".to_owned(),
    }
}
