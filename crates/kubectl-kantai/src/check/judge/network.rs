//! What measures, and what takes requests in.

use super::super::gather::{Facts, NodeFact, ProberFact};
use super::super::prometheus::Asked;
use super::daemons::has_gateways;
use super::{Verdict, named, not_yet};
use crate::daemons::{DECIDER, GATEWAY, INGRESS, PROBER};

/// Nodes that are ready and run Linux: each has a prober and a gateway.
fn served_nodes(nodes: &[NodeFact]) -> impl Iterator<Item = &str> {
    nodes.iter().filter(|node| node.is_ready && node.is_linux).map(|node| node.name.as_str())
}

pub(super) fn probers(facts: &Facts) -> Verdict {
    if let Some(verdict) = not_yet(facts, PROBER) {
        return verdict;
    }
    let (nodes, probers) = match (&facts.nodes, &facts.probers) {
        (Ok(nodes), Ok(probers)) => (nodes, probers),
        (Err(why), _) | (_, Err(why)) => return why.into(),
    };
    let has_one = |node: &&str| probers.iter().any(|prober| prober.is_ready && prober.node == **node);
    let without: Vec<&str> = served_nodes(nodes).filter(|node| !has_one(node)).collect();
    if without.is_empty() {
        return Verdict::ok(format!("one is ready on each of {} nodes", served_nodes(nodes).count()));
    }
    Verdict::warn(
        format!("no ready prober on {}: latency from and to these nodes is estimated", named(without)),
        format!("kubectl -n {} describe daemonset {PROBER}", facts.system_namespace),
    )
}

pub(super) fn icmp(facts: &Facts) -> Verdict {
    let probers: &[ProberFact] = match &facts.probers {
        Ok(probers) if probers.is_empty() => return Verdict::unknown("a prober on each node finds out whether it may send ICMP"),
        Ok(probers) => probers,
        Err(why) => return why.into(),
    };
    let without: Vec<&str> =
        probers.iter().filter(|prober| prober.has_icmp == Ok(false)).map(|prober| prober.node.as_str()).collect();
    if !without.is_empty() {
        return Verdict::warn(
            format!(
                "ping_group_range does not let probers send ICMP on {}: where UDP is blocked, a node looks unreachable",
                named(without)
            ),
            "on these nodes: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\" (and in /etc/sysctl.d); or apply \
             deploy/latency-probe/raw-icmp.patch.yaml",
        );
    }
    let unread = probers.iter().filter(|prober| prober.is_ready).find_map(|prober| prober.has_icmp.as_ref().err());
    match unread {
        Some(why) => why.into(),
        None => Verdict::ok("probers may send ICMP where UDP is not answered"),
    }
}

pub(super) fn prometheus(facts: &Facts) -> Verdict {
    let asked = match &facts.prometheus {
        Ok(asked) => asked,
        Err(why) => return why.into(),
    };
    if asked.is_empty() {
        return Verdict::ok("none is set: extra-controller asks the probers themselves");
    }
    let has_probers = facts.probers.as_ref().is_ok_and(|probers| !probers.is_empty());
    let set = "set KANTAI_PROMETHEUS_URL of extra-controller (extraController.prometheusUrl of the chart) to its address";
    let verdicts = asked.iter().map(|(url, asked)| match asked {
        Asked::Answers { pairs } if *pairs > 0.0 => Verdict::ok(format!("{url} has {pairs} pairs of nodes")),
        Asked::Answers { .. } if !has_probers => Verdict::ok(format!("{url} answers; the probers are not there yet")),
        Asked::Answers { .. } => Verdict::fail(
            format!("{url} answers, but has no latency of any pair: it does not scrape the probers"),
            "let it scrape pods by annotation, or set monitoring.podMonitors of the chart; where NetworkPolicies hold, label its \
             namespace bonavadeur.io/scrapes-kantai=true",
        ),
        Asked::NoService { service, is_certain } => {
            let says = format!("{url}: there is no Service {service}");
            if *is_certain { Verdict::fail(says, set) } else { Verdict::warn(says, set) }
        }
        Asked::Refuses(why) => Verdict::fail(format!("{url} does not answer queries: {why}"), set),
        Asked::NoAddress(why) => Verdict::fail(why.clone(), set),
        Asked::WantsCredentials => Verdict::unknown(format!("{url} wants credentials, which only extra-controller has")),
        Asked::Outside => Verdict::unknown(format!("{url} is outside the cluster, and cannot be asked from here")),
        Asked::Unread(why) => Verdict::unknown(format!("{url}: {why}")),
    });
    let worst = verdicts.max_by_key(|verdict| severity(verdict.outcome));
    let worst = worst.unwrap_or_else(|| Verdict::unknown("nothing was asked"));
    // What cannot be asked from here, the daemon itself may have found silent.
    match (&facts.latency_event, worst.outcome) {
        (Ok(Some((reason, note))), super::Outcome::Unknown) if reason != "LatencySourceRecovered" => {
            Verdict::fail(format!("{DECIDER} says: {note}"), set)
        }
        _ => worst,
    }
}

fn severity(outcome: super::Outcome) -> u8 {
    use super::Outcome;
    match outcome {
        Outcome::Ok => 0,
        Outcome::Unknown => 1,
        Outcome::Warn => 2,
        Outcome::Fail => 3,
    }
}

pub(super) fn gateways(facts: &Facts) -> Verdict {
    if let Some(verdict) = not_yet(facts, GATEWAY) {
        return verdict;
    }
    let (nodes, gateways) = match (&facts.nodes, &facts.gateways) {
        (Ok(nodes), Ok(gateways)) => (nodes, gateways),
        (Err(why), _) | (_, Err(why)) => return why.into(),
    };
    if !has_gateways(facts) {
        return Verdict::fail(
            format!("there is no DaemonSet {GATEWAY} in namespace {}", facts.system_namespace),
            "install Kantai",
        );
    }
    let (mut without, mut unready) = (Vec::new(), Vec::new());
    for node in served_nodes(nodes) {
        match gateways.get(node) {
            None => without.push(node),
            Some(pods) if !pods.iter().any(|pod| pod.is_ready) => unready.push(node),
            Some(_) => {}
        }
    }
    let remedy = |of: &str| {
        let namespace = &facts.system_namespace;
        format!(
            "{of}: kubectl -n {namespace} describe daemonset {GATEWAY}; requests that enter at such a node are answered by nobody"
        )
    };
    if !without.is_empty() {
        return Verdict::fail(format!("no gateway on {}", named(without)), remedy("see why no pod is made there"));
    }
    if !unready.is_empty() {
        return Verdict::fail(format!("the gateway on {} is not ready", named(unready)), remedy("see why"));
    }
    Verdict::ok(format!("one is ready on each of {} nodes", served_nodes(nodes).count()))
}

pub(super) fn gateways_in_sync(facts: &Facts) -> Verdict {
    for part in [GATEWAY, INGRESS] {
        if let Some(verdict) = not_yet(facts, part) {
            return verdict;
        }
    }
    let (lag, gateways) = match (&facts.lag, &facts.gateways) {
        (Ok(lag), Ok(gateways)) => (lag, gateways),
        (Err(why), _) | (_, Err(why)) => return why.into(),
    };
    let behind: Vec<String> = lag
        .behind_seconds
        .iter()
        .filter(|(_, seconds)| **seconds > facts.behind_after_seconds)
        .map(|(node, seconds)| format!("{node} for {seconds:.0} s"))
        .collect();
    let log = format!("kubectl -n {} logs -l app.kubernetes.io/name={GATEWAY}", facts.system_namespace);
    if !behind.is_empty() {
        return Verdict::fail(
            format!("gateways have not confirmed the latest configuration: {}", named(behind)),
            format!("see what it refuses: kubectl kantai events -A --warnings (RefusedByGateway); {log}"),
        );
    }
    if let Some((replica, why)) = lag.silent.iter().next() {
        return Verdict::unknown(format!("{replica}: {why}"));
    }
    let ready = gateways.iter().filter(|(_, pods)| pods.iter().any(|pod| pod.is_ready));
    let alone: Vec<&str> = ready.map(|(node, _)| node.as_str()).filter(|node| !lag.behind_seconds.contains_key(*node)).collect();
    match alone.is_empty() {
        true => Verdict::ok(format!("{} gateways have confirmed it", lag.behind_seconds.len())),
        false => Verdict::fail(
            format!("the gateway on {} is connected to no {INGRESS}", named(alone)),
            format!("check the Secret kantai-gateway-xds and NetworkPolicies for port 18000; {log}"),
        ),
    }
}
