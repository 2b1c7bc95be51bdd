//! Where the ready endpoints of Services are. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

use crate::score::Endpoints;
use crate::wish::ServiceName;

/// The label by which a slice names its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The endpoints of all Services, from their slices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    slices: HashMap<Key, Slice>,
    by_service: BTreeMap<ServiceName, BTreeSet<String>>,
}

/// Namespace and name of a slice.
type Key = (String, String);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slice {
    service: ServiceName,
    /// Node names, with the number of ready endpoints on each.
    nodes: BTreeMap<Arc<str>, u32>,
}

impl Services {
    /// Takes in a slice that was made or changed.
    pub(crate) fn apply(&mut self, slice: &EndpointSlice) {
        self.remove(slice);
        let namespace = slice.namespace().unwrap_or_default();
        let Some(service) = slice.labels().get(SERVICE_LABEL) else { return };
        let service = ServiceName { namespace: namespace.clone(), name: service.clone() };
        let mut nodes = BTreeMap::new();
        for endpoint in &slice.endpoints {
            let is_ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            if let Some(node) = endpoint.node_name.as_deref().filter(|_| is_ready) {
                *nodes.entry(node.into()).or_default() += 1;
            }
        }
        self.by_service.entry(service.clone()).or_default().insert(slice.name_any());
        self.slices.insert((namespace, slice.name_any()), Slice { service, nodes });
    }

    /// Forgets a slice.
    pub(crate) fn remove(&mut self, slice: &EndpointSlice) {
        let key = (slice.namespace().unwrap_or_default(), slice.name_any());
        let Some(Slice { service, .. }) = self.slices.remove(&key) else { return };
        if let Some(names) = self.by_service.get_mut(&service) {
            names.remove(&key.1);
            if names.is_empty() {
                self.by_service.remove(&service);
            }
        }
    }

    /// The nodes of the ready endpoints of a Service; `None` where it has none.
    pub(crate) fn endpoints(&self, service: &ServiceName) -> Option<Endpoints> {
        let mut endpoints = Endpoints::new();
        for name in self.by_service.get(service)? {
            let slice = self.slices.get(&(service.namespace.clone(), name.clone()))?;
            for (node, count) in &slice.nodes {
                *endpoints.entry(node.to_string()).or_default() += count;
            }
        }
        Some(endpoints).filter(|endpoints| !endpoints.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(name: &str, service: Option<&str>, endpoints: &[(&str, Option<bool>)]) -> EndpointSlice {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(node, ready)| json!({"addresses": ["10.0.0.1"], "nodeName": node, "conditions": {"ready": ready}}))
            .collect();
        let labels = service.map(|service| json!({SERVICE_LABEL: service}));
        let metadata = json!({"name": name, "namespace": "shop", "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints})).unwrap()
    }

    fn found(services: &Services) -> Vec<(String, u32)> {
        let cart = ServiceName { namespace: "shop".to_owned(), name: "cart".to_owned() };
        services.endpoints(&cart).unwrap_or_default().into_iter().collect()
    }

    #[test]
    fn ready_endpoints_of_all_slices_are_counted_by_node() {
        let mut services = Services::default();
        services.apply(&slice("cart-1", Some("cart"), &[("n1", Some(true)), ("n1", None), ("n2", Some(false))]));
        services.apply(&slice("cart-2", Some("cart"), &[("n1", Some(true)), ("n3", Some(true))]));
        services.apply(&slice("other", Some("db"), &[("n9", Some(true))]));
        services.apply(&slice("alone", None, &[("n9", Some(true))]));
        assert_eq!(found(&services), [("n1".to_owned(), 3), ("n3".to_owned(), 1)]);
        // Changed, handed to another Service, removed.
        services.apply(&slice("cart-2", Some("cart"), &[("n2", Some(true))]));
        assert_eq!(found(&services), [("n1".to_owned(), 2), ("n2".to_owned(), 1)]);
        services.apply(&slice("cart-1", Some("db"), &[("n1", Some(true))]));
        assert_eq!(found(&services), [("n2".to_owned(), 1)]);
        services.remove(&slice("cart-2", Some("cart"), &[]));
        assert_eq!((found(&services), services.by_service.len()), (vec![], 1));
        services.remove(&slice("cart-2", Some("cart"), &[]));
    }
}
