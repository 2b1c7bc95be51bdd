//! Every check on facts of a cluster where all is well, and on those of one mistake each.

use std::collections::BTreeMap;

use k8s_api::CLASS;

use super::super::gather::{
    Facts, IngressFact, KNATIVE_DEFINITIONS, Knative, NodeFact, ProberFact, RevisionFact, SEIKA_DEFINITION,
};
use super::super::prometheus::Asked;
use super::super::rights;
use super::*;
use crate::daemons::{DECIDER, DaemonPod, GATEWAY, INGRESS, PROBER, SEIKAS};
use crate::facts::{Lag, Part, PartKind, Switch};

const NODES: [&str; 2] = ["node1", "node2"];

/// A cluster where all is well, with one revision.
fn well() -> Facts {
    let node = |name: &str| NodeFact { name: name.to_owned(), is_ready: true, is_linux: true };
    let part = |name: &str| Part {
        name: name.to_owned(),
        kind: PartKind::Deployment,
        ready: 1,
        desired: Some(1),
        variables: BTreeMap::new(),
    };
    let pod = |node: &str| DaemonPod { name: format!("pod-on-{node}"), node: node.to_owned(), is_ready: true, is_started: true };
    let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Facts {
        is_pre: false,
        behind_after_seconds: 10.0,
        knative_namespace: "knative-serving".to_owned(),
        system_namespace: "kantai-system".to_owned(),
        server_version: Ok("v1.33.0".to_owned()),
        definitions: Ok(KNATIVE_DEFINITIONS.into_iter().chain([SEIKA_DEFINITION]).map(|name| (name, true)).collect()),
        knative: Ok(Knative { is_there: true, version: Some("1.15.2".to_owned()) }),
        autoscaler_config: Ok(Some(BTreeMap::new())),
        network_config: Ok(Some(text(&[("ingress-class", k8s_api::kingress::CLASS)]))),
        revisions: Ok(vec![RevisionFact {
            namespace: "default".to_owned(),
            name: "hello-00001".to_owned(),
            service: "hello".to_owned(),
            class: CLASS.to_owned(),
        }]),
        ingresses: Ok(vec![IngressFact {
            namespace: "default".to_owned(),
            name: "hello".to_owned(),
            class: Some(k8s_api::kingress::CLASS.to_owned()),
            revisions: [("default".to_owned(), "hello-00001".to_owned())].into(),
        }]),
        nodes: Ok(NODES.map(node).to_vec()),
        skews: Ok(NODES.map(|node| (node.to_owned(), 0.3)).into()),
        parts: Ok([DECIDER, SEIKAS, INGRESS, PROBER, GATEWAY].map(part).to_vec()),
        leaders: [DECIDER, SEIKAS, INGRESS].map(|daemon| (daemon, Ok(Some(format!("{daemon}-1"))))).to_vec(),
        switch: Ok(Switch { is_on: true, exceptions: BTreeMap::new(), is_set: true }),
        gateways: Ok(NODES.map(|node| (node.to_owned(), vec![pod(node)])).into()),
        lag: Ok(Lag { behind_seconds: NODES.map(|node| (node.to_owned(), 0.0)).into(), silent: BTreeMap::new() }),
        probers: Ok(NODES.map(|node| ProberFact { node: node.to_owned(), is_ready: true, has_icmp: Ok(true) }).to_vec()),
        rights: Ok(Vec::new()),
        prometheus: Ok(Vec::new()),
        latency_event: Ok(None),
    }
}

/// What is found besides that all is well.
fn found(facts: &Facts) -> Vec<(&'static str, Outcome)> {
    let findings = judge(facts).into_iter().filter(|finding| finding.outcome != Outcome::Ok);
    findings.map(|finding| (finding.check, finding.outcome)).collect()
}

/// A mistake, what it is found by, and how bad that is.
type Mistake = (fn(&mut Facts), &'static str, Outcome);

#[test]
fn nothing_is_found_where_all_is_well() {
    assert_eq!(found(&well()), []);
}

#[test]
fn each_mistake_is_found_by_its_own_check_and_no_other() {
    let mistakes: [Mistake; 15] = [
        (|facts| facts.knative.as_mut().unwrap().version = Some("v1.14.9".to_owned()), "Knative version", Outcome::Fail),
        (|facts| facts.definitions.as_mut().unwrap().retain(|name, _| *name != SEIKA_DEFINITION), "definitions", Outcome::Fail),
        (
            |facts| facts.definitions.as_mut().unwrap().retain(|name, _| *name != KNATIVE_DEFINITIONS[1]),
            "definitions",
            Outcome::Fail,
        ),
        (
            |facts| {
                let config = facts.autoscaler_config.as_mut().unwrap().as_mut().unwrap();
                config.insert("pod-autoscaler-class".to_owned(), "miporin.autoscaling.knative.dev".to_owned());
            },
            "autoscaler class",
            Outcome::Fail,
        ),
        (|facts| facts.revisions.as_mut().unwrap()[0].class = "other.example.com".to_owned(), "autoscaler class", Outcome::Warn),
        (
            |facts| {
                let config = facts.network_config.as_mut().unwrap().as_mut().unwrap();
                config.insert("ingress.class".to_owned(), "kourier.ingress.networking.knative.dev".to_owned());
            },
            "ingress class",
            Outcome::Fail,
        ),
        (
            |facts| facts.ingresses.as_mut().unwrap()[0].class = Some("kourier.ingress.networking.knative.dev".to_owned()),
            "ingress class",
            Outcome::Fail,
        ),
        (|facts| facts.skews.as_mut().unwrap().extend([("node2".to_owned(), -61.0)]), "clocks", Outcome::Fail),
        (|facts| facts.skews.as_mut().unwrap().extend([("node2".to_owned(), 5.0)]), "clocks", Outcome::Warn),
        (|facts| facts.leaders[0].1 = Ok(None), "leaders", Outcome::Fail),
        (|facts| facts.probers.as_mut().unwrap()[1].has_icmp = Ok(false), "ICMP probes", Outcome::Warn),
        (
            |facts| facts.prometheus = Ok(vec![("http://p.m".to_owned(), Asked::Answers { pairs: 0.0 })]),
            "Prometheus",
            Outcome::Fail,
        ),
        (
            |facts| facts.prometheus = Ok(vec![("http://p.m".to_owned(), Asked::Refuses("503".to_owned()))]),
            "Prometheus",
            Outcome::Fail,
        ),
        (|facts| drop(facts.gateways.as_mut().unwrap().remove("node2")), "gateways", Outcome::Fail),
        (
            |facts| facts.lag.as_mut().unwrap().behind_seconds.extend([("node1".to_owned(), 31.0)]),
            "configuration of gateways",
            Outcome::Fail,
        ),
    ];
    for (mistake, check, outcome) in mistakes {
        let mut facts = well();
        mistake(&mut facts);
        assert_eq!(found(&facts), [(check, outcome)]);
        let finding = judge(&facts).into_iter().find(|finding| finding.outcome != Outcome::Ok).unwrap();
        assert!(finding.remedy.is_some_and(|remedy| !remedy.is_empty()), "{check}: {}", finding.says);
    }
}

#[test]
fn what_could_not_be_read_is_unknown_and_neither_well_nor_wrong() {
    let why = || Unread::because("forbidden");
    let mut facts = well();
    facts.nodes = Err(why());
    facts.revisions = Err(why());
    facts.lag = Err(why());
    facts.probers = Err(why());
    let unknown = found(&facts);
    assert_eq!(unknown.len(), 8, "{unknown:?}");
    assert!(unknown.iter().all(|(_, outcome)| *outcome == Outcome::Unknown), "{unknown:?}");
}

#[test]
fn before_an_install_nothing_of_it_is_missed() {
    let mut facts = well();
    facts.is_pre = true;
    facts.parts = Ok(Vec::new());
    facts.leaders = [DECIDER, SEIKAS, INGRESS].map(|daemon| (daemon, Ok(None))).to_vec();
    facts.gateways = Ok(BTreeMap::new());
    facts.lag = Err(Unread::because("there is no pod"));
    facts.probers = Ok(Vec::new());
    facts.definitions.as_mut().unwrap().remove(SEIKA_DEFINITION);
    assert_eq!(found(&facts), [("ICMP probes", Outcome::Unknown)]);
    facts.is_pre = false;
    assert!(found(&facts).contains(&("definitions", Outcome::Fail)));
    assert!(found(&facts).contains(&("gateways", Outcome::Fail)));
}

#[test]
fn a_node_that_is_not_ready_or_runs_another_system_has_no_gateway_to_miss() {
    let mut facts = well();
    facts.gateways.as_mut().unwrap().remove("node2");
    facts.lag.as_mut().unwrap().behind_seconds.remove("node2");
    facts.nodes.as_mut().unwrap()[1].is_ready = false;
    assert_eq!(found(&facts), []);
    facts.nodes.as_mut().unwrap()[1] = NodeFact { name: "node2".to_owned(), is_ready: true, is_linux: false };
    assert_eq!(found(&facts), []);
}

#[test]
fn foreign_gateways_on_purpose_are_no_mistake() {
    let mut facts = well();
    facts.ingresses.as_mut().unwrap()[0].class = Some("kourier.ingress.networking.knative.dev".to_owned());
    let decider = facts.parts.as_mut().unwrap().iter_mut().find(|part| part.name == DECIDER).unwrap();
    decider.variables.insert("KANTAI_DEMAND_SOURCE".to_owned(), "statistics-page".to_owned());
    assert_eq!(found(&facts), []);
}

#[test]
fn what_cannot_be_asked_from_here_the_daemon_may_know() {
    let mut facts = well();
    facts.prometheus = Ok(vec![("https://prometheus.example.com".to_owned(), Asked::Outside)]);
    assert_eq!(found(&facts), [("Prometheus", Outcome::Unknown)]);
    facts.latency_event = Ok(Some(("LatencySourceLost".to_owned(), "it does not answer".to_owned())));
    assert_eq!(found(&facts), [("Prometheus", Outcome::Fail)]);
    facts.latency_event = Ok(Some(("LatencySourceRecovered".to_owned(), "it answers".to_owned())));
    assert_eq!(found(&facts), [("Prometheus", Outcome::Unknown)]);
}

#[test]
fn a_right_that_is_missing_is_named_unless_the_operator_chose_so() {
    let right = |daemon, resource: &str, allowed| (rights::example(daemon, resource), allowed);
    let mut facts = well();
    facts.rights = Ok(vec![right(INGRESS, "secrets", Ok(false)), right(DECIDER, "pods", Ok(true))]);
    assert_eq!(found(&facts), [("rights", Outcome::Fail)]);
    let ingress = facts.parts.as_mut().unwrap().iter_mut().find(|part| part.name == INGRESS).unwrap();
    ingress.variables.insert("KANTAI_SECRET_NAMESPACES".to_owned(), "blue".to_owned());
    assert_eq!(found(&facts), []);
    facts.rights = Ok(vec![right(DECIDER, "pods", Err(Unread::because("forbidden"))), right(SEIKAS, "pods", Ok(false))]);
    assert_eq!(found(&facts), [("rights", Outcome::Fail)], "what is wrong outweighs what is unknown");
    facts.rights.as_mut().unwrap().pop();
    assert_eq!(found(&facts), [("rights", Outcome::Unknown)]);
}

#[test]
fn many_names_are_cut() {
    assert_eq!(named(["a", "b"]), "a, b");
    assert_eq!(named((0..8).map(|number| number.to_string())), "0, 1, 2, 3, 4 and 3 more");
}
