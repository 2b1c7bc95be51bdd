//! Gathers the facts. Each is read by itself, and is unknown by itself.

use std::collections::{BTreeMap, BTreeSet};

use k8s_api::kingress::{CLASS_ANNOTATION, KIngress};
use k8s_api::{PodAutoscaler, SERVICE_LABEL};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};

use super::clocks::{self, Skews};
use super::prometheus::{self, Asked};
use super::rights::{self, Right};
use crate::cluster::{Cluster, Scope};
use crate::daemons::{self, DECIDER, INGRESS, PROBER, PROBER_HTTP, SEIKAS};
use crate::events;
use crate::facts::{self, GatewayPods, Lag, Part, Switch};
use crate::known::{Known, Unread};
use crate::metrics;
use crate::options::CheckOptions;

/// Definitions of Knative's that decisions are read from and written to.
pub(super) const KNATIVE_DEFINITIONS: [&str; 4] = [
    "podautoscalers.autoscaling.internal.knative.dev",
    "serverlessservices.networking.internal.knative.dev",
    "ingresses.networking.internal.knative.dev",
    "revisions.serving.knative.dev",
];
/// Our own definition.
pub(super) const SEIKA_DEFINITION: &str = "seikas.batch.bonavadeur.io";
/// 1 on a node where a prober can send ICMP.
const ICMP_AVAILABLE: &str = "kantai_probe_icmp_available";

/// What is known of a cluster.
pub(super) struct Facts {
    /// Whether what is not installed yet is no failure.
    pub(super) is_pre: bool,
    /// A gateway that lags longer than this is behind.
    pub(super) behind_after_seconds: f64,
    pub(super) knative_namespace: String,
    pub(super) system_namespace: String,
    pub(super) server_version: Known<String>,
    /// Whether each definition is served; a definition that is not there is left out.
    pub(super) definitions: Known<BTreeMap<&'static str, bool>>,
    pub(super) knative: Known<Knative>,
    pub(super) autoscaler_config: Known<Option<Data>>,
    pub(super) network_config: Known<Option<Data>>,
    pub(super) revisions: Known<Vec<RevisionFact>>,
    pub(super) ingresses: Known<Vec<IngressFact>>,
    pub(super) nodes: Known<Vec<NodeFact>>,
    pub(super) skews: Known<Skews>,
    pub(super) parts: Known<Vec<Part>>,
    pub(super) leaders: Vec<(&'static str, Known<Option<String>>)>,
    pub(super) switch: Known<Switch>,
    pub(super) gateways: Known<GatewayPods>,
    pub(super) lag: Known<Lag>,
    pub(super) probers: Known<Vec<ProberFact>>,
    pub(super) rights: Known<Vec<(Right, Known<bool>)>>,
    /// Each Prometheus that is asked for latency, and what it answers.
    pub(super) prometheus: Known<Vec<(String, Asked)>>,
    /// What extra-controller said last of its Prometheus: the reason and note of the event.
    pub(super) latency_event: Known<Option<(String, String)>>,
}

/// The data of a ConfigMap.
pub(super) type Data = BTreeMap<String, String>;

/// Knative Serving, by its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Knative {
    pub(super) is_there: bool,
    /// As its label says.
    pub(super) version: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RevisionFact {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) service: String,
    pub(super) class: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IngressFact {
    pub(super) namespace: String,
    pub(super) name: String,
    /// `None` where the object names none.
    pub(super) class: Option<String>,
    /// The revisions that it leads to, as namespace and name.
    pub(super) revisions: BTreeSet<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeFact {
    pub(super) name: String,
    pub(super) is_ready: bool,
    pub(super) is_linux: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ProberFact {
    pub(super) node: String,
    pub(super) is_ready: bool,
    /// Whether it can send ICMP.
    pub(super) has_icmp: Known<bool>,
}

/// Reads everything.
pub(super) async fn facts(cluster: &Cluster, options: &CheckOptions) -> Facts {
    let parts = facts::parts(cluster).await.map_err(Unread::from);
    let (server_version, definitions, knative, autoscaler_config, network_config, revisions, ingresses) = futures::join!(
        server_version(cluster),
        definitions(cluster),
        knative(cluster),
        config(cluster, "config-autoscaler"),
        config(cluster, "config-network"),
        revisions(cluster),
        ingresses(cluster),
    );
    let (nodes, skews, switch, gateways, lag, probers, latency_event) = futures::join!(
        nodes(cluster),
        clocks::read(cluster),
        facts::switch(cluster),
        facts::gateway_pods(cluster),
        facts::lags(cluster),
        probers(cluster),
        latency_event(cluster),
    );
    let leaders =
        [DECIDER, SEIKAS, INGRESS].map(async |daemon| (daemon, daemons::leader(cluster, daemon).await.map_err(Into::into)));
    let (leaders, rights, prometheus) = futures::join!(
        futures::future::join_all(leaders),
        rights(cluster, options, &parts),
        prometheus(cluster, options, &parts)
    );
    Facts {
        is_pre: options.pre,
        behind_after_seconds: options.behind_after.as_secs_f64(),
        knative_namespace: cluster.knative.clone(),
        system_namespace: cluster.system.clone(),
        server_version,
        definitions,
        knative,
        autoscaler_config,
        network_config,
        revisions,
        ingresses,
        nodes,
        skews: skews.map_err(Into::into),
        parts,
        leaders,
        switch: switch.map_err(Into::into),
        gateways: gateways.map_err(Into::into),
        lag,
        probers,
        rights,
        prometheus,
        latency_event,
    }
}

async fn server_version(cluster: &Cluster) -> Known<String> {
    let client = cluster.client();
    Ok(cluster.ask("read the version of the API server", client.apiserver_version()).await?.git_version)
}

async fn definitions(cluster: &Cluster) -> Known<BTreeMap<&'static str, bool>> {
    let mut served = BTreeMap::new();
    for name in KNATIVE_DEFINITIONS.into_iter().chain([SEIKA_DEFINITION]) {
        let api: Api<CustomResourceDefinition> = Api::all(cluster.client());
        let definition = cluster.get(&format!("read the definition {name}"), api, name).await?;
        let Some(definition) = definition else { continue };
        let conditions = definition.status.into_iter().flat_map(|status| status.conditions.unwrap_or_default());
        let is_served = conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True");
        served.insert(name, is_served);
    }
    Ok(served)
}

async fn knative(cluster: &Cluster) -> Known<Knative> {
    let scope = Scope::One(cluster.knative.clone());
    let controller = cluster.get("read Knative's controller", cluster.api::<Deployment>(&scope), "controller").await?;
    let namespace = cluster.get("read Knative's namespace", Api::<Namespace>::all(cluster.client()), &cluster.knative).await?;
    // Releases before 1.0 have the second label.
    let version = |labels: &BTreeMap<String, String>| {
        ["app.kubernetes.io/version", "serving.knative.dev/release"].into_iter().find_map(|label| labels.get(label).cloned())
    };
    let of_controller = controller.as_ref().and_then(|controller| version(controller.labels()));
    let of_namespace = namespace.as_ref().and_then(|namespace| version(namespace.labels()));
    Ok(Knative { is_there: controller.is_some() || of_namespace.is_some(), version: of_controller.or(of_namespace) })
}

async fn config(cluster: &Cluster, name: &str) -> Known<Option<Data>> {
    let scope = Scope::One(cluster.knative.clone());
    let map = cluster.get(&format!("read the ConfigMap {name}"), cluster.api::<ConfigMap>(&scope), name).await?;
    Ok(map.map(|map| map.data.unwrap_or_default()))
}

async fn revisions(cluster: &Cluster) -> Known<Vec<RevisionFact>> {
    let all = cluster.list("list PodAutoscalers", cluster.api::<PodAutoscaler>(&Scope::All), ListParams::default()).await?;
    let of = |one: &PodAutoscaler| RevisionFact {
        namespace: one.namespace().unwrap_or_default(),
        name: one.name_any(),
        service: one.labels().get(SERVICE_LABEL).cloned().unwrap_or_default(),
        class: one.class().to_owned(),
    };
    Ok(all.iter().map(of).collect())
}

async fn ingresses(cluster: &Cluster) -> Known<Vec<IngressFact>> {
    let all = cluster.list("list Ingresses of Knative", cluster.api::<KIngress>(&Scope::All), ListParams::default()).await?;
    let of = |one: &KIngress| {
        let paths = one.spec.rules.iter().flat_map(|rule| rule.http.iter().flat_map(|http| &http.paths));
        let splits = paths.flat_map(|path| &path.splits);
        IngressFact {
            namespace: one.namespace().unwrap_or_default(),
            name: one.name_any(),
            class: one.annotations().get(CLASS_ANNOTATION).cloned(),
            revisions: splits.map(|split| (split.service_namespace.clone(), split.service_name.clone())).collect(),
        }
    };
    Ok(all.iter().map(of).collect())
}

async fn nodes(cluster: &Cluster) -> Known<Vec<NodeFact>> {
    let all = cluster.list("list nodes", Api::<Node>::all(cluster.client()), ListParams::default()).await?;
    let of = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let is_linux = node.labels().get("kubernetes.io/os").is_none_or(|os| os == "linux");
        NodeFact { name: node.name_any(), is_ready, is_linux }
    };
    Ok(all.iter().map(of).collect())
}

async fn probers(cluster: &Cluster) -> Known<Vec<ProberFact>> {
    let pods = daemons::pods(cluster, PROBER).await?;
    let pages = daemons::ask_each(cluster, &pods, PROBER_HTTP, "/metrics").await;
    let of = |(pod, page): (daemons::DaemonPod, Known<String>)| ProberFact {
        has_icmp: page.and_then(|page| {
            let available = metrics::number(&page, ICMP_AVAILABLE, None);
            available.map(|number| number > 0.0).ok_or_else(|| Unread::because(format!("{} does not say", pod.name)))
        }),
        node: pod.node,
        is_ready: pod.is_ready,
    };
    Ok(pages.into_iter().map(of).collect())
}

async fn rights(cluster: &Cluster, options: &CheckOptions, parts: &Known<Vec<Part>>) -> Known<Vec<(Right, Known<bool>)>> {
    let parts = parts.as_ref().map_err(Clone::clone)?;
    let is_wanted = |daemon: &str| !options.pre || parts.iter().any(|part| part.name == daemon);
    Ok(rights::ask(cluster, rights::needed(cluster, is_wanted)?).await)
}

async fn prometheus(cluster: &Cluster, options: &CheckOptions, parts: &Known<Vec<Part>>) -> Known<Vec<(String, Asked)>> {
    let variable = |name: &str| {
        let parts = parts.as_ref().ok()?;
        parts.iter().find(|part| part.name == DECIDER)?.variables.get(name).filter(|text| !text.is_empty()).cloned()
    };
    let mut urls = options.prometheus_url.clone();
    if urls.is_empty() {
        parts.as_ref().map_err(Clone::clone)?;
        let set = variable("KANTAI_PROMETHEUS_URL").unwrap_or_default();
        urls = set.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
    }
    let query = variable("KANTAI_LATENCY_QUERY");
    let asked = urls.into_iter().map(async |url| {
        let asked = prometheus::ask(cluster, &url, query.as_deref()).await;
        (url, asked)
    });
    Ok(futures::future::join_all(asked).await)
}

async fn latency_event(cluster: &Cluster) -> Known<Option<(String, String)>> {
    const REASONS: [&str; 4] = ["LatencySourceLost", "LatencySourceRecovered", "LatencyUnknown", "LatencyFallback"];
    let told = events::read(cluster, &Scope::One(cluster.system.clone())).await?;
    let last = told.into_iter().rfind(|one| one.by == DECIDER && REASONS.contains(&one.reason.as_str()));
    Ok(last.map(|one| (one.reason, one.note)))
}
