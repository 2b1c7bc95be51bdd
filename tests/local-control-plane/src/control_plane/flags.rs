//! The command lines of the control plane's programs. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::Controllers;

/// Addresses of Services.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The address of the Service `kubernetes`: the first of [`SERVICE_RANGE`].
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

const TOKEN_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Where the programs listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listeners {
    pub(super) address: IpAddr,
    pub(super) api_port: u16,
    pub(super) etcd_port: u16,
}

impl Listeners {
    pub(super) fn api_url(&self) -> String {
        match self.address {
            IpAddr::V4(address) => format!("https://{address}:{}", self.api_port),
            IpAddr::V6(address) => format!("https://[{address}]:{}", self.api_port),
        }
    }

    fn etcd_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.etcd_port)
    }
}

/// etcd keeps nothing that has to survive a power cut, so it need not wait for the disk.
pub(super) fn etcd(listeners: &Listeners, folder: &Path) -> Vec<String> {
    let url = listeners.etcd_url();
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        "--listen-peer-urls=http://127.0.0.1:0".into(),
        "--unsafe-no-fsync".into(),
        "--log-level=info".into(),
    ]
}

pub(super) fn kube_apiserver(listeners: &Listeners, folder: &Path) -> Vec<String> {
    let pki = |name: &str| folder.join("pki").join(name).display().to_string();
    let loopback = listeners.address.is_loopback();
    vec![
        format!("--etcd-servers={}", listeners.etcd_url()),
        format!("--bind-address={}", listeners.address),
        format!("--advertise-address={}", listeners.address),
        // A loopback address is not accepted as an endpoint; without one the Service `kubernetes`
        // has none.
        format!("--endpoint-reconciler-type={}", if loopback { "none" } else { "lease" }),
        format!("--secure-port={}", listeners.api_port),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("kube-apiserver.crt")),
        format!("--tls-private-key-file={}", pki("kube-apiserver.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        // The nodes' names resolve nowhere.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--service-account-issuer={TOKEN_ISSUER}"),
        format!("--service-account-key-file={}", pki("service-account.pub")),
        format!("--service-account-signing-key-file={}", pki("service-account.key")),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--profiling=false".into(),
    ]
}

pub(super) fn kube_controller_manager(controllers: &Controllers, folder: &Path) -> Vec<String> {
    let kubeconfig = folder.join("kubeconfig").join("kube-controller-manager");
    let names = match controllers {
        Controllers::None => "-*".to_owned(),
        Controllers::All => "*".to_owned(),
        Controllers::Only(names) => names.join(","),
    };
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--service-account-private-key-file={}", folder.join("pki/service-account.key").display()),
        format!("--root-ca-file={}", folder.join("pki/ca.crt").display()),
        format!("--controllers={names}"),
        "--use-service-account-credentials=true".into(),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        "--profiling=false".into(),
    ]
}

pub(super) fn kube_scheduler(folder: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", folder.join("kubeconfig").join("kube-scheduler").display()),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        "--profiling=false".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(address: &str) -> Listeners {
        Listeners { address: address.parse().unwrap(), api_port: 6443, etcd_port: 2379 }
    }

    #[test]
    fn the_service_of_the_api_has_an_endpoint_only_where_one_can_be() {
        let on_loopback = kube_apiserver(&listeners("127.0.0.1"), Path::new("/x"));
        assert!(on_loopback.contains(&"--endpoint-reconciler-type=none".to_owned()));
        let in_a_namespace = kube_apiserver(&listeners("10.89.0.1"), Path::new("/x"));
        assert!(in_a_namespace.contains(&"--endpoint-reconciler-type=lease".to_owned()));
    }

    #[test]
    fn controllers_are_named_as_asked() {
        let flags = |controllers| kube_controller_manager(&controllers, Path::new("/x")).join(" ");
        assert!(flags(Controllers::All).contains("--controllers=* "));
        assert!(flags(Controllers::Only(vec!["a", "b"])).contains("--controllers=a,b "));
    }

    #[test]
    fn an_ipv6_address_is_bracketed_in_the_url() {
        assert_eq!(listeners("fd00::1").api_url(), "https://[fd00::1]:6443");
    }
}
