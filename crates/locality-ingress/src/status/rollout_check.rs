//! Probes the gateways for one generation of one Ingress until it is Ready.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::conditions::{LoadBalancerNames, ReadyCondition, is_ready, next_status};
use super::probe::{GatewayProber, ProbeResult};
use super::progress::{GatewayPod, IngressProgress, ProbeTarget, RolloutProgress};
use crate::kubernetes::objects::ObjectName;
use crate::kubernetes::status_writer::StatusWriter;
use crate::metrics::Metrics;
use crate::xds::connected::Connected;
use crate::xds::store::StoreRevision;
use k8s_api::kingress::IngressStatus;

/// A generation that takes longer than this is reported as pending; before that the status is left
/// alone.
const SAY_PENDING_AFTER: Duration = Duration::from_secs(1);
/// A gateway that is neither connected nor reachable for this long is ignored, whatever its pod's
/// status says: Kubernetes takes 40 s and more to notice a lost node.
const GONE_AFTER: Duration = Duration::from_secs(2);
/// How long a refusal stands that another replica wrote and does not renew: that replica may be
/// gone, and its gateways may be connecting to this one.
const REFUSAL_STANDS: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// What all checks share.
#[derive(Clone)]
pub(crate) struct Dependencies {
    /// Writer of statuses.
    pub writer: StatusWriter,
    /// Prober of gateways.
    pub prober: GatewayProber,
    /// The ready gateways by their EndpointSlices; `None` until these are known.
    pub gateways: watch::Receiver<Option<Vec<GatewayPod>>>,
    /// The gateways connected to this replica.
    pub connected: Connected,
    /// The DNS names to publish.
    pub names: LoadBalancerNames,
    /// Limits concurrent probes.
    pub probes: Arc<Semaphore>,
    /// Metrics of the daemon.
    pub metrics: Metrics,
}

impl Dependencies {
    /// Whether all gateways are connected to this replica, so that no other replica knows more.
    fn knows_all_gateways(&self) -> bool {
        let gateways = self.gateways.borrow();
        gateways.iter().flatten().all(|gateway| self.connected.in_sync_at(&gateway.node).is_some())
    }
}

/// Sets an Ingress back to pending after a gateway's refusal has ended; the leader then checks
/// whether it is Ready.
pub(crate) async fn clear_refusal(name: ObjectName, current: IngressProgress, dependencies: Dependencies) {
    if current.says_refused_by_gateway() {
        let condition = ReadyCondition::Pending("the configuration that a gateway refused has changed".to_owned());
        write_status(&name, &current, &current.status, condition, &dependencies).await;
    }
}

/// Follows the Ingress `name` until its status says all there is to say about `current`.
pub(crate) async fn check_rollout(name: ObjectName, current: IngressProgress, dependencies: Dependencies) {
    let started = Instant::now();
    match &current.progress {
        RolloutProgress::Served { since, hash, probes } => {
            if is_ready(&current.status, current.generation, &dependencies.names) {
                return;
            }
            let mut said = current.status.clone();
            let mut proof =
                RolloutProof { since: *since, hash, targets: probes, proved: BTreeSet::new(), unreachable: BTreeMap::new() };
            let mut gateways = dependencies.gateways.clone();
            let mut connected = dependencies.connected.watch();
            let mut retry = FIRST_RETRY;
            // A gateway of another replica refused it. The refusal stands until that replica
            // withdraws it.
            let refused_elsewhere = current.says_refused_by_gateway();
            while let Some(lacking) = proof.probe_gateways(&dependencies).await {
                if started.elapsed() > SAY_PENDING_AFTER && !refused_elsewhere {
                    said = write_status(&name, &current, &said, ReadyCondition::Pending(lacking), &dependencies).await;
                }
                tokio::select! {
                    _ = gateways.changed() => {}
                    // Most rounds wait for an ACK.
                    _ = connected.changed() => {}
                    () = tokio::time::sleep(retry) => retry = (retry * 2).min(LAST_RETRY),
                }
            }
            let proved = Instant::now();
            while refused_elsewhere && !dependencies.knows_all_gateways() && proved.elapsed() < REFUSAL_STANDS {
                tokio::time::sleep(LAST_RETRY).await;
            }
            write_status(&name, &current, &said, ReadyCondition::Ready, &dependencies).await;
            dependencies.metrics.ingress_ready_seconds.observe(started.elapsed().as_secs_f64());
            tracing::info!(ingress = %name, generation = current.generation, seconds = started.elapsed().as_secs_f64(), "Ingress is Ready");
        }
        RolloutProgress::Waiting { missing } => {
            tokio::time::sleep(SAY_PENDING_AFTER).await;
            let message = format!("waiting for {}", missing.join(", "));
            write_status(&name, &current, &current.status, ReadyCondition::Pending(message), &dependencies).await;
        }
        RolloutProgress::Refused { reason, message } => {
            write_status(&name, &current, &current.status, ReadyCondition::Refused(reason, message.clone()), &dependencies).await;
        }
    }
}

/// Writes the status until that succeeds. Returns the written status.
async fn write_status(
    name: &ObjectName,
    current: &IngressProgress,
    before: &IngressStatus,
    condition: ReadyCondition,
    dependencies: &Dependencies,
) -> IngressStatus {
    let status = next_status(before, current.generation, &condition, &dependencies.names, Timestamp::now());
    if status == *before {
        return status;
    }
    let mut retry = FIRST_RETRY;
    while let Err(error) = dependencies.writer.write(name, &status).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "failed to write a status, retrying");
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
    status
}

/// The first few gateways, and the number of the others: a status has no room for all gateways of a
/// large cluster.
fn summarize(lacking: &[String]) -> String {
    const MOST: usize = 3;
    let (first, rest) = lacking.split_at(lacking.len().min(MOST));
    let more = if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) };
    first.join("; ") + &more
}

struct RolloutProof<'a> {
    since: StoreRevision,
    hash: &'a str,
    targets: &'a [ProbeTarget],
    proved: BTreeSet<GatewayPod>,
    unreachable: BTreeMap<IpAddr, Instant>,
}

impl RolloutProof<'_> {
    /// Probes every gateway that has not proved the version yet. Returns what is missing, or
    /// `None`.
    async fn probe_gateways(&mut self, dependencies: &Dependencies) -> Option<String> {
        let Some(gateways) = dependencies.gateways.borrow().clone() else { return Some("gateways are not known yet".to_owned()) };
        if gateways.is_empty() {
            return Some("no gateway is ready".to_owned());
        }
        let open: Vec<_> = gateways.iter().filter(|gateway| !self.proved.contains(gateway)).collect();
        let answers = join_all(open.iter().map(|gateway| self.probe_gateway(gateway, dependencies))).await;
        let mut lacking = Vec::new();
        for (gateway, found) in open.into_iter().zip(answers) {
            match found {
                ProbeResult::Proved => {
                    self.unreachable.remove(&gateway.address);
                    self.proved.insert(gateway.clone());
                }
                ProbeResult::NotYet(why) => {
                    self.unreachable.remove(&gateway.address);
                    lacking.push(format!("gateway of {}: {why}", gateway.node));
                }
                ProbeResult::Unreachable(why) => {
                    let since = *self.unreachable.entry(gateway.address).or_insert_with(Instant::now);
                    let gone = dependencies.connected.in_sync_at(&gateway.node).is_none() && since.elapsed() > GONE_AFTER;
                    if !gone {
                        lacking.push(format!("gateway of {}: {why}", gateway.node));
                    }
                }
            }
        }
        if self.proved.is_empty() && lacking.is_empty() {
            return Some("no gateway can be reached".to_owned());
        }
        (!lacking.is_empty()).then(|| summarize(&lacking))
    }

    async fn probe_gateway(&self, gateway: &GatewayPod, dependencies: &Dependencies) -> ProbeResult {
        // There is no ACK state of gateways connected to another replica; for them the probe's
        // answer is enough.
        let confirmed = dependencies.connected.in_sync_at(&gateway.node).map(|at| at >= self.since);
        if confirmed == Some(false) {
            return ProbeResult::NotYet("has not confirmed the version".to_owned());
        }
        for target in self.targets {
            let Ok(_permit) = dependencies.probes.acquire().await else { return ProbeResult::NotYet("stopping".to_owned()) };
            match dependencies.prober.probe(gateway.address, target, self.hash).await {
                ProbeResult::Proved => {}
                other => {
                    dependencies.metrics.failed_probes.inc();
                    return other;
                }
            }
        }
        ProbeResult::Proved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_gateways_that_lag_the_first_are_named_and_the_others_counted() {
        let lacking: Vec<_> = (0..200).map(|node| format!("gateway of node{node}: answers 404")).collect();
        assert_eq!(summarize(&lacking[..1]), "gateway of node0: answers 404");
        assert!(summarize(&lacking).ends_with("gateway of node2: answers 404; and 197 more"));
    }
}
