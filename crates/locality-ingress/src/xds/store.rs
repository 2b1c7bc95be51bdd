//! What all gateways are to have at this moment, and what changed since any earlier one.
//!
//! Resources that are the same for all gateways are kept encoded, once. Assignments differ by node
//! and are made for one gateway when it is sent them, so that a thousand clusters on fifty nodes do
//! not lie here fifty thousand times.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use prost::Message as _;
use tokio::sync::watch;

use super::assignments::load_assignment;
use super::changes::Changes;
use super::clusters::lost_peers;
use super::listeners::{ListenerSettings, STATISTICS, listeners, statistics};
use super::{Encoded, Kind, Name};
use crate::endpoints::locality::{Assignment, Locality, Policy, assign};
use crate::kubernetes::objects::{Endpoint, ObjectName};
use crate::routes::route_table::RouteTable;

pub use super::changes::StoreRevision;

/// Which gateway looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The node it is on.
    pub node: String,
    /// The address that it listens on, where it asked for one.
    pub listen_address: Option<IpAddr>,
    /// The addresses of its pod, where it told; the first is the one that Kubernetes asks.
    pub pod_addresses: Vec<IpAddr>,
}

impl View {
    /// The view of a gateway on `node` of which nothing else is known.
    pub fn of_node(node: impl Into<String>) -> Self {
        Self { node: node.into(), listen_address: None, pod_addresses: Vec::new() }
    }

    /// The address that it listens on. All addresses of both families where its pod has one of the
    /// newer one: a node whose kernel has none would refuse that.
    #[must_use]
    pub fn listens_on(&self) -> IpAddr {
        self.listen_address.unwrap_or_else(|| match self.pod_addresses.iter().any(IpAddr::is_ipv6) {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        })
    }

    fn itself(&self) -> IpAddr {
        self.listen_address.unwrap_or_else(|| match self.pod_addresses.first() {
            Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        })
    }
}

/// What a cluster's assignments are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEndpoints {
    /// Pods, and the plan's rows for them: source node -> serving node -> weight.
    Pods {
        /// Where they are.
        endpoints: Vec<Endpoint>,
        /// The plan, where there is one.
        rows: Option<Arc<BTreeMap<String, BTreeMap<String, u32>>>>,
    },
    /// Activators that stand in for pods. The plan speaks of pods, so it does not count here.
    Activators {
        /// Where they are.
        endpoints: Vec<Endpoint>,
        /// Serving node -> weight, the same from everywhere; `None` where the nearest is right.
        shares: Option<BTreeMap<String, u32>>,
    },
    /// The gateway's own internal listener.
    OwnInternalListener,
}

impl ClusterEndpoints {
    /// Whether they only stand in for a revision's pods: they hold requests while there is no pod.
    #[must_use]
    pub fn stand_in(&self) -> bool {
        match self {
            Self::Activators { .. } => true,
            Self::Pods { endpoints, .. } => endpoints.iter().any(|endpoint| endpoint.stand_in),
            Self::OwnInternalListener => false,
        }
    }
}

/// A change of the store. What is not named stays.
#[derive(Debug, Default)]
pub struct Update {
    /// Clusters, certificates and route configurations; `None` removes one.
    pub shared: BTreeMap<(Kind, String), Option<Encoded>>,
    /// The table that listeners are made of.
    pub table: Option<Arc<RouteTable>>,
    /// Endpoints by cluster; `None` removes them.
    pub endpoints: BTreeMap<String, Option<ClusterEndpoints>>,
    /// Zone by node. All assignments are made anew.
    pub zones: Option<BTreeMap<String, String>>,
    /// The nodes whose kernels can bound retransmissions.
    pub bounds_retransmissions: Option<BTreeSet<String>>,
    /// The node of each address that is known to be a gateway's.
    pub gateway_nodes: Option<BTreeMap<IpAddr, String>>,
    /// Addresses of the gateway pods that are to have no listeners for requests any more. Without
    /// them Envoy takes no new connection, and tells the clients of the old ones to come back on
    /// another one.
    pub draining: Option<BTreeSet<IpAddr>>,
}

/// The store. Everybody who has it sees the same.
#[derive(Debug)]
pub struct Store {
    inner: RwLock<Inner>,
    revision: watch::Sender<StoreRevision>,
    policy: Policy,
    listening: ListenerSettings,
    // What clusters end with, without and with a kernel that bounds retransmissions.
    lost_peers: [Vec<u8>; 2],
}

#[derive(Debug, Default)]
struct Inner {
    revision: StoreRevision,
    published: Option<Instant>,
    shared: BTreeMap<Kind, BTreeMap<Name, Encoded>>,
    table: Arc<RouteTable>,
    endpoints: BTreeMap<Name, ClusterEndpoints>,
    zones: BTreeMap<String, String>,
    bounds_retransmissions: BTreeSet<String>,
    gateway_nodes: BTreeMap<IpAddr, String>,
    draining: BTreeSet<IpAddr>,
    changes: Changes,
}

impl Store {
    /// An empty store, in which nothing is to be served yet.
    #[must_use]
    pub fn new(policy: Policy, listening: ListenerSettings) -> Self {
        let lost_peers = [false, true].map(|bounds_retransmissions| lost_peers(bounds_retransmissions).encode_to_vec());
        Self { inner: RwLock::default(), revision: watch::Sender::new(0), policy, listening, lost_peers }
    }

    /// Takes over what `update` really changes. Returns the revision from which on it is served.
    pub fn publish(&self, update: Update) -> StoreRevision {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        // Each that changed, and whether it is gone.
        let mut changed: BTreeMap<(Kind, Name), bool> = BTreeMap::new();
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
            // Certificates are all that listeners depend on.
            let same = table.external_certificates == inner.table.external_certificates
                && table.fallback_certificate == inner.table.fallback_certificate
                && table.internal_certificates == inner.table.internal_certificates;
            if !same || inner.revision == 0 {
                let gone = self.listeners_of(&inner.table).map(|name| ((Kind::Listener, name), true));
                changed.extend(gone);
                changed.extend(self.listeners_of(&table).map(|name| ((Kind::Listener, name), false)));
            }
            inner.table = table;
        }
        for (cluster, new) in update.endpoints {
            let cluster = inner.changes.name(Kind::Assignment, &cluster);
            if inner.endpoints.get(&cluster) == new.as_ref() {
                continue;
            }
            changed.insert((Kind::Assignment, cluster.clone()), new.is_none());
            match new {
                Some(new) => inner.endpoints.insert(cluster, new),
                None => inner.endpoints.remove(&cluster),
            };
        }
        if let Some(zones) = update.zones.filter(|zones| *zones != inner.zones) {
            inner.zones = zones;
            changed.extend(inner.endpoints.keys().map(|cluster| ((Kind::Assignment, cluster.clone()), false)));
        }
        if let Some(nodes) = update.bounds_retransmissions.filter(|nodes| *nodes != inner.bounds_retransmissions) {
            inner.bounds_retransmissions = nodes;
            let clusters = inner.shared.get(&Kind::Cluster).into_iter().flatten();
            changed.extend(clusters.map(|(name, _)| ((Kind::Cluster, name.clone()), false)));
        }
        if let Some(nodes) = update.gateway_nodes {
            inner.gateway_nodes = nodes;
        }
        if let Some(draining) = update.draining.filter(|draining| *draining != inner.draining) {
            inner.draining = draining;
            changed.extend(self.listeners_of(&inner.table).map(|name| ((Kind::Listener, name), false)));
        }
        if changed.is_empty() && inner.revision > 0 {
            return inner.revision;
        }
        if inner.revision == 0 {
            changed.insert((Kind::Listener, Name::new(STATISTICS)), false);
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

    /// A receiver of the revision; 0 until something is to be served.
    pub fn watch(&self) -> watch::Receiver<StoreRevision> {
        self.revision.subscribe()
    }

    /// The revision, and when it came.
    #[must_use]
    pub fn revision(&self) -> (StoreRevision, Option<Instant>) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        (inner.revision, inner.published)
    }

    /// The node that the gateway at `address` is on, where one is known there.
    #[must_use]
    pub fn node_of_gateway(&self, address: IpAddr) -> Option<String> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).gateway_nodes.get(&address.to_canonical()).cloned()
    }

    /// How many resources there are, and were not long ago.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).changes.len()
    }

    /// Whether nothing was ever published.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` for each resource that changed after `since`. Returns the revision up to which
    /// that is all, and whether it really is: otherwise some that went so long ago that nobody
    /// remembers them are not among them.
    pub fn changes_since(&self, since: StoreRevision, visit: impl FnMut(Kind, &Name)) -> (StoreRevision, bool) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let all = inner.changes.since(since, visit);
        (inner.revision, all)
    }

    /// Names of all resources of a kind.
    #[must_use]
    pub fn names(&self, kind: Kind) -> Vec<Name> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Kind::Assignment => inner.endpoints.keys().cloned().collect(),
            Kind::Listener => self.listeners_of(&inner.table).chain([Name::new(STATISTICS)]).collect(),
            shared => inner.shared.get(&shared).into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// The name called `text`: the store's own where something is or was called so.
    #[must_use]
    pub fn name(&self, kind: Kind, text: &str) -> Name {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).changes.name(kind, text)
    }

    /// Whether gateways have the cluster `name`.
    #[must_use]
    pub fn has_cluster(&self, name: &str) -> bool {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.shared.get(&Kind::Cluster).is_some_and(|clusters| clusters.contains_key(name))
    }

    /// How many clusters gateways have.
    #[must_use]
    pub fn clusters(&self) -> usize {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.shared.get(&Kind::Cluster).map_or(0, BTreeMap::len)
    }

    /// Names of the clusters whose requests go to pods, not to what stands in for them.
    #[must_use]
    pub fn clusters_with_pods(&self) -> BTreeSet<String> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let has_pods = |endpoints: &ClusterEndpoints| match endpoints {
            ClusterEndpoints::Pods { endpoints, .. } => endpoints.iter().any(|endpoint| !endpoint.stand_in),
            ClusterEndpoints::Activators { .. } | ClusterEndpoints::OwnInternalListener => false,
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

    /// Whether the cluster `name` is sent its endpoints.
    #[must_use]
    pub fn has_endpoints(&self, name: &Name) -> bool {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).endpoints.contains_key(name)
    }

    /// One resource as the gateway of `view` is to have it.
    #[must_use]
    pub fn resource(&self, view: &View, kind: Kind, name: &str) -> Option<Encoded> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Kind::Assignment => {
                let assignment = self.assigned(&inner, view, name)?;
                let stand_in = matches!(inner.endpoints.get(name), Some(endpoints) if endpoints.stand_in());
                Some(Encoded::new(&load_assignment(name, &assignment, &inner.zones, stand_in)))
            }
            Kind::Listener if name == STATISTICS => statistics(view.pod_addresses.first().copied()).as_ref().map(Encoded::new),
            Kind::Listener if view.pod_addresses.iter().any(|address| inner.draining.contains(address)) => None,
            Kind::Listener => {
                listeners(&inner.table, self.listening, view.listens_on()).iter().find(|one| one.name == name).map(Encoded::new)
            }
            Kind::Cluster => {
                let common = inner.shared.get(&kind)?.get(name)?;
                Some(common.and(&self.lost_peers[usize::from(inner.bounds_retransmissions.contains(&view.node))]))
            }
            shared => inner.shared.get(&shared)?.get(name).cloned(),
        }
    }

    /// The endpoints of the cluster `name` for the gateway of `view`.
    #[must_use]
    pub fn assignment(&self, view: &View, name: &str) -> Option<Assignment> {
        self.assigned(&self.inner.read().unwrap_or_else(PoisonError::into_inner), view, name)
    }

    /// The table of what all gateways do.
    #[must_use]
    pub fn table(&self) -> Arc<RouteTable> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).table.clone()
    }

    /// The plan's row, or the activators' shares, that the assignment of cluster `name` follows.
    #[must_use]
    pub fn row(&self, view: &View, name: &str) -> Option<BTreeMap<String, u32>> {
        match self.inner.read().unwrap_or_else(PoisonError::into_inner).endpoints.get(name)? {
            ClusterEndpoints::Pods { rows, .. } => rows.as_ref()?.get(&view.node).cloned(),
            ClusterEndpoints::Activators { shares, .. } => shares.clone(),
            ClusterEndpoints::OwnInternalListener => None,
        }
    }

    /// The names of a table's listeners for requests. For names, addresses do not matter.
    fn listeners_of(&self, table: &RouteTable) -> impl Iterator<Item = Name> + use<> {
        listeners(table, self.listening, IpAddr::V4(Ipv4Addr::UNSPECIFIED)).into_iter().map(|one| Name::new(one.name))
    }

    fn assigned(&self, inner: &Inner, view: &View, name: &str) -> Option<Assignment> {
        Some(match inner.endpoints.get(name)? {
            ClusterEndpoints::Pods { endpoints, rows } => {
                let row = rows.as_ref().and_then(|rows| rows.get(&view.node));
                assign(self.policy, &view.node, &inner.zones, endpoints, row)
            }
            ClusterEndpoints::Activators { endpoints, shares } => {
                assign(self.policy, &view.node, &inner.zones, endpoints, shares.as_ref())
            }
            ClusterEndpoints::OwnInternalListener => {
                let endpoints = vec![(view.itself(), self.listening.ports.internal)];
                Assignment { localities: vec![Locality { priority: 0, node: view.node.clone(), weight: 1, endpoints }] }
            }
        })
    }
}
