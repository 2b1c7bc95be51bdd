//! The present configuration of all gateways, and what changed since any earlier revision.
//!
//! Resources that are equal for all gateways are stored encoded, once. Assignments differ by node
//! and are built when they are sent, so that a thousand clusters on fifty nodes are not stored
//! fifty thousand times.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use prost::Message as _;
use tokio::sync::watch;

use super::assignments::load_assignment;
use super::changes::ResourceChanges;
use super::cluster_endpoints::ClusterEndpoints;
use super::clusters::lost_peers;
use super::gateway_view::GatewayView;
use super::listeners::{ListenerSettings, STATISTICS, listeners, statistics};
use super::overflow::{limit_cluster, read_limit_name};
use super::{Encoded, ResourceKind, ResourceName};
use crate::endpoints::locality::{EndpointAssignment, Locality, LocalityPolicy, assign};
use crate::kubernetes::objects::ObjectName;
use crate::routes::route_table::RouteTable;

pub use super::changes::StoreRevision;

/// A change of the store. What it does not name stays.
#[derive(Debug, Default)]
pub struct Update {
    /// Clusters, certificates and route configurations; `None` removes one.
    pub shared: BTreeMap<(ResourceKind, String), Option<Encoded>>,
    /// The table from which listeners are built.
    pub table: Option<Arc<RouteTable>>,
    /// Endpoints by cluster; `None` removes them.
    pub endpoints: BTreeMap<String, Option<ClusterEndpoints>>,
    /// Zone by node. It changes all assignments.
    pub zones: Option<BTreeMap<String, String>>,
    /// Nodes whose kernels accept `TCP_RTO_MAX_MS`.
    pub bounds_retransmissions: Option<BTreeSet<String>>,
    /// The node of each known gateway address.
    pub gateway_nodes: Option<BTreeMap<IpAddr, String>>,
    /// Addresses of draining gateway pods, which must not have listeners for requests. Without
    /// listeners Envoy accepts no new connection, and closes old ones after their response.
    pub draining: Option<BTreeSet<IpAddr>>,
}

/// The configuration of all gateways.
#[derive(Debug)]
pub struct ConfigStore {
    inner: RwLock<Inner>,
    revision: watch::Sender<StoreRevision>,
    policy: LocalityPolicy,
    listening: ListenerSettings,
    // The last part of clusters, for kernels without and with `TCP_RTO_MAX_MS`.
    lost_peers: [Vec<u8>; 2],
}

#[derive(Debug, Default)]
struct Inner {
    revision: StoreRevision,
    published: Option<Instant>,
    shared: BTreeMap<ResourceKind, BTreeMap<ResourceName, Encoded>>,
    table: Arc<RouteTable>,
    endpoints: BTreeMap<ResourceName, ClusterEndpoints>,
    zones: BTreeMap<String, String>,
    bounds_retransmissions: BTreeSet<String>,
    gateway_nodes: BTreeMap<IpAddr, String>,
    draining: BTreeSet<IpAddr>,
    changes: ResourceChanges,
}

impl ConfigStore {
    /// An empty store, which serves nothing yet.
    #[must_use]
    pub fn new(policy: LocalityPolicy, listening: ListenerSettings) -> Self {
        let lost_peers = [false, true].map(|bounds_retransmissions| lost_peers(bounds_retransmissions).encode_to_vec());
        Self { inner: RwLock::default(), revision: watch::Sender::new(0), policy, listening, lost_peers }
    }

    /// Applies the real changes of `update`. Returns the revision from which on they are served.
    pub fn publish(&self, update: Update) -> StoreRevision {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        // The changed resources, and whether each was removed.
        let mut changed: BTreeMap<(ResourceKind, ResourceName), bool> = BTreeMap::new();
        for ((kind, name), new) in update.shared {
            let name = inner.changes.name(kind, &name);
            let of_kind = inner.shared.entry(kind).or_default();
            if of_kind.get(&name).map(|old| old.version) == new.as_ref().map(|new| new.version) {
                continue;
            }
            changed.insert((kind, name.clone()), new.is_none());
            match new {
                Some(new) => of_kind.insert(name, new),
                None => of_kind.remove(&name),
            };
        }
        if let Some(table) = update.table {
            // Listeners depend on certificates only.
            let same = table.external_certificates == inner.table.external_certificates
                && table.fallback_certificate == inner.table.fallback_certificate
                && table.internal_certificates == inner.table.internal_certificates;
            if !same || inner.revision == 0 {
                let gone = self.listeners_of(&inner.table).map(|name| ((ResourceKind::Listener, name), true));
                changed.extend(gone);
                changed.extend(self.listeners_of(&table).map(|name| ((ResourceKind::Listener, name), false)));
            }
            inner.table = table;
        }
        for (cluster, new) in update.endpoints {
            let cluster = inner.changes.name(ResourceKind::Assignment, &cluster);
            if inner.endpoints.get(&cluster) == new.as_ref() {
                continue;
            }
            changed.insert((ResourceKind::Assignment, cluster.clone()), new.is_none());
            for (endpoints, gone) in [(inner.endpoints.get(&cluster), true), (new.as_ref(), false)] {
                let names = endpoints.into_iter().flat_map(|endpoints| endpoints.limit_names(cluster.as_str()));
                for name in names {
                    changed.insert((ResourceKind::Cluster, inner.changes.name(ResourceKind::Cluster, &name)), gone);
                }
            }
            match new {
                Some(new) => inner.endpoints.insert(cluster, new),
                None => inner.endpoints.remove(&cluster),
            };
        }
        if let Some(zones) = update.zones.filter(|zones| *zones != inner.zones) {
            inner.zones = zones;
            changed.extend(inner.endpoints.keys().map(|cluster| ((ResourceKind::Assignment, cluster.clone()), false)));
        }
        if let Some(nodes) = update.bounds_retransmissions.filter(|nodes| *nodes != inner.bounds_retransmissions) {
            inner.bounds_retransmissions = nodes;
            let clusters = inner.shared.get(&ResourceKind::Cluster).into_iter().flatten();
            changed.extend(clusters.map(|(name, _)| ((ResourceKind::Cluster, name.clone()), false)));
        }
        if let Some(nodes) = update.gateway_nodes {
            inner.gateway_nodes = nodes;
        }
        if let Some(draining) = update.draining.filter(|draining| *draining != inner.draining) {
            inner.draining = draining;
            changed.extend(self.listeners_of(&inner.table).map(|name| ((ResourceKind::Listener, name), false)));
        }
        if changed.is_empty() && inner.revision > 0 {
            return inner.revision;
        }
        if inner.revision == 0 {
            changed.insert((ResourceKind::Listener, ResourceName::new(STATISTICS)), false);
        }
        inner.revision += 1;
        inner.published = Some(Instant::now());
        let revision = inner.revision;
        for ((kind, name), gone) in changed {
            inner.changes.record(revision, kind, name, gone);
        }
        drop(inner);
        self.revision.send_replace(revision);
        revision
    }

    /// A receiver of the revision; 0 before the first publication.
    pub fn watch(&self) -> watch::Receiver<StoreRevision> {
        self.revision.subscribe()
    }

    /// The revision and its time.
    #[must_use]
    pub fn revision(&self) -> (StoreRevision, Option<Instant>) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        (inner.revision, inner.published)
    }

    /// The node of the gateway at `address`, if it is known.
    #[must_use]
    pub fn node_of_gateway(&self, address: IpAddr) -> Option<String> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).gateway_nodes.get(&address.to_canonical()).cloned()
    }

    /// The number of resources, recently removed ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).changes.len()
    }

    /// Whether nothing was ever published.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` for each resource that changed after `since`. Returns the present revision,
    /// and whether these were all; otherwise some long removed resources are missing.
    pub fn changes_since(&self, since: StoreRevision, visit: impl FnMut(ResourceKind, &ResourceName)) -> (StoreRevision, bool) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let all = inner.changes.since(since, visit);
        (inner.revision, all)
    }

    /// Names of all resources of a kind.
    #[must_use]
    pub fn names(&self, kind: ResourceKind) -> Vec<ResourceName> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        match kind {
            ResourceKind::Assignment => inner.endpoints.keys().cloned().collect(),
            ResourceKind::Listener => self.listeners_of(&inner.table).chain([ResourceName::new(STATISTICS)]).collect(),
            ResourceKind::Cluster => {
                let limits = inner.endpoints.iter().flat_map(|(cluster, endpoints)| endpoints.limit_names(cluster.as_str()));
                let limits = limits.map(|name| inner.changes.name(ResourceKind::Cluster, &name));
                inner.shared.get(&kind).into_iter().flatten().map(|(name, _)| name.clone()).chain(limits).collect()
            }
            shared => inner.shared.get(&shared).into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// The shared name equal to `text`.
    #[must_use]
    pub fn name(&self, kind: ResourceKind, text: &str) -> ResourceName {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).changes.name(kind, text)
    }

    /// Whether the cluster `name` exists.
    #[must_use]
    pub fn has_cluster(&self, name: &str) -> bool {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.shared.get(&ResourceKind::Cluster).is_some_and(|clusters| clusters.contains_key(name))
    }

    /// The number of clusters.
    #[must_use]
    pub fn clusters(&self) -> usize {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.shared.get(&ResourceKind::Cluster).map_or(0, BTreeMap::len)
    }

    /// Names of the clusters with pods as endpoints, not activators.
    #[must_use]
    pub fn clusters_with_pods(&self) -> BTreeSet<String> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let has_pods = |endpoints: &ClusterEndpoints| match endpoints {
            ClusterEndpoints::Pods { endpoints, .. } => endpoints.iter().any(|endpoint| !endpoint.stand_in),
            ClusterEndpoints::Activators { .. } | ClusterEndpoints::Overflow(_) | ClusterEndpoints::OwnInternalListener => false,
        };
        inner.endpoints.iter().filter(|(_, endpoints)| has_pods(endpoints)).map(|(name, _)| name.as_str().to_owned()).collect()
    }

    /// Names of the clusters of the Service `service`.
    #[must_use]
    pub fn clusters_of(&self, service: &ObjectName) -> Vec<String> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let from = format!("{service}/");
        let on = inner.endpoints.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded));
        on.map(|(name, _)| name.as_str()).take_while(|name| name.starts_with(&from)).map(str::to_owned).collect()
    }

    /// Whether the cluster `name` has assignments.
    #[must_use]
    pub fn has_endpoints(&self, name: &ResourceName) -> bool {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).endpoints.contains_key(name)
    }

    /// One resource for the gateway `view`.
    #[must_use]
    pub fn resource(&self, view: &GatewayView, kind: ResourceKind, name: &str) -> Option<Encoded> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        match kind {
            ResourceKind::Assignment => {
                let assignment = self.assigned(&inner, view, name)?;
                let stand_in = matches!(inner.endpoints.get(name), Some(endpoints) if endpoints.stand_in());
                Some(Encoded::new(&load_assignment(name, &assignment, &inner.zones, stand_in)))
            }
            ResourceKind::Listener if name == STATISTICS => {
                statistics(view.pod_addresses.first().copied()).as_ref().map(Encoded::new)
            }
            ResourceKind::Listener if view.pod_addresses.iter().any(|address| inner.draining.contains(address)) => None,
            ResourceKind::Listener => {
                listeners(&inner.table, self.listening, view.listens_on()).iter().find(|one| one.name == name).map(Encoded::new)
            }
            ResourceKind::Cluster if let Some((cluster, limit)) = read_limit_name(name) => {
                let limits = inner.endpoints.get(cluster).and_then(ClusterEndpoints::limits);
                let key = cluster.parse().ok()?;
                limits.filter(|limits| limits.of(&view.node) == limit).map(|_| Encoded::new(&limit_cluster(name, &key)))
            }
            ResourceKind::Cluster => {
                let common = inner.shared.get(&kind)?.get(name)?;
                Some(common.and(&self.lost_peers[usize::from(inner.bounds_retransmissions.contains(&view.node))]))
            }
            shared => inner.shared.get(&shared)?.get(name).cloned(),
        }
    }

    /// The assignment of the cluster `name` for the gateway `view`.
    #[must_use]
    pub fn assignment(&self, view: &GatewayView, name: &str) -> Option<EndpointAssignment> {
        self.assigned(&self.inner.read().unwrap_or_else(PoisonError::into_inner), view, name)
    }

    /// The present route table.
    #[must_use]
    pub fn table(&self) -> Arc<RouteTable> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).table.clone()
    }

    /// The row of weights that the assignment of cluster `name` follows: of the routes, or the
    /// shares of activators.
    #[must_use]
    pub fn row(&self, view: &GatewayView, name: &str) -> Option<BTreeMap<String, u32>> {
        match self.inner.read().unwrap_or_else(PoisonError::into_inner).endpoints.get(name)? {
            ClusterEndpoints::Pods { rows, .. } => rows.as_ref()?.get(&view.node).cloned(),
            ClusterEndpoints::Activators { shares, .. } => shares.clone(),
            ClusterEndpoints::Overflow(_) | ClusterEndpoints::OwnInternalListener => None,
        }
    }

    /// How many requests the gateway may have in flight to the pods of cluster `name` before
    /// activators hold more.
    #[must_use]
    pub fn limit(&self, view: &GatewayView, name: &str) -> Option<u32> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        Some(inner.endpoints.get(name)?.limits()?.of(&view.node))
    }

    /// The names of a table's listeners for requests, which do not depend on addresses.
    fn listeners_of(&self, table: &RouteTable) -> impl Iterator<Item = ResourceName> + use<> {
        listeners(table, self.listening, IpAddr::V4(Ipv4Addr::UNSPECIFIED)).into_iter().map(|one| ResourceName::new(one.name))
    }

    fn assigned(&self, inner: &Inner, view: &GatewayView, name: &str) -> Option<EndpointAssignment> {
        Some(match inner.endpoints.get(name)? {
            ClusterEndpoints::Pods { endpoints, rows, .. } => {
                let row = rows.as_ref().and_then(|rows| rows.get(&view.node));
                assign(self.policy, &view.node, &inner.zones, endpoints, row)
            }
            ClusterEndpoints::Activators { endpoints, shares } => {
                assign(self.policy, &view.node, &inner.zones, endpoints, shares.as_ref())
            }
            // Evenly over them: each may send on to pods of its own only. Their nodes say nothing
            // of where the requests that they hold will be served, so they have none here.
            ClusterEndpoints::Overflow(activators) => assign(LocalityPolicy::Spread, &view.node, &inner.zones, activators, None),
            ClusterEndpoints::OwnInternalListener => {
                let endpoints = vec![(view.itself(), self.listening.ports.internal)];
                EndpointAssignment { localities: vec![Locality { priority: 0, node: view.node.clone(), weight: 1, endpoints }] }
            }
        })
    }
}
