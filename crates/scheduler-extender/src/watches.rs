//! What the API server holds: nodes with their places, the endpoints of Services, and the probers.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_api::client::WATCH_SECONDS;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, reflector as reflect, watcher};
use kube::{Api, Client, ResourceExt as _};
use latency_matrix::NodeName;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::network::{REGION_LABEL, ZONE_LABEL};
use crate::services::Services;
use crate::verbs::Verbs;

/// Objects on one page of a list.
const LISTED_AT_ONCE: u32 = 500;

/// Nodes by name, each with the labels that say where it is.
pub(crate) type Places = BTreeMap<NodeName, BTreeMap<String, String>>;

/// Follows the nodes; the receiver has them once they were listed.
pub(crate) fn nodes(client: &Client, tasks: &mut JoinSet<()>) -> watch::Receiver<Option<Arc<Places>>> {
    let (sender, receiver) = watch::channel(None);
    let events = watcher(Api::<PartialObjectMeta<Node>>::all(client.clone()), everything()).default_backoff();
    tasks.spawn(async move {
        let (mut places, mut listed) = (Places::new(), Places::new());
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            let before = places.clone();
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(node)) => drop(listed.insert(node.name_any().into(), place(&node))),
                Ok(watcher::Event::InitDone) => places = std::mem::take(&mut listed),
                Ok(watcher::Event::Apply(node)) => drop(places.insert(node.name_any().into(), place(&node))),
                Ok(watcher::Event::Delete(node)) => drop(places.remove(node.name_any().as_str())),
                // The watch goes on by itself, with a pause.
                Err(error) => {
                    interrupted::<Node>(&error);
                    continue;
                }
            }
            // Nodes change every few seconds, their places hardly ever.
            if places != before {
                sender.send_replace(Some(Arc::new(places.clone())));
            }
        }
    });
    receiver
}

fn place(node: &PartialObjectMeta<Node>) -> BTreeMap<String, String> {
    let is_place = |(key, _): &(&String, &String)| [ZONE_LABEL, REGION_LABEL].contains(&key.as_str());
    node.labels().iter().filter(is_place).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Follows the endpoints of all Services into `verbs`; the receiver says when they were listed.
pub(crate) fn services(client: &Client, verbs: &Arc<Verbs>, tasks: &mut JoinSet<()>) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let events = watcher(Api::<EndpointSlice>::all(client.clone()), everything()).default_backoff();
    let verbs = verbs.clone();
    tasks.spawn(async move {
        let mut listed = Services::default();
        let change =
            |change: &mut dyn FnMut(&mut Services)| change(&mut verbs.services.write().unwrap_or_else(PoisonError::into_inner));
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = Services::default(),
                Ok(watcher::Event::InitApply(slice)) => listed.apply(&slice),
                Ok(watcher::Event::InitDone) => {
                    change(&mut |services| *services = std::mem::take(&mut listed));
                    sender.send_replace(true);
                }
                Ok(watcher::Event::Apply(slice)) => change(&mut |services| services.apply(&slice)),
                Ok(watcher::Event::Delete(slice)) => change(&mut |services| services.remove(&slice)),
                Err(error) => interrupted::<EndpointSlice>(&error),
            }
        }
    });
    receiver
}

/// Waits until nodes and endpoints were listed, and says so to `verbs`.
///
/// # Errors
/// Where a watch has ended, which only the program's end does.
pub(crate) async fn filled(
    verbs: &Verbs,
    mut nodes: watch::Receiver<Option<Arc<Places>>>,
    mut services: watch::Receiver<bool>,
) -> Result<(), watch::error::RecvError> {
    nodes.wait_for(Option::is_some).await?;
    services.wait_for(|listed| *listed).await?;
    verbs.is_warm.store(true, Ordering::Release);
    Ok(())
}

/// Follows the pods of the probers, which carry `selector`; says their nodes and addresses on
/// `port`.
pub(crate) fn probers(
    client: &Client,
    namespace: &str,
    selector: &str,
    port: u16,
    tasks: &mut JoinSet<()>,
) -> impl Fn() -> Vec<(NodeName, SocketAddr)> + Send + Sync + use<> {
    let (store, writer) = reflector::store::<Pod>();
    let selected = everything().labels(selector);
    let events = reflect(writer, watcher(Api::namespaced(client.clone(), namespace), selected).modify(trim).default_backoff());
    tasks.spawn(async move {
        let mut events = std::pin::pin!(events.into_stream());
        while let Some(event) = events.next().await {
            if let Err(error) = event {
                interrupted::<Pod>(&error);
            }
        }
    });
    move || ready(&store, port)
}

fn ready(pods: &Store<Pod>, port: u16) -> Vec<(NodeName, SocketAddr)> {
    let address = |pod: &Pod| {
        let status = pod.status.as_ref()?;
        let is_ready =
            |condition: &k8s_openapi::api::core::v1::PodCondition| condition.type_ == "Ready" && condition.status == "True";
        status.conditions.iter().flatten().any(is_ready).then_some(())?;
        let address: IpAddr = status.pod_ip.as_ref()?.parse().ok()?;
        Some((pod.spec.as_ref()?.node_name.as_deref()?.into(), SocketAddr::new(address, port)))
    };
    pods.state().iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).filter_map(|pod| address(pod)).collect()
}

/// Where a pod is and whether it is ready is all that is asked of it.
fn trim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        (spec.volumes, spec.affinity, spec.tolerations, spec.containers) = (None, None, None, Vec::new());
    }
}

fn everything() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS).page_size(LISTED_AT_ONCE)
}

fn interrupted<K: Debug>(error: &watcher::Error) {
    tracing::warn!(kind = std::any::type_name::<K>(), %error, "watch was interrupted");
}
