//! Stands in for scheduler and kubelets: pods are bound where they must go, are ready a moment
//! later, and go when they are deleted. On nodes that are cut off nothing happens any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_api::seika::NODE_LABEL;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, reflector as reflect, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use super::stage::{NAMESPACE, is_ready, set_ready};

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Pods that are handled at once.
const AT_ONCE: usize = 8;

/// Scheduler and kubelets of all nodes.
#[derive(Clone)]
pub struct Kubelets {
    pods: Api<Pod>,
    store: Store<Pod>,
    first_node: String,
    cut: Arc<Mutex<BTreeSet<String>>>,
}

impl Kubelets {
    /// They work until the runtime ends. Pods that name no node go to `first_node`.
    #[must_use]
    pub fn start(client: Client, first_node: &str) -> Self {
        let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
        let store = follow(pods.clone());
        let kubelets = Self { pods, store, first_node: first_node.to_owned(), cut: Arc::default() };
        let working = kubelets.clone();
        tokio::spawn(async move {
            loop {
                working.look().await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        kubelets
    }

    /// All pods of revisions, as they are now.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.store.state()
    }

    /// Cuts a node off, or ends that. The node's own status is not touched.
    pub fn set_cut(&self, node: &str, is_cut: bool) {
        let mut cut = self.cut.lock().unwrap();
        if is_cut {
            cut.insert(node.to_owned())
        } else {
            cut.remove(node)
        };
    }

    async fn look(&self) {
        stream::iter(self.store.state()).for_each_concurrent(AT_ONCE, |pod| async move { self.act(&pod).await }).await;
    }

    /// What fails is tried again at the next look.
    async fn act(&self, pod: &Pod) {
        let name = pod.name_any();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let is_cut = node.is_some_and(|node| self.cut.lock().unwrap().contains(node));
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if is_cut {
            // As the node lifecycle controller does.
            if is_ready(pod) {
                let _ = set_ready(&self.pods, &name, false, None).await;
            }
        } else if pod.metadata.deletion_timestamp.is_some() || phase == Some("Failed") {
            let _ = self.pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
        } else if node.is_none() {
            let node = pod.labels().get(NODE_LABEL).unwrap_or(&self.first_node);
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
            let _: Result<Value, _> = self.pods.create_subresource("binding", &name, &PostParams::default(), &binding).await;
        } else if !is_ready(pod) {
            let _ = set_ready(&self.pods, &name, true, None).await;
        }
    }
}

/// Keeps a copy of all objects of a kind, until the runtime ends.
pub(super) fn follow<K>(api: Api<K>) -> Store<K>
where
    K: kube::Resource<DynamicType: Default + Eq + std::hash::Hash + Clone>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let events = reflect(writer, watcher(api, watcher::Config::default()).default_backoff());
    tokio::spawn(async move { events.for_each(|_| std::future::ready(())).await });
    store
}
