//! Gateways: real Envoys with the deployed bootstrap.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::Api;
use serde_json::json;

use super::bench::{Bench, NAMESPACE, eventually, gateway_address, gateway_pod_address};
use super::certificates::{Authority, XdsCertificates};

const BOOTSTRAP: &str = include_str!("../../../deploy/xds-plain/envoy.yaml");
/// As it is deployed, over TLS, and the files that it names.
const TLS_BOOTSTRAP: &str = include_str!("../../../deploy/kantai-gateway/envoy.yaml");
const TLS_FILES: [(&str, &str); 2] = [
    ("gateway-certificate.yaml", include_str!("../../../deploy/kantai-gateway/gateway-certificate.yaml")),
    ("authority.yaml", include_str!("../../../deploy/kantai-gateway/authority.yaml")),
];
/// As the DaemonSet has them.
const PRE_STOP: Duration = Duration::from_secs(75);
const GRACE: Duration = Duration::from_secs(90);
/// As the bootstrap has it.
pub(super) const HEAP_BYTES: u64 = 2 * 1024 * 1024 * 1024;

impl Bench {
    /// From now on gateways are served over TLS, with certificates of `authority`.
    pub fn secure(&mut self, authority: &Authority) -> anyhow::Result<()> {
        self.certificates = Some(XdsCertificates::of(authority, self.folder.path())?);
        Ok(())
    }

    /// From now on gateways are served over TLS, with certificates that the daemon makes.
    pub fn secure_by_itself(&mut self) {
        self.certificates = Some(XdsCertificates::to_come(self.folder.path()));
        self.self_made = true;
    }

    /// Mounts the gateways' Secret where the next ones look for it, as the kubelet does.
    pub async fn mount_made_certificates(&self) -> anyhow::Result<()> {
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let secret = eventually("the gateways' Secret", async || Ok(secrets.get("kantai-gateway-xds").await?)).await?;
        let folder = &self.certificates.as_ref().context("no TLS")?.gateway;
        std::fs::create_dir_all(folder)?;
        for (file, bytes) in secret.data.unwrap_or_default() {
            std::fs::write(folder.join(file), bytes.0)?;
        }
        Ok(())
    }

    /// Gives both sides new certificates of `authority`.
    pub fn renew_certificates(&self, authority: &Authority) -> anyhow::Result<()> {
        self.certificates.as_ref().context("no TLS")?.renew(authority)
    }

    /// The bootstrap: that without TLS, or as it is deployed with its files where this finds them.
    fn bootstrap(&self) -> anyhow::Result<String> {
        let Some(certificates) = &self.certificates else { return Ok(BOOTSTRAP.to_owned()) };
        let folder = self.folder.path().to_string_lossy();
        for (name, text) in TLS_FILES {
            let text = text.replace("/etc/kantai-xds", &certificates.gateway.to_string_lossy());
            std::fs::write(self.folder.path().join(name), text)?;
        }
        Ok(TLS_BOOTSTRAP.replace("/etc/envoy", &folder))
    }

    /// Starts the gateway of a node from the deployed bootstrap, and waits until it is ready.
    pub async fn gateway(&self, node: u8) -> anyhow::Result<Gateway> {
        self.gateway_pod(node, 1).await
    }

    /// As [`Bench::gateway`], as one of the two that there are while it is replaced.
    pub async fn gateway_pod(&self, node: u8, pod: u8) -> anyhow::Result<Gateway> {
        let address = gateway_pod_address(node, pod);
        let deployed_heap = format!("max_heap_size_bytes: {HEAP_BYTES}");
        let replacements = [
            ("address: locality-ingress.kantai-system.svc", "address: 127.0.0.1".to_owned()),
            ("port_value: 18000", format!("port_value: {}", self.xds_port)),
            ("/run/kantai/admin.sock", self.folder.path().join(format!("admin{node}-{pod}.sock")).to_string_lossy().into_owned()),
            ("address: 0.0.0.0, port_value: 9000", format!("address: {address}, port_value: 9000")),
            (deployed_heap.as_str(), format!("max_heap_size_bytes: {}", self.gateway_heap_bytes)),
        ];
        let mut bootstrap = self.bootstrap()?;
        for (from, to) in replacements {
            anyhow::ensure!(bootstrap.contains(from), "the bootstrap has no {from:?} any more");
            bootstrap = bootstrap.replace(from, &to);
        }
        bootstrap.push_str(&format!("node:\n  metadata: {{ listen_address: \"{address}\" }}\n"));
        let path = self.folder.path().join(format!("envoy{node}-{pod}.yaml"));
        std::fs::write(&path, bootstrap)?;
        let log = std::fs::File::create(self.folder.path().join(format!("envoy{node}-{pod}.log")))?;
        let accesses = std::fs::File::create(self.accesses(node, pod))?;
        let process = Command::new(&self.envoy)
            .args(["--config-path", &path.to_string_lossy(), "--service-node", &format!("node{node}")])
            .args([
                "--service-cluster",
                "kantai-gateway",
                "--concurrency",
                "2",
                "--disable-hot-restart",
                "--drain-strategy",
                "immediate",
                "--file-flush-interval-msec",
                "100",
                "--log-level",
                "warning",
            ])
            .stdout(accesses)
            .stderr(log)
            .spawn()?;
        let gateway = Gateway { process };
        eventually("the gateway to be ready", async || {
            let ready = self.http.get(format!("http://{address}:9000/ready")).send().await?;
            anyhow::ensure!(ready.status() == 200, "{}", ready.status());
            Ok(())
        })
        .await
        .with_context(|| {
            std::fs::read_to_string(self.folder.path().join(format!("envoy{node}-{pod}.log"))).unwrap_or_default()
        })?;
        Ok(gateway)
    }

    fn accesses(&self, node: u8, pod: u8) -> PathBuf {
        self.folder.path().join(format!("envoy{node}-{pod}.out"))
    }

    /// What the gateway of a node wrote about requests.
    pub fn access_log(&self, node: u8) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.accesses(node, 1))?)
    }

    /// Makes known which gateways are ready.
    pub async fn gateways_ready(&self, nodes: &[u8]) -> anyhow::Result<()> {
        let endpoints: Vec<_> = nodes.iter().map(|&node| (gateway_address(node), node)).collect();
        self.slice(NAMESPACE, "kantai-gateway-internal", "http2", 8081, &endpoints, NAMESPACE).await
    }

    /// Starts gateways on these nodes, and has all requests for `hello` go to `hello-00001`. They
    /// do when this returns.
    pub async fn publish<const GATEWAYS: usize>(&self, nodes: [u8; GATEWAYS]) -> anyhow::Result<[Gateway; GATEWAYS]> {
        let mut gateways = Vec::with_capacity(GATEWAYS);
        for node in nodes {
            gateways.push(self.gateway(node).await?);
        }
        self.gateways_ready(&nodes).await?;
        self.ingress("hello", &[("hello-00001", 100)]).await?;
        self.ready("hello").await?;
        gateways.try_into().map_err(|_| anyhow::anyhow!("one gateway a node"))
    }

    /// Makes known which gateway pods (node, and which of the two on it) are ready, and which are
    /// being ended but still serve.
    pub async fn gateway_pods_ready(&self, ready: &[(u8, u8)], ending: &[(u8, u8)]) -> anyhow::Result<()> {
        let endpoint = |&(node, pod): &(u8, u8), ready: bool| {
            json!({"addresses": [gateway_pod_address(node, pod)], "nodeName": format!("node{node}"),
                   "conditions": {"ready": ready, "serving": true, "terminating": !ready}})
        };
        let all: Vec<_> =
            ready.iter().map(|one| endpoint(one, true)).chain(ending.iter().map(|one| endpoint(one, false))).collect();
        self.apply(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": NAMESPACE, "name": "kantai-gateway-internal-1",
                         "labels": {"kubernetes.io/service-name": "kantai-gateway-internal"}},
            "addressType": "IPv4", "endpoints": all, "ports": [{"name": "http2", "port": 8081}],
        }))
        .await
    }
}

/// A running Envoy; it is killed with this.
pub struct Gateway {
    process: Child,
}

impl Gateway {
    /// Ends as a pod of the DaemonSet does: it goes on until its preStop hook is over, and is
    /// killed when its grace is. For the scorecard.
    pub async fn end_as_a_pod(mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        tokio::time::sleep(PRE_STOP).await;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.process.id().cast_signed()), nix::sys::signal::SIGTERM)?;
        while self.process.try_wait()?.is_none() && began.elapsed() < GRACE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
