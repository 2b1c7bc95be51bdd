//! Whether Kantai's own daemons run, may do what they must, and lead.

use super::super::gather::Facts;
use super::{Verdict, is_deployed, named, not_yet};
use crate::daemons::{DECIDER, GATEWAY, INGRESS, PROBER, SEIKAS};

const ALL: [&str; 5] = [DECIDER, SEIKAS, INGRESS, PROBER, GATEWAY];

pub(super) fn ready(facts: &Facts) -> Verdict {
    let parts = match &facts.parts {
        Ok(parts) => parts,
        Err(why) => return why.into(),
    };
    if facts.is_pre && parts.is_empty() {
        return Verdict::ok("not installed yet");
    }
    let missing: Vec<&str> = ALL.into_iter().filter(|daemon| !parts.iter().any(|part| part.name == *daemon)).collect();
    if !missing.is_empty() && !facts.is_pre {
        let says = format!("no {} in namespace {}", named(missing), facts.system_namespace);
        return Verdict::fail(says, "install Kantai; if it is in another namespace, name that with --system-namespace");
    }
    let unready: Vec<String> =
        parts.iter().filter(|part| !part.is_ready()).map(|part| format!("{} {}", part.name, part.ready_of_desired())).collect();
    if unready.is_empty() {
        return Verdict::ok(format!("all pods of {} are ready", named(parts.iter().map(|part| part.name.as_str()))));
    }
    let says = format!("not all pods are ready: {}", named(unready));
    let remedy = format!("kubectl -n {} describe pods; kubectl -n {0} logs POD", facts.system_namespace);
    // An install under way is no failure of what must be there before it.
    if facts.is_pre { Verdict::warn(says, remedy) } else { Verdict::fail(says, remedy) }
}

pub(super) fn rights(facts: &Facts) -> Verdict {
    let rights = match &facts.rights {
        Ok(rights) => rights,
        Err(why) => return why.into(),
    };
    if rights.is_empty() {
        return Verdict::ok("no daemon is installed yet");
    }
    let denied: Vec<String> = rights
        .iter()
        .filter(|(right, allowed)| *allowed == Ok(false) && !is_by_choice(facts, right))
        .map(|(right, _)| format!("{} may not {right}", right.daemon))
        .collect();
    if !denied.is_empty() {
        let remedy = "apply the ClusterRoles, Roles and their bindings of deploy/ again, or run helm upgrade";
        return Verdict::fail(named(denied), remedy);
    }
    match rights.iter().find_map(|(_, allowed)| allowed.as_ref().err()) {
        Some(why) => why.into(),
        None => Verdict::ok(format!("the daemons have all {} that they need", rights.len())),
    }
}

/// Whether a right is missing because the operator has chosen so: the daemon is held to some
/// namespaces, or reads Secrets in some only.
fn is_by_choice(facts: &Facts, right: &super::super::rights::Right) -> bool {
    let Ok(parts) = &facts.parts else { return false };
    let has = |variable: &str| {
        parts.iter().any(|part| part.name == right.daemon && part.variables.get(variable).is_some_and(|text| !text.is_empty()))
    };
    match right.daemon {
        SEIKAS => has("KANTAI_NAMESPACE"),
        INGRESS => right.resource == "secrets" && has("KANTAI_SECRET_NAMESPACES"),
        _ => false,
    }
}

pub(super) fn leaders(facts: &Facts) -> Verdict {
    let wanted = facts.leaders.iter().filter(|(daemon, _)| not_yet(facts, daemon).is_none());
    let (mut leads, mut nobody, mut unread) = (Vec::new(), Vec::new(), None);
    for (daemon, leader) in wanted {
        match leader {
            Ok(Some(pod)) => leads.push(pod.as_str()),
            Ok(None) => nobody.push(*daemon),
            Err(why) => unread = Some(why),
        }
    }
    if !nobody.is_empty() {
        let remedy = format!(
            "see why it gets no Lease: kubectl -n {} logs -l app.kubernetes.io/name={}",
            facts.system_namespace, nobody[0]
        );
        return Verdict::fail(format!("nobody leads: {}", named(nobody)), remedy);
    }
    match unread {
        Some(why) => why.into(),
        None if leads.is_empty() => Verdict::ok("not installed yet"),
        None => Verdict::ok(named(leads)),
    }
}

/// Whether the gateways are deployed, for checks of them.
pub(super) fn has_gateways(facts: &Facts) -> bool {
    !matches!(is_deployed(facts, GATEWAY), Ok(false))
}
