//! A cluster in a network namespace: the API server, Kantai's own workloads as its manifests make
//! them, and those daemons that a test starts, at the addresses of their pods.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::sync::OnceLock;

use anyhow::Context as _;
use clap::Parser as _;
use k8s_openapi::api::core::v1::Pod;
use kantai_tests::api_server::{SYSTEM_NAMESPACE, apply, config_of, documents};
use kantai_tests::eventually;
use kantai_tests::knative::kubelets::Kubelets;
use kantai_tests::knative::network;
use kantai_tests::knative::serverless::Serverless;
use kantai_tests::knative::stage::{Stage, address, set_ready};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use local_control_plane::components::{Component, Components};
use local_control_plane::control_plane::User;
use local_control_plane::nested_cargo;
use local_control_plane::progress::Progress;
use serde_json::json;
use tokio_util::sync::CancellationToken;

const MANIFESTS: [&str; 10] = [
    include_str!("../../../deploy/extra-controller/deployment.yaml"),
    include_str!("../../../deploy/extra-controller/config-ikukantai.yaml"),
    include_str!("../../../deploy/seika-controller/deployment.yaml"),
    include_str!("../../../deploy/locality-ingress/rbac.yaml"),
    include_str!("../../../deploy/locality-ingress/deployment.yaml"),
    include_str!("../../../deploy/locality-ingress/service.yaml"),
    include_str!("../../../deploy/kantai-gateway/daemonset.yaml"),
    include_str!("../../../deploy/kantai-gateway/services.yaml"),
    include_str!("../../../deploy/latency-probe/rbac.yaml"),
    include_str!("../../../deploy/latency-probe/daemonset.yaml"),
];
const BOOTSTRAP: &str = include_str!("../../../deploy/xds-plain/envoy.yaml");
const NODES: u8 = 2;
const STACK_BYTES: usize = 32 * 1024 * 1024;
/// On each node the daemons other than gateway and prober have this number.
const DAEMON: u8 = 8;

/// Runs `test` in a network namespace in which every address of pods is local.
pub(crate) fn in_own_network<F: Future<Output = anyhow::Result<()>>>(
    test: impl FnOnce(Components) -> F + Send,
) -> anyhow::Result<()> {
    let wanted = [
        Component::KubeApiserver,
        Component::Etcd,
        Component::KubeControllerManager,
        Component::Envoy,
        Component::Prometheus,
        Component::Ip,
    ];
    let components = Components::ensure(&wanted, &Progress::to_stderr())?;
    // Without optimisation the futures of whole daemons need more than a test's usual stack.
    std::thread::scope(|threads| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        let running = builder.spawn_scoped(threads, || network::in_own_network(&components, || test(components.clone())))?;
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The cluster.
pub(crate) struct World {
    pub(crate) stage: Stage,
    /// The pod of the extra-controller that was started.
    pub(crate) decider_pod: OnceLock<String>,
    components: Components,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    pub(crate) async fn start(components: &Components) -> anyhow::Result<Self> {
        let stage = Stage::start(components, NODES).await?;
        for manifest in MANIFESTS {
            for document in documents(manifest)? {
                apply(&stage.client(), &document).await?;
            }
        }
        let kubelets = Kubelets::start(stage.client(), &stage.nodes[0]);
        Serverless::start(stage.client(), kubelets).await?;
        let seikas = seika_controller::controller::run(
            stage.client(),
            seika_controller::ControllerOptions::default(),
            event_writer::pod(SYSTEM_NAMESPACE, "seika-controller"),
            seika_controller::metrics::Metrics::new(&mut prometheus_client::registry::Registry::default()),
            CancellationToken::new(),
        );
        tokio::spawn(seikas);
        let components = components.clone();
        Ok(Self { stage, decider_pod: OnceLock::new(), components, stop: CancellationToken::new() })
    }

    /// The real extra-controller, as a pod of its Deployment on the first node.
    pub(crate) async fn decider(&self) -> anyhow::Result<()> {
        let at = address(1, DAEMON);
        let pod = self.adopt("extra-controller", at).await?;
        let options = extra_controller::Options::try_parse_from([
            "extra-controller".to_owned(),
            format!("--api-listen={at}:18080"),
            format!("--ops-listen={at}:8080"),
            "--latency-interval=1s".to_owned(),
            format!("--pod-name={pod}"),
        ])?;
        let client = Client::try_from(config_of(self.stage.control_plane(), "extra-controller").await?)?;
        tokio::spawn(loud("extra-controller", extra_controller::run(options, client, self.stop.clone())));
        let _ = self.decider_pod.set(pod);
        Ok(())
    }

    /// The real locality-ingress, as a pod of its Deployment on the second node. Returns where
    /// gateways reach it.
    pub(crate) async fn ingress(&self) -> anyhow::Result<SocketAddr> {
        let at = address(2, DAEMON);
        let pod = self.adopt("locality-ingress", at).await?;
        let (xds, ops) = (SocketAddr::new(at, 18_000), SocketAddr::new(at, 8080));
        let options = locality_ingress::Options::try_parse_from([
            "locality-ingress".to_owned(),
            "--xds-plain-text".to_owned(),
            "--cluster-domain=cluster.local".to_owned(),
            format!("--pod-name={pod}"),
        ])?;
        let listeners = locality_ingress::Listeners { xds: ops_http::bind(xds).await?, ops: ops_http::bind(ops).await? };
        let client = Client::try_from(config_of(self.stage.control_plane(), "locality-ingress").await?)?;
        let running = locality_ingress::run(client, options, listeners, self.stop.clone());
        tokio::spawn(loud("locality-ingress", async { Ok(running.await?) }));
        Ok(xds)
    }

    /// The address of the pods of gateway and prober on a node.
    fn node_address(&self, node: &str) -> anyhow::Result<IpAddr> {
        let number = self.stage.nodes.iter().position(|one| one == node).context("no such node")?;
        Ok(address(u8::try_from(number)? + 1, 1))
    }

    /// What the real prober of a node is started with.
    pub(crate) fn prober_arguments(&self, node: &str) -> anyhow::Result<Vec<String>> {
        let peers = self.stage.folder().join("peers.json");
        let all = self.stage.nodes.iter().map(|node| Ok(json!({"node": node, "address": self.node_address(node)?})));
        std::fs::write(&peers, json!({"peers": all.collect::<anyhow::Result<Vec<_>>>()?}).to_string())?;
        let at = self.node_address(node)?;
        Ok(vec![
            "latency-probe".to_owned(),
            "run".to_owned(),
            format!("--node-name={node}"),
            format!("--peers-file={}", peers.display()),
            format!("--http-listen={at}:9798"),
            format!("--echo-listen={at}:9799"),
        ])
    }

    /// The real prober of a node, until it is stopped.
    pub(crate) fn prober(&self, node: &str) -> anyhow::Result<Stopped> {
        let arguments = latency_probe::Options::try_parse_from(self.prober_arguments(node)?)?;
        let latency_probe::Command::Run(options) = arguments.command else { anyhow::bail!("not what runs") };
        let stop = self.stop.child_token();
        let stopping = stop.clone();
        let task = tokio::spawn(loud("latency-probe", async move { Ok(latency_probe::run_daemon(&options, stopping).await?) }));
        Ok(Stopped { stop, task })
    }

    /// A real Envoy as the gateway of a node, with the deployed bootstrap.
    pub(crate) fn gateway(&self, node: &str, xds: SocketAddr) -> anyhow::Result<Process> {
        let at = self.node_address(node)?;
        let folder = self.stage.folder();
        let mut bootstrap = BOOTSTRAP.to_owned();
        for (from, to) in [
            ("address: locality-ingress.kantai-system.svc", format!("address: {}", xds.ip())),
            ("/run/kantai/admin.sock", folder.join(format!("admin-{node}.sock")).to_string_lossy().into_owned()),
            ("address: 0.0.0.0, port_value: 9000", format!("address: {at}, port_value: 9000")),
        ] {
            anyhow::ensure!(bootstrap.contains(from), "the bootstrap has no {from:?} any more");
            bootstrap = bootstrap.replace(from, &to);
        }
        bootstrap.push_str(&format!("node:\n  metadata: {{ listen_address: \"{at}\" }}\n"));
        let file = folder.join(format!("envoy-{node}.yaml"));
        std::fs::write(&file, bootstrap)?;
        let mut command = Command::new(self.components.path(Component::Envoy)?);
        command.arg("--config-path").arg(&file).args(["--service-node", node, "--service-cluster", "kantai-gateway"]);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        Process::start(command, &folder.join(format!("envoy-{node}.log")))
    }

    /// A real Prometheus that scrapes the probers, behind the Service `prometheus` of the namespace
    /// `monitoring`.
    pub(crate) async fn prometheus(&self) -> anyhow::Result<Process> {
        let at = address(1, DAEMON + 1);
        let client = self.stage.client();
        let labels = json!({"app": "prometheus"});
        apply(&client, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}})).await?;
        apply(
            &client,
            &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "monitoring", "name": "prometheus"},
                "spec": {"selector": labels, "ports": [{"port": 9090}]}}),
        )
        .await?;
        // The API server leads to endpoints that are pods, and to no others.
        let pods: Api<Pod> = Api::namespaced(client.clone(), "monitoring");
        let pod = json!({"metadata": {"name": "prometheus-0", "labels": labels},
            "spec": {"nodeName": "node01", "containers": [{"name": "prometheus", "image": "registry.example/prometheus"}]}});
        let pod: Pod = serde_json::from_value(pod)?;
        eventually("a pod may be made in the new namespace", async || {
            Ok(pods.create(&PostParams::default(), &pod).await.map(drop).map_err(|error| error.to_string()))
        })
        .await?;
        set_ready(&pods, "prometheus-0", true, Some(at)).await?;
        let folder = self.stage.folder();
        let targets = self.stage.nodes.iter().map(|node| Ok(format!("{}:9798", self.node_address(node)?)));
        let config = json!({"scrape_configs": [{"job_name": "probers", "scrape_interval": "1s",
            "static_configs": [{"targets": targets.collect::<anyhow::Result<Vec<_>>>()?}]}]});
        let file = folder.join("prometheus.yaml");
        std::fs::write(&file, config.to_string())?;
        let mut command = Command::new(self.components.path(Component::Prometheus)?);
        command.arg(format!("--config.file={}", file.display())).arg(format!("--web.listen-address={at}:9090"));
        command.arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()));
        Process::start(command, &folder.join("prometheus.log"))
    }

    /// Makes a pod that the Deployment of a daemon has asked for ready at an address.
    async fn adopt(&self, daemon: &str, at: IpAddr) -> anyhow::Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.stage.client(), SYSTEM_NAMESPACE);
        let selector = ListParams::default().labels(&format!("app.kubernetes.io/name={daemon}"));
        let name = eventually(&format!("{daemon} has a pod"), async || {
            let first = pods.list(&selector).await?.items.first().map(ResourceExt::name_any);
            Ok(first.ok_or_else(|| "none".to_owned()))
        })
        .await?;
        set_ready(&pods, &name, true, Some(at)).await?;
        Ok(name)
    }

    /// What `kubectl kantai` says, and with which exit code; the error where it has no answer.
    pub(crate) async fn asks(&self, arguments: &[&str]) -> Result<(String, ExitCode), kubectl_kantai::PluginError> {
        let kubeconfig = self.stage.control_plane().kubeconfig(User::Admin);
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let line = ["kubectl-kantai", &kubeconfig].into_iter().chain(arguments.iter().copied());
        let options = kubectl_kantai::Options::try_parse_from(line).expect("the test's command line is right");
        let mut text = Vec::new();
        let code = kubectl_kantai::run(options, &mut text, false).await?;
        Ok((String::from_utf8_lossy(&text).into_owned(), code))
    }

    /// What `kubectl kantai` says.
    pub(crate) async fn says(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (text, _) = self.asks(arguments).await.with_context(|| format!("kubectl kantai {}", arguments.join(" ")))?;
        Ok(text)
    }

    /// Asks until the answer is as it should be.
    pub(crate) async fn until(&self, what: &str, arguments: &[&str], is_right: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        eventually(what, async || {
            Ok(match self.asks(arguments).await {
                Ok((text, _)) if is_right(&text) => Ok(text),
                Ok((text, _)) => Err(text),
                Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
            })
        })
        .await
    }
}

/// A part in the test's own process, until it is stopped.
pub(crate) struct Stopped {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Stopped {
    /// Stops it, and waits until its addresses are free.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

/// A process that is killed with this.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(mut command: Command, log: &std::path::Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log)?;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self(child.with_context(|| format!("failed to start {:?}", command.get_program()))?))
    }

    /// Holds it still: it answers nobody, and does not end.
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id().cast_signed()), nix::sys::signal::Signal::SIGSTOP)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program `latency-probe`, built if it has changed.
pub(crate) fn prober_binary() -> anyhow::Result<PathBuf> {
    let mut cargo = nested_cargo::cargo();
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--package=latency-probe", "--bin=latency-probe"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let output = cargo.output().context("failed to start cargo")?;
    anyhow::ensure!(output.status.success(), "failed to build latency-probe: {}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout)?;
    let messages = printed.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut executables = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    executables.next().context("cargo names no executable")
}

/// Says why a daemon ended.
async fn loud(name: &str, running: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = running.await {
        eprintln!("{name}: {error:#}");
    }
}
