//! The watches.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use autoscaler::room::admitted;
use autoscaler::settings::{ClusterSettings, Toggle};
use futures::{StreamExt as _, TryStreamExt as _};
use gateway_link::RevisionKey;
use k8s_api::client::WATCH_SECONDS;
use k8s_api::seika::Seika;
use k8s_api::{PodAutoscaler, REVISION_LABEL, REVISION_UID_LABEL, ServerlessService};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, Node, Pod, PodSpec};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, reflector as reflect, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::changes::{ChangeLog, StoreChange};

/// How long a start waits for what the API server adds to pods. Without it, room is counted by
/// templates and by the pods that there are.
const ADDITIONS_WITHIN: Duration = Duration::from_secs(10);

/// Objects on one page of a list: a page is in memory as text and as objects, and all kinds are
/// listed at once.
const LISTED_AT_ONCE: u32 = 100;

/// Where to look for what.
#[derive(Clone, Debug)]
pub(crate) struct WatchScope {
    /// Knative's own namespace.
    pub(crate) knative_namespace: String,
}

/// All stores.
#[derive(Clone)]
pub(crate) struct Objects {
    /// All PodAutoscalers, of any class.
    pub(crate) autoscalers: Store<PodAutoscaler>,
    /// All pods of the cluster, without what no decision depends on.
    pub(crate) pods: Store<Pod>,
    /// All nodes.
    pub(crate) nodes: Store<Node>,
    /// Deployments of revisions.
    pub(crate) deployments: Store<Deployment>,
    /// All ServerlessServices.
    pub(crate) serverless_services: Store<ServerlessService>,
    /// All Seikas.
    pub(crate) seikas: Store<Seika>,
    /// What containers of a namespace ask for that say nothing.
    pub(crate) limit_ranges: Store<LimitRange>,
    /// What pods that name a runtime class ask for beside their containers, and where they may run.
    pub(crate) runtime_classes: Store<RuntimeClass>,
    /// `config-autoscaler`, alone.
    pub(crate) autoscaler_config: Store<ConfigMap>,
    /// `config-deployment`, alone.
    pub(crate) deployment_config: Store<ConfigMap>,
    /// `config-ikukantai`, alone.
    pub(crate) toggle_config: Store<ConfigMap>,
}

/// Starts all watches in `tasks`; they run until it is dropped, through any outage of the API
/// server. Every change is noted in `changes`.
pub(crate) fn spawn(client: &Client, scope: &WatchScope, changes: &ChangeLog, tasks: &mut JoinSet<()>) -> Objects {
    let everything = || watcher::Config::default().timeout(WATCH_SECONDS).page_size(LISTED_AT_ONCE);
    let config = |namespace: &str, name: &str| {
        let selected = everything().fields(&format!("metadata.name={name}"));
        (Api::<ConfigMap>::namespaced(client.clone(), namespace), selected)
    };
    let of_revisions = everything().labels(REVISION_UID_LABEL);
    let (autoscaler, autoscaler_selected) = config(&scope.knative_namespace, ClusterSettings::AUTOSCALER);
    let (deployment, deployment_selected) = config(&scope.knative_namespace, ClusterSettings::DEPLOYMENT);
    let (toggle, toggle_selected) = config(Toggle::NAMESPACE, Toggle::NAME);
    let mut follow = Following { changes, tasks };
    Objects {
        autoscalers: follow.all(client, everything(), trim, by_name),
        pods: follow.all(client, everything(), trim_pod, |pod: &Pod| {
            Some(StoreChange::Pod(pod.namespace().unwrap_or_default(), pod.name_any()))
        }),
        nodes: follow.all(client, everything(), trim_node, |node: &Node| Some(StoreChange::Node(node.name_any()))),
        deployments: follow.all(client, of_revisions, trim_deployment, |deployment: &Deployment| {
            let revision = deployment.labels().get(REVISION_LABEL)?;
            Some(StoreChange::Revision(RevisionKey::new(deployment.namespace().unwrap_or_default(), revision)))
        }),
        serverless_services: follow.all(client, everything(), trim, by_name::<ServerlessService>),
        seikas: follow.follow(Api::all(client.clone()), everything(), trim, of_seika),
        limit_ranges: follow.all(client, everything(), trim, |_: &LimitRange| Some(StoreChange::Admission)),
        runtime_classes: follow.all(client, everything(), trim, |_: &RuntimeClass| Some(StoreChange::Admission)),
        autoscaler_config: follow.one(autoscaler, autoscaler_selected),
        deployment_config: follow.one(deployment, deployment_selected),
        toggle_config: follow.one(toggle, toggle_selected),
    }
}

/// Objects that have the name of their revision.
fn by_name<K: Resource>(object: &K) -> Option<StoreChange> {
    Some(StoreChange::Revision(RevisionKey::new(object.namespace().unwrap_or_default(), object.name_any())))
}

fn of_seika(seika: &Seika, is_there: bool) -> Option<StoreChange> {
    let key = RevisionKey::new(seika.namespace().unwrap_or_default(), seika.name_any());
    Some(if is_there { StoreChange::Revision(key) } else { StoreChange::SeikaGone(key, seika.resource_version()) })
}

struct Following<'a> {
    changes: &'a ChangeLog,
    tasks: &'a mut JoinSet<()>,
}

impl Following<'_> {
    fn all<K>(
        &mut self,
        client: &Client,
        selected: watcher::Config,
        trim: fn(&mut K),
        change: impl Fn(&K) -> Option<StoreChange> + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType: Default + Eq + Hash + Clone> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.follow(Api::all(client.clone()), selected, trim, move |object, _| change(object))
    }

    fn one(&mut self, api: Api<ConfigMap>, selected: watcher::Config) -> Store<ConfigMap> {
        self.follow(api, selected, trim, |_, _| Some(StoreChange::Settings))
    }

    /// Follows one kind: the store first, then `change` for every object that came, changed or
    /// went, and whether it is still there.
    fn follow<K>(
        &mut self,
        api: Api<K>,
        selected: watcher::Config,
        trim: fn(&mut K),
        change: impl Fn(&K, bool) -> Option<StoreChange> + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<DynamicType: Default + Eq + Hash + Clone> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (reader, writer) = reflector::store();
        let events = reflect(writer, watcher(api, selected).modify(trim).default_backoff());
        let changes = self.changes.clone();
        self.tasks.spawn(async move {
            let mut events = std::pin::pin!(events.into_stream());
            while let Some(event) = events.next().await {
                let change = match event {
                    Ok(watcher::Event::Apply(object)) => change(&object, true),
                    Ok(watcher::Event::Delete(object)) => change(&object, false),
                    Ok(watcher::Event::InitDone) => Some(StoreChange::Relisted),
                    // The store shows what was listed only once all of it is there.
                    Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
                    // The watch goes on by itself, with a pause.
                    Err(error) => {
                        tracing::warn!(kind = std::any::type_name::<K>(), %error, "watch was interrupted");
                        None
                    }
                };
                if let Some(change) = change {
                    changes.record(change);
                }
            }
        });
        reader
    }
}

fn trim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// A cluster has many pods, and most of what they say matters to no decision.
fn trim_pod(pod: &mut Pod) {
    trim(pod);
    pod.metadata.annotations = None;
    let is_of_revision = pod.labels().contains_key(REVISION_LABEL);
    if let Some(spec) = &mut pod.spec {
        spec.volumes = None;
        spec.affinity = None;
        spec.tolerations = None;
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let kept = std::mem::take(container);
            container.name = kept.name;
            container.resources = kept.resources;
            container.restart_policy = kept.restart_policy;
            container.ports = kept.ports.filter(|ports| ports.iter().any(|port| port.host_port.is_some()));
        }
    }
    // Why a container does not start matters for the pods of revisions alone.
    if let Some(status) = pod.status.as_mut().filter(|_| !is_of_revision) {
        status.container_statuses = None;
        status.init_container_statuses = None;
    }
}

/// Replicas and template are what it is looked at for.
fn trim_deployment(deployment: &mut Deployment) {
    trim(deployment);
    (deployment.metadata.annotations, deployment.status) = (None, None);
}

fn trim_node(node: &mut Node) {
    trim(node);
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}

impl Objects {
    /// Waits until every store has been filled once, and for a bounded time only for those that
    /// improve the count of room.
    ///
    /// # Errors
    /// Where a watch has ended, which only the program's end does.
    pub(crate) async fn filled(&self) -> Result<(), kube::runtime::reflector::store::WriterDropped> {
        let needed = async {
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
            )
        };
        let additions = async { tokio::try_join!(self.limit_ranges.wait_until_ready(), self.runtime_classes.wait_until_ready()) };
        let (needed, additions) = tokio::join!(needed, tokio::time::timeout(ADDITIONS_WITHIN, additions));
        needed?;
        match additions {
            Ok(known) => drop(known?),
            Err(_) => tracing::warn!(
                "LimitRanges and RuntimeClasses are unknown: room is counted without what they add to pods. Apply the ClusterRole"
            ),
        }
        Ok(())
    }

    /// What `config-autoscaler` and `config-deployment` hold now.
    #[must_use]
    pub(crate) fn settings(&self) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let data = |store: &Store<ConfigMap>| only(store).and_then(|map| map.data.clone()).unwrap_or_default();
        (data(&self.autoscaler_config), data(&self.deployment_config))
    }

    /// The switch as it is now.
    #[must_use]
    pub(crate) fn toggle(&self) -> Toggle {
        Toggle::read(only(&self.toggle_config).and_then(|map| map.data.clone()).as_ref())
    }

    /// What the API server makes of a pod of this spec in `namespace`.
    #[must_use]
    pub(crate) fn admitted(&self, namespace: &str, spec: PodSpec) -> PodSpec {
        let ranges = self.limit_ranges.state();
        let class = spec.runtime_class_name.as_ref().and_then(|name| self.runtime_classes.get(&ObjectRef::new(name)));
        let here = ranges.iter().filter(|range| range.metadata.namespace.as_deref() == Some(namespace));
        admitted(spec, here.map(|range| &**range), class.as_deref())
    }

    /// Names of all nodes, in order.
    #[must_use]
    pub(crate) fn node_names(&self) -> Vec<latency_matrix::NodeName> {
        let mut names: Vec<_> = self.nodes.state().iter().map(|node| node.name_any().into()).collect();
        names.sort();
        names
    }

    /// Name, node and address (on `port`) of the ready pods of `namespace` that carry `label` =
    /// `value`.
    #[must_use]
    pub(crate) fn ready_pods(
        &self,
        namespace: &str,
        (label, value): (&str, &str),
        port: u16,
    ) -> Vec<(String, String, SocketAddr)> {
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
