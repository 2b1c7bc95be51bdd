//! Why the nodes got their scores: the last answers about pods that opted in, within bounds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use latency_matrix::NodeName;
use serde::Serialize;

use crate::score::{Candidate, LeftOut, Remark, Scores};
use crate::wish::{What, Wish};

/// Scored nodes that are kept in all: some 20 bytes and a name each.
const MOST_NODES: usize = 50_000;
/// Pods that are kept.
const MOST_PODS: usize = 1_000;
/// Things and nodes that a sentence names.
const MOST_NAMED: usize = 5;

/// What a pod was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// What it asked for.
    pub(crate) wish: Wish,
    /// The nodes with their scores, or what is missing where no node could be scored.
    pub(crate) result: Result<(Nodes, Scores), Vec<(What, LeftOut)>>,
}

/// The names of scored nodes, most of them shared with other answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes {
    /// All nodes that are known.
    pub(crate) names: Arc<Vec<NodeName>>,
    /// Those that were scored, by position; none for one that was not known.
    pub(crate) positions: Vec<Option<usize>>,
    /// The names of those that were not known, in their order.
    pub(crate) others: Vec<String>,
}

impl Nodes {
    fn names(&self) -> Vec<&str> {
        let mut others = self.others.iter().map(String::as_str);
        let known = |position: usize| self.names.get(position).map(NodeName::as_str);
        self.positions.iter().map(|at| at.map_or_else(|| others.next(), known).unwrap_or_default()).collect()
    }
}

/// The last answers.
#[derive(Debug, Default)]
pub(crate) struct Explanations {
    answered: Mutex<VecDeque<Answered>>,
}

/// An answer as it is served.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    words: Vec<String>,
    nodes: Vec<Node>,
}

#[derive(Debug, Serialize)]
struct Node {
    node: String,
    score: u8,
    /// Null where it is not known.
    mean_rtt_milliseconds: Option<f64>,
    remark: &'static str,
}

impl Answered {
    fn size(&self) -> usize {
        self.result.as_ref().map_or(0, |(nodes, _)| nodes.positions.len())
    }

    /// In one sentence, for an event.
    pub(crate) fn summary(&self) -> String {
        let near = self.near();
        match &self.result {
            Err(left_out) => format!("no node is preferred: {}", left_out_words(left_out).join("; ")),
            Ok((nodes, scores)) => {
                let nodes = nodes.names();
                let mut order: Vec<usize> = (0..nodes.len()).collect();
                order.sort_by(|one, other| best_first(&scores.candidates[*one], &scores.candidates[*other]));
                let named = |at: &usize| {
                    let candidate = &scores.candidates[*at];
                    let rtt = candidate.rtt_seconds.map_or(String::new(), |seconds| format!(" ({:.1} ms)", seconds * 1000.0));
                    format!("{} {}{rtt}", nodes[*at], candidate.score)
                };
                let mut listed: Vec<String> = order.iter().take(MOST_NAMED).map(named).collect();
                if order.len() > MOST_NAMED {
                    listed.push(format!("... {}", named(&order[order.len() - 1])));
                }
                let unknown = count(scores, Remark::PartlyUnknown);
                let unknown = if unknown > 0 { format!("; {unknown} with ways that are not known") } else { String::new() };
                format!("scores of {} nodes by the mean round trip to {near}: {}{unknown}", nodes.len(), listed.join(", "))
            }
        }
    }

    fn near(&self) -> String {
        let mut named: Vec<String> = self.wish.near.iter().take(MOST_NAMED).map(|near| near.what.to_string()).collect();
        if self.wish.near.len() > MOST_NAMED {
            named.push(format!("{} more", self.wish.near.len() - MOST_NAMED));
        }
        named.join(", ")
    }

    fn explanation(&self) -> Explanation {
        let mut words = vec![format!("The pod is to be near to: {}.", self.near())];
        let (nodes, left_out) = match &self.result {
            Err(left_out) => {
                words.push("Nothing is known of any of it: no node is preferred.".to_owned());
                (Vec::new(), left_out)
            }
            Ok((nodes, scores)) => {
                if scores.all_too_far {
                    words.push("Every node is farther than the pod allows: the limit was not applied to the scores.".to_owned());
                }
                let node = |(node, candidate): (&str, &Candidate)| Node {
                    node: node.to_owned(),
                    score: candidate.score,
                    mean_rtt_milliseconds: candidate.rtt_seconds.map(|seconds| (f64::from(seconds) * 1e6).round() / 1e3),
                    remark: remark_words(candidate.remark),
                };
                let mut listed: Vec<(&str, &Candidate)> = nodes.names().into_iter().zip(&scores.candidates).collect();
                listed.sort_by(|one, other| best_first(one.1, other.1).then(one.0.cmp(other.0)));
                (listed.into_iter().map(node).collect(), &scores.left_out)
            }
        };
        words.extend(left_out_words(left_out).into_iter().map(|text| format!("Left out: {text}.")));
        Explanation { words, nodes }
    }
}

fn best_first(one: &Candidate, other: &Candidate) -> std::cmp::Ordering {
    let rtt = |candidate: &Candidate| candidate.rtt_seconds.unwrap_or(f32::INFINITY);
    other.score.cmp(&one.score).then(rtt(one).total_cmp(&rtt(other)))
}

fn count(scores: &Scores, remark: Remark) -> usize {
    scores.candidates.iter().filter(|candidate| candidate.remark == remark).count()
}

fn remark_words(remark: Remark) -> &'static str {
    match remark {
        Remark::Measured => "measured",
        Remark::PartlyUnknown => "a round trip is not known, and counts as the longest known one",
        Remark::Unreachable => "something that the pod names does not answer from here",
        Remark::TooFar => "farther than the pod allows",
    }
}

fn left_out_words(left_out: &[(What, LeftOut)]) -> Vec<String> {
    let text = |(what, why): &(What, LeftOut)| match why {
        LeftOut::WithoutEndpoint => format!("{what} has no ready endpoint"),
        LeftOut::NodeUnknown => format!("{what} stands for no node that there is"),
        LeftOut::WayUnknown => format!("no round trip to {what} is known"),
    };
    left_out.iter().map(text).collect()
}

impl Explanations {
    /// Keeps an answer in place of the one before.
    pub(crate) fn keep(&self, answered: Answered) {
        let mut all = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| (&other.namespace, &other.pod) != (&answered.namespace, &answered.pod));
        all.push_back(answered);
        let mut size: usize = all.iter().map(Answered::size).sum();
        while all.len() > 1 && (all.len() > MOST_PODS || size > MOST_NODES) {
            size -= all.pop_front().map_or(0, |oldest| oldest.size());
        }
    }

    /// The last answer about a pod, unless it was too long ago.
    pub(crate) fn of(&self, namespace: &str, pod: &str) -> Option<Explanation> {
        let all = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|answered| answered.namespace == namespace && answered.pod == pod).map(Answered::explanation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wish::Near;

    fn answered(pod: &str, nodes: usize) -> Answered {
        let near = vec![Near { what: What::Zone("west".to_owned()), weight: 1.0 }];
        let wish = Wish { near, max_rtt_seconds: None, strength: 10, serving_seconds: None };
        let candidate = |node: usize| Candidate {
            score: u8::try_from(10_usize.saturating_sub(node)).unwrap(),
            rtt_seconds: (node != 1).then_some(0.001 * node as f32),
            remark: if node == 1 { Remark::PartlyUnknown } else { Remark::Measured },
        };
        let left_out = vec![(What::Node("gone".into()), LeftOut::NodeUnknown)];
        let scores = Scores { candidates: (0..nodes).map(candidate).collect(), all_too_far: false, left_out };
        // The second one was made a moment ago.
        let names = Arc::new((0..nodes).map(|node| format!("node{node}").into()).collect());
        let positions = (0..nodes).map(|node| (node != 1).then_some(node)).collect();
        let nodes = Nodes { names, positions, others: vec!["node1".to_owned()] };
        Answered { namespace: "shop".to_owned(), pod: pod.to_owned(), wish, result: Ok((nodes, scores)) }
    }

    #[test]
    fn an_answer_is_explained_in_words_and_as_data() {
        let explanations = Explanations::default();
        explanations.keep(answered("cart", 3));
        let text = serde_json::to_value(explanations.of("shop", "cart").unwrap()).unwrap();
        assert_eq!(text["words"][1], "Left out: node gone stands for no node that there is.");
        assert_eq!(
            text["nodes"][0],
            serde_json::json!({"node": "node0", "score": 10, "mean_rtt_milliseconds": 0.0, "remark": "measured"})
        );
        assert!(text["nodes"][1]["mean_rtt_milliseconds"].is_null());
        assert!(explanations.of("shop", "other").is_none() && explanations.of("other", "cart").is_none());
        let summary = answered("cart", 8).summary();
        assert_eq!(
            summary,
            "scores of 8 nodes by the mean round trip to zone west: node0 10 (0.0 ms), node1 9, node2 8 (2.0 ms), node3 7 (3.0 ms), \
             node4 6 (4.0 ms), ... node7 3 (7.0 ms); 1 with ways that are not known"
        );
        let nothing = Answered { result: Err(vec![(What::Node("gone".into()), LeftOut::WayUnknown)]), ..answered("cart", 0) };
        assert_eq!(nothing.summary(), "no node is preferred: no round trip to node gone is known");
        explanations.keep(nothing);
        let text = serde_json::to_value(explanations.of("shop", "cart").unwrap()).unwrap();
        assert_eq!(text["nodes"], serde_json::json!([]));
    }

    #[test]
    fn memory_is_bounded_by_pods_and_by_nodes() {
        let explanations = Explanations::default();
        for pod in 0..20 {
            explanations.keep(answered(&pod.to_string(), 10));
        }
        assert!(explanations.of("shop", "0").is_some());
        let many = |(nodes, scores)| (Nodes { positions: vec![None; MOST_NODES], ..nodes }, scores);
        explanations.keep(Answered { result: answered("", 0).result.map(many), ..answered("x", 0) });
        assert_eq!(explanations.answered.lock().unwrap().len(), 1);
        for pod in 0..MOST_PODS + 5 {
            explanations.keep(answered(&pod.to_string(), 1));
        }
        assert_eq!(explanations.answered.lock().unwrap().len(), MOST_PODS);
        assert!(explanations.of("shop", "5").is_some() && explanations.of("shop", "4").is_none());
    }
}
