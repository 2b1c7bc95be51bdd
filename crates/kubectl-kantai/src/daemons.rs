//! Which pods the daemons are, and which of them decides.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;

use crate::cluster::{Answer, Cluster, Scope, Target};
use crate::error::PluginError;
use crate::known::Known;

/// What decides.
pub(crate) const DECIDER: &str = "extra-controller";
/// What configures the gateways.
pub(crate) const INGRESS: &str = "locality-ingress";
/// What keeps pods per node.
pub(crate) const SEIKAS: &str = "seika-controller";
/// What measures.
pub(crate) const PROBER: &str = "latency-probe";
/// What takes requests in.
pub(crate) const GATEWAY: &str = "kantai-gateway";
/// Label of each daemon's pods, by the daemon's name.
pub(crate) const NAME_LABEL: &str = "app.kubernetes.io/name";

/// Port of [`DECIDER`] that tells of decisions.
const DECIDER_API: u16 = 18_080;
/// Port of health and metrics of all daemons but the prober; [`INGRESS`] tells of demand there.
pub(crate) const OPS: u16 = 8080;
/// Port of [`PROBER`].
pub(crate) const PROBER_HTTP: u16 = 9798;

/// A pod of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DaemonPod {
    pub(crate) name: String,
    /// Empty while it has none.
    pub(crate) node: String,
    pub(crate) is_ready: bool,
    /// Whether it has an address to be asked at.
    pub(crate) is_started: bool,
}

impl DaemonPod {
    fn of(pod: &Pod) -> Self {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let is_started = pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
        Self { name: pod.name_any(), node, is_ready, is_started }
    }
}

/// The pods of a daemon that are not going, in name order.
pub(crate) async fn pods(cluster: &Cluster, daemon: &str) -> Result<Vec<DaemonPod>, PluginError> {
    let api = cluster.api::<Pod>(&Scope::One(cluster.system.clone()));
    let selector = ListParams::default().labels(&format!("{NAME_LABEL}={daemon}"));
    let pods = cluster.list(&format!("list the pods of {daemon}"), api, selector).await?;
    let mut pods: Vec<DaemonPod> =
        pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(DaemonPod::of).collect();
    pods.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(pods)
}

/// The pod that holds the Lease of a daemon; `None` where nobody does.
pub(crate) async fn leader(cluster: &Cluster, daemon: &str) -> Result<Option<String>, PluginError> {
    let leases = cluster.api::<Lease>(&Scope::One(cluster.system.clone()));
    let lease = cluster.get(&format!("read the Lease {daemon}"), leases, daemon).await?;
    Ok(lease.and_then(|lease| lease.spec?.holder_identity).filter(|holder| !holder.is_empty()))
}

/// Asks the instance that decides, at `path`.
pub(crate) async fn ask_decider(cluster: &Cluster, path: &str) -> Result<Answer, PluginError> {
    let target = decider(cluster).await?;
    let answer = cluster.proxied(&target, path).await?;
    if answer.status == 503 {
        let says = String::from_utf8_lossy(&answer.body).trim().to_owned();
        return Err(PluginError::Daemon { doing: format!("ask {target} for {path}"), status: answer.status, says });
    }
    Ok(answer)
}

/// The instance that decides: the holder of the Lease, else the first ready one.
pub(crate) async fn decider(cluster: &Cluster) -> Result<Target, PluginError> {
    let doing = || format!("find the {DECIDER} that decides");
    let leader = leader(cluster, DECIDER).await;
    if let Ok(Some(pod)) = leader {
        return Ok(Target::pod(&cluster.system, &pod, DECIDER_API));
    }
    let pods = pods(cluster, DECIDER).await?;
    match pods.iter().find(|pod| pod.is_ready) {
        Some(pod) => Ok(Target::pod(&cluster.system, &pod.name, DECIDER_API)),
        None => {
            let lease = match leader {
                Err(error) => error.in_full(),
                Ok(_) => "nobody holds the Lease".to_owned(),
            };
            let says = format!("{lease}, and none of {} pods in namespace {} is ready", pods.len(), cluster.system);
            Err(PluginError::Nobody { doing: doing(), says })
        }
    }
}

/// What each pod of a daemon serves at `path`, by pod, asked at once.
pub(crate) async fn ask_each(cluster: &Cluster, pods: &[DaemonPod], port: u16, path: &str) -> Vec<(DaemonPod, Known<String>)> {
    use futures::StreamExt as _;
    /// As many are asked at once.
    const AT_ONCE: usize = 16;
    let asked = pods.iter().map(async |pod| {
        let page = cluster.proxied_text(&Target::pod(&cluster.system, &pod.name, port), path).await;
        (pod.clone(), page.map_err(Into::into))
    });
    futures::stream::iter(asked).buffered(AT_ONCE).collect().await
}
