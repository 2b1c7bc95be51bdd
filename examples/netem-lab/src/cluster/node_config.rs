//! The configuration files of a node's daemons: pure text from plain data.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Value, json};

use super::layout::{CLUSTER_CIDR, CLUSTER_DOMAIN, DNS_SERVICE_ADDRESS, NodeLayout};

/// Where containerd listens, as the node sees it.
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Content of a node's `/etc/resolv.conf`: the cluster's DNS, so that what is run in the node finds
/// Services by their names.
#[must_use]
pub(super) fn resolv_conf() -> String {
    format!(
        "nameserver {DNS_SERVICE_ADDRESS}\nsearch default.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}\noptions ndots:5 timeout:2\n"
    )
}

/// containerd's `config.toml`. Understood by containerd 1.6 to 2.x.
#[must_use]
pub(super) fn containerd(runc: &Path, cni_plugins: &Path, cni_config: &Path, pause_image: &str) -> String {
    // Debug formatting of a string is a valid TOML basic string for any path without control
    // characters.
    let quoted = |path: &Path| format!("{:?}", path.to_string_lossy());
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = {pause_image:?}
# Lowering the score needs a capability that a machine of a CI system may lack.
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = {runc}
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {bin_dir}
conf_dir = {conf_dir}
"#,
        runc = quoted(runc),
        bin_dir = quoted(cni_plugins),
        conf_dir = quoted(cni_config),
    )
}

/// The CNI network of a node: a cable per pod and a route to each. Packets between two pods of a
/// node are routed, not bridged, so that Service addresses work between them on every kernel.
#[must_use]
pub(super) fn cni(node: &NodeLayout) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": "/var/lib/cni/networks",
                "ranges": [[{ "subnet": node.pod_cidr.to_string() }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
}

/// The kubelet's configuration. JSON is YAML, which the kubelet reads.
#[must_use]
pub(super) fn kubelet(node: &NodeLayout, client_ca: &Path, certificate: &Path, key: &Path) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // The machine may still be on cgroup v1, and is whatever it is: no swap, no eviction, no
        // OOM scores are the lab's to manage.
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.pod_cgroup,
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": false,
        "localStorageCapacityIsolation": false,
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "resolvConf": "",
        "oomScoreAdj": 0,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "maxPods": 250,
        "clusterDNS": [DNS_SERVICE_ADDRESS.to_string()],
        "clusterDomain": CLUSTER_DOMAIN,
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": client_ca },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
        "nodeStatusUpdateFrequency": "5s",
        "shutdownGracePeriod": "0s",
    })
}

/// The kubelet's arguments.
#[must_use]
pub(super) fn kubelet_arguments(node: &NodeLayout, config: &Path, kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.ip),
        "--root-dir=/var/lib/kubelet".to_owned(),
    ]
}

/// kube-proxy's configuration.
#[must_use]
pub(super) fn kube_proxy(node: &NodeLayout, kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "clusterCIDR": CLUSTER_CIDR,
        "clientConnection": { "kubeconfig": kubeconfig },
        // These settings belong to the whole machine: leave them alone.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        // Changes reach the node's rules at once; the default waits up to a second between two.
        "nftables": { "minSyncPeriod": "100ms", "syncPeriod": "30s" },
    })
}

/// Names every node knows without DNS.
#[must_use]
pub(super) fn hosts(nodes: &[NodeLayout]) -> Vec<(Ipv4Addr, String)> {
    nodes.iter().map(|node| (node.ip, node.name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::layout::{LabSlot, lay_out};
    use super::*;

    fn node() -> NodeLayout {
        let slot = LabSlot::all().next().expect("a slot");
        lay_out(slot, &["kobe".to_owned()]).expect("layout").remove(0)
    }

    #[test]
    fn containerd_configuration_is_toml_that_says_what_was_asked() {
        let text = containerd(Path::new("/opt/a b/runc"), Path::new("/cni/bin"), Path::new("/cni/conf"), "dev.local/lab/pause:1");
        let parsed: toml::Value = toml::from_str(&text).expect("TOML");
        let cri = &parsed["plugins"]["io.containerd.grpc.v1.cri"];
        assert_eq!(cri["sandbox_image"].as_str(), Some("dev.local/lab/pause:1"));
        assert_eq!(cri["containerd"]["runtimes"]["runc"]["options"]["BinaryName"].as_str(), Some("/opt/a b/runc"));
        assert_eq!(cri["cni"]["bin_dir"].as_str(), Some("/cni/bin"));
    }

    #[test]
    fn pods_get_addresses_of_their_node() {
        assert_eq!(cni(&node())["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.1.0/24");
    }

    #[test]
    fn kubelet_keeps_pods_in_the_labs_control_group() {
        let config = kubelet(&node(), Path::new("/ca"), Path::new("/crt"), Path::new("/key"));
        assert_eq!(config["cgroupRoot"], "/netem0/kobe");
        assert_eq!(config["authentication"]["x509"]["clientCAFile"], "/ca");
    }

    #[test]
    fn names_are_looked_up_at_the_clusters_dns() {
        assert!(resolv_conf().starts_with("nameserver 10.96.0.10\nsearch default.svc.cluster.local "));
    }
}
