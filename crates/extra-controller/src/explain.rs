//! The last decision about each revision, with its inputs, for explanations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use autoscaler::room::NodeRoom;
use autoscaler::{Decision, Inputs, Network, Now, Picture};
use gateway_link::RevisionKey;
use placement::plan::explain::{Chosen, Explanation};
use serde::Serialize;

/// Nodes that a summary names, and its length in characters.
const MOST_NODES: usize = 10;
const LONGEST_SUMMARY: usize = 500;
/// Sources that are named as likely to ask first.
const MOST_LIKELY: usize = 3;

/// The last decision about each revision. The tick writes it, the API reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explanations {
    decided: Arc<Mutex<BTreeMap<RevisionKey, Arc<Explained>>>>,
    surroundings: Arc<Mutex<Option<Surroundings>>>,
}

/// What all revisions are placed on.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) now: Now,
    pub(crate) network: Arc<Network>,
    pub(crate) room: Arc<Vec<NodeRoom>>,
}

/// One decision and what it was made from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Explained {
    /// What was decided.
    pub(crate) decision: Decision,
    /// What it was decided from.
    pub(crate) inputs: Inputs,
}

impl Explanations {
    /// Keeps a decision instead of the one before.
    pub(crate) fn set(&self, inputs: &Inputs, decision: &Decision) {
        let explained = Explained { decision: decision.clone(), inputs: inputs.clone() };
        self.with(|all| all.insert(decision.key.clone(), Arc::new(explained)));
    }

    /// The nodes are these now.
    pub(crate) fn set_surroundings(&self, picture: &Picture) {
        let Picture { now, network, room, .. } = picture;
        let surroundings = Surroundings { now: *now, network: network.clone(), room: room.clone() };
        *self.surroundings.lock().unwrap_or_else(PoisonError::into_inner) = Some(surroundings);
    }

    /// What the next best places would be. It takes a while on many nodes.
    pub(crate) fn runner_up(&self, explained: &Explained) -> Option<Explanation> {
        let surroundings = self.surroundings.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let Surroundings { now, network, room } = surroundings;
        autoscaler::runner_up(now, &network, &room, &explained.inputs, &explained.decision).ok().flatten()
    }

    /// The revision is gone.
    pub(crate) fn forget(&self, key: &RevisionKey) {
        self.with(|all| all.remove(key));
    }

    /// The last decision about a revision.
    #[must_use]
    pub(crate) fn get(&self, key: &RevisionKey) -> Option<Arc<Explained>> {
        self.with(|all| all.get(key).cloned())
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<RevisionKey, Arc<Explained>>) -> T) -> T {
        act(&mut self.decided.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Explained {
    /// The decision in sentences.
    #[must_use]
    pub(crate) fn words(&self) -> Vec<String> {
        words(&self.inputs, &self.decision)
    }

    /// The next best places in sentences.
    pub(crate) fn runner_up_words(&self, explanation: &Explanation) -> Vec<String> {
        let demand: f64 = self.decision.demand.iter().map(|(_, demand)| demand).sum();
        let text = |chosen: &Chosen| match (&chosen.runner_up, chosen.margin) {
            (Some(node), Some(margin)) => format!(
                "{}: {} pods; one of them on {node} instead would cost {:.2} ms per request on average.",
                chosen.node,
                chosen.replicas,
                margin / demand.max(f64::MIN_POSITIVE) * 1000.0
            ),
            _ => format!("{}: {} pods; there is no room for one of them elsewhere.", chosen.node, chosen.replicas),
        };
        explanation.chosen.iter().map(text).collect()
    }
}

/// The decision in one sentence, for the annotation of the Seika.
pub(crate) fn summary(decision: &Decision) -> String {
    let pods: Vec<String> = decision.target.pods.iter().take(MOST_NODES).map(|(node, pods)| format!("{node} {pods}")).collect();
    let more = decision.target.pods.len().saturating_sub(MOST_NODES);
    let more = if more > 0 { format!(" and {more} nodes more") } else { String::new() };
    let count = &decision.count;
    let demand = match (count.stable_demand, count.asked) {
        (Some(demand), Some(asked)) => format!("demand {demand:.2} asks for {asked} pods"),
        _ => "demand is not known yet".to_owned(),
    };
    let panic = if count.is_panicking { ", in a panic" } else { "" };
    let earned: u32 = count.earned.values().sum();
    let earned = if earned > 0 { format!(", sources have earned {earned}") } else { String::new() };
    let moves = decision.target.verdict.map_or(String::new(), |verdict| format!("; moves: {}", verdict_text(verdict)));
    let shortage = decision.target.shortage().map_or(String::new(), |shortage| format!("; {shortage}"));
    let pods = if pods.is_empty() { "none".to_owned() } else { pods.join(", ") };
    let summary = format!("{demand}{panic}{earned}; pods: {pods}{more}{moves}{shortage}");
    summary.chars().take(LONGEST_SUMMARY).collect()
}

fn words(inputs: &Inputs, decision: &Decision) -> Vec<String> {
    let (facts, count) = (&inputs.facts, &decision.count);
    let mut words = Vec::new();
    words.push(match (count.stable_demand, count.asked) {
        (Some(stable), Some(asked)) => format!(
            "Demand over the stable window of {} s is {stable:.2} for a target of {:.2} per pod: {asked} pods.",
            facts.settings.stable_window.as_secs(),
            facts.settings.target,
        ),
        _ => "No demand was measured yet: running pods stay.".to_owned(),
    });
    if inputs.demand.is_unknown {
        words.push("The demand of some gateway is unknown: no pod is removed.".to_owned());
    }
    if count.is_panicking {
        words.push("The revision is in panic mode: no pod is removed.".to_owned());
    }
    if !count.earned.is_empty() {
        let nodes: Vec<String> = count.earned.iter().map(|(node, pods)| format!("{node} {pods}")).collect();
        words.push(format!("Pods that source nodes earn by the network time saved: {}.", nodes.join(", ")));
    }
    if let Some(outlook) = &decision.outlook {
        words.push(warm_text(facts.settings.warm, outlook));
    }
    let pods: Vec<String> = decision.target.pods.iter().map(|(node, pods)| format!("{node} {pods}")).collect();
    words.push(if pods.is_empty() { "No pod is desired.".to_owned() } else { format!("Pods per node: {}.", pods.join(", ")) });
    if !decision.target.kept.is_empty() {
        let nodes: Vec<String> = decision.target.kept.keys().map(ToString::to_string).collect();
        words.push(format!("The kubelets of {} are silent: pods there stay.", nodes.join(", ")));
    }
    if let Some(verdict) = decision.target.verdict {
        words.push(format!("Moves: {}.", verdict_text(verdict)));
    }
    if let Some(shortage) = decision.target.shortage() {
        words.push(format!("{shortage}."));
    }
    if let Some(goal) = &decision.goal {
        words.push(goal_text(goal));
    }
    for problem in &facts.settings.problems {
        words.push(format!("Annotation {problem}."));
    }
    for unmet in decision.target.unmet_wishes() {
        words.push(format!("Not met: {unmet}."));
    }
    words
}

fn goal_text(goal: &autoscaler::GoalState) -> String {
    let milliseconds = |seconds: f64| format!("{:.1} ms", seconds * 1000.0);
    let serving = match goal.serving_seconds {
        Some(seconds) => format!("requests take {} at a pod", milliseconds(seconds)),
        None => "the time at a pod is not known yet".to_owned(),
    };
    let goal_seconds = milliseconds(goal.seconds);
    match goal.blocked_by() {
        None => format!("{} pods are the fewest that answer 95 % of the requests within {goal_seconds}; {serving}.", goal.pods),
        Some(why) => format!(
            "The goal of 95 % within {goal_seconds} is out of reach: {:.0} % with {} pods, since {why}; {serving}.",
            goal.share_within * 100.0,
            goal.pods
        ),
    }
}

fn warm_text(warm: u32, outlook: &autoscaler::warm::Outlook) -> String {
    let mut likely: Vec<_> = outlook.iter().collect();
    likely.sort_by(|one, other| other.1.total_cmp(one.1));
    let nodes: Vec<String> =
        likely.iter().take(MOST_LIKELY).map(|(node, share)| format!("{node} {:.0} %", *share * 100.0)).collect();
    if nodes.is_empty() {
        return format!(
            "Warm pods, which count as min-scale: {warm}. Nothing is known of earlier demand: they stay where they are."
        );
    }
    format!("Warm pods, which count as min-scale: {warm}. By earlier days the next request comes from {}.", nodes.join(", "))
}

fn verdict_text(verdict: placement::plan::Verdict) -> &'static str {
    use placement::plan::Verdict;
    match verdict {
        Verdict::NoMoveNeeded => "none is needed",
        Verdict::Moved => "pods move, the gain is worth it",
        Verdict::GainTooSmall => "none, the gain is too small",
        Verdict::CoolingDown => "none, the last move was too recent",
        Verdict::MovedPartly => "some pods move, as many as the budget allows",
        Verdict::BudgetSpent => "none, the budget of this minute is spent",
        Verdict::Forced => "forced, pods cannot stay where they are",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{decision, inputs};

    #[test]
    fn warm_pods_and_who_is_likely_to_ask_are_named() {
        let outlook = [("node1".into(), 0.2), ("node3".into(), 0.8)].into();
        assert!(super::warm_text(1, &outlook).ends_with("the next request comes from node3 80 %, node1 20 %."));
        assert!(super::warm_text(1, &autoscaler::warm::Outlook::new()).contains("Nothing is known"));
    }

    #[test]
    fn a_summary_fits_on_a_line_and_names_the_pods() {
        let mut decision = decision();
        decision.target.pods = (0..200).map(|node| (format!("node{node:03}").as_str().into(), 1)).collect();
        let summary = summary(&decision);
        assert!(summary.len() <= LONGEST_SUMMARY && summary.contains("node009 1 and 190 nodes more"), "{summary}");
        assert!(!summary.contains('\n'));
    }

    #[test]
    fn the_next_best_place_is_named_with_its_cost_per_request() {
        let mut decision = decision();
        (decision.target.pods, decision.demand) = ([("node1".into(), 1)].into(), [("node1".into(), 4.0)].into());
        let explanations = Explanations::default();
        let explained = Explained { inputs: inputs(&[]), decision };
        assert_eq!(explanations.runner_up(&explained), None);
        explanations.set_surroundings(&crate::testing::picture(inputs(&[])));
        let words = explained.runner_up_words(&explanations.runner_up(&explained).unwrap());
        assert_eq!(words, ["node1: 1 pods; one of them on node2 instead would cost 20.00 ms per request on average."]);
    }

    #[test]
    fn annotations_that_are_ignored_are_named() {
        let words = super::words(&inputs(&[("autoscaling.knative.dev/metric", "cpu")]), &decision());
        let named = |word: &String| word.starts_with("Annotation autoscaling.knative.dev/metric:");
        assert!(words.iter().any(named), "{words:?}");
    }
}
