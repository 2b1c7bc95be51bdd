//! Placement by the real scheduler.

// A panic is how a test says that something is wrong.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use k8s_api::seika::Seika;
use k8s_openapi::api::core::v1::Node;
use kantai_tests::seika::cluster::{Cluster, node_of, until};
use kube::api::{Api, Patch, PatchParams};
use local_control_plane::components::{Component, Components};
use local_control_plane::control_plane::{ControlPlane, Controllers, Lifetime, Options, Place};
use local_control_plane::progress::Progress;
use serde_json::json;

use crate::condition;

/// Host names that are those of other nodes: whoever goes by them puts each pod on the wrong one.
#[tokio::test(flavor = "multi_thread")]
async fn pods_run_on_the_node_of_that_name_whatever_its_host_name() -> anyhow::Result<()> {
    let wanted = [Component::KubeApiserver, Component::Etcd, Component::KubeControllerManager, Component::KubeScheduler];
    let ensure = move || Components::ensure(&wanted, &Progress::to_stderr());
    let components = tokio::task::spawn_blocking(ensure).await??;
    let folder = tempfile::Builder::new().prefix("kantai-placement-").tempdir()?;
    let options = Options {
        folder: folder.path().to_owned(),
        place: Place::Loopback,
        controllers: Controllers::without_nodes(),
        scheduler: true,
        lifetime: Lifetime::WithUs,
        api_server_flags: Vec::new(),
        controller_manager_flags: Vec::new(),
    };
    let mut control_plane = ControlPlane::start(&options, &components).await?;
    control_plane.wait_for_controllers().await?;
    let cluster = Cluster::on(control_plane).await?;

    let case = cluster.case(3).await?;
    let nodes: Api<Node> = Api::all(case.client.clone());
    let room = json!({ "cpu": "8", "memory": "8Gi", "pods": "110" });
    for (node, next) in case.nodes.iter().zip(case.nodes.iter().cycle().skip(1)) {
        let host_name = json!({ "metadata": { "labels": { "kubernetes.io/hostname": next } } });
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(host_name)).await?;
        let status = json!({ "status": { "capacity": room, "allocatable": room } });
        nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    case.create(case.sample(&[1, 2, 3])?).await?;
    let bound = async || {
        let mut bound = BTreeMap::new();
        for pod in case.active().await? {
            if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
                anyhow::ensure!(node == node_of(&pod), "a pod for {} is bound to {node}", node_of(&pod));
                *bound.entry(node).or_insert(0) += 1;
            }
        }
        anyhow::Ok(bound)
    };
    let counts =
        |counts: [i32; 3]| case.nodes.iter().cloned().zip(counts).filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>();
    until("all pods are bound to their nodes", async || Ok(bound().await? == counts([1, 2, 3]))).await?;

    // A node that takes no pods: the new one waits, is counted, and says why.
    nodes.patch(&case.nodes[0], &PatchParams::default(), &Patch::Merge(json!({ "spec": { "unschedulable": true } }))).await?;
    case.set(&[2, 2, 3]).await?;
    let cordoned = |seika: &Seika| {
        let nodes = seika.status.as_ref().map(|status| &status.per_node[..]).unwrap_or_default();
        nodes.iter().any(|node| node.current == 2 && node.reason.as_deref() == Some("NodeCordoned"))
    };
    case.until_status("the cordoned node is told of", cordoned).await?;
    anyhow::ensure!(case.per_node().await? == [2, 2, 3], "{:?}", case.per_node().await?);
    nodes.patch(&case.nodes[0], &PatchParams::default(), &Patch::Merge(json!({ "spec": { "unschedulable": false } }))).await?;
    until("it is bound where the node takes pods again", async || Ok(bound().await? == counts([2, 2, 3]))).await?;
    case.make_all_ready().await?;
    case.until_status("all are ready", |seika| condition(seika, "Available").0 == "True").await?;
    drop(case);
    drop(cluster);
    Ok(())
}
