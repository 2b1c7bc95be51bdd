//! The verbs of an extender: a request's bytes in, an answer's bytes out.
//!
//! Whatever happens here, a pod is scheduled: a pod that did not opt in, annotations that cannot be
//! read, caches that are not filled and latency that is not known all give every node the same
//! score.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use memchr::memmem::Finder;

use crate::configuration::{Fault, Watchfulness};
use crate::explain::{Answered, Explanations, Nodes};
use crate::network::Network;
use crate::score::{Scored, Scores, is_too_far, score};
use crate::services::Services;
use crate::wire::{self, FilterAnswer, Pod, PreemptAnswer, Question, Text, before_score};
use crate::wish::{self, BadAnnotation, PREFIX, Wish};

/// All nodes alike: the scheduler gives those that are not listed a score of 0.
const ALL_ALIKE: &[u8] = b"[]";
/// Of pods that did not opt in, the first requests and then one of many are looked at for faults of
/// the configuration, after they were answered.
const LOOKED_AT_FIRST: u64 = 8;
const LOOKED_AT_EVERY: u64 = 64;
/// What a filter answers to a scheduler that would have to be answered with whole nodes.
const NAMES_ARE_NEEDED: &str = "the filter of Kantai needs nodeCacheCapable: true";

/// What the scheduler asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// To score nodes.
    Prioritize,
    /// To say which nodes a pod may not run on.
    Filter,
    /// To say from which nodes pods may be evicted for a pod.
    Preempt,
}

impl Verb {
    /// The verb of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Prioritize, Self::Filter, Self::Preempt].into_iter().find(|verb| verb.name() == name)
    }

    /// Its name in paths and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Prioritize => "prioritize",
            Self::Filter => "filter",
            Self::Preempt => "preempt",
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nodes were judged.
    Judged,
    /// The pod did not opt in, or asks for nothing that this verb is about.
    NotAsked,
    /// The pod's annotations cannot be read.
    BadAnnotations,
    /// Caches are not filled.
    Cold,
    /// Nothing is known of what the pod names.
    Unknown,
    /// The request cannot be read.
    Unreadable,
}

impl Outcome {
    /// The name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Judged => "judged",
            Self::NotAsked => "not_asked",
            Self::BadAnnotations => "bad_annotations",
            Self::Cold => "cold",
            Self::Unknown => "unknown",
            Self::Unreadable => "unreadable",
        }
    }
}

/// An answer, and what is to be reported.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    pub(crate) outcome: Outcome,
    pub(crate) news: Option<News>,
    /// A fault of the configuration that was not noticed before.
    pub(crate) fault: Option<Fault>,
    /// Whether [`Verbs::look`] is to have a look at the request.
    pub(crate) needs_a_look: bool,
}

/// What is to be said of a pod.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) what: Said,
}

/// What it is.
#[derive(Debug)]
pub(crate) enum Said {
    /// Its nodes were scored.
    Scored(String),
    /// Its annotations cannot be read.
    Bad(Vec<BadAnnotation>),
}

/// Answers requests by what is known now.
pub(crate) struct Verbs {
    /// Whether nodes are filtered.
    filters: bool,
    /// What a request takes apart from the network where a pod does not say, in seconds.
    serving_seconds: f64,
    /// The network as it is known now.
    network: RwLock<Arc<Network>>,
    /// Where the endpoints of Services are.
    pub(crate) services: RwLock<Services>,
    /// Whether all caches are filled.
    pub(crate) is_warm: AtomicBool,
    /// The last answers.
    pub(crate) explanations: Explanations,
    watchfulness: Mutex<Watchfulness>,
    opt_in: Finder<'static>,
    not_asked: AtomicU64,
}

impl Verbs {
    pub(crate) fn new(filters: bool, serving_seconds: f64) -> Self {
        Self {
            filters,
            serving_seconds,
            network: RwLock::default(),
            services: RwLock::default(),
            is_warm: AtomicBool::new(false),
            explanations: Explanations::default(),
            watchfulness: Mutex::default(),
            // Without the slash, which JSON may escape.
            opt_in: Finder::new(PREFIX.trim_end_matches('/')),
            not_asked: AtomicU64::new(0),
        }
    }

    /// The network is this from now on.
    pub(crate) fn set_network(&self, network: Network) {
        *self.network.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(network);
    }

    fn network(&self) -> Arc<Network> {
        self.network.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers a request.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(crate) fn answer(&self, verb: Verb, body: &[u8]) -> Result<Answer, serde_json::Error> {
        if verb == Verb::Prioritize && self.opt_in.find(body).is_none() && is_object(body) {
            let count = self.not_asked.fetch_add(1, Ordering::Relaxed);
            let needs_a_look = count < LOOKED_AT_FIRST || count.is_multiple_of(LOOKED_AT_EVERY);
            return Ok(Answer { needs_a_look, ..Answer::plain(Bytes::from_static(ALL_ALIKE), Outcome::NotAsked) });
        }
        let question = wire::question(body)?;
        Ok(match verb {
            Verb::Prioritize => self.prioritize(&question),
            Verb::Filter => self.filter(&question),
            Verb::Preempt => self.preempt(question),
        })
    }

    /// Looks at a request for faults of the configuration only.
    pub(crate) fn look(&self, body: &[u8]) -> Option<Fault> {
        let question = wire::question(body).ok()?;
        self.watchful(|watchfulness| watchfulness.look_at(&question, self.network().size()))
    }

    /// A request was longer than any that names nodes.
    pub(crate) fn was_too_long(&self) -> Option<Fault> {
        self.watchful(|watchfulness| watchfulness.say(Fault::RequestTooLong))
    }

    fn prioritize(&self, question: &Question<'_>) -> Answer {
        let network = self.network();
        let fault = self.watchful(|watchfulness| watchfulness.look_at(question, network.size()));
        let alike = |outcome| Answer { fault, ..Answer::plain(Bytes::from_static(ALL_ALIKE), outcome) };
        let wish = match self.wish_of(&question.pod) {
            Ok(wish) => wish,
            Err((outcome, news)) => return Answer { news, ..alike(outcome) },
        };
        let (positions, result) = self.scores(&network, &wish, &question.names);
        let (body, outcome) = match &result {
            Ok(scores) => (priorities(&network, &question.names, &positions, scores), Outcome::Judged),
            Err(_) => (Bytes::from_static(ALL_ALIKE), Outcome::Unknown),
        };
        let unknown = question.names.iter().zip(&positions).filter(|(_, position)| position.is_none());
        let others = unknown.map(|(name, _)| name.0.to_string()).collect();
        let nodes = Nodes { names: network.names(), positions, others };
        let Pod { metadata, .. } = &question.pod;
        let (namespace, pod) = (metadata.namespace.clone(), metadata.name.clone());
        let answered = Answered { namespace, pod, wish, result: result.map(|scores| (nodes, scores)) };
        let news = Some(news_of(&question.pod, Said::Scored(answered.summary())));
        self.explanations.keep(answered);
        Answer { news, fault, ..Answer::plain(body, outcome) }
    }

    fn filter(&self, question: &Question<'_>) -> Answer {
        let network = self.network();
        let fault = self.watchful(|watchfulness| match self.filters {
            true => watchfulness.look_at(question, network.size()),
            false => watchfulness.say(Fault::FilterNotServed),
        });
        if question.has_objects {
            // Names alone mean no node at all to a scheduler that sent whole ones.
            let answer = FilterAnswer { error: NAMES_ARE_NEEDED, ..FilterAnswer::default() };
            return Answer { fault, ..Answer::plain(json(&answer), Outcome::NotAsked) };
        }
        let names = question.names.iter().map(AsRef::as_ref);
        let Refusal { outcome, news, refused } = self.refused(&network, &question.pod, &question.names);
        let limit = refused.as_ref().map_or(0.0, |(_, limit_seconds)| limit_seconds * 1000.0);
        let reason = format!("node(s) farther than {limit} ms from what the pod is to be near to");
        let mut answer = FilterAnswer::default();
        for (at, name) in names.enumerate() {
            if refused.as_ref().is_some_and(|(refused, _)| refused[at]) {
                answer.failed_and_unresolvable_nodes.insert(name, &reason);
            } else {
                answer.node_names.push(name);
            }
        }
        let nominated = question.pod.status.nominated_node_name.as_str();
        let in_vain = answer.failed_and_unresolvable_nodes.contains_key(nominated);
        let in_vain = in_vain.then(|| self.watchful(Watchfulness::nominated_node_is_refused)).flatten();
        Answer { news, fault: in_vain.or(fault), ..Answer::plain(json(&answer), outcome) }
    }

    fn preempt(&self, question: Question<'_>) -> Answer {
        self.watchful(Watchfulness::preempt_was_asked);
        let Question { pod, mut victims, .. } = question;
        let names: Vec<Text<'_>> = victims.keys().map(|name| Text(name.clone().into())).collect();
        let Refusal { outcome, news, refused } = self.refused(&self.network(), &pod, &names);
        if let Some((refused, _)) = refused {
            let refused: Vec<&Text<'_>> =
                names.iter().zip(refused).filter(|(_, refused)| *refused).map(|(name, _)| name).collect();
            for name in refused {
                victims.remove(name.as_ref());
            }
        }
        Answer { news, ..Answer::plain(json(&PreemptAnswer { victims }), outcome) }
    }

    /// Which of some nodes the filter refuses.
    fn refused(&self, network: &Network, pod: &Pod, names: &[Text<'_>]) -> Refusal {
        let none = |outcome| Refusal { outcome, news: None, refused: None };
        if !self.filters {
            return none(Outcome::NotAsked);
        }
        let wish = match self.wish_of(pod) {
            Ok(wish) => wish,
            Err((outcome, news)) => return Refusal { news, ..none(outcome) },
        };
        let Some(limit_seconds) = wish.max_rtt_seconds else { return none(Outcome::NotAsked) };
        match self.scores(network, &wish, names).1 {
            Ok(scores) => {
                let refused = Some((scores.candidates.iter().map(is_too_far).collect(), limit_seconds));
                Refusal { refused, ..none(Outcome::Judged) }
            }
            Err(_) => none(Outcome::Unknown),
        }
    }

    /// What a pod asks for, or why there is nothing to be judged by.
    fn wish_of(&self, pod: &Pod) -> Result<Wish, (Outcome, Option<News>)> {
        match wish::read(&pod.metadata.namespace, &pod.metadata.annotations) {
            Ok(None) => Err((Outcome::NotAsked, None)),
            Ok(Some(_)) if !self.is_warm.load(Ordering::Acquire) => Err((Outcome::Cold, None)),
            Ok(Some(wish)) => Ok(wish),
            Err(bad) => Err((Outcome::BadAnnotations, Some(news_of(pod, Said::Bad(bad))))),
        }
    }

    fn scores(&self, network: &Network, wish: &Wish, names: &[Text<'_>]) -> (Vec<Option<usize>>, Scored) {
        let positions: Vec<Option<usize>> = names.iter().map(|name| network.position(name.as_ref())).collect();
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let endpoints = |service: &wish::ServiceName| services.endpoints(service);
        let scores = score(network, wish, endpoints, &positions, self.serving_seconds);
        (positions, scores)
    }

    fn watchful<T>(&self, look: impl FnOnce(&mut Watchfulness) -> T) -> T {
        look(&mut self.watchfulness.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the filter says.
struct Refusal {
    outcome: Outcome,
    news: Option<News>,
    /// Which of the nodes are refused, and the pod's limit in seconds; none where all pass.
    refused: Option<(Vec<bool>, f64)>,
}

impl Answer {
    fn plain(body: Bytes, outcome: Outcome) -> Self {
        Self { body, outcome, news: None, fault: None, needs_a_look: false }
    }
}

fn news_of(pod: &Pod, what: Said) -> News {
    let metadata = &pod.metadata;
    News { namespace: metadata.namespace.clone(), pod: metadata.name.clone(), uid: metadata.uid.clone(), what }
}

/// Whether these bytes may be a JSON object: what says nothing of us need not be read to the end.
fn is_object(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    body.first() == Some(&b'{') && body.last() == Some(&b'}')
}

fn priorities(network: &Network, names: &[Text<'_>], positions: &[Option<usize>], scores: &Scores) -> Bytes {
    let mut answer = String::with_capacity(2 + names.len() * 48);
    answer.push('[');
    let judged = names.iter().zip(positions).zip(&scores.candidates);
    for ((name, position), candidate) in judged.filter(|(_, candidate)| candidate.score > 0) {
        if answer.len() > 1 {
            answer.push(',');
        }
        match position.and_then(|position| network.before_score(position)) {
            Some(begin) => answer.push_str(begin),
            None => answer.push_str(&before_score(name.as_ref())),
        }
        // Writing to a text does not fail.
        let _ = write!(answer, "{}}}", candidate.score);
    }
    answer.push(']');
    answer.into()
}

fn json(value: &impl serde::Serialize) -> Bytes {
    // Maps with text as keys, lists, texts and whole numbers can always be written.
    serde_json::to_vec(value).map_or_else(|_| Bytes::from_static(ALL_ALIKE), Bytes::from)
}

#[cfg(test)]
mod tests {
    use placement::CostMatrix;
    use serde_json::{Value, json};

    use super::*;

    /// Nodes on a line, 9 ms apart; the Service `cart` has an endpoint on the first.
    fn verbs(filters: bool, nodes: usize) -> Verbs {
        let verbs = Verbs::new(filters, 0.005);
        let cell = |at: usize| 0.009 * (at / nodes).abs_diff(at % nodes) as f64;
        let names = (0..nodes).map(|node| format!("n{node}").into()).collect();
        let costs = CostMatrix::from_row_major(names, (0..nodes * nodes).map(cell).collect());
        verbs.set_network(Network::new(costs, [], |_| Default::default()));
        let slice = json!({"metadata": {"name": "cart-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n0"}]});
        verbs.services.write().unwrap().apply(&serde_json::from_value(slice).unwrap());
        verbs.is_warm.store(true, Ordering::Release);
        verbs
    }

    fn body(annotations: &[(&str, &str)], names: &[&str], more: &Value) -> Vec<u8> {
        let annotations: serde_json::Map<String, Value> =
            annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), json!(value))).collect();
        let pod = json!({"metadata": {"name": "web-1", "namespace": "shop", "uid": "u1", "annotations": annotations}, "spec": {},
            "status": {"nominatedNodeName": "n3"}});
        let mut body = json!({"Pod": pod, "Nodes": null, "NodeNames": names});
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        body.to_string().into_bytes()
    }

    const NAMES: [&str; 4] = ["n3", "n0", "n1", "n2"];

    fn asked(verbs: &Verbs, verb: Verb, body: &[u8]) -> (Value, Answer) {
        let answer = verbs.answer(verb, body).unwrap();
        (serde_json::from_slice(&answer.body).unwrap(), answer)
    }

    #[test]
    fn the_nearest_node_gets_the_best_score_and_the_answer_is_explained() {
        let verbs = verbs(false, 4);
        let (value, answer) = asked(&verbs, Verb::Prioritize, &body(&[("talks-to", "cart")], &NAMES, &json!({})));
        let expected = json!([{"Host": "n3", "Score": 1}, {"Host": "n0", "Score": 10}, {"Host": "n1", "Score": 3}, {"Host": "n2", "Score": 2}]);
        assert_eq!((value, answer.outcome), (expected, Outcome::Judged));
        let News { uid, what: Said::Scored(summary), .. } = answer.news.unwrap() else { panic!("not scored") };
        assert!(uid == "u1" && summary.contains("n0 10 (0.0 ms)"), "{summary}");
        assert!(verbs.explanations.of("shop", "web-1").is_some());
    }

    #[test]
    fn whoever_did_not_opt_in_gets_all_nodes_alike() {
        let verbs = verbs(false, 4);
        for annotations in [vec![], vec![("warm", "2")]] {
            let (value, answer) = asked(&verbs, Verb::Prioritize, &body(&annotations, &NAMES, &json!({})));
            assert_eq!((value, answer.outcome), (json!([]), Outcome::NotAsked));
            assert!(answer.news.is_none());
        }
        assert!(verbs.explanations.of("shop", "web-1").is_none());
        // Every so often a request is looked at, after it was answered.
        let plain = body(&[], &NAMES, &json!({}));
        let looks: Vec<bool> = (0..200).map(|_| verbs.answer(Verb::Prioritize, &plain).unwrap().needs_a_look).collect();
        assert!(looks[0] && looks.iter().filter(|look| **look).count() == 10, "{looks:?}");
    }

    #[test]
    fn what_is_unknown_cold_or_unreadable_is_no_reason_against_a_node() {
        let verbs = verbs(false, 4);
        let (value, answer) = asked(&verbs, Verb::Prioritize, &body(&[("talks-to", "none")], &NAMES, &json!({})));
        assert_eq!((value, answer.outcome), (json!([]), Outcome::Unknown));
        let (value, answer) = asked(&verbs, Verb::Prioritize, &body(&[("talks-to", "a:b")], &NAMES, &json!({})));
        assert_eq!((value, answer.outcome), (json!([]), Outcome::BadAnnotations));
        let News { what: Said::Bad(bad), .. } = answer.news.unwrap() else { panic!("not bad") };
        assert!(bad[0].to_string().contains("talks-to"));
        verbs.is_warm.store(false, Ordering::Release);
        let (value, answer) = asked(&verbs, Verb::Prioritize, &body(&[("talks-to", "cart")], &NAMES, &json!({})));
        assert_eq!((value, answer.outcome), (json!([]), Outcome::Cold));
        assert!(
            verbs.answer(Verb::Prioritize, b"<html>").is_err()
                && verbs.answer(Verb::Prioritize, b"{placement.kantai.dev}").is_err()
        );
    }

    #[test]
    fn the_filter_refuses_what_is_known_to_be_too_far_and_nothing_else() {
        let verbs = verbs(true, 4);
        let near = [("talks-to", "cart"), ("max-rtt", "15ms")];
        let (value, answer) = asked(&verbs, Verb::Filter, &body(&near, &["n3", "n0", "n1", "new"], &json!({})));
        assert_eq!(value["NodeNames"], json!(["n0", "n1", "new"]));
        let reason = "node(s) farther than 15 ms from what the pod is to be near to";
        assert_eq!(value["FailedAndUnresolvableNodes"], json!({"n3": reason}));
        // Pods were evicted from n3 for this one.
        assert_eq!(answer.fault, Some(Fault::PreemptNotAsked));
        for annotations in [&near[..1], &[]] {
            assert_eq!(asked(&verbs, Verb::Filter, &body(annotations, &NAMES, &json!({}))).0["NodeNames"], json!(NAMES));
        }
        // Whole nodes would have to be answered by whole nodes, which the scheduler does not check.
        let objects = json!({"NodeNames": null, "Nodes": {"items": [{"metadata": {"name": "n1"}}]}});
        let (value, answer) = asked(&verbs, Verb::Filter, &body(&near, &[], &objects));
        assert_eq!((value["Error"].as_str(), answer.fault), (Some(NAMES_ARE_NEEDED), Some(Fault::NodesSent)));
    }

    #[test]
    fn without_the_flag_all_nodes_pass_and_it_is_said() {
        let verbs = verbs(false, 4);
        let near = [("talks-to", "cart"), ("max-rtt", "15ms")];
        let (value, answer) = asked(&verbs, Verb::Filter, &body(&near, &NAMES, &json!({})));
        assert_eq!((&value["NodeNames"], answer.fault), (&json!(NAMES), Some(Fault::FilterNotServed)));
        assert_eq!(value["FailedAndUnresolvableNodes"], json!({}));
    }

    #[test]
    fn pods_are_evicted_only_from_nodes_that_the_filter_lets_pass() {
        let victims =
            json!({"NodeNameToMetaVictims": {"n1": {"Pods": [{"UID": "v1"}], "NumPDBViolations": 0}, "n3": {"Pods": []}}});
        let near = [("talks-to", "cart"), ("max-rtt", "15ms")];
        let kept = |filters: bool| {
            let (value, _) = asked(&verbs(filters, 4), Verb::Preempt, &body(&near, &[], &victims));
            value["NodeNameToMetaVictims"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!((kept(true), kept(false)), (vec!["n1".to_owned()], vec!["n1".to_owned(), "n3".to_owned()]));
    }
}
