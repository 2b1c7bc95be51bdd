//! What the last plan showed, so that the next one is only made when something has changed by
//! enough to matter.
//!
//! A plan of a revision costs milliseconds, and latency and demand differ a little every time. What
//! the last plan found stays the measure while every source, node and limit is about as it was: no
//! cost of a placement falls by more than its cheapest term does. So the gain that a plan made now
//! could find is at most what keeping costs now, less the best that was found then times the
//! greatest fall of any term. Where that is less than [`Stability`] asks for, nothing would move.
//! Where it is more, what requests were worth in the last plan bounds every placement from below
//! ([`least_network`]), which is closer and takes a little longer.
//!
//! Demand of a source may differ by [`SAME_SUPPLY`] at most: how much pods can take is the same
//! then but for as much.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use latency_matrix::NodeName;
use placement::Plan;
use placement::plan::{PricedSource, Stability, least_network};
use placement::problem::CostModel;
use serde::{Deserialize, Serialize};

use super::{Question, Standing};
use crate::picture::Network;
use crate::rollout::Counts;

/// The demand of a source may be less or more by this share of it.
const SAME_SUPPLY: f64 = 0.25;

/// Up to this multiple of the gain that a move needs, a quick search decides whether there is one.
const UNSURE: f64 = 2.0;
/// Rounding decides nothing.
const ROUNDED: f64 = 1.0 + 1e-9;

/// What the last plan says of one made now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Weight {
    /// It would find nothing that is worth a move.
    NoMove,
    /// The same, by what requests were worth in the last plan.
    GainTooSmall,
    /// It may find little more than that: only where a quick search finds a placement whose mean
    /// network time is below this, a thorough one is worth its time.
    Unsure {
        /// In seconds.
        moves_below_seconds: f64,
    },
    /// Too much is different.
    Nothing,
}

/// What a plan was made from and what it found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PlanEvidence {
    /// Of the names of the nodes at `nodes`, and how many there are.
    names: (u64, usize),
    /// Positions of the nodes that the plan looked at, and how many pods each could have had.
    nodes: Vec<(u32, u32)>,
    sources: Vec<Source>,
    /// Share of all demand that goes from a source to a node, by their positions.
    flows: Vec<(u32, u32, f32)>,
    pods: u32,
    pod_target: f64,
    /// Mean network time of the best plan that was found.
    best_seconds: f64,
    /// Its pods per node: a quick look begins there.
    pub(super) best: Counts,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Source {
    position: u32,
    demand: f64,
    /// Share of all demand.
    share: f32,
    /// Seconds to each of the nodes.
    seconds: Vec<f32>,
    /// Seconds to the farthest of them: nodes that were not looked at are as far at least.
    farthest: f32,
    /// Seconds that serving one of its requests was worth.
    #[serde(default)]
    worth: f32,
}

impl PlanEvidence {
    /// The evidence of a plan that keeps the running pods (`kept`), where `best` is the best plan
    /// found. `looked_at` are the positions of its candidate nodes.
    pub(super) fn of(
        network: &Network,
        standing: &Standing,
        question: &Question<'_>,
        looked_at: &[usize],
        near: &[f64],
        kept: &Plan,
        (best, prices): (&Plan, &[f64]),
    ) -> Option<Self> {
        let best_seconds = best.cost.network_seconds;
        let is_plain = network.model == CostModel::LocalFirst
            && kept.unserved.is_empty()
            && kept.unplaced.is_none()
            && standing.capacities.iter().all(|capacity| capacity.min_replicas == 0);
        let total = total(question);
        if !is_plain || total <= 0.0 || !total.is_finite() || !best_seconds.is_finite() {
            return None;
        }
        let position = |name: &NodeName| network.nodes().binary_search(name).ok();
        let mut sources = Vec::with_capacity(question.demand.len());
        let prices = if prices.len() == question.demand.len() { prices } else { &[] };
        let prices = prices.iter().copied().chain(std::iter::repeat(0.0));
        for (((name, demand), near), worth) in question.demand.iter().zip(near).zip(prices) {
            let from = position(name)?;
            let seconds: Vec<f32> = looked_at.iter().map(|to| as_f32(network.costs.at(from, *to))).collect();
            let share = (demand / total) as f32;
            let (farthest, worth) = (as_f32(*near), as_f32(worth));
            sources.push(Source { position: as_u32(from), demand: *demand, share, seconds, farthest, worth });
        }
        let mut flows = Vec::with_capacity(kept.flows.len());
        for flow in &kept.flows {
            let share = (flow.concurrency / total) as f32;
            flows.push((as_u32(position(&flow.source)?), as_u32(position(&flow.node)?), share));
        }
        let nodes: Vec<(u32, u32)> =
            looked_at.iter().map(|node| (as_u32(*node), standing.limit_at(*node).min(question.replicas))).collect();
        Some(Self {
            names: names(network, &nodes),
            nodes,
            sources,
            flows,
            pods: question.replicas,
            pod_target: question.pod_target,
            best_seconds,
            best: best.replicas.clone(),
        })
    }

    /// What it says of a plan made now.
    pub(super) fn weigh(&self, network: &Network, standing: &Standing, question: &Question<'_>, rules: &Stability) -> Weight {
        let Some((kept_seconds, gain_seconds)) = self.gain_at_most(network, standing, question) else {
            return Weight::Nothing;
        };
        let enough_seconds = rules.gain_seconds.max(rules.gain_ratio * kept_seconds);
        let moves_below_seconds = kept_seconds - enough_seconds;
        if gain_seconds < enough_seconds {
            Weight::NoMove
        } else if self.seconds_at_least(network, standing, question) > moves_below_seconds * ROUNDED {
            Weight::GainTooSmall
        } else if gain_seconds < UNSURE * enough_seconds {
            Weight::Unsure { moves_below_seconds }
        } else {
            Weight::Nothing
        }
    }

    /// The mean network time that no placement is below: what requests were worth in the last plan
    /// says so of any costs.
    fn seconds_at_least(&self, network: &Network, standing: &Standing, question: &Question<'_>) -> f64 {
        let limits: Vec<u32> = (0..standing.capacities.len()).map(|node| standing.limit_at(node)).collect();
        let room: u64 = limits.iter().map(|limit| u64::from((*limit).min(question.replicas))).sum();
        if room < u64::from(question.replicas) {
            return 0.0;
        }
        let sources = self.sources.iter().zip(question.demand).map(|(source, (_, demand))| PricedSource {
            position: source.position as usize,
            demand: *demand,
            worth_seconds: f64::from(source.worth),
        });
        let sources: Vec<PricedSource> = sources.collect();
        least_network(&network.costs, &sources, &limits, question.replicas, question.pod_target) / total(question)
    }

    /// What keeping takes now, and what the best plan would gain at most; `None` where that is not
    /// known.
    fn gain_at_most(&self, network: &Network, standing: &Standing, question: &Question<'_>) -> Option<(f64, f64)> {
        let is_alike = network.model == CostModel::LocalFirst
            && self.pods == question.replicas
            && self.pod_target == question.pod_target
            && self.sources.len() == question.demand.len()
            && standing.capacities.len() == network.nodes().len()
            && standing.capacities.iter().all(|capacity| capacity.min_replicas == 0)
            && self.names == names(network, &self.nodes);
        if !is_alike || self.nodes.iter().any(|(node, most)| standing.limit_at(*node as usize).min(self.pods) > *most) {
            return None;
        }
        let total = total(question);
        let mut is_looked_at = vec![false; standing.capacities.len()];
        self.nodes.iter().for_each(|(node, _)| is_looked_at[*node as usize] = true);
        let others: Vec<usize> =
            (0..is_looked_at.len()).filter(|node| !is_looked_at[*node] && standing.capacities[*node].limit(0) > 0).collect();
        // The greatest fall of any term, as a factor.
        let mut least = f64::INFINITY;
        let mut kept_seconds = 0.0;
        let mut flows = self.flows.as_slice();
        for (source, (name, demand)) in self.sources.iter().zip(question.demand) {
            let from = source.position as usize;
            let is_same = network.nodes().get(from) == Some(name)
                && (demand - source.demand).abs() <= SAME_SUPPLY * source.demand
                && source.demand > 0.0;
            if !is_same {
                return None;
            }
            let rise = demand / total / f64::from(source.share);
            let mut nearest = f64::INFINITY;
            for ((to, _), before) in self.nodes.iter().zip(&source.seconds) {
                if *before > 0.0 {
                    nearest = nearest.min(network.costs.at(from, *to as usize) / f64::from(*before));
                }
            }
            for to in &others {
                nearest = nearest.min(network.costs.at(from, *to) / f64::from(source.farthest.max(f32::MIN_POSITIVE)));
            }
            least = least.min(rise * nearest);
            while let Some(((of, to, share), rest)) = flows.split_first().filter(|((of, ..), _)| *of == source.position) {
                kept_seconds += f64::from(*share) * rise * network.costs.at(*of as usize, *to as usize);
                flows = rest;
            }
        }
        // Every flow belongs to one of the sources, in their order.
        if !flows.is_empty() {
            return None;
        }
        Some((kept_seconds, kept_seconds - self.best_seconds * least.min(1.0)))
    }
}

fn total(question: &Question<'_>) -> f64 {
    question.demand.iter().map(|(_, demand)| demand).sum()
}

fn names(network: &Network, nodes: &[(u32, u32)]) -> (u64, usize) {
    let mut hasher = DefaultHasher::new();
    for (node, _) in nodes {
        network.nodes().get(*node as usize).map(NodeName::as_str).hash(&mut hasher);
    }
    (hasher.finish(), network.nodes().len())
}

/// As JSON can say it, also where one node cannot be reached from another.
fn as_f32(seconds: f64) -> f32 {
    (seconds as f32).min(f32::MAX)
}

fn as_u32(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
