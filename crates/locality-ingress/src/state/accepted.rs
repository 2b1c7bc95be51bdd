//! Which generation of each Ingress is served: the newest one that can be served and that no
//! gateway refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::cache::ObjectCache;
use super::refusals::{GatewayRefusal, GatewayRefusals, at_fault};
use crate::kubernetes::objects::ObjectName;
use crate::routes::route_table::{Host, VirtualHost};
use crate::routes::translate::{IngressRoutes, TranslateSettings, translate};
use crate::routes::validate::IngressProblem;
use crate::xds::ResourceKind;
use crate::xds::refusal::Nack;
use crate::xds::store::StoreRevision;

/// The accepted generation of each Ingress.
#[derive(Debug, Default)]
pub(super) struct AcceptedIngresses {
    served: BTreeMap<ObjectName, Served>,
    refusals: GatewayRefusals,
}

/// The accepted routes of one Ingress.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) routes: IngressRoutes,
    /// Since which revision of the store they are served; 0 while that is unknown.
    pub(super) since: StoreRevision,
}

/// What became of the newest generation of an Ingress.
#[derive(Debug)]
pub(super) enum Acceptance {
    /// The Ingress was deleted.
    Gone,
    /// The newest generation is served.
    Served,
    /// The previous generation is served until these objects exist.
    Waiting(Vec<String>),
    /// The previous generation is served, because the newest one is invalid.
    Refused(IngressProblem),
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

    /// Translates one Ingress and decides which generation is served. Returns that, and whether the
    /// served routes changed.
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
            // The last valid generation is still served: a mistake must not take a service down.
            Err(problem) => return (Acceptance::Refused(problem), false),
        };
        if before.is_some_and(|before| before.routes == routes) {
            return (Acceptance::Served, false);
        }
        // The backends of a new generation may be seen a moment after it. Until then the previous
        // generation is served.
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

    /// Holds back the Ingresses whose routes were refused, in the route configurations `refused`.
    /// `told` is the last revision that gateways may have received. Returns the Ingresses at fault.
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

    /// Records a gateway's refusal of a generation.
    pub(super) fn blame(&mut self, name: &ObjectName, blame: GatewayRefusal) {
        self.refusals.blame(name, blame);
    }

    /// Whether any Ingress is refused because of one of its resources.
    pub(super) fn blames_resources(&self) -> bool {
        self.refusals.blames_resources()
    }

    /// Drops the refusals of resources that have changed. Returns the Ingresses that were refused
    /// for them.
    pub(super) fn forgive(&mut self, changed: &BTreeSet<(ResourceKind, String)>) -> Vec<ObjectName> {
        self.refusals.forgive(changed)
    }

    /// The NACK message against a generation.
    pub(super) fn said_against(&self, name: &ObjectName, generation: i64) -> Option<&str> {
        self.refusals.against(name, generation)
    }

    /// Drops the refusals of a deleted Ingress.
    pub(super) fn forget_refusals(&mut self, name: &ObjectName) {
        self.refusals.forget(name);
    }
}
