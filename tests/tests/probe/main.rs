//! Probers that find each other through a real API server: under the prober's own ServiceAccount
//! and rights, over the EndpointSlices that the real controller makes of its own Service and pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kantai_tests::api_server::{SYSTEM_NAMESPACE, apply, config_of, documents};
use kantai_tests::eventually;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use latency_probe::discovery::watch_service;
use latency_probe::{Peer, PeerSet, Ports};
use local_control_plane::control_plane::ControlPlane;
use serde_json::json;
use tokio::sync::watch;

const RBAC: &str = include_str!("../../../deploy/latency-probe/rbac.yaml");
const SERVICE: &str = include_str!("../../../deploy/latency-probe/service.yaml");
const NAME: &str = "latency-probe";
/// Not the default ports, so that what is found must come from the slices.
const ECHO_PORT: u16 = 19_799;
const HTTP_PORT: u16 = 19_798;

/// A client with the prober's own rights, and no others.
async fn probers_client(control_plane: &ControlPlane) -> anyhow::Result<Client> {
    Ok(Client::try_from(config_of(control_plane, NAME).await?)?)
}

/// A prober's pod on a node in a zone, as scheduler and kubelet would leave it.
async fn prober(client: &Client, node: &str, zone: &str, ip: &str, ready: bool) -> anyhow::Result<()> {
    prober_named(client, &format!("{NAME}-{node}"), node, zone, ip, ready).await
}

async fn prober_named(client: &Client, name: &str, node: &str, zone: &str, ip: &str, ready: bool) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let labels = json!({"topology.kubernetes.io/zone": zone});
    if nodes.get_opt(node).await?.is_none() {
        let created = serde_json::from_value(json!({"metadata": {"name": node, "labels": labels}}))?;
        nodes.create(&PostParams::default(), &created).await?;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": NAME}},
        "spec": {
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": NAME, "image": "dev.local/x:1", "ports": [
                {"name": "metrics", "containerPort": HTTP_PORT, "protocol": "TCP"},
                {"name": "echo", "containerPort": ECHO_PORT, "protocol": "UDP"},
            ]}],
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": ready}]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

fn peer(ip: &str, zone: &str) -> anyhow::Result<Peer> {
    Ok(Peer { http_port: HTTP_PORT, zone: Some(zone.into()), ..Peer::at((ip.parse::<std::net::IpAddr>()?, ECHO_PORT).into()) })
}

async fn peers_become(found: &watch::Receiver<Arc<PeerSet>>, wanted: PeerSet) -> anyhow::Result<()> {
    eventually("the peers are those that there are", || async {
        let now = found.borrow().clone();
        Ok(if *now == wanted { Ok(()) } else { Err(format!("{now:?} instead of {wanted:?}")) })
    })
    .await
}

/// A real API server with the prober's Service and rights, in which pods may be made.
async fn cluster() -> anyhow::Result<(ControlPlane, Client)> {
    let control_plane = ControlPlane::for_tests().await?;
    let client = control_plane.client();
    apply(&client, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}})).await?;
    for manifest in documents(RBAC)?.into_iter().chain(documents(SERVICE)?) {
        apply(&client, &manifest).await?;
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    eventually("pods may be made", || async {
        Ok(accounts.get_opt("default").await?.map(drop).ok_or("no service account yet".to_owned()))
    })
    .await?;
    Ok((control_plane, client))
}

/// A rollout that starts the new pod first publishes its address before its image is there; the old
/// one answers until then.
#[tokio::test]
async fn a_pod_that_is_not_ready_does_not_displace_the_one_that_answers() -> anyhow::Result<()> {
    let (control_plane, client) = cluster().await?;
    let own = probers_client(&control_plane).await?;
    let (peers_out, peers) = watch::channel(Arc::new(BTreeMap::new()));
    let watching = tokio::spawn(async move {
        watch_service(own, SYSTEM_NAMESPACE, NAME, Ports::DEFAULT, peers_out, || ()).await;
    });
    prober(&client, "node1", "east", "10.1.0.9", true).await?;
    let answering = || Ok::<_, anyhow::Error>(PeerSet::from([("node1".into(), peer("10.1.0.9", "east")?)]));
    peers_become(&peers, answering()?).await?;
    prober_named(&client, "new-on-node1", "node1", "east", "10.1.0.1", false).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    eventually("both are published", || async {
        let published = slices.list(&ListParams::default()).await?.items.into_iter().flat_map(|slice| slice.endpoints);
        let conditions = published.filter_map(|endpoint| endpoint.conditions).collect::<Vec<_>>();
        // The Service publishes addresses that are not ready, so that `ready` says nothing.
        let ready = conditions.iter().all(|conditions| conditions.ready == Some(true));
        let serving = conditions.iter().filter(|conditions| conditions.serving == Some(true)).count();
        Ok(if (conditions.len(), ready, serving) == (2, true, 1) { Ok(()) } else { Err(format!("{conditions:?}")) })
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(**peers.borrow(), answering()?);

    // Once it is up and the old one goes, it takes over.
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    pods.delete("latency-probe-node1", &DeleteParams::default().grace_period(0)).await?;
    peers_become(&peers, [("node1".into(), peer("10.1.0.1", "east")?)].into()).await?;
    drop(peers);
    watching.await?;
    Ok(())
}

#[tokio::test]
async fn probers_find_each_other_with_nodes_and_zones_and_lose_who_goes() -> anyhow::Result<()> {
    let (control_plane, client) = cluster().await?;
    let own = probers_client(&control_plane).await?;
    let (peers_out, peers) = watch::channel(Arc::new(BTreeMap::new()));
    let watching = tokio::spawn(async move {
        watch_service(own, SYSTEM_NAMESPACE, NAME, Ports::DEFAULT, peers_out, || ()).await;
    });

    // One that is not ready is found too: who is not reached cannot say so itself.
    prober(&client, "node1", "east", "10.1.0.1", true).await?;
    prober(&client, "node2", "west", "10.1.0.2", false).await?;
    let both =
        || Ok::<_, anyhow::Error>([("node1".into(), peer("10.1.0.1", "east")?), ("node2".into(), peer("10.1.0.2", "west")?)]);
    peers_become(&peers, both()?.into()).await?;

    // Another joins; then a prober comes back at another address.
    prober(&client, "node3", "west", "10.1.0.3", true).await?;
    let three = || Ok::<_, anyhow::Error>(both()?.into_iter().chain([("node3".into(), peer("10.1.0.3", "west")?)]));
    peers_become(&peers, three()?.collect()).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete("latency-probe-node3", &at_once).await?;
    peers_become(&peers, both()?.into()).await?;
    prober(&client, "node3", "west", "10.1.0.33", true).await?;
    peers_become(&peers, both()?.into_iter().chain([("node3".into(), peer("10.1.0.33", "west")?)]).collect()).await?;

    // Endpoints of other Services in the namespace are no peers.
    let stranger = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "stranger", "namespace": SYSTEM_NAMESPACE, "labels": {"kubernetes.io/service-name": "other"}},
        "endpoints": [{"addresses": ["10.9.9.9"], "nodeName": "node9"}], "ports": []});
    apply(&client, &stranger).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!peers.borrow().contains_key("node9"));

    // Without any pod there are no peers; the watch continues.
    for node in ["node1", "node2", "node3"] {
        pods.delete(&format!("latency-probe-{node}"), &at_once).await?;
    }
    peers_become(&peers, PeerSet::new()).await?;
    drop(peers);
    watching.await?;
    Ok(())
}

#[tokio::test]
async fn a_prober_may_watch_its_endpoints_and_nothing_else() -> anyhow::Result<()> {
    let control_plane = ControlPlane::for_tests().await?;
    let client = control_plane.client();
    apply(&client, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}})).await?;
    for manifest in documents(RBAC)? {
        apply(&client, &manifest).await?;
    }
    let own = probers_client(&control_plane).await?;
    let list = ListParams::default();
    Api::<EndpointSlice>::namespaced(own.clone(), SYSTEM_NAMESPACE).list(&list).await?;
    let forbidden = |denied: Option<kube::Error>| matches!(denied, Some(kube::Error::Api(status)) if status.code == 403);
    assert!(forbidden(Api::<Node>::all(own.clone()).list(&list).await.err()));
    assert!(forbidden(Api::<Pod>::namespaced(own.clone(), SYSTEM_NAMESPACE).list(&list).await.err()));
    assert!(forbidden(Api::<EndpointSlice>::namespaced(own, "default").list(&list).await.err()));
    Ok(())
}
