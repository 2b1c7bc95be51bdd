//! What the API server makes of a pod before the scheduler sees it: requests that a `LimitRange` of
//! its namespace gives to containers without, and what its `RuntimeClass` adds.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, LimitRange, PodSpec};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity::parse_millis;

/// The spec that a pod of this `spec` gets, as far as room and place depend on it, where its
/// namespace has these `limits` and `class` is the runtime class that it names. Pods that exist
/// carry all of it already.
///
/// A container that says nothing of a resource gets the default request. One with a limit asks for
/// that. Of several `LimitRange`s Kubernetes lets any win: here it is the larger request.
///
/// ```
/// use autoscaler::room::{admitted, requests};
///
/// let spec = serde_json::from_str(r#"{"containers": [{"name": "user"}]}"#)?;
/// let limits = serde_json::from_str(
///     r#"{"spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "500m"}}]}}"#,
/// )?;
/// assert_eq!(requests(&admitted(spec, [&limits], None)).cpu_millis, 500);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[must_use]
pub fn admitted<'a>(
    mut spec: PodSpec,
    limits: impl IntoIterator<Item = &'a LimitRange>,
    class: Option<&RuntimeClass>,
) -> PodSpec {
    let requests = default_requests(limits);
    if !requests.is_empty() {
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            fill(container, &requests);
        }
    }
    let Some(class) = class else { return spec };
    // A pod that names another overhead than its class is refused: nobody has to count it.
    if let Some(fixed) = class.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.as_ref()) {
        spec.overhead = Some(fixed.clone());
    }
    if let Some(scheduling) = &class.scheduling {
        spec.node_selector.get_or_insert_default().extend(scheduling.node_selector.clone().unwrap_or_default());
        spec.tolerations.get_or_insert_default().extend(scheduling.tolerations.iter().flatten().cloned());
    }
    spec
}

/// The default request per resource. The API server writes defaults that follow from limits and
/// bounds into the object itself.
fn default_requests<'a>(limits: impl IntoIterator<Item = &'a LimitRange>) -> BTreeMap<&'a String, &'a Quantity> {
    let items = limits.into_iter().filter_map(|range| range.spec.as_ref()).flat_map(|spec| &spec.limits);
    let containers = items.filter(|item| item.type_ == "Container");
    let mut largest: BTreeMap<&String, &Quantity> = BTreeMap::new();
    for (name, amount) in containers.flat_map(|item| item.default_request.iter().flatten()) {
        let held = largest.entry(name).or_insert(amount);
        if parse_millis(&amount.0) > parse_millis(&held.0) {
            *held = amount;
        }
    }
    largest
}

fn fill(container: &mut Container, defaults: &BTreeMap<&String, &Quantity>) {
    let resources = container.resources.get_or_insert_default();
    let limits = resources.limits.clone().unwrap_or_default();
    let requests = resources.requests.get_or_insert_default();
    for (name, amount) in defaults {
        if !limits.contains_key(*name) && !requests.contains_key(*name) {
            requests.insert((*name).clone(), (*amount).clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::{Resources, Template, requests};
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn limits(items: &Value) -> LimitRange {
        read(json!({"metadata": {"name": "limits"}, "spec": {"limits": items}}))
    }

    #[test]
    fn containers_without_requests_get_the_default_of_the_namespace() {
        let spec: PodSpec = read(json!({
            "initContainers": [{"name": "sidecar", "restartPolicy": "Always"}],
            "containers": [
                {"name": "silent"},
                {"name": "asks", "resources": {"requests": {"cpu": "25m"}}},
                {"name": "limited", "resources": {"limits": {"cpu": "100m"}}},
            ],
        }));
        let limits = limits(&json!([
            {"type": "Pod", "max": {"cpu": "8"}, "defaultRequest": {"cpu": "7"}},
            {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m", "memory": "64Mi"}},
        ]));
        let asked = requests(&admitted(spec, [&limits], None));
        assert_eq!((asked.cpu_millis, asked.memory_bytes, asked.pods), (500 + 500 + 25 + 100, 4 * (64 << 20), 1));
    }

    #[test]
    fn of_several_defaults_the_larger_counts() {
        let spec: PodSpec = read(json!({"containers": [{"name": "user"}]}));
        let one = |cpu: &str| limits(&json!([{"type": "Container", "defaultRequest": {"cpu": cpu}}]));
        let all = [one("900m"), one("1"), one("950m")];
        assert_eq!(requests(&admitted(spec.clone(), &all, None)).cpu_millis, 1000);
        assert_eq!(admitted(spec.clone(), [], None), spec);
    }

    #[test]
    fn a_runtime_class_adds_overhead_selector_and_tolerations() {
        let spec: PodSpec = read(json!({
            "containers": [{"name": "user", "resources": {"requests": {"cpu": "100m"}}}],
            "nodeSelector": {"disk": "ssd"},
        }));
        let class: RuntimeClass = read(json!({
            "handler": "kata",
            "overhead": {"podFixed": {"cpu": "1"}},
            "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]},
        }));
        let once = admitted(spec, [], Some(&class));
        // A spec that has passed admission already is counted the same.
        for spec in [once.clone(), admitted(once, [], Some(&class))] {
            let template = Template::read("default", &BTreeMap::new(), &spec);
            assert_eq!((template.each.cpu_millis, template.each.pods), (1100, 1));
            assert_eq!(template.node.selector.len(), 2);
            assert!(!template.tolerations.is_empty());
        }
    }

    proptest! {
        /// A container asks for what it says itself, or else for the default.
        #[test]
        fn defaults_fill_gaps_and_change_nothing_else(
            own in prop::option::of(0_u32..2000),
            limit in prop::option::of(2000_u32..4000),
            default in prop::option::of(0_u32..2000),
        ) {
            let amount = |millis: Option<u32>| millis.map_or_else(|| json!({}), |millis| json!({"cpu": format!("{millis}m")}));
            let resources = json!({"requests": amount(own), "limits": amount(limit)});
            let spec: PodSpec = read(json!({"containers": [{"name": "user", "resources": resources}]}));
            let limits = limits(&json!([{"type": "Container", "defaultRequest": amount(default)}]));
            let asked = requests(&admitted(spec, [&limits], None));
            let expected = own.or(limit).or(default).unwrap_or(0).into();
            prop_assert_eq!(asked, Resources { cpu_millis: expected, pods: 1, ..Resources::default() });
        }
    }
}
