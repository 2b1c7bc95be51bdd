//! The control plane that other tests stand on.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kantai_tests::eventually;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use local_control_plane::components::{Component, Components};
use local_control_plane::control_plane::{ControlPlane, Controllers, Lifetime, Options, Place, User};
use local_control_plane::progress::Progress;
use serde_json::json;

#[tokio::test]
async fn a_real_api_server_with_its_controllers_starts_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let control_plane = ControlPlane::for_tests().await?;
    let client = control_plane.client();
    let version = client.apiserver_version().await?;
    assert_eq!(version.major, "1");
    assert_ne!(version.git_version, "v0.0.0", "Knative refuses an API server without a version");

    // The controllers work: a Deployment gets its pod, and its deletion takes the pod along.
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let deployment = serde_json::from_value(json!({
        "metadata": {"name": "smoke"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "smoke"}},
            "template": {
                "metadata": {"labels": {"app": "smoke"}},
                "spec": {"containers": [{"name": "smoke", "image": "dev.local/smoke:1"}]},
            },
        },
    }))?;
    deployments.create(&PostParams::default(), &deployment).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    wait_for_pods(&pods, 1).await?;
    deployments.delete("smoke", &DeleteParams::background()).await?;
    wait_for_pods(&pods, 0).await?;

    // Every namespace knows the cluster's authority.
    let namespaces: Api<Namespace> = Api::all(client.clone());
    assert!(namespaces.get_opt("kube-system").await?.is_some());
    let config_maps: Api<ConfigMap> = Api::namespaced(client, "default");
    eventually("the cluster's authority is published", || async {
        Ok(config_maps.get_opt("kube-root-ca.crt").await?.ok_or("there is no such ConfigMap".to_owned()))
    })
    .await?;

    // A node's credentials are a node's: it may not read what a node has no business with.
    let node = control_plane.admit_node("node1", "127.0.0.1".parse()?)?;
    let kubeconfig = kube::config::Kubeconfig::read_from(&node.kubeconfig)?;
    let node = kube::Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?;
    let denied = Api::<ConfigMap>::namespaced(node, "default").list(&ListParams::default()).await;
    assert!(matches!(denied, Err(kube::Error::Api(status)) if status.code == 403));

    let (folder, pids): (_, Vec<_>) = (control_plane.folder().to_owned(), control_plane.pids().map(|(_, pid)| pid).collect());
    assert!(control_plane.kubeconfig(User::Admin).is_file());
    assert_eq!(pids.len(), 3);
    drop(control_plane);
    assert!(!folder.exists());
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
    Ok(())
}

async fn wait_for_pods(pods: &Api<Pod>, wanted: usize) -> anyhow::Result<()> {
    eventually(&format!("there are {wanted} pods"), || async {
        let found = pods.list(&ListParams::default()).await?.items.len();
        Ok(if found == wanted { Ok(()) } else { Err(format!("there are {found}")) })
    })
    .await
}

#[tokio::test]
async fn a_control_plane_in_a_network_namespace_can_be_left_running() -> anyhow::Result<()> {
    let wanted = [Component::KubeApiserver, Component::Etcd];
    let components = tokio::task::spawn_blocking(move || Components::ensure(&wanted, &Progress::to_stderr())).await??;
    let folder = tempfile::tempdir()?;
    let network = NetworkNamespace::new("10.213.77.1/30", "10.213.77.2/30")?;
    let options = Options {
        folder: folder.path().to_owned(),
        place: Place::Namespace { file: network.file(), address: "10.213.77.2".parse()? },
        controllers: Controllers::None,
        scheduler: false,
        lifetime: Lifetime::MayOutliveUs,
        api_server_flags: Vec::new(),
        controller_manager_flags: Vec::new(),
    };
    let control_plane = ControlPlane::start(&options, &components).await?;
    let client = control_plane.client();
    let pids: Vec<_> = control_plane.pids().map(|(_, pid)| pid).collect();
    control_plane.leave_running();
    client.apiserver_version().await?;

    assert!(ControlPlane::stop_left_running(folder.path())?);
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists(), "process {pid} still runs");
    }
    assert!(!ControlPlane::stop_left_running(folder.path())?, "there is nothing left to stop");
    Ok(())
}

/// A network namespace that the host reaches, and that goes when the test ends.
struct NetworkNamespace {
    name: String,
}

impl NetworkNamespace {
    fn new(address_here: &str, address_there: &str) -> anyhow::Result<Self> {
        // Interface names have at most 15 characters.
        let name = format!("ktest{}", std::process::id());
        let here = format!("{name}h");
        ip(&format!("netns add {name}"))?;
        let namespace = Self { name: name.clone() };
        ip(&format!("link add {here} type veth peer name eth0 netns {name}"))?;
        ip(&format!("address add {address_here} dev {here}"))?;
        ip(&format!("link set {here} up"))?;
        ip(&format!("-netns {name} address add {address_there} dev eth0"))?;
        ip(&format!("-netns {name} link set eth0 up"))?;
        ip(&format!("-netns {name} link set lo up"))?;
        Ok(namespace)
    }

    fn file(&self) -> std::path::PathBuf {
        std::path::Path::new("/run/netns").join(&self.name)
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // The pair of interfaces goes with the namespace, as soon as no process is in it any more.
        let _ = ip(&format!("link delete {}h", self.name));
        let _ = ip(&format!("netns delete {}", self.name));
    }
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let status = std::process::Command::new("ip").args(arguments.split_whitespace()).status()?;
    anyhow::ensure!(status.success(), "failed to run ip {arguments}: it ended with {status}");
    Ok(())
}
