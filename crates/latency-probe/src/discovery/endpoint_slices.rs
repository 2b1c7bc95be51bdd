//! Peers from the EndpointSlices of the prober's own headless Service. Each prober watches these
//! few objects, which carry the node names.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::TryStreamExt as _;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, ResourceExt as _};
use latency_matrix::NodeName;
use tokio::sync::watch;

use super::publish;
use crate::peers::{Peer, PeerSet, Ports};

/// Port names in the Service: the responder's, and that of `/metrics`.
const ECHO_PORT_NAME: &str = "echo";
const HTTP_PORT_NAME: &str = "metrics";

/// The peers that a set of slices describes. Pure: watch events in, peers out.
#[derive(Debug)]
pub(super) struct SliceView {
    ports: Ports,
    slices: BTreeMap<String, Vec<ListedPeer>>,
    /// Slices of a list in progress. The old ones are in force until it is complete.
    relisted: Option<BTreeMap<String, Vec<ListedPeer>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ListedPeer {
    node: NodeName,
    peer: Peer,
    terminating: bool,
    serving: bool,
}

impl SliceView {
    /// No slices yet. `ports` are the defaults for slices without ports named `echo` and `metrics`.
    #[must_use]
    pub(super) const fn new(ports: Ports) -> Self {
        Self { ports, slices: BTreeMap::new(), relisted: None }
    }

    /// Applies an event. Returns the peers if they are complete.
    pub(super) fn apply(&mut self, event: Event<EndpointSlice>) -> Option<PeerSet> {
        match event {
            Event::Init => {
                self.relisted = Some(BTreeMap::new());
                return None;
            }
            Event::InitApply(slice) => {
                let candidates = self.candidates(&slice);
                self.relisted.get_or_insert_default().insert(slice.name_any(), candidates);
                return None;
            }
            Event::InitDone => self.slices = self.relisted.take().unwrap_or_default(),
            Event::Apply(slice) => {
                let candidates = self.candidates(&slice);
                self.slices.insert(slice.name_any(), candidates);
            }
            Event::Delete(slice) => {
                self.slices.remove(&slice.name_any());
            }
        }
        Some(self.peers())
    }

    fn candidates(&self, slice: &EndpointSlice) -> Vec<ListedPeer> {
        let named = |name| slice.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
        let number = |name| named(name).and_then(|port| u16::try_from(port.port?).ok());
        let ports = Ports {
            echo: number(ECHO_PORT_NAME).unwrap_or(self.ports.echo),
            http: number(HTTP_PORT_NAME).unwrap_or(self.ports.http),
        };
        slice.endpoints.iter().filter_map(|endpoint| candidate(endpoint, ports)).collect()
    }

    /// One peer per node. Of several endpoints (two families, or a pod being replaced) the
    /// preferred one is not terminating, then serving, then IPv4, then has the lowest address.
    fn peers(&self) -> PeerSet {
        let mut best: BTreeMap<&NodeName, &ListedPeer> = BTreeMap::new();
        let rank = |candidate: &ListedPeer| {
            (candidate.terminating, !candidate.serving, candidate.peer.address().is_ipv6(), candidate.peer.echo)
        };
        for candidate in self.slices.values().flatten() {
            let held = best.entry(&candidate.node).or_insert(candidate);
            if rank(candidate) < rank(held) {
                *held = candidate;
            }
        }
        best.into_iter().map(|(node, candidate)| (node.clone(), candidate.peer.clone())).collect()
    }
}

/// An endpoint that is not serving is still a peer if it is the node's only one: its silence is
/// what is to be measured.
fn candidate(endpoint: &Endpoint, ports: Ports) -> Option<ListedPeer> {
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let node: NodeName = endpoint.node_name.as_deref()?.parse().ok()?;
    let zone = endpoint.zone.as_deref().map(Into::into);
    let conditions = endpoint.conditions.as_ref();
    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    // With `publishNotReadyAddresses` the endpoint controller sets `ready` on every endpoint. The
    // pod's readiness is in `serving`. A missing condition counts as true.
    let serving = conditions.and_then(|conditions| conditions.serving.or(conditions.ready)).unwrap_or(true);
    let peer = Peer { echo: SocketAddr::new(address, ports.echo), http_port: ports.http, zone };
    Some(ListedPeer { node, peer, terminating, serving })
}

/// Publishes the Service's endpoints to `peers` until there are no receivers. While the API server
/// fails, the last known peers stay; the watch is retried with growing pauses.
pub async fn watch_service(
    client: Client,
    namespace: &str,
    service: &str,
    ports: Ports,
    peers: watch::Sender<Arc<PeerSet>>,
    found: impl Fn(),
) {
    let slices: Api<EndpointSlice> = Api::namespaced(client, namespace);
    // Serve lists from the API server's cache: all probers list at once when it restarts.
    let of_service = Config::default().labels(&format!("kubernetes.io/service-name={service}")).any_semantic();
    let mut view = SliceView::new(ports);
    let mut events = std::pin::pin!(watcher(slices, of_service).default_backoff());
    loop {
        tokio::select! {
            () = peers.closed() => return,
            event = events.try_next() => match event {
                Ok(Some(event)) => {
                    if let Some(now) = view.apply(event) {
                        publish(&peers, now);
                        found();
                    }
                }
                Ok(None) => return,
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, namespace, service, "failed to watch the prober's endpoints"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointPort};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn slice(name: &str, port: Option<i32>, endpoints: &[(&str, &str, bool)]) -> EndpointSlice {
        EndpointSlice {
            metadata: ObjectMeta { name: Some(name.into()), ..Default::default() },
            address_type: "IPv4".into(),
            ports: port.map(|port| {
                let named = |name: &str, port| EndpointPort { name: Some(name.into()), port: Some(port), ..Default::default() };
                vec![named("metrics", 80), named("echo", port)]
            }),
            endpoints: endpoints
                .iter()
                .map(|(node, address, terminating)| Endpoint {
                    addresses: vec![(*address).into()],
                    node_name: (!node.is_empty()).then(|| (*node).into()),
                    zone: Some("here".into()),
                    conditions: Some(EndpointConditions {
                        terminating: Some(*terminating),
                        ready: Some(false),
                        ..Default::default()
                    }),
                    ..Default::default()
                })
                .collect(),
        }
    }

    fn shown(peers: &PeerSet) -> Vec<String> {
        peers.iter().map(|(node, peer)| format!("{node}={}", peer.echo)).collect()
    }

    #[test]
    fn peers_are_complete_only_when_the_list_is() {
        let mut view = SliceView::new(Ports::DEFAULT);
        assert_eq!(view.apply(Event::Init), None);
        assert_eq!(view.apply(Event::InitApply(slice("a", Some(1_234), &[("node1", "10.0.0.1", false)]))), None);
        assert_eq!(view.apply(Event::InitApply(slice("b", None, &[("node2", "fd00::2", false), ("", "10.0.0.9", false)]))), None);
        let peers = view.apply(Event::InitDone).unwrap();
        assert_eq!(shown(&peers), ["node1=10.0.0.1:1234", "node2=[fd00::2]:9799"]);
        assert_eq!((peers["node1"].http_port, peers["node2"].http_port), (80, 9798));
        let peers =
            view.apply(Event::Apply(slice("a", Some(1_234), &[("node3", "10.0.0.3", false), ("node4", "bad", false)]))).unwrap();
        assert_eq!(shown(&peers), ["node2=[fd00::2]:9799", "node3=10.0.0.3:1234"]);
        assert_eq!(shown(&view.apply(Event::Delete(slice("b", None, &[]))).unwrap()), ["node3=10.0.0.3:1234"]);
    }

    #[test]
    fn a_list_that_is_read_again_takes_the_place_of_the_old_one_at_once() {
        let mut view = SliceView::new(Ports::DEFAULT);
        for round in [["node1", "node2"], ["node2", "node3"]] {
            assert_eq!(view.apply(Event::Init), None);
            for node in round {
                assert_eq!(view.apply(Event::InitApply(slice(node, None, &[(node, "10.0.0.1", false)]))), None);
            }
            let peers = view.apply(Event::InitDone).unwrap();
            assert!(peers.keys().map(NodeName::as_str).eq(round));
        }
    }

    /// A pod's address is published before its image is pulled; the old pod answers until then.
    #[test]
    fn a_pod_that_is_not_up_yet_does_not_displace_the_one_that_serves() {
        let both = |conditions: [EndpointConditions; 2]| {
            let mut slice = slice("a", None, &[("node1", "10.0.0.1", false), ("node1", "10.0.0.2", false)]);
            for (endpoint, conditions) in slice.endpoints.iter_mut().zip(conditions) {
                endpoint.conditions = Some(conditions);
            }
            shown(&SliceView::new(Ports::DEFAULT).apply(Event::Apply(slice)).unwrap())
        };
        let with = |ready, serving| EndpointConditions { ready, serving, ..Default::default() };
        assert_eq!(both([with(Some(true), Some(false)), with(Some(true), Some(true))]), ["node1=10.0.0.2:9799"]);
        assert_eq!(both([with(Some(false), None), with(None, None)]), ["node1=10.0.0.2:9799"]);
        assert_eq!(both([with(Some(false), None), with(Some(false), None)]), ["node1=10.0.0.1:9799"]);
    }

    #[test]
    fn of_two_endpoints_on_a_node_the_one_that_stays_is_taken() {
        let mut view = SliceView::new(Ports::DEFAULT);
        let peers =
            view.apply(Event::Apply(slice("a", None, &[("node1", "10.0.0.1", true), ("node1", "10.0.0.2", false)]))).unwrap();
        assert_eq!(shown(&peers), ["node1=10.0.0.2:9799"]);
        let peers =
            view.apply(Event::Apply(slice("b", None, &[("node1", "fd00::1", false), ("node2", "fd00::2", false)]))).unwrap();
        assert_eq!(shown(&peers), ["node1=10.0.0.2:9799", "node2=[fd00::2]:9799"]);
    }
}
