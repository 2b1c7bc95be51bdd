//! What is published: the routes of all Ingresses in one table, and clusters for as long as
//! requests to them may be in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::accepted::AcceptedIngresses;
use super::cache::ObjectCache;
use crate::endpoints::locality::LocalityPolicy;
use crate::kubernetes::objects::ObjectName;
use crate::routes::route_table::{Cluster, ClusterKey, Host, RouteTable, VirtualHost};
use crate::routes::translate::{Conflicts, merge};
use crate::xds::clusters::{INTERNAL_AUTHORITY, cluster as envoy_cluster, internal_authority};
use crate::xds::listeners::{EXTERNAL, EXTERNAL_TLS, INTERNAL, INTERNAL_TLS, certificate};
use crate::xds::overflow::{overflow_cluster, overflow_name};
use crate::xds::route_configuration::encoded_route_configuration;
use crate::xds::store::Update;
use crate::xds::{Encoded, ResourceKind};

/// How long a cluster stays after its last route was removed: gateways apply routes and clusters
/// one after the other, and earlier requests may still be in flight.
const CLUSTER_LINGER: Duration = Duration::from_secs(60);

/// The published table.
#[derive(Debug, Default)]
pub(super) struct Publication {
    table: Arc<RouteTable>,
    conflicts: Conflicts,
    lingering: BTreeMap<ClusterKey, (Cluster, Instant)>,
    // Those beside which there is one of the activators that hold what is too much.
    overflowing: BTreeSet<ClusterKey>,
    begun: bool,
}

impl Publication {
    /// Whether anything was published.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Hosts that more than one Ingress claims.
    pub(super) fn conflicts(&self) -> &Conflicts {
        &self.conflicts
    }

    /// When the next lingering cluster is removed.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.lingering.values().map(|(_, until)| *until).min()
    }

    /// The hosts of the route configurations `names`.
    pub(super) fn hosts(&self, names: &[String]) -> Vec<&BTreeMap<Host, VirtualHost>> {
        let named = sides(&self.table).into_iter().filter(|(name, _)| names.iter().any(|one| one == name));
        named.map(|(_, hosts)| hosts).collect()
    }

    /// Merges the accepted routes into a table. Returns the new and changed clusters.
    pub(super) fn merge(
        &mut self,
        accepted: &AcceptedIngresses,
        cache: &ObjectCache,
        (policy, fallback): (LocalityPolicy, Option<&ObjectName>),
        now: Instant,
        update: &mut Update,
    ) -> BTreeSet<ClusterKey> {
        let (mut table, conflicts) = merge(accepted.all());
        table.fallback_certificate = fallback.filter(|name| cache.objects().secrets.contains_key(name)).cloned();
        let overflows = |key: &ClusterKey, cluster: &Cluster| cache.overflows(&key.service, &cluster.target);
        let overflowing =
            table.clusters.iter().filter(|(key, cluster)| policy == LocalityPolicy::Locality && overflows(key, cluster));
        let overflowing: BTreeSet<_> = overflowing.map(|(key, _)| key.clone()).collect();
        let mut changed = BTreeSet::new();
        for (key, cluster) in &table.clusters {
            self.lingering.remove(key);
            let is_new = self.table.clusters.get(key) != Some(cluster);
            if is_new {
                let encoded = Encoded::new(&envoy_cluster(key, cluster, policy));
                update.shared.insert((ResourceKind::Cluster, key.to_string()), Some(encoded));
                changed.insert(key.clone());
            }
            if overflowing.contains(key) && (is_new || !self.overflowing.contains(key)) {
                let encoded = Encoded::new(&overflow_cluster(envoy_cluster(key, cluster, policy)));
                update.shared.insert((ResourceKind::Cluster, overflow_name(key)), Some(encoded));
                changed.insert(key.clone());
            }
        }
        for (key, cluster) in &self.table.clusters {
            if !table.clusters.contains_key(key) {
                self.lingering.insert(key.clone(), (cluster.clone(), now + CLUSTER_LINGER));
            }
        }
        for ((name, new), (_, old)) in sides(&table).into_iter().zip(sides(&self.table)) {
            if new != old || overflowing != self.overflowing || !self.begun {
                let encoded = encoded_route_configuration(name, new, &overflowing);
                update.shared.insert((ResourceKind::Routes, name.to_owned()), Some(encoded));
            }
        }
        let wanted: BTreeSet<_> = certificates(&table).collect();
        wanted.iter().for_each(|name| encode_secret(name, cache, update));
        for name in certificates(&self.table).filter(|had| !wanted.contains(had)) {
            update.shared.insert((ResourceKind::Secret, name.to_string()), None);
        }
        self.begun = true;
        self.overflowing = overflowing;
        self.conflicts = conflicts;
        self.table = Arc::new(table);
        update.table = Some(self.table.clone());
        changed
    }

    /// Removes clusters that have lingered long enough.
    pub(super) fn drop_lingering(&mut self, now: Instant, update: &mut Update) {
        self.lingering.retain(|key, (_, until)| {
            let stays = *until > now;
            if !stays {
                for name in [key.to_string(), overflow_name(key)] {
                    update.shared.insert((ResourceKind::Cluster, name.clone()), None);
                    update.endpoints.insert(name, None);
                }
            }
            stays
        });
    }

    /// The clusters of all ports of one Service.
    pub(super) fn clusters_of(&self, service: &ObjectName) -> impl Iterator<Item = ClusterKey> {
        keys_of(&self.table.clusters, service).chain(keys_of(&self.lingering, service))
    }

    /// Tells where requests for a cluster may go, and what is too much for it: nowhere where there
    /// is no such cluster, or a name says it.
    pub(super) fn endpoints(&self, key: &ClusterKey, cache: &ObjectCache, update: &mut Update) {
        let cluster = self.table.clusters.get(key).or_else(|| self.lingering.get(key).map(|(cluster, _)| cluster));
        let endpoints = cluster.and_then(|cluster| cache.endpoints(&key.service, &cluster.target));
        update.endpoints.insert(key.to_string(), endpoints);
        // A cluster that lingers keeps its own: requests may be held there.
        if self.overflowing.contains(key) {
            let overflow = cluster.and_then(|cluster| cache.overflow(&key.service, &cluster.target));
            update.endpoints.insert(overflow_name(key), overflow);
        }
    }

    /// Publishes the authority of internal encryption, if any cluster needs it.
    pub(super) fn authority(&self, name: &ObjectName, cache: &ObjectCache, update: &mut Update) {
        let needed = self.table.clusters.values().any(|cluster| cluster.tls);
        let pem = cache.objects().secrets.get(name).and_then(|secret| secret.authority_pem.as_ref()).filter(|_| needed);
        let encoded = pem.map(|pem| Encoded::new(&internal_authority(pem)));
        update.shared.insert((ResourceKind::Secret, INTERNAL_AUTHORITY.to_owned()), encoded);
    }

    /// Publishes the certificate of a changed Secret, if it is in use.
    pub(super) fn secret_changed(&self, name: &ObjectName, cache: &ObjectCache, update: &mut Update) {
        if certificates(&self.table).any(|used| used == name) {
            encode_secret(name, cache, update);
        }
    }
}

fn encode_secret(name: &ObjectName, cache: &ObjectCache, update: &mut Update) {
    if let Some(secret) = cache.objects().secrets.get(name) {
        update.shared.insert((ResourceKind::Secret, name.to_string()), Some(Encoded::new(&certificate(name, secret))));
    }
}

fn certificates(table: &RouteTable) -> impl Iterator<Item = &ObjectName> {
    table.external_certificates.values().chain(table.internal_certificates.values()).chain(&table.fallback_certificate)
}

/// The hosts of each route configuration, by its name.
fn sides(table: &RouteTable) -> [(&'static str, &BTreeMap<Host, VirtualHost>); 4] {
    [
        (EXTERNAL, &table.external),
        (INTERNAL, &table.internal),
        (EXTERNAL_TLS, &table.external_tls),
        (INTERNAL_TLS, &table.internal_tls),
    ]
}

/// The keys of all ports of one Service.
fn keys_of<V>(clusters: &BTreeMap<ClusterKey, V>, service: &ObjectName) -> impl Iterator<Item = ClusterKey> {
    let first = ClusterKey { service: service.clone(), port: String::new() };
    clusters.range(first..).map(|(key, _)| key).take_while(|key| key.service == *service).cloned()
}
