//! How good nodes are for a pod. Pure.
//!
//! A pod names things that it is to be near to: Services that it calls, and nodes, zones or
//! regions that call it. Each stands for one or more nodes, its *ends*: those of the ready
//! endpoints, over which a Service spreads connections evenly, or those of the zone. The score
//! follows from the mean time of a request, over all ends by weight: the round trip, and what the
//! request takes besides. The best candidate gets the strength, one with twice the time half of
//! that.
//!
//! **Unknown is neither zero nor bad.** A candidate whose way to an end is not known counts there
//! as the farthest candidate of which it is known; an end of which no candidate knows anything is
//! left out; where that leaves nothing, there is no score.

use std::collections::BTreeMap;

use latency_matrix::Rtt;
use placement::score::{CallCosts, demand_into};

use crate::network::{Network, Way};
use crate::wish::{What, Wish};

/// What a candidate is at, beside its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// 0 to 10.
    pub(crate) score: u8,
    /// The mean round trip to what the pod names; none where a way is not known or leads nowhere.
    pub(crate) rtt_seconds: Option<f32>,
    /// What is to be said of it.
    pub(crate) remark: Remark,
}

/// What is to be said of a candidate, by gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Remark {
    /// All ways are known, and short enough.
    Measured,
    /// A way is not known, and counts as the farthest known one.
    PartlyUnknown,
    /// Something that the pod names does not answer from here.
    Unreachable,
    /// Something that the pod names is farther than it allows.
    TooFar,
}

/// Scores of candidates, in their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scores {
    pub(crate) candidates: Vec<Candidate>,
    /// Whether each candidate is too far, so that the limit was not applied.
    pub(crate) all_too_far: bool,
    /// What the pod names and nothing is known of, by the reason.
    pub(crate) left_out: Vec<(What, LeftOut)>,
}

/// Why something that a pod names counts nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// A Service without a ready endpoint, or that does not exist.
    WithoutEndpoint,
    /// A node, or nodes of a zone or region, that do not exist.
    NodeUnknown,
    /// No candidate knows a way there.
    WayUnknown,
}

/// The scores, or what the pod names where nothing is known of any of it.
pub(crate) type Scored = Result<Scores, Vec<(What, LeftOut)>>;

/// The nodes of a Service's ready endpoints, with how many there are on each.
pub(crate) type Endpoints = BTreeMap<String, u32>;

/// An end: a node that requests go to or come from.
struct End {
    node: usize,
    weight: f64,
    /// What it belongs to, by its place in the wish.
    of: usize,
    /// What is known of the way to each candidate.
    ways: Vec<Way>,
    /// Seconds to the farthest candidate of which it is known.
    farthest: f64,
}

/// Scores candidates, which are positions of nodes; none for a node that is not known yet.
///
/// `endpoints` says where the endpoints of a Service are; `serving_seconds` is what a request takes
/// apart from the network where the pod does not say.
pub(crate) fn score(
    network: &Network,
    wish: &Wish,
    endpoints: impl Fn(&crate::wish::ServiceName) -> Option<Endpoints>,
    candidates: &[Option<usize>],
    serving_seconds: f64,
) -> Scored {
    let mut left_out = Vec::new();
    let mut ends = ends(network, wish, endpoints, &mut left_out);
    let positions: Vec<usize> = candidates.iter().map(|candidate| candidate.unwrap_or(usize::MAX)).collect();
    for end in &mut ends {
        end.ways = positions.iter().map(|candidate| network.way(end.node, *candidate)).collect();
        let known = end.ways.iter().filter_map(|way| match way {
            Way::Seconds(seconds) => Some(*seconds),
            Way::Unreachable | Way::Unknown => None,
        });
        end.farthest = known.fold(f64::NEG_INFINITY, f64::max);
    }
    ends.retain(|end| end.farthest >= 0.0);
    for (of, near) in wish.near.iter().enumerate() {
        if !ends.iter().any(|end| end.of == of) && !left_out.iter().any(|(what, _)| *what == near.what) {
            left_out.push((near.what.clone(), LeftOut::WayUnknown));
        }
    }
    if ends.is_empty() {
        return Err(left_out);
    }
    let sources: Vec<(usize, f64)> = ends.iter().enumerate().map(|(at, end)| (at, end.weight)).collect();
    let mut scores = vec![0; positions.len()];
    let serving_seconds = wish.serving_seconds.unwrap_or(serving_seconds);
    let places: Vec<usize> = (0..positions.len()).collect();
    demand_into(&Ways(&ends), &sources, serving_seconds, &places, wish.strength, &mut scores);
    let mut judged = judge(&ends, wish.max_rtt_seconds, &scores);
    let too_far = judged.iter().filter(|candidate| candidate.remark == Remark::TooFar).count();
    let all_too_far = too_far == judged.len();
    if too_far > 0 && !all_too_far {
        for candidate in &mut judged {
            let is_too_far = candidate.remark == Remark::TooFar;
            candidate.score = if is_too_far { 0 } else { candidate.score.max(1) };
        }
    }
    Ok(Scores { candidates: judged, all_too_far, left_out })
}

/// The ends of all that a pod names. The weight of each thing is spread over its ends.
fn ends(
    network: &Network,
    wish: &Wish,
    endpoints: impl Fn(&crate::wish::ServiceName) -> Option<Endpoints>,
    left_out: &mut Vec<(What, LeftOut)>,
) -> Vec<End> {
    let mut ends = Vec::new();
    for (of, near) in wish.near.iter().enumerate() {
        let shares: Vec<(usize, f64)> = match &near.what {
            What::Service(service) => {
                let found = endpoints(service).unwrap_or_default();
                if found.is_empty() {
                    left_out.push((near.what.clone(), LeftOut::WithoutEndpoint));
                    continue;
                }
                found.iter().filter_map(|(node, count)| Some((network.position(node)?, f64::from(*count)))).collect()
            }
            What::Node(node) => network.position(node.as_str()).into_iter().map(|position| (position, 1.0)).collect(),
            What::Zone(zone) => network.zone(zone).iter().map(|position| (*position, 1.0)).collect(),
            What::Region(region) => network.region(region).iter().map(|position| (*position, 1.0)).collect(),
        };
        if shares.is_empty() {
            left_out.push((near.what.clone(), LeftOut::NodeUnknown));
        }
        let total: f64 = shares.iter().map(|(_, share)| share).sum();
        let end = |(node, share)| End { node, weight: near.weight * share / total, of, ways: Vec::new(), farthest: 0.0 };
        ends.extend(shares.into_iter().map(end));
    }
    ends
}

/// Costs between ends and candidates, each by its place in its list.
struct Ways<'a>(&'a [End]);

impl CallCosts for Ways<'_> {
    fn nodes(&self) -> usize {
        self.0.first().map_or(0, |end| end.ways.len())
    }

    fn cost(&self, from: usize, to: usize) -> Option<f64> {
        let end = self.0.get(from)?;
        Some(match end.ways.get(to)? {
            Way::Seconds(seconds) => *seconds,
            Way::Unreachable => Rtt::ABSURD.seconds(),
            Way::Unknown => end.farthest,
        })
    }

    fn unknown_cost(&self) -> f64 {
        f64::INFINITY
    }

    fn accumulate(&self, called: &[usize]) -> Vec<f64> {
        let cost = |from: usize, to: &usize| CallCosts::cost(self, *to, from).unwrap_or(f64::INFINITY);
        (0..self.nodes()).map(|node| called.iter().map(|to| cost(node, to)).sum()).collect()
    }
}

/// What is to be said of each candidate, beside its score.
fn judge(ends: &[End], max_rtt_seconds: Option<f64>, scores: &[u8]) -> Vec<Candidate> {
    let mut means = Means::new(scores.len());
    let mut remarks = vec![Remark::Measured; scores.len()];
    for thing in ends.chunk_by(|one, other| one.of == other.of) {
        let mut of_thing = Means::new(scores.len());
        for end in thing {
            for (at, way) in end.ways.iter().enumerate() {
                match way {
                    Way::Seconds(seconds) => {
                        means.add(at, *seconds, end.weight);
                        of_thing.add(at, *seconds, end.weight);
                    }
                    Way::Unreachable => remarks[at] = remarks[at].max(Remark::Unreachable),
                    Way::Unknown => remarks[at] = remarks[at].max(Remark::PartlyUnknown),
                }
            }
        }
        let limit = max_rtt_seconds.unwrap_or(f64::INFINITY);
        for (at, remark) in remarks.iter_mut().enumerate() {
            if of_thing.mean(at).is_some_and(|mean| mean > limit) {
                *remark = Remark::TooFar;
            }
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "for people to read")]
    let rtt = |at: usize| means.mean(at).filter(|_| matches!(remarks[at], Remark::Measured)).map(|mean| mean as f32);
    (scores.iter().enumerate())
        .map(|(at, score)| Candidate { score: *score, rtt_seconds: rtt(at), remark: remarks[at] })
        .collect()
}

/// Mean round trips of candidates, over what is known.
struct Means(Vec<(f64, f64)>);

impl Means {
    fn new(candidates: usize) -> Self {
        Self(vec![(0.0, 0.0); candidates])
    }

    fn add(&mut self, at: usize, seconds: f64, weight: f64) {
        let (sum, total) = &mut self.0[at];
        (*sum, *total) = (*sum + seconds * weight, *total + weight);
    }

    fn mean(&self, at: usize) -> Option<f64> {
        let (sum, total) = self.0[at];
        (total > 0.0).then(|| sum / total)
    }
}

/// Whether a candidate is farther than the pod allows, as far as that is known. What is not known
/// keeps no node away.
pub(crate) fn is_too_far(candidate: &Candidate) -> bool {
    candidate.remark == Remark::TooFar
}

#[cfg(test)]
mod tests {
    use placement::CostMatrix;
    use proptest::prelude::*;

    use super::*;
    use crate::wish::{Near, ServiceName};

    const MS: f64 = 0.001;

    fn network(milliseconds: &[&[f64]]) -> Network {
        let names = (0..milliseconds.len()).map(|node| format!("n{node}").into()).collect();
        let costs = CostMatrix::from_row_major(names, milliseconds.iter().flat_map(|row| row.iter().map(|ms| ms * MS)).collect());
        let zone = |node: &str| if node < "n2" { "west" } else { "east" };
        Network::new(costs, [], |node| [(crate::network::ZONE_LABEL.to_owned(), zone(node).to_owned())].into())
    }

    fn four() -> Network {
        network(&[&[0.0, 1.0, 19.0, 60.0], &[1.0, 0.0, 19.0, 60.0], &[19.0, 19.0, 0.0, 5.0], &[60.0, 60.0, 5.0, 0.0]])
    }

    fn wish(near: &[(What, f64)]) -> Wish {
        let near = near.iter().map(|(what, weight)| Near { what: what.clone(), weight: *weight }).collect();
        Wish { near, max_rtt_seconds: None, strength: 10, serving_seconds: None }
    }

    fn service(name: &str) -> What {
        What::Service(ServiceName { namespace: "shop".to_owned(), name: name.to_owned() })
    }

    fn endpoints(name: &ServiceName) -> Option<Endpoints> {
        match name.name.as_str() {
            "cart" => Some([("n0".to_owned(), 1)].into()),
            "both" => Some([("n0".to_owned(), 3), ("n3".to_owned(), 1)].into()),
            "gone" => Some([("n77".to_owned(), 1)].into()),
            _ => None,
        }
    }

    fn scored(network: &Network, wish: &Wish) -> Vec<u8> {
        let candidates: Vec<Option<usize>> = (0..network.size()).map(Some).collect();
        let scores = score(network, wish, endpoints, &candidates, 5.0 * MS).unwrap();
        scores.candidates.iter().map(|candidate| candidate.score).collect()
    }

    #[test]
    fn the_nearest_gets_the_strength_and_twice_the_time_is_half_of_it() {
        // 5, 6, 24 and 65 ms.
        assert_eq!(scored(&four(), &wish(&[(service("cart"), 1.0)])), [10, 8, 2, 0]);
        assert_eq!(scored(&four(), &Wish { strength: 4, ..wish(&[(service("cart"), 1.0)]) }), [4, 3, 0, 0]);
        // What takes a second anyway makes little of 60 ms.
        assert_eq!(scored(&four(), &Wish { serving_seconds: Some(1.0), ..wish(&[(service("cart"), 1.0)]) }), [10, 9, 9, 9]);
    }

    #[test]
    fn weights_endpoints_and_zones_are_averaged() {
        // 15, 15.75, 15.5, 45 ms to three endpoints on n0 and one on n3; and 5 more.
        assert_eq!(scored(&four(), &wish(&[(service("both"), 1.0)])), [10, 9, 9, 4]);
        assert_eq!(scored(&four(), &wish(&[(What::Zone("east".to_owned()), 1.0)])), [1, 1, 10, 10]);
        let mixed = wish(&[(service("cart"), 1.0), (What::Node("n3".into()), 9.0)]);
        assert_eq!(scored(&four(), &mixed), [1, 1, 9, 10]);
    }

    #[test]
    fn what_is_not_there_is_left_out_and_said() {
        let network = four();
        let named =
            wish(&[(service("cart"), 1.0), (service("none"), 5.0), (service("gone"), 5.0), (What::Zone("mars".into()), 5.0)]);
        let candidates: Vec<Option<usize>> = (0..4).map(Some).collect();
        let scores = score(&network, &named, endpoints, &candidates, 5.0 * MS).unwrap();
        assert_eq!(scores.candidates[1].score, 8);
        assert_eq!(
            scores.left_out.iter().map(|(_, why)| *why).collect::<Vec<_>>(),
            [LeftOut::WithoutEndpoint, LeftOut::NodeUnknown, LeftOut::NodeUnknown]
        );
        let nothing = score(&network, &wish(&[(service("none"), 1.0)]), endpoints, &candidates, 5.0 * MS);
        assert_eq!(nothing, Err(vec![(service("none"), LeftOut::WithoutEndpoint)]));
    }

    #[test]
    fn an_unknown_way_counts_as_the_farthest_that_is_known() {
        let far = f64::NAN;
        let network = network(&[&[0.0, 1.0, 19.0, far], &[1.0, 0.0, 19.0, far], &[19.0, 19.0, 0.0, far], &[far, far, far, 0.0]]);
        assert_eq!(scored(&network, &wish(&[(service("cart"), 1.0)])), [10, 8, 2, 2]);
        // A node that is not known at all, too.
        let scores = score(&network, &wish(&[(service("cart"), 1.0)]), endpoints, &[Some(1), None], 5.0 * MS).unwrap();
        assert_eq!(scores.candidates.iter().map(|one| one.score).collect::<Vec<_>>(), [10, 10]);
        assert_eq!(scores.candidates[1].remark, Remark::PartlyUnknown);
        // Of which nobody knows anything: no score, and not a bad one.
        let none = score(&network, &wish(&[(service("cart"), 1.0)]), endpoints, &[Some(3), None], 5.0 * MS);
        assert_eq!(none, Err(vec![(service("cart"), LeftOut::WayUnknown)]));
    }

    #[test]
    fn what_does_not_answer_is_worse_than_all_that_does() {
        let names = ["n0", "n1", "n2"].map(Into::into).to_vec();
        let costs = CostMatrix::from_row_major(names, vec![0.0, 0.9, 10.0, 0.9, 0.0, 0.9, 10.0, 0.9, 0.0]);
        let network = Network::new(costs, [(0, 2)], |_| BTreeMap::new());
        let scores = score(&network, &wish(&[(service("cart"), 1.0)]), endpoints, &[Some(1), Some(2)], 0.1).unwrap();
        assert_eq!(scores.candidates.iter().map(|one| one.score).collect::<Vec<_>>(), [10, 0]);
        assert_eq!(scores.candidates[1].remark, Remark::Unreachable);
    }

    #[test]
    fn what_is_too_far_gets_nothing_and_everything_else_something() {
        let limited = Wish { max_rtt_seconds: Some(30.0 * MS), ..wish(&[(service("cart"), 1.0)]) };
        let weak = Wish { strength: 1, ..limited.clone() };
        assert_eq!(scored(&four(), &limited), [10, 8, 2, 0]);
        assert_eq!(scored(&four(), &weak), [1, 1, 1, 0]);
        // Each thing by itself: n3 is near to one of them, and far from the other.
        let both = Wish { max_rtt_seconds: Some(30.0 * MS), ..wish(&[(service("cart"), 1.0), (What::Node("n3".into()), 99.0)]) };
        assert_eq!(scored(&four(), &both), [0, 0, 5, 0]);
        let never = Wish { max_rtt_seconds: Some(0.1 * MS), ..wish(&[(service("cart"), 1.0)]) };
        let scores = score(&four(), &never, endpoints, &[Some(1), Some(2)], 5.0 * MS).unwrap();
        assert!(scores.all_too_far && scores.candidates[0].score == 10 && scores.candidates[1].score == 2);
    }

    proptest! {
        #[test]
        fn unknown_is_never_better_than_known_and_losing_the_way_never_helps(
            cells in prop::collection::vec(0.0..100.0_f64, 36),
            (end, lost) in (0..6_usize, 0..6_usize),
            weights in prop::collection::vec(0.1..9.0_f64, 2),
        ) {
            let rows: Vec<&[f64]> = cells.chunks(6).collect();
            let near = [(What::Node(format!("n{end}").into()), weights[0]), (What::Node("n0".into()), weights[1])];
            let before = scored(&network(&rows), &wish(&near));
            prop_assert!(before.contains(&10));
            prop_assume!(lost != end);
            let mut spoilt = cells.clone();
            spoilt[end * 6 + lost] = f64::NAN;
            let rows: Vec<&[f64]> = spoilt.chunks(6).collect();
            let single = wish(&near[..1]);
            let after = scored(&network(&rows), &single);
            let least = (0..6).filter(|node| *node != lost).map(|node| after[node]).min().unwrap();
            // Neither better than any known node, nor worse than the worst.
            prop_assert_eq!(after[lost], least);
        }

        #[test]
        fn a_nearer_node_never_scores_less(cells in prop::collection::vec(0.0..100.0_f64, 25), strength in 1..=10_u8) {
            let rows: Vec<&[f64]> = cells.chunks(5).collect();
            let network = network(&rows);
            let scores = scored(&network, &Wish { strength, ..wish(&[(What::Node("n1".into()), 1.0)]) });
            for (one, other) in (0..5).flat_map(|one| (0..5).map(move |other| (one, other))) {
                let seconds = |node| match network.way(1, node) { Way::Seconds(seconds) => seconds, _ => f64::NAN };
                prop_assert!(seconds(one) > seconds(other) || scores[one] >= scores[other]);
            }
            prop_assert!(scores.iter().all(|score| *score <= strength) && scores.contains(&strength));
        }
    }
}
