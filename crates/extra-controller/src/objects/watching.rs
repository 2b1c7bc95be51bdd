//! The watches.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, reflector as reflect, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use seika_controller::crd::Seika;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::Triggers;
use crate::knative::{PodAutoscaler, REVISION_LABEL, REVISION_UID_LABEL, ServerlessService};
use crate::settings::{ClusterSettings, Toggle};

/// Where to look for what.
#[derive(Clone, Debug)]
pub struct WatchScope {
    /// Knative's own namespace.
    pub knative_namespace: String,
}

/// All stores.
#[derive(Clone)]
pub struct Objects {
    /// All PodAutoscalers, of any class.
    pub autoscalers: Store<PodAutoscaler>,
    /// All pods of the cluster, without what no decision depends on.
    pub pods: Store<Pod>,
    /// All nodes.
    pub nodes: Store<Node>,
    /// Deployments of revisions.
    pub deployments: Store<Deployment>,
    /// All ServerlessServices.
    pub serverless_services: Store<ServerlessService>,
    /// All Seikas.
    pub seikas: Store<Seika>,
    /// `config-autoscaler`, alone.
    pub autoscaler_config: Store<ConfigMap>,
    /// `config-deployment`, alone.
    pub deployment_config: Store<ConfigMap>,
    /// `config-ikukantai`, alone.
    pub toggle_config: Store<ConfigMap>,
}

/// Starts all watches in `tasks`; they run until it is dropped, through any outage of the API server.
pub fn spawn(client: &Client, scope: &WatchScope, triggers: &Triggers, tasks: &mut JoinSet<()>) -> Objects {
    let config = |namespace: &str, name: &str| {
        let selected = watcher::Config::default().fields(&format!("metadata.name={name}"));
        (Api::<ConfigMap>::namespaced(client.clone(), namespace), selected)
    };
    let everything = watcher::Config::default;
    let of_revisions = everything().labels(REVISION_UID_LABEL);

    let calls = triggers.clone();
    let by_label = move |labels: &std::collections::BTreeMap<String, String>, namespace: Option<String>| {
        if let (Some(revision), Some(namespace)) = (labels.get(REVISION_LABEL), namespace) {
            calls.revision(&namespace, revision);
        }
    };
    let pod_calls = by_label.clone();
    let sks_calls = triggers.clone();
    let seika_calls = triggers.clone();
    let autoscaler_calls = triggers.clone();
    let config_calls = triggers.clone();
    let on_config = move |_: &ConfigMap| config_calls.all();

    let (autoscaler, autoscaler_selected) = config(&scope.knative_namespace, ClusterSettings::AUTOSCALER);
    let (deployment, deployment_selected) = config(&scope.knative_namespace, ClusterSettings::DEPLOYMENT);
    let (toggle, toggle_selected) = config(Toggle::NAMESPACE, Toggle::NAME);
    Objects {
        autoscalers: follow(Api::all(client.clone()), everything(), trim, tasks, move |autoscaler: &PodAutoscaler| {
            autoscaler_calls.revision(&autoscaler.namespace().unwrap_or_default(), &autoscaler.name_any());
        }),
        pods: follow(Api::all(client.clone()), everything(), trim_pod, tasks, move |pod| {
            pod_calls(pod.labels(), pod.namespace());
        }),
        nodes: follow(Api::all(client.clone()), everything(), trim_node, tasks, |_| ()),
        deployments: follow(Api::all(client.clone()), of_revisions, trim, tasks, move |deployment: &Deployment| {
            by_label(deployment.labels(), deployment.namespace());
        }),
        serverless_services: follow(Api::all(client.clone()), everything(), trim, tasks, move |sks: &ServerlessService| {
            sks_calls.revision(&sks.namespace().unwrap_or_default(), &sks.name_any());
        }),
        seikas: follow(Api::all(client.clone()), everything(), trim, tasks, move |seika: &Seika| {
            seika_calls.revision(&seika.namespace().unwrap_or_default(), &seika.name_any());
        }),
        autoscaler_config: follow(autoscaler, autoscaler_selected, trim, tasks, on_config.clone()),
        deployment_config: follow(deployment, deployment_selected, trim, tasks, on_config.clone()),
        toggle_config: follow(toggle, toggle_selected, trim, tasks, on_config),
    }
}

/// Follows one kind: the store first, then `touched` for every object that came, changed or went.
fn follow<K>(
    api: Api<K>,
    selected: watcher::Config,
    trim: fn(&mut K),
    tasks: &mut JoinSet<()>,
    touched: impl Fn(&K) + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType: Default + Eq + Hash + Clone> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let changes = reflect(writer, watcher(api, selected).modify(trim).default_backoff()).touched_objects();
    tasks.spawn(async move {
        let mut changes = std::pin::pin!(changes.into_stream());
        while let Some(change) = changes.next().await {
            match change {
                Ok(object) => touched(&object),
                // The watch goes on by itself, with a pause.
                Err(error) => tracing::warn!(kind = std::any::type_name::<K>(), %error, "watch was interrupted"),
            }
        }
    });
    reader
}

fn trim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// A cluster has many pods, and most of what they say matters to no decision.
fn trim_pod(pod: &mut Pod) {
    trim(pod);
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        spec.volumes = None;
        spec.affinity = None;
        spec.tolerations = None;
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let kept = std::mem::take(container);
            container.name = kept.name;
            container.resources = kept.resources;
            container.restart_policy = kept.restart_policy;
        }
    }
    if let Some(status) = &mut pod.status {
        status.container_statuses = None;
        status.init_container_statuses = None;
    }
}

fn trim_node(node: &mut Node) {
    trim(node);
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}

impl Objects {
    /// Waits until every store has been filled once.
    ///
    /// # Errors
    /// Where a watch has ended, which only the program's end does.
    pub async fn filled(&self) -> Result<(), kube::runtime::reflector::store::WriterDropped> {
        tokio::try_join!(
            self.autoscalers.wait_until_ready(),
            self.pods.wait_until_ready(),
            self.nodes.wait_until_ready(),
            self.deployments.wait_until_ready(),
            self.serverless_services.wait_until_ready(),
            self.seikas.wait_until_ready(),
            self.autoscaler_config.wait_until_ready(),
            self.deployment_config.wait_until_ready(),
            self.toggle_config.wait_until_ready(),
        )?;
        Ok(())
    }

    /// The cluster-wide settings as they are now.
    #[must_use]
    pub fn cluster_settings(&self) -> ClusterSettings {
        let data = |store: &Store<ConfigMap>| only(store).and_then(|map| map.data.clone()).unwrap_or_default();
        ClusterSettings::read(&data(&self.autoscaler_config), &data(&self.deployment_config))
    }

    /// The switch as it is now.
    #[must_use]
    pub fn toggle(&self) -> Toggle {
        Toggle::read(only(&self.toggle_config).and_then(|map| map.data.clone()).as_ref())
    }

    /// Names of all nodes, in order.
    #[must_use]
    pub fn node_names(&self) -> Vec<placement::NodeName> {
        let mut names: Vec<_> = self.nodes.state().iter().map(|node| node.name_any().into()).collect();
        names.sort();
        names
    }

    /// Name, node and address (on `port`) of the ready pods of `namespace` that carry `label` = `value`.
    #[must_use]
    pub fn ready_pods(&self, namespace: &str, (label, value): (&str, &str), port: u16) -> Vec<(String, String, SocketAddr)> {
        let pods = self.pods.state();
        let selected = pods.iter().filter(|pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.labels().get(label).is_some_and(|is| is == value)
                && pod.metadata.deletion_timestamp.is_none()
                && is_ready(pod)
        });
        selected
            .filter_map(|pod| {
                let address: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
                Some((pod.name_any(), pod.spec.as_ref()?.node_name.clone()?, SocketAddr::new(address, port)))
            })
            .collect()
    }
}

/// Whether the kubelet says that the pod is ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn only(store: &Store<ConfigMap>) -> Option<Arc<ConfigMap>> {
    store.state().into_iter().next()
}
