//! What the cluster brings along: Kubernetes, Knative and its settings, clocks.

use k8s_api::{CLASS, STOCK_CLASS};

use super::super::gather::{Facts, IngressFact, KNATIVE_DEFINITIONS, RevisionFact, SEIKA_DEFINITION};
use super::{Verdict, named, not_yet};
use crate::daemons::{DECIDER, SEIKAS};

/// Knative's class for pods that are scaled by processor time.
const HPA_CLASS: &str = "hpa.autoscaling.knative.dev";
/// The oldest Knative that Kantai is made for.
const OLDEST_KNATIVE: (u32, u32) = (1, 15);
/// Clocks that differ by less than this are equal: a write takes a while, and is noted to a second.
const EQUAL_SECONDS: f64 = 2.0;
/// Clocks that differ by more than this break more than the order of time stamps.
const APART_SECONDS: f64 = 30.0;

/// Under which keys Knative reads the default class of Ingresses; the first wins.
const INGRESS_KEYS: [&str; 2] = ["ingress-class", "ingress.class"];
/// What Knative takes without either.
const DEFAULT_INGRESS_CLASS: &str = "istio.ingress.networking.knative.dev";

pub(super) fn api_server(facts: &Facts) -> Verdict {
    match &facts.server_version {
        Ok(version) => Verdict::ok(format!("Kubernetes {version}")),
        Err(why) => why.into(),
    }
}

pub(super) fn knative_version(facts: &Facts) -> Verdict {
    let install = || {
        let (major, minor) = OLDEST_KNATIVE;
        format!(
            "install Knative Serving {major}.{minor} or newer; if it is in another namespace, name that with --knative-namespace"
        )
    };
    let knative = match &facts.knative {
        Ok(knative) => knative,
        Err(why) => return why.into(),
    };
    let namespace = &facts.knative_namespace;
    let Some(text) = &knative.version else {
        return match knative.is_there {
            true => Verdict::unknown(format!("its controller in namespace {namespace} has no label with its version")),
            false => Verdict::fail(format!("there is no Knative Serving in namespace {namespace}"), install()),
        };
    };
    match version(text) {
        None => Verdict::unknown(format!("the label of its controller says {text:?}")),
        Some(version) if version < OLDEST_KNATIVE => Verdict::fail(format!("{text} is too old"), install()),
        Some(_) => Verdict::ok(text.as_str()),
    }
}

/// Major and minor number.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn definitions(facts: &Facts) -> Verdict {
    let served = match &facts.definitions {
        Ok(served) => served,
        Err(why) => return why.into(),
    };
    let unserved: Vec<_> = served.iter().filter(|(_, is_served)| !**is_served).map(|(name, _)| *name).collect();
    let knatives: Vec<_> = KNATIVE_DEFINITIONS.into_iter().filter(|name| !served.contains_key(name)).collect();
    if !knatives.is_empty() {
        return Verdict::fail(
            format!("{} missing", named(knatives)),
            "install Knative Serving with its definitions (serving-crds.yaml)",
        );
    }
    if !served.contains_key(SEIKA_DEFINITION) {
        let is_first = not_yet(facts, DECIDER).is_some() && not_yet(facts, SEIKAS).is_some();
        return match is_first {
            true => Verdict::ok(format!("Knative's are there; {SEIKA_DEFINITION} comes with Kantai")),
            false => Verdict::fail(
                format!("{SEIKA_DEFINITION} missing"),
                "apply deploy/seika-controller/crd.yaml, or what `seika-controller crd` prints",
            ),
        };
    }
    match unserved.is_empty() {
        true => Verdict::ok("Knative's and ours are there"),
        false => Verdict::fail(
            format!("{} not served", named(unserved)),
            "see the conditions of the definition: kubectl describe crd NAME",
        ),
    }
}

pub(super) fn autoscaler_class(facts: &Facts) -> Verdict {
    let (config, revisions) = match (&facts.autoscaler_config, &facts.revisions) {
        (Ok(config), Ok(revisions)) => (config, revisions),
        (Err(why), _) | (_, Err(why)) => return why.into(),
    };
    let Some(config) = config else {
        let namespace = &facts.knative_namespace;
        return Verdict::warn(
            format!("there is no ConfigMap config-autoscaler in namespace {namespace}"),
            "name the namespace of Knative Serving with --knative-namespace",
        );
    };
    let default = config.get("pod-autoscaler-class").map_or(STOCK_CLASS, String::as_str);
    let set = format!("use {CLASS:?}, or remove it to choose the class by annotation");
    if !is_served(default) {
        let says = format!("pod-autoscaler-class in config-autoscaler is {default:?}, which neither Knative nor Kantai serves");
        return if is_misspelt(default) { Verdict::fail(says, set) } else { Verdict::warn(says, set) };
    }
    let foreign: Vec<&RevisionFact> = revisions.iter().filter(|revision| !is_served(&revision.class)).collect();
    if let Some(first) = foreign.first() {
        let names = named(foreign.iter().map(|one| format!("{}/{}", one.namespace, one.name)));
        let says = format!("the class of {names} is {:?}, which neither Knative nor Kantai serves", first.class);
        let set = format!("set autoscaling.knative.dev/class to {CLASS:?} on spec.template of the Service");
        let is_wrong = foreign.iter().any(|one| is_misspelt(&one.class));
        return if is_wrong { Verdict::fail(says, set) } else { Verdict::warn(says, set) };
    }
    let ours = revisions.iter().filter(|revision| revision.class == CLASS).count();
    Verdict::ok(match (default == CLASS, ours) {
        (true, ours) => format!("ours is the cluster's default; {ours} revisions have it"),
        (false, 0) => "nobody has opted in yet".to_owned(),
        (false, ours) => format!("{ours} revisions have opted in"),
    })
}

fn is_served(class: &str) -> bool {
    [CLASS, STOCK_CLASS, HPA_CLASS].contains(&class)
}

/// Whether a class was meant to be ours or Knative's.
fn is_misspelt(class: &str) -> bool {
    ["miporin", "bonavadeur", "kantai", "kpa"].iter().any(|part| class.contains(part))
}

pub(super) fn ingress_class(facts: &Facts) -> Verdict {
    let (config, revisions, ingresses) = match (&facts.network_config, &facts.revisions, &facts.ingresses) {
        (Ok(config), Ok(revisions), Ok(ingresses)) => (config, revisions, ingresses),
        (Err(why), ..) | (_, Err(why), _) | (_, _, Err(why)) => return why.into(),
    };
    let class = k8s_api::kingress::CLASS;
    let given: Vec<&str> = INGRESS_KEYS.iter().filter_map(|key| config.as_ref()?.get(*key)).map(String::as_str).collect();
    if let [first, second] = given[..]
        && first != second
    {
        return Verdict::fail(
            format!("config-network names two classes, {first:?} and {second:?}; Knative follows the first"),
            format!("leave only {:?} in it, and remove {:?}", INGRESS_KEYS[0], INGRESS_KEYS[1]),
        );
    }
    let default = given.first().copied().unwrap_or(DEFAULT_INGRESS_CLASS);
    let reads_foreign_gateways = facts.parts.as_ref().is_ok_and(|parts| {
        let source = parts.iter().find(|part| part.name == DECIDER).and_then(|part| part.variables.get("KANTAI_DEMAND_SOURCE"));
        source.is_some_and(|source| source == "statistics-page")
    });
    let is_ours = |key: &(String, String)| {
        revisions.iter().any(|one| one.class == CLASS && (&one.namespace, &one.name) == (&key.0, &key.1))
    };
    let split: Vec<&IngressFact> = ingresses
        .iter()
        .filter(|one| one.class.as_deref().unwrap_or(default) != class && one.revisions.iter().any(is_ours))
        .collect();
    if let Some(first) = split.first().filter(|_| !reads_foreign_gateways) {
        let names = named(split.iter().map(|one| format!("{}/{}", one.namespace, one.name)));
        let foreign = first.class.as_deref().unwrap_or(default);
        return Verdict::fail(
            format!(
                "{names}: pods are placed by Kantai, and requests come through gateways of {foreign:?}, whose demand is not seen"
            ),
            format!(
                "set ingress-class in config-network to {class:?}, or the annotation networking.knative.dev/ingress.class of the Service"
            ),
        );
    }
    let ours = ingresses.iter().filter(|one| one.class.as_deref().unwrap_or(default) == class).count();
    Verdict::ok(match default == class {
        true => format!("ours is the cluster's default; {ours} Ingresses have it"),
        false => format!("{ours} Ingresses have ours; the cluster's default is {default:?}"),
    })
}

pub(super) fn clocks(facts: &Facts) -> Verdict {
    let (skews, nodes) = match (&facts.skews, &facts.nodes) {
        (Ok(skews), Ok(nodes)) => (skews, nodes),
        (Err(why), _) | (_, Err(why)) => return why.into(),
    };
    // The Lease of a silent node tells how it was once.
    let of_ready = |node: &str| nodes.iter().any(|one| one.name == node && one.is_ready);
    let skewed: Vec<(&String, f64)> = skews
        .iter()
        .filter(|(node, seconds)| of_ready(node) && seconds.abs() >= EQUAL_SECONDS)
        .map(|(node, seconds)| (node, *seconds))
        .collect();
    let worst = skewed.iter().map(|(_, seconds)| seconds.abs()).fold(0.0, f64::max);
    if worst > 0.0 {
        let way = |seconds: f64| if seconds > 0.0 { "ahead" } else { "behind" };
        let names = named(skewed.iter().map(|(node, seconds)| format!("{node} {:.0} s {}", seconds.abs(), way(*seconds))));
        let says = format!("clocks differ from the API server's: {names}");
        let remedy =
            "let the nodes' clocks follow NTP (chrony or systemd-timesyncd): certificates and time stamps depend on them";
        return if worst >= APART_SECONDS { Verdict::fail(says, remedy) } else { Verdict::warn(says, remedy) };
    }
    let silent: Vec<&str> =
        nodes.iter().filter(|node| node.is_ready && !skews.contains_key(&node.name)).map(|node| node.name.as_str()).collect();
    match silent.is_empty() {
        true => Verdict::ok(format!("those of {} nodes are the API server's, within {EQUAL_SECONDS} s", skews.len())),
        false => Verdict::unknown(format!("the Leases of {} tell no time", named(silent))),
    }
}

pub(super) fn handed_over(facts: &Facts) -> Verdict {
    let (switch, revisions) = match (&facts.switch, &facts.revisions) {
        (Ok(switch), Ok(revisions)) => (switch, revisions),
        (Err(why), _) | (_, Err(why)) => return why.into(),
    };
    let ours: Vec<String> =
        revisions.iter().filter(|one| one.class == CLASS).map(|one| format!("{}/{}", one.namespace, one.name)).collect();
    let count = ours.len();
    let names = if ours.is_empty() { String::new() } else { format!(": {}", named(ours)) };
    Verdict::ok(format!("{count} of {} are of our class{names}; the switch is {}", revisions.len(), switch.words()))
}
