//! Gathers the files of a bundle. What cannot be read becomes a file that says why.

use autoscaler::settings::Toggle;
use k8s_api::kingress::KIngress;
use k8s_api::seika::MaybeSeika;
use k8s_api::{PodAutoscaler, ServerlessService};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use kube::api::{Api, ListParams, LogParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::File;
use super::redact::{redact, without_credentials};
use crate::check;
use crate::cluster::{Cluster, Scope};
use crate::daemons::{self, DECIDER, DaemonPod, GATEWAY, INGRESS, OPS, PROBER, PROBER_HTTP, SEIKAS};
use crate::error::PluginError;
use crate::options::{BundleOptions, CheckOptions};
use crate::{events, explain, facts, matrix, routes};

/// Explanations that a bundle holds.
const MOST_EXPLAINED: usize = 200;
/// Port of a gateway's statistics.
const GATEWAY_STATISTICS: u16 = 9000;
/// Knative's settings that decisions depend on.
const SETTINGS: [&str; 3] = ["config-autoscaler", "config-network", "config-deployment"];
/// The nodes that probers measure in any case.
const PINS: &str = "latency-probe-pins";

/// All files.
pub(super) async fn files(cluster: &Cluster, options: &BundleOptions) -> Vec<File> {
    let system = Scope::One(cluster.system.clone());
    let mut files = vec![json_file("version.json", version(cluster).await)];
    files.push(json_file("check.json", Ok(check::findings(cluster, &CheckOptions::for_bundle()).await)));
    files.push(objects("nodes.json", list::<Node>(cluster, Api::all(cluster.client())).await));
    files.push(objects("system/deployments.json", list(cluster, cluster.api::<Deployment>(&system)).await));
    files.push(objects("system/daemonsets.json", list(cluster, cluster.api::<DaemonSet>(&system)).await));
    files.push(objects("system/pods.json", list(cluster, cluster.api::<Pod>(&system)).await));
    files.push(objects("system/leases.json", list(cluster, cluster.api::<Lease>(&system)).await));
    files.push(objects("system/endpointslices.json", list(cluster, cluster.api::<EndpointSlice>(&system)).await));
    files.push(objects("podautoscalers.json", list(cluster, cluster.api::<PodAutoscaler>(&Scope::All)).await));
    files.push(objects("serverlessservices.json", list(cluster, cluster.api::<ServerlessService>(&Scope::All)).await));
    files.push(objects("seikas.json", seikas(cluster).await));
    files.push(objects("ingresses.json", list(cluster, cluster.api::<KIngress>(&Scope::All)).await));
    files.extend(settings(cluster).await);
    files.push(json_file("events.json", events::read(cluster, &Scope::All).await));
    files.push(json_file("routes.json", routes::read(cluster).await));
    files.push(json_file("matrix.json", matrix::read(cluster).await));
    files.extend(explanations(cluster).await);
    for (daemon, port, path) in [
        (DECIDER, OPS, "/metrics"),
        (SEIKAS, OPS, "/metrics"),
        (INGRESS, OPS, "/metrics"),
        (PROBER, PROBER_HTTP, "/metrics"),
        (GATEWAY, GATEWAY_STATISTICS, "/stats/prometheus"),
    ] {
        files.extend(of_daemon(cluster, daemon, port, path, options).await);
    }
    files
}

async fn version(cluster: &Cluster) -> Result<Value, PluginError> {
    let client = cluster.client();
    let server = cluster.ask("read the version of the API server", client.apiserver_version()).await?;
    Ok(json!({"plugin": env!("CARGO_PKG_VERSION"), "server": server.git_version, "at": jiff::Timestamp::now()}))
}

async fn list<K>(cluster: &Cluster, api: Api<K>) -> Result<Vec<Value>, PluginError>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize + Resource<DynamicType = ()>,
{
    let kind = K::kind(&()).into_owned();
    let objects = cluster.list(&format!("list objects of kind {kind}"), api, ListParams::default()).await?;
    Ok(objects.iter().filter_map(|object| serde_json::to_value(object).ok()).collect())
}

async fn seikas(cluster: &Cluster) -> Result<Vec<Value>, PluginError> {
    let all = cluster.list("list Seikas", cluster.api::<MaybeSeika>(&Scope::All), ListParams::default()).await?;
    let value = |seika: MaybeSeika| match seika.0 {
        Ok(seika) => serde_json::to_value(seika).ok(),
        Err(invalid) => Some(json!({"metadata": invalid.metadata, "invalid": invalid.error})),
    };
    Ok(all.into_iter().filter_map(value).collect())
}

/// The settings that decisions depend on: no other ConfigMap is read, since users keep passwords in
/// theirs.
async fn settings(cluster: &Cluster) -> Vec<File> {
    let wanted = SETTINGS
        .map(|name| (cluster.knative.clone(), name))
        .into_iter()
        .chain([(Toggle::NAMESPACE.to_owned(), Toggle::NAME), (cluster.system.clone(), PINS)]);
    let mut files = Vec::new();
    for (namespace, name) in wanted {
        let maps = cluster.api::<ConfigMap>(&Scope::One(namespace.clone()));
        let map = cluster.get(&format!("read the ConfigMap {name}"), maps, name).await;
        // The examples that Knative ships are long, and the same everywhere.
        let data = map.map(|map| map.and_then(|map| map.data).map(|mut data| drop_example(&mut data)));
        files.push(json_file(&format!("settings/{namespace}-{name}.json"), data));
    }
    files
}

fn drop_example(data: &mut std::collections::BTreeMap<String, String>) -> std::collections::BTreeMap<String, String> {
    data.remove("_example");
    std::mem::take(data)
}

async fn explanations(cluster: &Cluster) -> Vec<File> {
    let served = match facts::served(cluster, &Scope::All).await {
        Ok(served) => served,
        Err(error) => return vec![json_file::<Value>("explain.json", Err(error))],
    };
    let mut files = Vec::new();
    for one in served.iter().take(MOST_EXPLAINED) {
        let explained = explain::of_revision(cluster, &one.namespace, &one.revision).await;
        // Where nobody decides, each of them would wait as long.
        let is_silent = explained.is_err();
        files.push(json_file(&format!("explain/{}-{}.json", one.namespace, one.revision), explained));
        if is_silent {
            break;
        }
    }
    files
}

/// What the pods of a daemon serve and log.
async fn of_daemon(cluster: &Cluster, daemon: &str, port: u16, path: &str, options: &BundleOptions) -> Vec<File> {
    let pods = match daemons::pods(cluster, daemon).await {
        Ok(pods) => pods,
        Err(error) => return vec![text_file(&format!("{daemon}/pods.txt"), Err(error))],
    };
    let mut files = Vec::new();
    for (pod, page) in daemons::ask_each(cluster, &pods, port, path).await {
        let page =
            page.map_err(|why| PluginError::Nobody { doing: format!("read the metrics of {}", pod.name), says: why.unknown });
        files.push(text_file(&format!("{daemon}/{}.metrics", pod.name), page));
    }
    for pod in &pods {
        files.push(text_file(&format!("{daemon}/{}.log", pod.name), log(cluster, pod, options).await));
    }
    files
}

async fn log(cluster: &Cluster, pod: &DaemonPod, options: &BundleOptions) -> Result<String, PluginError> {
    let pods = cluster.api::<Pod>(&Scope::One(cluster.system.clone()));
    let params = LogParams { tail_lines: Some(options.log_lines), timestamps: true, ..LogParams::default() };
    let text = cluster.ask(&format!("read the log of {}", pod.name), pods.logs(&pod.name, &params)).await?;
    Ok(without_credentials(&text).unwrap_or(text))
}

fn objects(path: &str, objects: Result<Vec<Value>, PluginError>) -> File {
    let redacted = objects.map(|mut objects| {
        objects.iter_mut().for_each(redact);
        objects
    });
    json_file(path, redacted)
}

fn json_file<T: Serialize>(path: &str, value: Result<T, PluginError>) -> File {
    let value = value.map(|value| serde_json::to_value(value).unwrap_or_default());
    let is_missing = value.is_err();
    let mut value = value.unwrap_or_else(|error| json!({"unknown": error.in_full()}));
    redact(&mut value);
    File { path: path.to_owned(), content: format!("{value:#}\n").into_bytes(), is_missing }
}

fn text_file(path: &str, text: Result<String, PluginError>) -> File {
    let is_missing = text.is_err();
    let text = text.unwrap_or_else(|error| format!("unknown: {}\n", error.in_full()));
    File { path: path.to_owned(), content: text.into_bytes(), is_missing }
}
