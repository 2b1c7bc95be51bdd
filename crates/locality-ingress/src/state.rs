//! The state of the control plane: objects, routes and loads in; updates of the [`ConfigStore`]
//! and a [`ProgressReport`] out. No I/O; the time is an argument.
//!
//! Work is proportional to what changed: a new endpoint changes the assignments of its clusters and
//! nothing else.

mod accepted;
mod cache;
pub(crate) mod change;
mod doubt;
pub(crate) mod event_loop;
mod gateways;
mod progress_tracker;
mod publication;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::endpoints::locality::LocalityPolicy;
use crate::kubernetes::kernel::Release;
use crate::kubernetes::objects::ObjectName;
use crate::routes::route_table::ClusterKey;
use crate::routes::translate::TranslateSettings;
use crate::status::progress::ProgressReport;
use crate::xds::ResourceKind;
use crate::xds::refusal::Nack;
use crate::xds::store::{ConfigStore, Update};

use accepted::{Acceptance, AcceptedIngresses};
use cache::{Dirty, ObjectCache};
pub use change::{LoadChange, ObjectChange};
use gateways::Gateways;
use progress_tracker::ProgressTracker;
use publication::Publication;
use refusals::GatewayRefusal;

/// Everything that the configuration of the gateways is computed from.
#[derive(Debug)]
pub struct ControlPlaneState {
    store: Arc<ConfigStore>,
    settings: StateSettings,
    cache: ObjectCache,
    dirty: Dirty,
    accepted: AcceptedIngresses,
    publication: Publication,
    tracker: ProgressTracker,
    gateways: Gateways,
    draining: BTreeSet<IpAddr>,
}

/// Settings of the state.
#[derive(Clone, Debug)]
pub struct StateSettings {
    /// How gateways choose endpoints.
    pub policy: LocalityPolicy,
    /// Settings of the translation of Ingresses.
    pub translate: TranslateSettings,
    /// Release of a kernel that accepted `TCP_RTO_MAX_MS`. Kernels at least as new have it too;
    /// `None` if it was refused.
    pub bounds_retransmissions: Option<Release>,
    /// The Secret with the certificate for external clients whose SNI is missing or unknown.
    pub fallback_certificate: Option<ObjectName>,
    /// The Service whose endpoints are the gateways.
    pub gateway_service: ObjectName,
    /// The Service whose endpoints are the replicas of this daemon.
    pub own_service: ObjectName,
    /// The pod of this replica.
    pub own_pod: String,
    /// The Service whose endpoints are Knative's activators.
    pub activators: ObjectName,
}

impl ControlPlaneState {
    /// An empty state that publishes to `store`.
    #[must_use]
    pub fn new(store: Arc<ConfigStore>, settings: StateSettings) -> Self {
        Self {
            store,
            cache: ObjectCache::needing(
                settings.fallback_certificate.clone(),
                settings.translate.internal_authority.clone(),
                settings.activators.clone(),
            ),
            dirty: Dirty::default(),
            accepted: AcceptedIngresses::default(),
            publication: Publication::default(),
            tracker: ProgressTracker::default(),
            gateways: Gateways::default(),
            draining: BTreeSet::new(),
            settings,
        }
    }

    /// Applies a change. It has no effect before [`publish_changes`](Self::publish_changes).
    pub fn apply_change(&mut self, change: ObjectChange) {
        self.cache.apply_change(change, &mut self.dirty, |ingress| self.tracker.waits(ingress));
    }

    /// Applies a NACK of the gateway on `node`. Returns the Ingresses at fault. The present
    /// generation of each is refused; if its routes would block those of other Ingresses, the
    /// previous generation is served instead. The next generation is tried again.
    pub fn apply_nack(&mut self, node: &str, nack: &Nack) -> Vec<ObjectName> {
        let resources: BTreeSet<(ResourceKind, String)> = match nack.kind {
            ResourceKind::Cluster | ResourceKind::Assignment | ResourceKind::Secret => {
                nack.at_fault.iter().map(|name| (nack.kind, name.clone())).collect()
            }
            ResourceKind::Routes | ResourceKind::Listener => BTreeSet::new(),
        };
        let at_fault: BTreeSet<ObjectName> = match nack.kind {
            ResourceKind::Cluster | ResourceKind::Assignment => {
                nack.at_fault.iter().flat_map(|cluster| self.users_of_cluster(cluster)).collect()
            }
            ResourceKind::Secret => {
                let secrets = nack.at_fault.iter().filter_map(|name| name.split_once('/'));
                secrets.flat_map(|(namespace, name)| self.users_of(&ObjectName::new(namespace, name))).collect()
            }
            ResourceKind::Routes | ResourceKind::Listener => {
                let refused = self.publication.hosts(&nack.names);
                let found = self.accepted.hold_back(nack, &refused, &self.cache, self.store.revision().0);
                self.dirty.merge |= !found.is_empty();
                found
            }
        };
        let message = nack.by_gateway_of(node);
        for name in &at_fault {
            if let Some(ingress) = self.cache.ingress(name) {
                let blame =
                    GatewayRefusal { generation: ingress.generation, message: message.clone(), resources: resources.clone() };
                self.accepted.blame(name, blame);
                self.dirty.ingresses.insert(name.clone());
            }
        }
        at_fault.into_iter().collect()
    }

    /// Number of revisions that have routes.
    #[must_use]
    pub fn planned_revisions(&self) -> usize {
        self.cache.planned_revisions()
    }

    /// Number of Ingresses, and of those that are refused.
    #[must_use]
    pub fn ingress_counts(&self) -> (usize, usize) {
        (self.cache.objects().ingresses.len(), self.tracker.refused())
    }

    fn users_of(&self, used: &ObjectName) -> Vec<ObjectName> {
        self.cache.users_of(used).cloned().collect()
    }

    /// The Ingresses that use the cluster called `cluster`.
    #[must_use]
    pub fn users_of_cluster(&self, cluster: &str) -> Vec<ObjectName> {
        let Ok(key) = cluster.parse::<ClusterKey>() else { return Vec::new() };
        self.users_of(&key.service)
    }

    /// The `metadata.uid` of an Ingress.
    #[must_use]
    pub fn uid(&self, name: &ObjectName) -> Option<String> {
        self.cache.ingress(name).map(|ingress| ingress.uid.clone())
    }

    /// The next time at which something must be published although nothing changed.
    #[must_use]
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        [self.publication.wake_at(), self.gateways.wake_at(now), self.cache.wake_at()].into_iter().flatten().min()
    }

    /// Publishes the effects of all changes since the last call.
    pub fn publish_changes(&mut self, now: Instant) -> ProgressReport {
        self.cache.pass_time(now, &mut self.dirty);
        let dirty = std::mem::take(&mut self.dirty);
        let mut verdicts: BTreeMap<ObjectName, Acceptance> = BTreeMap::new();
        let fallback_changed = self.settings.fallback_certificate.as_ref().is_some_and(|name| dirty.secrets.contains(name));
        let mut merge_anew = dirty.merge || fallback_changed || !self.publication.has_begun();
        for name in &dirty.ingresses {
            let (verdict, changes) = self.accepted.follow(name, &self.cache, &self.settings.translate, now);
            merge_anew |= changes;
            verdicts.insert(name.clone(), verdict);
        }
        let mut update = Update::default();
        let mut clusters: BTreeSet<ClusterKey> = BTreeSet::new();
        if merge_anew {
            let options = (self.settings.policy, self.settings.fallback_certificate.as_ref());
            clusters = self.publication.merge(&self.accepted, &self.cache, options, now, &mut update);
        }
        self.publication.drop_lingering(now, &mut update);
        for service in &dirty.services {
            clusters.extend(self.publication.clusters_of(service));
        }
        for key in clusters {
            self.publication.endpoints(&key, &self.cache, &mut update);
        }
        let authority = &self.settings.translate.internal_authority;
        if merge_anew || dirty.secrets.contains(authority) {
            self.publication.authority(authority, &self.cache, &mut update);
        }
        for name in &dirty.secrets {
            self.publication.secret_changed(name, &self.cache, &mut update);
        }
        if dirty.zones {
            update.zones = Some(self.cache.objects().zones.clone());
        }
        if dirty.kernels {
            let able = |kernel: &Release| self.settings.bounds_retransmissions.is_some_and(|tried| *kernel >= tried);
            let nodes = self.cache.objects().kernels.iter().filter(|(_, kernel)| able(kernel));
            update.bounds_retransmissions = Some(nodes.map(|(node, _)| node.clone()).collect());
        }
        let mut news = ProgressReport::default();
        for secret in &dirty.lost_secrets {
            let note =
                format!("the TLS Secret {secret} is gone or has no usable certificate: the last one that had is still served");
            let users = self.cache.users_of(secret).cloned();
            news.warnings.extend(users.map(|ingress| (ingress, "CertificateLost", note.clone())));
        }
        if dirty.services.contains(&self.settings.gateway_service) {
            let slices = self.cache.objects().slices.get(&self.settings.gateway_service);
            let slices = || slices.into_iter().flatten().map(|(_, slice)| slice);
            news.gateways = self.gateways.follow(slices(), now);
            let endpoints = slices().flat_map(|slice| &slice.endpoints);
            update.gateway_nodes = Some(endpoints.filter_map(|one| Some((one.address, one.node.clone()?))).collect());
        }
        if dirty.services.contains(&self.settings.own_service) {
            news.replicas = Some(self.cache.objects().other_pods(&self.settings.own_service, &self.settings.own_pod));
        }
        let draining = self.gateways.draining(now);
        if draining != self.draining {
            self.draining.clone_from(&draining);
            update.draining = Some(draining);
        }
        let before = self.store.revision().0;
        let revision = self.store.publish(update);
        if revision > before && self.accepted.blames_resources() {
            let mut changed = BTreeSet::new();
            self.store.changes_since(before, |kind, name| _ = changed.insert((kind, name.as_str().to_owned())));
            for name in self.accepted.forgive(&changed) {
                verdicts.entry(name).or_insert(Acceptance::Served);
            }
        }
        let everything = (&self.cache, &mut self.accepted, self.publication.conflicts());
        self.tracker.pass(verdicts, everything, revision, &mut news);
        news
    }
}
