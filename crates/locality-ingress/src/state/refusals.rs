//! Which Ingress a gateway's refusal is about, and what is kept so that the others go on.
//!
//! A listener's routes are one resource: one bad virtual host holds up them all. So the Ingress at
//! fault is held back (what it had before is served instead) until its next generation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::kubernetes::objects::ObjectName;
use crate::routes::route_table::{ANY_HOST, Host, VirtualHost};
use crate::routes::translate::IngressRoutes;
use crate::xds::Kind;
use crate::xds::refusal::Nack;
use crate::xds::route_configuration::ingress_of_virtual_host;
use crate::xds::store::StoreRevision;

/// How long what was served before is kept: longer than any gateway takes to refuse what came after
/// it.
const KEPT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    blamed: BTreeMap<ObjectName, Refusal>,
    held: BTreeMap<ObjectName, HeldBack>,
    before: BTreeMap<ObjectName, (IngressRoutes, Instant)>,
}

/// What a gateway said against an Ingress.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// The generation that it is about.
    pub(super) generation: i64,
    /// In words.
    pub(super) message: String,
    /// Where it is about a Secret's or Service's content, which may change under the same
    /// generation: the resources that were refused.
    pub(super) resources: BTreeSet<(Kind, String)>,
}

#[derive(Debug)]
struct HeldBack {
    generation: i64,
    // The revisions in which gateways were told of it.
    since: StoreRevision,
    until: StoreRevision,
}

impl Refusals {
    pub(super) fn blame(&mut self, name: &ObjectName, blame: Refusal) {
        self.blamed.insert(name.clone(), blame);
    }

    pub(super) fn blames_resources(&self) -> bool {
        self.blamed.values().any(|blame| !blame.resources.is_empty())
    }

    /// Forgets what was said against resources that are different now: if those are refused, too,
    /// it will be said again.
    pub(super) fn forgive(&mut self, changed: &BTreeSet<(Kind, String)>) -> Vec<ObjectName> {
        let concerned = |blame: &Refusal| !blame.resources.is_disjoint(changed);
        let forgiven = self.blamed.iter().filter(|(_, blame)| concerned(blame)).map(|(name, _)| name.clone()).collect();
        self.blamed.retain(|_, blame| !concerned(blame));
        forgiven
    }

    /// What a gateway said against this generation.
    pub(super) fn against(&self, name: &ObjectName, generation: i64) -> Option<&str> {
        self.blamed.get(name).filter(|blame| blame.generation == generation).map(|blame| blame.message.as_str())
    }

    /// Keeps what was served until now.
    pub(super) fn keep(&mut self, name: &ObjectName, before: IngressRoutes, now: Instant) {
        self.before.retain(|_, (_, since)| now < *since + KEPT);
        self.before.insert(name.clone(), (before, now));
    }

    /// Holds a generation back. What to serve instead, where there is something.
    pub(super) fn hold(
        &mut self,
        name: &ObjectName,
        generation: i64,
        told: (StoreRevision, StoreRevision),
    ) -> Option<IngressRoutes> {
        self.held.insert(name.clone(), HeldBack { generation, since: told.0, until: told.1 });
        self.before.remove(name).map(|(before, _)| before)
    }

    /// Whether this generation is held back. Any other is judged anew.
    pub(super) fn holds(&mut self, name: &ObjectName, generation: i64) -> bool {
        let holds = self.held.get(name).is_some_and(|held| held.generation == generation);
        if !holds {
            self.held.remove(name);
        }
        holds
    }

    /// Whether one that is held back was in what is refused: then that is why, and nobody else is
    /// to blame yet.
    pub(super) fn explain(&self, nack: &Nack) -> bool {
        self.held.values().any(|held| nack.confirmed < held.since && held.since <= nack.revision && nack.revision <= held.until)
    }

    pub(super) fn forget(&mut self, name: &ObjectName) {
        self.blamed.remove(name);
        self.held.remove(name);
        self.before.remove(name);
    }
}

/// Which of the `suspects` the message means: by one of its hosts, by the number of its virtual
/// host in one of the route configurations `refused`, or because there is no other. Of listeners
/// Ingresses make the chains only: an address that cannot be had is nobody's fault.
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
    let may_be_theirs = nack.kind != Kind::Listener || message.contains("filter chain");
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
