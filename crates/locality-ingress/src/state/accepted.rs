//! Which generation of each Ingress is served: the newest one that can be, unless gateways refused
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::cache::ObjectCache;
use super::refusals::{Refusal, Refusals, at_fault};
use crate::kubernetes::objects::ObjectName;
use crate::routes::route_table::{Host, VirtualHost};
use crate::routes::translate::{IngressRoutes, TranslateSettings, translate};
use crate::routes::validate::Problem;
use crate::xds::Kind;
use crate::xds::refusal::Nack;
use crate::xds::store::StoreRevision;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct AcceptedIngresses {
    served: BTreeMap<ObjectName, Served>,
    refusals: Refusals,
}

/// What is served of one Ingress.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) routes: IngressRoutes,
    /// Since this revision of the store; 0 where that is not known yet.
    pub(super) since: StoreRevision,
}

/// What became of an Ingress that changed.
#[derive(Debug)]
pub(super) enum Acceptance {
    /// It is no more.
    Gone,
    /// Its newest generation is served.
    Served,
    /// The one before is, until these are there.
    Waiting(Vec<String>),
    /// The one before is, for the newest cannot be.
    Refused(Problem),
}

impl AcceptedIngresses {
    pub(super) fn all(&self) -> impl Iterator<Item = (&ObjectName, &IngressRoutes)> {
        self.served.iter().map(|(name, served)| (name, &served.routes))
    }

    pub(super) fn served(&self, name: &ObjectName) -> Option<&Served> {
        self.served.get(name)
    }

    pub(super) fn served_mut(&mut self, name: &ObjectName) -> Option<&mut Served> {
        self.served.get_mut(name)
    }

    /// Translates one Ingress and decides whether it is served from now on. What became of it, and
    /// whether that changes what is served.
    pub(super) fn follow(
        &mut self,
        name: &ObjectName,
        cache: &ObjectCache,
        settings: &TranslateSettings,
        now: Instant,
    ) -> (Acceptance, bool) {
        let Some(ingress) = cache.ingress(name) else {
            return (Acceptance::Gone, self.served.remove(name).is_some());
        };
        if self.refusals.holds(name, ingress.generation) {
            return (Acceptance::Served, false);
        }
        let before = self.served.get(name);
        let routes = match translate(name, ingress, cache.objects(), settings) {
            Ok(routes) => routes,
            // The last generation that could be served still is: a mistake must not take a service
            // down.
            Err(problem) => return (Acceptance::Refused(problem), false),
        };
        if before.is_some_and(|before| before.routes == routes) {
            return (Acceptance::Served, false);
        }
        // Backends of a new generation may be known a moment later than it. Until they are,
        // requests go on as before.
        if before.is_some_and(|before| before.routes.generation != routes.generation) {
            let missing = cache.missing(&routes);
            if !missing.is_empty() {
                return (Acceptance::Waiting(missing), false);
            }
        }
        if let Some(before) = self.served.insert(name.clone(), Served { routes, since: 0 }) {
            self.refusals.keep(name, before.routes, now);
        }
        (Acceptance::Served, true)
    }

    /// Holds the Ingresses back whose routes were refused, in the route configurations `refused`;
    /// `told` is the last revision that gateways may have been told. Those that were found.
    pub(super) fn hold_back(
        &mut self,
        nack: &Nack,
        refused: &[&BTreeMap<Host, VirtualHost>],
        cache: &ObjectCache,
        told: StoreRevision,
    ) -> BTreeSet<ObjectName> {
        if self.refusals.explain(nack) {
            return BTreeSet::new();
        }
        let new = |served: &Served| nack.confirmed < served.since && served.since <= nack.revision;
        let suspects: Vec<_> =
            self.served.iter().filter(|(_, served)| new(served)).map(|(name, served)| (name, &served.routes)).collect();
        let found: BTreeSet<ObjectName> = at_fault(nack, &suspects, refused).into_iter().cloned().collect();
        for name in &found {
            let (Some(served), Some(ingress)) = (self.served.remove(name), cache.ingress(name)) else { continue };
            if let Some(routes) = self.refusals.hold(name, ingress.generation, (served.since, told)) {
                self.served.insert(name.clone(), Served { routes, since: 0 });
            }
        }
        found
    }

    /// Notes what a gateway said against a generation.
    pub(super) fn blame(&mut self, name: &ObjectName, blame: Refusal) {
        self.refusals.blame(name, blame);
    }

    /// Whether anything is held against an Ingress because of one of its resources.
    pub(super) fn blames_resources(&self) -> bool {
        self.refusals.blames_resources()
    }

    /// Forgets what gateways said against resources that are different now. The Ingresses that were
    /// blamed for them.
    pub(super) fn forgive(&mut self, changed: &BTreeSet<(Kind, String)>) -> Vec<ObjectName> {
        self.refusals.forgive(changed)
    }

    /// What a gateway said against a generation.
    pub(super) fn said_against(&self, name: &ObjectName, generation: i64) -> Option<&str> {
        self.refusals.against(name, generation)
    }

    /// Forgets what gateways said against an Ingress that is gone.
    pub(super) fn forget_refusals(&mut self, name: &ObjectName) {
        self.refusals.forget(name);
    }
}
