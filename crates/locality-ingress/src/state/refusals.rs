//! Which Ingress a NACK is about, and the previous generation that is served instead.
//!
//! All routes of a listener are one resource, so one bad virtual host blocks all of them. The
//! Ingress at fault is therefore held back until its next generation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::kubernetes::objects::ObjectName;
use crate::routes::route_table::{ANY_HOST, Host, VirtualHost};
use crate::routes::translate::IngressRoutes;
use crate::xds::ResourceKind;
use crate::xds::refusal::Nack;
use crate::xds::route_configuration::ingress_of_virtual_host;
use crate::xds::store::StoreRevision;

/// How long the previous routes are kept: longer than any gateway takes to refuse the new ones.
const KEPT: Duration = Duration::from_secs(60);

/// The refusals of gateways, by Ingress.
#[derive(Debug, Default)]
pub(super) struct GatewayRefusals {
    blamed: BTreeMap<ObjectName, GatewayRefusal>,
    held: BTreeMap<ObjectName, HeldBack>,
    before: BTreeMap<ObjectName, (IngressRoutes, Instant)>,
}

/// A gateway's refusal of one generation of an Ingress.
#[derive(Clone, Debug)]
pub(super) struct GatewayRefusal {
    /// The refused generation.
    pub(super) generation: i64,
    /// The NACK message.
    pub(super) message: String,
    /// The refused resources, if the refusal is about the content of a Secret or Service, which may
    /// change under the same generation.
    pub(super) resources: BTreeSet<(ResourceKind, String)>,
}

#[derive(Debug)]
struct HeldBack {
    generation: i64,
    // The revisions in which gateways received it.
    since: StoreRevision,
    until: StoreRevision,
}

impl GatewayRefusals {
    pub(super) fn blame(&mut self, name: &ObjectName, blame: GatewayRefusal) {
        self.blamed.insert(name.clone(), blame);
    }

    pub(super) fn blames_resources(&self) -> bool {
        self.blamed.values().any(|blame| !blame.resources.is_empty())
    }

    /// Drops refusals of changed resources. If the new content is refused too, another NACK
    /// follows.
    pub(super) fn forgive(&mut self, changed: &BTreeSet<(ResourceKind, String)>) -> Vec<ObjectName> {
        let concerned = |blame: &GatewayRefusal| !blame.resources.is_disjoint(changed);
        let forgiven = self.blamed.iter().filter(|(_, blame)| concerned(blame)).map(|(name, _)| name.clone()).collect();
        self.blamed.retain(|_, blame| !concerned(blame));
        forgiven
    }

    /// The NACK message against this generation.
    pub(super) fn against(&self, name: &ObjectName, generation: i64) -> Option<&str> {
        self.blamed.get(name).filter(|blame| blame.generation == generation).map(|blame| blame.message.as_str())
    }

    /// Keeps the routes that were served until now.
    pub(super) fn keep(&mut self, name: &ObjectName, before: IngressRoutes, now: Instant) {
        self.before.retain(|_, (_, since)| now < *since + KEPT);
        self.before.insert(name.clone(), (before, now));
    }

    /// Holds back a generation. Returns the previous routes, if there are any.
    pub(super) fn hold(
        &mut self,
        name: &ObjectName,
        generation: i64,
        told: (StoreRevision, StoreRevision),
    ) -> Option<IngressRoutes> {
        self.held.insert(name.clone(), HeldBack { generation, since: told.0, until: told.1 });
        self.before.remove(name).map(|(before, _)| before)
    }

    /// Whether this generation is held back. Any other one is tried again.
    pub(super) fn holds(&mut self, name: &ObjectName, generation: i64) -> bool {
        let holds = self.held.get(name).is_some_and(|held| held.generation == generation);
        if !holds {
            self.held.remove(name);
        }
        holds
    }

    /// Whether a generation that is held back by now was part of the refused update. It explains
    /// the NACK, so no other Ingress is at fault yet.
    pub(super) fn explain(&self, nack: &Nack) -> bool {
        self.held.values().any(|held| nack.confirmed < held.since && held.since <= nack.revision && nack.revision <= held.until)
    }

    pub(super) fn forget(&mut self, name: &ObjectName) {
        self.blamed.remove(name);
        self.held.remove(name);
        self.before.remove(name);
    }
}

/// Which of the `suspects` a NACK is about: by one of its hosts in the message, by the index of its
/// virtual host in the route configurations `refused`, or as the only suspect. Of a listener,
/// Ingresses contribute only filter chains: an address that cannot be bound is no Ingress's fault.
pub(super) fn at_fault<'a>(
    nack: &Nack,
    suspects: &[(&'a ObjectName, &IngressRoutes)],
    refused: &[&BTreeMap<Host, VirtualHost>],
) -> Vec<&'a ObjectName> {
    let message = nack.message.as_str();
    let mentions = |host: &Host| host != ANY_HOST && words(message).any(|word| word == host);
    let by_host = suspects.iter().filter(|(_, routes)| routes.external.keys().chain(routes.local.keys()).any(mentions));
    let by_host: Vec<_> = by_host.map(|(name, _)| *name).collect();
    if !by_host.is_empty() {
        return by_host;
    }
    let number = message.split_once("VirtualHosts[").and_then(|(_, rest)| rest.split_once(']')?.0.parse::<usize>().ok());
    let by_number = refused.iter().filter_map(|hosts| ingress_of_virtual_host(hosts, number?));
    let by_number: Vec<_> = by_number.filter_map(|found| suspects.iter().find(|(name, _)| *name == found)).collect();
    let may_be_theirs = nack.kind != ResourceKind::Listener || message.contains("filter chain");
    match (by_number.as_slice(), suspects) {
        ([(only, _)], _) => vec![*only],
        ([], [(only, _)]) if may_be_theirs => vec![*only],
        ([(one, _), (other, _)], _) if one == other => vec![*one],
        _ => Vec::new(),
    }
}

fn words(message: &str) -> impl Iterator<Item = &str> {
    let in_host = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    // A sentence may end with a host.
    message.split(move |letter| !in_host(letter)).map(|word| word.trim_end_matches('.'))
}
