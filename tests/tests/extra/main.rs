//! extra-controller and seika-controller together on a real API server, under their own rights.
//! Knative's own controllers, kubelets and gateways are played by the test.

mod cluster;
mod fakes;

use std::time::Duration;

use autoscaler::handback::MARKER;
use autoscaler::room::requests_of_pod;
use extra_controller::{hand_back, pins};
use k8s_api::seika::Seika;
use k8s_api::{CLASS, PodAutoscaler, ServerlessService, ServingMode};
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, Node, Pod};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use cluster::{Cluster, Daemon, REVISION, apply, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_from_birth_to_zero_and_back_switched_off_and_on_and_deleted() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let daemon = cluster.daemon("one").await?;
    cluster.revision().await?;

    until("a ServerlessService", async || Ok(cluster.api::<ServerlessService>().get_opt(REVISION).await?.is_some())).await?;
    let sks = cluster.api::<ServerlessService>().get(REVISION).await?;
    assert_eq!((sks.spec.mode, sks.spec.num_activators), (ServingMode::Proxy, 0));
    assert!(!sks.annotations().contains_key("autoscaling.knative.dev/metric"));
    assert_eq!(sks.owner_references()[0].kind, "PodAutoscaler");
    until("ready by the Deployment's pod", async || Ok(cluster.condition("Ready").await? == "True")).await?;
    let status = cluster.autoscaler().await?.status.unwrap_or_default();
    assert_eq!((status.service_name.as_str(), status.metrics_service_name.as_str()), (REVISION, "hello-00001-private"));
    assert!(status.is_initialized());
    // The bootstrap pod is capacity: nothing is doubled.
    assert_eq!((cluster.counts().await?, cluster.replicas().await?), (Some(vec![]), 1));

    until("inactive after its window", async || Ok(cluster.condition("Active").await? == "False")).await?;
    until("no pod at all", async || Ok(cluster.replicas().await? == 0 && cluster.pods().await?.is_empty())).await?;
    assert_eq!(cluster.condition("ScaleTargetInitialized").await?, "True");

    cluster.gateways.hold("node3", 1);
    until("a pod asked for on node3", async || Ok(cluster.counts().await? == Some(vec![("node3".to_owned(), 1)]))).await?;
    until("active again", async || Ok(cluster.condition("Active").await? == "True")).await?;
    assert_eq!(cluster.pods().await?, ["node3"]);
    until("past the activators", async || {
        Ok(cluster.api::<ServerlessService>().get(REVISION).await?.spec.mode == ServingMode::Serve)
    })
    .await?;
    until("weights that lead to node3", async || {
        Ok(daemon.get("/api/weight/okasan/hello/kodomo/hello-00001").await?.1 == "[[0,0,100],[0,0,100],[0,0,100]]")
    })
    .await?;
    assert_eq!(daemon.get("/api/weight/okasan/hello/kodomo/other").await?, (404, "\"NotFound\"".to_owned()));

    // The reasons are on the Seika, and at the endpoint that explains.
    let said = cluster.api::<Seika>().get(REVISION).await?.annotations()["placement.kantai.dev/decision"].clone();
    assert!(said.contains("pods: node3 1"), "{said}");
    let (code, explained) = daemon.get("/v1/explain/default/hello-00001").await?;
    assert!(code == 200 && explained.contains("Pods per node: node3 1."), "{explained}");

    // Load from the other end as well: each end gets its own.
    cluster.gateways.hold("node1", 12);
    until("pods on both ends", async || {
        let counts = cluster.counts().await?.unwrap_or_default();
        Ok(counts.iter().map(|(node, _)| node.as_str()).eq(["node1", "node3"]))
    })
    .await?;
    until("all of them ready", async || {
        let seika = cluster.api::<Seika>().get(REVISION).await?;
        let status = seika.status.unwrap_or_default();
        Ok(status.ready_replicas == status.desired_replicas && status.desired_replicas >= 3)
    })
    .await?;

    // The probers hear of both ends, by the ConfigMap that the manifests made.
    until("both ends pinned", async || {
        let pins: Api<ConfigMap> = Api::namespaced(cluster.control_plane.client(), "kantai-system");
        let text = pins.get(pins::CONFIG_MAP).await?.data.unwrap_or_default().remove(pins::KEY).unwrap_or_default();
        let nodes: Vec<&str> = text.lines().collect();
        anyhow::ensure!(nodes.is_sorted() && nodes.iter().all(|node| ["node1", "node2", "node3"].contains(node)), "{text:?}");
        Ok(nodes.contains(&"node1") && nodes.contains(&"node3"))
    })
    .await?;

    // Off: never fewer pods than before, and the class changes hands last.
    let before = cluster.pods().await?.len();
    cluster.toggle(false).await?;
    until("handed back", async || {
        let pods = cluster.pods().await?.len();
        anyhow::ensure!(pods >= before, "{pods} pods instead of {before}");
        Ok(cluster.autoscaler().await?.class() != CLASS)
    })
    .await?;
    let autoscaler = cluster.autoscaler().await?;
    assert_eq!(autoscaler.annotations()["autoscaling.knative.dev/metric"], "concurrency");
    assert_eq!(autoscaler.annotations()[MARKER], "podautoscaler");
    until("no Seika", async || Ok(cluster.counts().await?.is_none())).await?;
    assert_eq!(cluster.replicas().await? as usize, before);

    // On: taken over; the Deployment's pods go as others stand in for them.
    cluster.toggle(true).await?;
    until("taken over", async || Ok(cluster.autoscaler().await?.class() == CLASS && cluster.counts().await?.is_some())).await?;
    assert!(!cluster.autoscaler().await?.annotations().contains_key(MARKER));

    // As before an uninstall: off again, under the rights of the Job that does it.
    hand_back(cluster.hand_back_client().await?, Duration::from_secs(120)).await?;
    assert_ne!(cluster.autoscaler().await?.class(), CLASS);
    let ended = hand_back_without_anybody(&cluster, daemon).await?;
    assert!(ended.contains("1 revisions are not handed back") && ended.contains("default/hello-00001"), "{ended}");
    let daemon = cluster.daemon("two").await?;

    cluster.gateways.hold("node1", 0);
    cluster.gateways.hold("node3", 0);
    cluster.api::<PodAutoscaler>().delete(REVISION, &DeleteParams::background()).await?;
    until("nothing left", async || {
        let services = cluster.api::<ServerlessService>().list(&ListParams::default()).await?.items.len();
        Ok(cluster.counts().await?.is_none() && services == 0)
    })
    .await?;
    daemon.stop().await
}

/// What the hand-back says where nobody does it: the daemon is gone, and the class is there again.
async fn hand_back_without_anybody(cluster: &Cluster, daemon: Daemon) -> anyhow::Result<String> {
    daemon.stop().await?;
    let class = json!({"metadata": {"annotations": {"autoscaling.knative.dev/class": CLASS}}});
    cluster.api::<PodAutoscaler>().patch(REVISION, &PatchParams::default(), &Patch::Merge(class)).await?;
    let ended = hand_back(cluster.hand_back_client().await?, Duration::from_secs(1)).await;
    Ok(ended.err().map(|error| error.to_string()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_leads_and_the_next_goes_on_from_what_is_there() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let [one, two] = [cluster.own_pod("node1").await?, cluster.own_pod("node2").await?];
    let first = cluster.daemon(&one).await?;
    cluster.revision().await?;
    until("ready", async || Ok(cluster.condition("Ready").await? == "True")).await?;
    let second = cluster.daemon(&two).await?;
    cluster.gateways.hold("node3", 30);
    // 30 held for 7 per pod; the bootstrap pod on node1 has gone by the time that all is still.
    until("five pods on node3 and no other", async || {
        let asked = cluster.counts().await? == Some(vec![("node3".to_owned(), 5)]);
        Ok(asked && cluster.replicas().await? == 0 && cluster.pods().await? == ["node3"; 5])
    })
    .await?;
    assert_eq!(second.get("/v1/routes").await.map(|(status, _)| status)?, 503);
    until("the Service leads to the first", async || Ok(cluster.behind_the_service().await? == [one.as_str()])).await?;
    let before = cluster.counts().await?;
    // Its pod stays, as that of a node that is gone does.
    first.stop().await?;
    until("the second leads", async || {
        anyhow::ensure!(cluster.counts().await? == before, "counts changed");
        let routes = reqwest::get(format!("http://{}/v1/routes", second.api)).await?;
        Ok(routes.status() == 200)
    })
    .await?;
    until("the Service leads to the second", async || Ok(cluster.behind_the_service().await? == [two.as_str()])).await?;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(cluster.counts().await?, before);

    // One that has taken the label, and does not lead, gives it back.
    let first = cluster.daemon(&one).await?;
    cluster.label_leading(&one).await?;
    until("the Service leads to the second alone", async || Ok(cluster.behind_the_service().await? == [two.as_str()])).await?;
    first.stop().await?;
    second.stop().await
}

/// It may run beside whoever leads, on somebody's real cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_decides_and_writes_nothing_at_all() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let daemon = cluster.daemon_with("dry", &["--dry-run"]).await?;
    cluster.revision().await?;
    // One that would be handed back, and one that would get pods, a route and pins.
    cluster.gateways.hold("node3", 30);
    until("decided", async || {
        let (code, explained) = daemon.get("/v1/explain/default/hello-00001").await?;
        Ok(code == 200 && explained.contains("node3"))
    })
    .await?;
    assert_eq!(daemon.get("/v1/routes").await?.0, 503, "whoever follows routes keeps those of the leader");
    cluster.toggle(false).await?;
    // Longer than pins are looked at, a Lease is asked for, and a write is tried again.
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    let writes = cluster.audit.writes()?;
    assert_eq!((writes.lease, writes.others), (0, Vec::<String>::new()));
    daemon.stop().await?;

    // The same with writes: the account does hold them.
    let daemon = cluster.daemon("one").await?;
    until("writes", async || Ok(!cluster.audit.writes()?.others.is_empty() && cluster.audit.writes()?.lease > 0)).await?;
    daemon.stop().await
}

/// As after an update of the program without its ClusterRole.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_what_is_added_to_pods_it_decides_all_the_same() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let roles: Api<ClusterRole> = Api::all(cluster.control_plane.client());
    let mut role = roles.get("kantai-extra-controller").await?;
    let adds = |rule: &PolicyRule| {
        let resources = rule.resources.iter().flatten();
        resources.into_iter().any(|resource| resource == "limitranges" || resource == "runtimeclasses")
    };
    let rules = role.rules.get_or_insert_default();
    let before = rules.len();
    rules.retain(|rule| !adds(rule));
    assert_eq!(before - rules.len(), 2);
    roles.replace("kantai-extra-controller", &PostParams::default(), &role).await?;
    let daemon = cluster.daemon("one").await?;
    cluster.revision().await?;
    cluster.gateways.hold("node3", 30);
    until("pods", async || Ok(cluster.counts().await?.is_some_and(|counts| !counts.is_empty()))).await?;
    daemon.stop().await
}

/// Of a revision at zero only the template tells, and the API server adds to its pods.
#[tokio::test(flavor = "multi_thread")]
async fn room_is_counted_as_the_api_server_makes_pods() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.control_plane.client();
    for object in [
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "requests", "namespace": "default"},
            "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "500m"}}]}}),
        json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata"}, "handler": "kata",
            "overhead": {"podFixed": {"cpu": "300m"}},
            "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}}),
    ] {
        apply(&client, &object).await?;
    }
    let nodes: Api<Node> = Api::all(client.clone());
    for node in ["node2", "node3"] {
        let labelled = Patch::Merge(json!({"metadata": {"labels": {"kata": "yes"}}}));
        nodes.patch(node, &PatchParams::default(), &labelled).await?;
    }
    let daemon = cluster.daemon("one").await?;
    let container = json!({"name": "user-container", "image": "dev.local/kantai/hello:0.1.0"});
    cluster.revision_of(&json!({"runtimeClassName": "kata", "containers": [container]})).await?;
    until("no pod at all", async || {
        Ok(cluster.condition("Active").await? == "False" && cluster.replicas().await? == 0 && cluster.pods().await?.is_empty())
    })
    .await?;

    // 700m are left on node3: enough for the request, or for the overhead, and not for both. The
    // other node that is near has not the label.
    let filler = json!({"metadata": {"name": "filler"}, "spec": {"nodeName": "node3",
        "containers": [{"name": "filler", "image": "dev.local/filler", "resources": {"requests": {"cpu": "1300m"}}}]}});
    let elsewhere: Api<Pod> = Api::namespaced(client.clone(), "kantai-system");
    elsewhere.create(&PostParams::default(), &serde_json::from_value(filler)?).await?;
    cluster.gateways.hold("node3", 1);
    until("a pod where it has room", async || Ok(cluster.counts().await? == Some(vec![("node2".to_owned(), 1)]))).await?;
    until("ready", async || Ok(cluster.condition("Active").await? == "True")).await?;

    // What was counted is what the API server made.
    let pods = cluster.api::<Pod>().list(&ListParams::default()).await?.items;
    let asked: Vec<u64> = pods.iter().map(|pod| requests_of_pod(pod).cpu_millis).collect();
    assert_eq!(asked, [800]);

    // Both are followed: with less asked for there is room on the node that asks.
    cluster.gateways.hold("node3", 0);
    until("no pod again", async || Ok(cluster.condition("Active").await? == "False" && cluster.pods().await?.is_empty())).await?;
    let limits: Api<LimitRange> = Api::namespaced(client, "default");
    limits.delete("requests", &DeleteParams::default()).await?;
    cluster.gateways.hold("node3", 1);
    until("a pod on node3", async || Ok(cluster.counts().await? == Some(vec![("node3".to_owned(), 1)]))).await?;
    daemon.stop().await
}
