//! The cache: objects, which Ingress refers to which of them, routes, and the loads of revisions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::change::ObjectChange;
use super::doubt::PodDoubts;
use crate::endpoints::activators::shares;
use crate::endpoints::overflow::holders;
use crate::endpoints::overload::Overload;
use crate::endpoints::plan::PlannedRoutes;
use crate::kubernetes::objects::{Endpoint, IngressObject, ObjectName, RoutingObjects, ServiceObject};
use crate::routes::route_table::ClusterTarget;
use crate::routes::translate::IngressRoutes;
use crate::xds::cluster_endpoints::ClusterEndpoints;

/// The objects and streams that everything is computed from.
#[derive(Debug, Default)]
pub(super) struct ObjectCache {
    objects: RoutingObjects,
    plan: PlannedRoutes,
    overload: Overload,
    doubt: PodDoubts,
    // The Ingresses that refer to a Service or Secret.
    users: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    slice_owners: BTreeMap<ObjectName, ObjectName>,
    // A Secret that is needed even if no Ingress refers to it.
    always_needed: Option<ObjectName>,
    internal_authority: Option<ObjectName>,
    // Deleted Secrets that are still served, because an Ingress refers to them.
    outlived_secrets: BTreeSet<ObjectName>,
    // Public Service of a revision -> the Service that selects its pods.
    pod_services: BTreeMap<ObjectName, ObjectName>,
    // The Service of the activators.
    activators: Option<ObjectName>,
}

/// What has to be computed again.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) ingresses: BTreeSet<ObjectName>,
    pub(super) services: BTreeSet<ObjectName>,
    pub(super) secrets: BTreeSet<ObjectName>,
    // Deleted Secrets that are still needed.
    pub(super) lost_secrets: BTreeSet<ObjectName>,
    pub(super) zones: bool,
    pub(super) kernels: bool,
    // The served routes changed although no object did.
    pub(super) merge: bool,
}

impl ObjectCache {
    /// An empty cache with two Secrets that are needed even if no Ingress refers to them, a
    /// certificate and an authority, and the Service of the activators.
    pub(super) fn needing(certificate: Option<ObjectName>, internal_authority: ObjectName, activators: ObjectName) -> Self {
        Self {
            always_needed: certificate,
            internal_authority: Some(internal_authority),
            activators: Some(activators),
            ..Self::default()
        }
    }

    pub(super) fn objects(&self) -> &RoutingObjects {
        &self.objects
    }

    pub(super) fn ingress(&self, name: &ObjectName) -> Option<&IngressObject> {
        self.objects.ingresses.get(name)
    }

    /// Number of revisions that have routes.
    pub(super) fn planned_revisions(&self) -> usize {
        self.plan.len()
    }

    /// The Ingresses that refer to the Service or Secret `used`.
    pub(super) fn users_of(&self, used: &ObjectName) -> impl Iterator<Item = &ObjectName> {
        self.users.get(used).into_iter().flatten()
    }

    /// Applies a change, and marks in `dirty` what it affects. `waits` tells whether an Ingress
    /// waits for missing objects.
    pub(super) fn apply_change(&mut self, change: ObjectChange, dirty: &mut Dirty, waits: impl Fn(&ObjectName) -> bool) {
        match change {
            ObjectChange::Ingress(name, ingress) => {
                self.apply_ingress(&name, ingress.map(|ingress| *ingress));
                dirty.ingresses.insert(name);
            }
            ObjectChange::Service(name, service) => {
                let public = |service: &ServiceObject| Some(ObjectName::new(&name.namespace, service.pods_of.as_ref()?));
                let before = self.objects.services.get(&name).and_then(public);
                let now = service.as_ref().and_then(public);
                if before != now {
                    if let Some(public) = &before {
                        self.pod_services.remove(public);
                    }
                    if let Some(public) = &now {
                        self.pod_services.insert(public.clone(), name.clone());
                    }
                    dirty.services.extend(before.into_iter().chain(now));
                }
                replace(&mut self.objects.services, name.clone(), service);
                dirty.ingresses.extend(self.users_of(&name).cloned());
                dirty.services.insert(name);
            }
            ObjectChange::Slice(name, slice) => {
                let concerned: BTreeSet<ObjectName> =
                    self.slice_owners.get(&name).into_iter().chain(slice.as_ref().map(|(service, _)| service)).cloned().collect();
                let before: Vec<_> =
                    concerned.into_iter().map(|service| (self.objects.ready_addresses(&service), service)).collect();
                // Its label may have changed, and a deletion does not carry the label.
                if let Some(before) = self.slice_owners.remove(&name) {
                    if let Some(slices) = self.objects.slices.get_mut(&before) {
                        slices.retain(|(slice, _)| *slice != name.name);
                        if slices.is_empty() {
                            self.objects.slices.remove(&before);
                        }
                    }
                    self.touch(before, dirty);
                }
                if let Some((service, slice)) = slice {
                    self.slice_owners.insert(name.clone(), service.clone());
                    let slices = self.objects.slices.entry(service.clone()).or_default();
                    // Sorted by name, so that the order does not depend on when slices arrived.
                    let place = slices.partition_point(|(other, _)| *other < name.name);
                    slices.reserve_exact(1);
                    slices.insert(place, (name.name, slice));
                    // Ingresses that wait for endpoints may wait for these.
                    dirty.ingresses.extend(self.users_of(&service).filter(|user| waits(user)).cloned());
                    self.touch(service, dirty);
                }
                for (ready, service) in before {
                    self.doubt.note_pods(&service, &ready, &self.objects);
                }
            }
            ObjectChange::Node(name, node) => {
                if self.doubt.note_node(&name, node.as_ref().map(|node| node.is_silent)) {
                    self.touch_doubted(dirty);
                }
                if node.is_none() {
                    dirty.services.extend(self.overload.forget_sender(&name));
                }
                let node = node.unwrap_or_default();
                // A node renews its heartbeat several times a minute.
                if self.objects.zones.get(&name) != node.zone.as_ref() {
                    replace(&mut self.objects.zones, name.clone(), node.zone);
                    dirty.zones = true;
                }
                if self.objects.kernels.get(&name) != node.kernel.as_ref() {
                    replace(&mut self.objects.kernels, name, node.kernel);
                    dirty.kernels = true;
                }
            }
            ObjectChange::Secret(name, secret) => {
                // An old certificate is better than none: while an Ingress refers to it, it stays
                // in use.
                let needed = self.users.contains_key(&name)
                    || [&self.always_needed, &self.internal_authority].into_iter().any(|needed| needed.as_ref() == Some(&name));
                if secret.is_none() && needed && self.objects.secrets.contains_key(&name) {
                    dirty.lost_secrets.insert(name.clone());
                    self.outlived_secrets.insert(name);
                    return;
                }
                self.outlived_secrets.remove(&name);
                if self.internal_authority.as_ref() == Some(&name) {
                    // All Ingresses with internal encryption depend on it.
                    dirty.ingresses.extend(self.objects.ingresses.keys().cloned());
                }
                replace(&mut self.objects.secrets, name.clone(), secret);
                dirty.ingresses.extend(self.users_of(&name).cloned());
                dirty.secrets.insert(name);
            }
            ObjectChange::Plan(change) => dirty.services.extend(self.plan.apply(change)),
            ObjectChange::Revision(name, revision) => {
                let before = self.overload.overflows(&name);
                self.overload.set_revision(&name, revision);
                dirty.merge |= before != self.overload.overflows(&name);
                dirty.services.insert(name);
            }
            ObjectChange::BurstCapacityDefault(is_set) => {
                let changed = self.overload.set_burst_capacity_default(is_set);
                dirty.merge |= !changed.is_empty();
                dirty.services.extend(changed);
            }
            ObjectChange::Load(revision, loads) => {
                if self.overload.set_loads(&revision, loads) {
                    dirty.services.insert(revision);
                }
            }
            ObjectChange::Listed(_) => {}
        }
    }

    /// Looks at the clock, and notes in `dirty` what follows from that.
    pub(super) fn pass_time(&mut self, now: Instant, dirty: &mut Dirty) {
        if self.doubt.pass_time(now) {
            self.touch_doubted(dirty);
        }
    }

    /// When something follows from time alone.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.doubt.wake_at()
    }

    fn touch_doubted(&self, dirty: &mut Dirty) {
        for service in self.doubt.concerned() {
            self.touch(service.clone(), dirty);
        }
    }

    /// Marks the endpoints of a Service as changed; and those of the revision's public Service,
    /// which depend on its number of pods.
    fn touch(&self, service: ObjectName, dirty: &mut Dirty) {
        let public = self.objects.services.get(&service).and_then(|of| of.pods_of.as_ref());
        dirty.services.extend(public.map(|public| ObjectName::new(&service.namespace, public)));
        if self.activators.as_ref() == Some(&service) {
            dirty.services.extend(self.overload.all_that_overflow().cloned());
        }
        dirty.services.insert(service);
    }

    fn apply_ingress(&mut self, name: &ObjectName, ingress: Option<IngressObject>) {
        let mut forgotten = Vec::new();
        for used in self.objects.ingresses.get(name).map(uses).unwrap_or_default() {
            if let Some(users) = self.users.get_mut(&used) {
                users.remove(name);
                if users.is_empty() {
                    self.users.remove(&used);
                    forgotten.push(used);
                }
            }
        }
        for used in ingress.as_ref().map(uses).unwrap_or_default() {
            self.users.entry(used).or_default().insert(name.clone());
        }
        replace(&mut self.objects.ingresses, name.clone(), ingress);
        for secret in forgotten {
            if !self.users.contains_key(&secret) && self.outlived_secrets.remove(&secret) {
                self.objects.secrets.remove(&secret);
            }
        }
    }

    /// The objects that `routes` need and that do not exist yet.
    pub(super) fn missing(&self, routes: &IngressRoutes) -> Vec<String> {
        let without_endpoints = routes.clusters.iter().filter_map(|(key, cluster)| match &cluster.target {
            ClusterTarget::Endpoints { port_name } if self.serving(&key.service, port_name).is_empty() => {
                Some(format!("endpoints of Service {}", key.service))
            }
            _ => None,
        });
        routes.missing.iter().cloned().chain(without_endpoints).collect()
    }

    /// What serves behind a port of a Service, as far as can be known.
    fn serving(&self, service: &ObjectName, port_name: &str) -> Vec<Endpoint> {
        let listed = self.objects.endpoints(service, port_name);
        if listed.iter().any(|endpoint| !endpoint.stand_in) {
            return listed;
        }
        let pods = self.pod_services.get(service).unwrap_or(service);
        let ready = self.objects.endpoints(pods, port_name);
        if !ready.is_empty() {
            // Activators know of these, too. Where nobody is listed Knative has yet to do so.
            return if listed.is_empty() { ready } else { listed };
        }
        let in_doubt = self.doubt.pods(&self.objects, pods, port_name, &listed);
        if in_doubt.is_empty() { listed } else { in_doubt }
    }

    /// The endpoints for `target` of the Service `service`; `None` if a DNS name is resolved
    /// instead.
    pub(super) fn endpoints(&self, service: &ObjectName, target: &ClusterTarget) -> Option<ClusterEndpoints> {
        match target {
            ClusterTarget::Endpoints { port_name } => {
                let endpoints = self.serving(service, port_name);
                if endpoints.iter().any(|endpoint| endpoint.stand_in) {
                    let ready_pods = self.pod_services.get(service).map_or(0, |pods| self.objects.ready_pods(pods));
                    let shares = shares(&endpoints, ready_pods, self.overload.concurrency(service));
                    return Some(ClusterEndpoints::Activators { endpoints, shares });
                }
                let planned = self.plan.rows(service);
                let held_by_some = !self.activators(port_name).is_empty();
                let limits = || self.overload.limits(service, &endpoints, planned.as_deref()).map(Arc::new);
                let limits = held_by_some.then(limits).flatten();
                let rows = self.overload.move_shares(service, &endpoints, planned);
                Some(ClusterEndpoints::Pods { endpoints, rows, limits })
            }
            ClusterTarget::OwnInternalListener => Some(ClusterEndpoints::OwnInternalListener),
            ClusterTarget::Name { .. } => None,
        }
    }

    /// Whether activators hold what is too much for the pods that are the `target`.
    pub(super) fn overflows(&self, service: &ObjectName, target: &ClusterTarget) -> bool {
        matches!(target, ClusterTarget::Endpoints { .. }) && self.overload.overflows(service)
    }

    /// Those activators; `None` where there are none to be.
    pub(super) fn overflow(&self, service: &ObjectName, target: &ClusterTarget) -> Option<ClusterEndpoints> {
        let ClusterTarget::Endpoints { port_name } = target else { return None };
        let holders = || holders(&service.to_string(), self.activators(port_name));
        self.overload.overflows(service).then(|| ClusterEndpoints::Overflow(holders()))
    }

    fn activators(&self, port_name: &str) -> Vec<Endpoint> {
        self.activators.as_ref().map_or_else(Vec::new, |service| self.objects.endpoints(service, port_name))
    }
}

fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

/// Services and Secrets that an Ingress refers to. They share one name space here: a needless
/// translation does no harm.
fn uses(ingress: &IngressObject) -> BTreeSet<ObjectName> {
    let paths = ingress.spec.rules.iter().filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
    let services =
        paths.flat_map(|path| &path.splits).map(|split| ObjectName::new(&split.service_namespace, &split.service_name));
    let secrets = ingress.spec.tls.iter().map(|tls| ObjectName::new(&tls.secret_namespace, &tls.secret_name));
    services.chain(secrets).collect()
}
