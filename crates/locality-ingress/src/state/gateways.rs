//! The ready gateway pods, and the terminating ones that have to drain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::kubernetes::objects::SliceObject;
use crate::status::progress::GatewayPod;

/// How long a terminating gateway keeps its listeners: kube-proxy sends it new connections until it
/// has seen the change of the endpoint, too.
const DRAIN_AFTER: Duration = Duration::from_secs(2);

/// The gateway pods, by the EndpointSlices of their Service.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    ready: Vec<GatewayPod>,
    ending_since: BTreeMap<IpAddr, Instant>,
}

impl Gateways {
    /// Applies the slices of the gateways' Service. Returns the ready gateways if they changed.
    pub(super) fn follow<'a>(&mut self, slices: impl Iterator<Item = &'a SliceObject>, now: Instant) -> Option<Vec<GatewayPod>> {
        // On a dual-stack cluster a pod is in one slice per family. The IPv4 address sorts first,
        // and every such pod has one.
        let mut ready: BTreeMap<(String, Option<String>), IpAddr> = BTreeMap::new();
        let mut ending = BTreeSet::new();
        for endpoint in slices.flat_map(|slice| &slice.endpoints) {
            if endpoint.ready {
                let node = endpoint.node.clone().unwrap_or_default();
                let pod = endpoint.pod.clone().or_else(|| Some(endpoint.address.to_string()));
                let address = ready.entry((node, pod)).or_insert(endpoint.address);
                *address = (*address).min(endpoint.address);
            } else if endpoint.serving_last {
                ending.insert(endpoint.address);
            }
        }
        self.ending_since.retain(|address, _| ending.contains(address));
        for address in ending {
            self.ending_since.entry(address).or_insert(now);
        }
        let mut ready: Vec<_> = ready.into_iter().map(|((node, _), address)| GatewayPod { node, address }).collect();
        ready.sort_unstable();
        (ready != self.ready).then(|| {
            self.ready.clone_from(&ready);
            ready
        })
    }

    /// The addresses of the gateways that must not have listeners any more.
    pub(super) fn draining(&self, now: Instant) -> BTreeSet<IpAddr> {
        self.ending_since.iter().filter(|(_, since)| **since + DRAIN_AFTER <= now).map(|(address, _)| *address).collect()
    }

    /// When the next gateway begins to drain.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.ending_since.values().map(|since| *since + DRAIN_AFTER).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::objects::SliceEndpoint;

    fn slice(endpoints: &[(u8, bool, bool)]) -> SliceObject {
        let endpoint = |&(last, ready, serving_last): &(u8, bool, bool)| SliceEndpoint {
            address: [10, 0, 0, last].into(),
            node: Some("node1".to_owned()),
            ready,
            serving_last,
            pod: None,
            stand_in: false,
        };
        SliceObject { ports: Vec::new(), endpoints: endpoints.iter().map(endpoint).collect() }
    }

    #[test]
    fn a_pod_with_addresses_of_both_families_is_one_gateway() {
        let of = |address: IpAddr| {
            let endpoint = SliceEndpoint {
                address,
                node: Some("node1".to_owned()),
                ready: true,
                serving_last: false,
                pod: Some("kantai-gateway-x".to_owned()),
                stand_in: false,
            };
            SliceObject { ports: Vec::new(), endpoints: vec![endpoint] }
        };
        let slices = [of("fd00::1".parse().unwrap()), of([10, 0, 0, 1].into())];
        let all = Gateways::default().follow(slices.iter(), Instant::now()).unwrap();
        assert_eq!(all, [GatewayPod { node: "node1".into(), address: [10, 0, 0, 1].into() }]);
    }

    #[test]
    fn a_gateway_that_is_being_ended_drains_after_a_while_and_is_forgotten_with_its_pod() {
        let mut gateways = Gateways::default();
        let now = Instant::now();
        assert_eq!(gateways.follow([&slice(&[(1, true, false)])].into_iter(), now).unwrap().len(), 1);
        assert_eq!(gateways.follow([&slice(&[(1, true, false)])].into_iter(), now), None);
        let both = slice(&[(1, false, true), (2, true, false)]);
        assert_eq!(gateways.follow([&both].into_iter(), now).unwrap()[0].address, IpAddr::from([10, 0, 0, 2]));
        assert!(gateways.draining(now).is_empty());
        let later = now + DRAIN_AFTER;
        assert_eq!(gateways.wake_at(now), Some(later));
        // A repeated update does not restart the time.
        assert_eq!(gateways.follow([&both].into_iter(), later), None);
        assert_eq!(gateways.draining(later), [IpAddr::from([10, 0, 0, 1])].into());
        assert_eq!(gateways.wake_at(later), None);
        gateways.follow([&slice(&[(2, true, false)])].into_iter(), later);
        assert!(gateways.draining(later).is_empty());
    }
}
