//! What a pod asks of its node, as the scheduler counts it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use super::resources::Resources;

/// What a pod of this spec asks for.
///
/// Containers count together. An init container counts with the sidecars (init containers that keep
/// running) listed before it; the largest such moment counts where it is more than the containers
/// and all sidecars. Amounts for the pod as a whole replace those of its containers. The overhead
/// of the runtime class comes on top. A limit without a request is a request.
#[must_use]
pub fn requests(spec: &PodSpec) -> Resources {
    counted(spec, None)
}

/// What a pod asks for. While it is being resized, the larger of what it asks, what it was granted
/// and what it has; a resize that its node cannot ever grant counts for nothing.
#[must_use]
pub fn requests_of_pod(pod: &Pod) -> Resources {
    pod.spec.as_ref().map(|spec| counted(spec, pod.status.as_ref())).unwrap_or_default()
}

fn counted(spec: &PodSpec, status: Option<&PodStatus>) -> Resources {
    let resized = |container: &Container| {
        let asked = asked(container.resources.as_ref());
        match status.and_then(|status| Some((status, status_of(container, status)?))) {
            Some((status, of_container)) => effective(&asked, of_container, is_infeasible(status)),
            None => asked,
        }
    };
    let mut together = Resources { pods: 1, ..Resources::default() };
    for container in &spec.containers {
        together += &resized(container);
    }
    let (mut sidecars, mut largest_moment) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let moment = if container.restart_policy.as_deref() == Some("Always") {
            let sidecar = resized(container);
            together += &sidecar;
            sidecars += &sidecar;
            sidecars.clone()
        } else {
            let mut moment = asked(container.resources.as_ref());
            moment += &sidecars;
            moment
        };
        largest_moment = largest_moment.max(&moment);
    }
    let mut all = together.max(&largest_moment);
    if let Some(of_pod) = &spec.resources {
        replace_by_pod_level(&mut all, of_pod);
    }
    if let Some(overhead) = &spec.overhead {
        all += &Resources { pods: 0, ..Resources::read(overhead) };
    }
    all
}

/// Amounts that may be given for a pod as a whole: CPU, memory and huge pages.
fn replace_by_pod_level(all: &mut Resources, of_pod: &ResourceRequirements) {
    let (requests, limits) = (list(of_pod.requests.as_ref()), list(of_pod.limits.as_ref()));
    for name in requests.keys().chain(limits.keys()).collect::<BTreeSet<_>>() {
        let is_huge_page = name.starts_with("hugepages-");
        if !is_huge_page && name != "cpu" && name != "memory" {
            continue;
        }
        // A limit stands in for a request only where no container asks for any. Huge pages are
        // never overcommitted: their limit is their request.
        if requests.contains_key(name) {
            all.set(name, Resources::read(requests).get(name));
        } else if is_huge_page || all.get(name) == 0 {
            all.set(name, Resources::read(limits).get(name));
        }
    }
}

fn asked(resources: Option<&ResourceRequirements>) -> Resources {
    let requests = list(resources.and_then(|resources| resources.requests.as_ref()));
    let limits = list(resources.and_then(|resources| resources.limits.as_ref()));
    let mut asked = Resources::read(requests);
    let limited = Resources::read(limits);
    for name in limits.keys().filter(|name| !requests.contains_key(*name)) {
        asked.set(name, limited.get(name));
    }
    Resources { pods: 0, ..asked }
}

fn list(list: Option<&BTreeMap<String, Quantity>>) -> &BTreeMap<String, Quantity> {
    static NONE: BTreeMap<String, Quantity> = BTreeMap::new();
    list.unwrap_or(&NONE)
}

fn status_of<'a>(container: &Container, status: &'a PodStatus) -> Option<&'a ContainerStatus> {
    let listed = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    listed.into_iter().find(|listed| listed.name == container.name && listed.resources.is_some())
}

fn effective(asked: &Resources, status: &ContainerStatus, is_infeasible: bool) -> Resources {
    let has = Resources::read(list(status.resources.as_ref().and_then(|resources| resources.requests.as_ref())));
    let granted = Resources::read(list(status.allocated_resources.as_ref()));
    let there = has.max(&granted);
    if is_infeasible { there } else { asked.max(&there) }
}

fn is_infeasible(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    let pending = conditions.find(|condition| condition.type_ == "PodResizePending");
    // Before Kubernetes 1.33 a field said so.
    pending.map_or(status.resize.as_deref() == Some("Infeasible"), |pending| pending.reason.as_deref() == Some("Infeasible"))
}

/// A port of the node itself that a pod listens on. Two pods of one node cannot have the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// The port.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The one address of the node that it is taken on; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl HostPort {
    /// Whether a node cannot have both.
    ///
    /// ```
    /// use autoscaler::room::HostPort;
    ///
    /// let on = |address: Option<&str>| HostPort {
    ///     port: 80,
    ///     protocol: "TCP".into(),
    ///     address: address.map(Into::into),
    /// };
    /// assert!(on(None).clashes(&on(Some("10.0.0.1"))));
    /// assert!(!on(Some("10.0.0.2")).clashes(&on(Some("10.0.0.1"))));
    /// assert!(!on(None).clashes(&HostPort { protocol: "UDP".into(), ..on(None) }));
    /// ```
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        let same_address = self.address.is_none() || other.address.is_none() || self.address == other.address;
        (self.port, &self.protocol) == (other.port, &other.protocol) && same_address
    }
}

/// The ports of its node that a pod of this spec takes, in order.
#[must_use]
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let is_on_host = spec.host_network == Some(true);
    let sidecars = spec.init_containers.iter().flatten().filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        // On the node's own network every port is the node's; the API server fills it in.
        let number = port.host_port.or(is_on_host.then_some(port.container_port)).filter(|number| *number != 0)?;
        let address = port.host_ip.clone().filter(|address| !matches!(address.as_str(), "" | "0.0.0.0" | "::"));
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some(HostPort { port: u16::try_from(number).ok()?, protocol, address })
    });
    taken.collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: &Value) -> PodSpec {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn container(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}}})
    }

    fn sidecar(name: &str, cpu: &str) -> Value {
        json!({"name": name, "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}})
    }

    #[rstest]
    #[case::an_init_container_runs_beside_the_sidecars_before_it(json!([sidecar("mesh", "100m"), container("fetch", "500m")]), 600)]
    #[case::and_not_beside_those_after_it(json!([container("fetch", "500m"), sidecar("mesh", "100m")]), 500)]
    #[case::the_largest_moment_counts(
        json!([container("a", "650m"), sidecar("b", "50m"), container("c", "400m"), sidecar("d", "300m"), container("e", "10m")]), 650)]
    #[case::sidecars_count_with_the_containers(json!([sidecar("mesh", "100m"), container("fetch", "20m")]), 200)]
    fn init_containers_count_in_their_order(#[case] init_containers: Value, #[case] cpu_millis: u64) {
        let spec = spec(&json!({"containers": [container("app", "100m")], "initContainers": init_containers}));
        assert_eq!(requests(&spec).cpu_millis, cpu_millis);
    }

    #[test]
    fn limits_and_overhead_count_as_the_scheduler_does() {
        let spec = spec(&json!({
            "containers": [
                {"name": "user", "resources": {"limits": {"cpu": "200m", "nvidia.com/gpu": "1"}, "requests": {"ephemeral-storage": "2Gi"}}},
                {"name": "queue-proxy", "resources": {"requests": {"cpu": "25m"}, "limits": {"cpu": "1"}}},
            ],
            "overhead": {"cpu": "10m", "memory": "120Mi"},
        }));
        let asked = requests(&spec);
        assert_eq!((asked.cpu_millis, asked.memory_bytes, asked.ephemeral_bytes, asked.pods), (235, 120 << 20, 2 << 30, 1));
        assert_eq!(asked.extended.iter().collect::<Vec<_>>(), [("nvidia.com/gpu", 1)]);
    }

    #[rstest]
    #[case::replaces_the_containers(json!({"requests": {"cpu": "1"}}), "100m", 1000)]
    #[case::also_downward(json!({"requests": {"cpu": "50m"}}), "100m", 50)]
    #[case::a_limit_leaves_the_containers_requests(json!({"limits": {"cpu": "2"}}), "100m", 100)]
    #[case::a_limit_alone_is_a_request(json!({"limits": {"cpu": "2"}}), "0", 2000)]
    fn amounts_of_the_pod_as_a_whole(#[case] of_pod: Value, #[case] of_container: &str, #[case] cpu_millis: u64) {
        let spec = spec(&json!({"containers": [container("app", of_container)], "resources": of_pod, "overhead": {"cpu": "7m"}}));
        assert_eq!(requests(&spec).cpu_millis, cpu_millis + 7);
    }

    #[test]
    fn only_cpu_memory_and_huge_pages_are_given_for_the_pod_as_a_whole() {
        let spec = spec(&json!({
            "containers": [{"name": "app", "resources": {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"hugepages-2Mi": "4Mi"}}}],
            "resources": {"requests": {"memory": "1Gi", "ephemeral-storage": "5Gi"}, "limits": {"hugepages-2Mi": "8Mi"}},
        }));
        let asked = requests(&spec);
        assert_eq!((asked.memory_bytes, asked.ephemeral_bytes), (1 << 30, 1 << 30));
        assert_eq!(asked.extended.get("hugepages-2Mi"), 8 << 20);
    }

    fn resized(asked: &str, has: &str, granted: &str, status: &Value) -> u64 {
        let mut pod = json!({
            "spec": {"containers": [container("app", asked)]},
            "status": {"containerStatuses": [{
                "name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "resources": {"requests": {"cpu": has}}, "allocatedResources": {"cpu": granted},
            }]},
        });
        for (key, value) in status.as_object().unwrap() {
            pod["status"][key] = value.clone();
        }
        requests_of_pod(&serde_json::from_value(pod).unwrap()).cpu_millis
    }

    #[test]
    fn a_pod_that_is_being_resized_holds_the_larger() {
        let nothing = json!({});
        assert_eq!(resized("100m", "500m", "300m", &nothing), 500);
        assert_eq!(resized("100m", "200m", "300m", &nothing), 300);
        assert_eq!(resized("900m", "200m", "300m", &nothing), 900);
        let pending = |reason| json!({"conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}]});
        assert_eq!(resized("900m", "200m", "300m", &pending("Deferred")), 900);
        assert_eq!(resized("900m", "200m", "300m", &pending("Infeasible")), 300);
        assert_eq!(resized("900m", "200m", "300m", &json!({"resize": "Infeasible"})), 300);
    }

    #[test]
    fn a_pod_without_a_status_holds_what_its_spec_asks() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [container("app", "100m")]}})).unwrap();
        assert_eq!(requests_of_pod(&pod).cpu_millis, 100);
    }

    #[test]
    fn ports_of_the_node_are_those_that_say_so_and_all_on_its_network() {
        let ports = |host_network: bool| {
            host_ports(&spec(&json!({
                "hostNetwork": host_network,
                "containers": [{"name": "app", "ports": [
                    {"containerPort": 8080, "hostPort": 80}, {"containerPort": 53, "protocol": "UDP", "hostPort": 53, "hostIP": "10.0.0.1"},
                    {"containerPort": 9090}]}],
            })))
        };
        let port = |port, protocol: &str, address: Option<&str>| HostPort {
            port,
            protocol: protocol.into(),
            address: address.map(Into::into),
        };
        assert_eq!(ports(false), [port(53, "UDP", Some("10.0.0.1")), port(80, "TCP", None)]);
        assert_eq!(ports(true).len(), 3);
    }
}
