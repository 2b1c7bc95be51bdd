//! Drives one generation of one Ingress to its Ready.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::conditions::{LoadBalancerNames, Verdict, is_ready, next};
use super::probe::{Found, Prober};
use super::standing::{GatewayPod, ProbeTarget, Progress, Standing};
use crate::kubernetes::objects::ObjectName;
use crate::kubernetes::status_writer::StatusWriter;
use crate::metrics::Metrics;
use crate::xds::connected::Connected;
use crate::xds::store::Revision;
use k8s_api::kingress::IngressStatus;

/// A generation that takes longer than this is said to be pending; until then the status stays as
/// it was.
const SAY_PENDING_AFTER: Duration = Duration::from_secs(1);
/// A gateway that is neither connected nor reachable for this long is gone, whatever its pod's
/// status says: it takes Kubernetes 40 s and more to notice a lost node.
const GONE_AFTER: Duration = Duration::from_secs(2);
/// How long a refusal counts that another replica wrote and says no more of: it may be gone, and
/// its gateways on their way here.
const REFUSAL_STANDS: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// What all pursuits share.
#[derive(Clone)]
pub(crate) struct Means {
    /// Writes statuses.
    pub writer: StatusWriter,
    /// Asks gateways.
    pub prober: Prober,
    /// The gateways that take requests, as Kubernetes has them; `None` until that is known.
    pub gateways: watch::Receiver<Option<Vec<GatewayPod>>>,
    /// Those that are connected here.
    pub connected: Connected,
    /// The names to publish.
    pub names: LoadBalancerNames,
    /// Limits probes on their way.
    pub probes: Arc<Semaphore>,
    /// Counts.
    pub metrics: Metrics,
}

impl Means {
    /// Whether all gateways are connected here, so that no other replica knows more.
    fn knows_all_gateways(&self) -> bool {
        let gateways = self.gateways.borrow();
        gateways.iter().flatten().all(|gateway| self.connected.in_sync_at(&gateway.node).is_some())
    }
}

/// Says of an Ingress that a gateway had refused that this is over: who leads finds out whether it
/// is Ready.
pub(crate) async fn tell_taken(name: ObjectName, standing: Standing, means: Means) {
    if standing.says_refused_by_gateway() {
        let verdict = Verdict::Pending("what a gateway refused is different now".to_owned());
        say(&name, &standing, &standing.status, verdict, &means).await;
    }
}

/// Pursues `standing` of the Ingress `name` until nothing is left to be said about it.
pub(crate) async fn pursue(name: ObjectName, standing: Standing, means: Means) {
    let started = Instant::now();
    match &standing.progress {
        Progress::Served { since, hash, probes } => {
            if is_ready(&standing.status, standing.generation, &means.names) {
                return;
            }
            let mut said = standing.status.clone();
            let mut proof = Proof { since: *since, hash, targets: probes, proved: BTreeSet::new(), unreachable: BTreeMap::new() };
            let mut gateways = means.gateways.clone();
            let mut connected = means.connected.watch();
            let mut retry = FIRST_RETRY;
            // A gateway that another replica knows refused it. That stands until that replica says
            // that it is over.
            let refused_elsewhere = standing.says_refused_by_gateway();
            while let Some(lacking) = proof.step(&means).await {
                if started.elapsed() > SAY_PENDING_AFTER && !refused_elsewhere {
                    said = say(&name, &standing, &said, Verdict::Pending(lacking), &means).await;
                }
                tokio::select! {
                    _ = gateways.changed() => {}
                    // A confirmation is what most steps wait for.
                    _ = connected.changed() => {}
                    () = tokio::time::sleep(retry) => retry = (retry * 2).min(LAST_RETRY),
                }
            }
            let proved = Instant::now();
            while refused_elsewhere && !means.knows_all_gateways() && proved.elapsed() < REFUSAL_STANDS {
                tokio::time::sleep(LAST_RETRY).await;
            }
            say(&name, &standing, &said, Verdict::Ready, &means).await;
            means.metrics.ingress_ready_seconds.observe(started.elapsed().as_secs_f64());
            tracing::info!(ingress = %name, generation = standing.generation, seconds = started.elapsed().as_secs_f64(), "ready");
        }
        Progress::Waiting { missing } => {
            tokio::time::sleep(SAY_PENDING_AFTER).await;
            let message = format!("waiting for {}", missing.join(", "));
            say(&name, &standing, &standing.status, Verdict::Pending(message), &means).await;
        }
        Progress::Refused { reason, message } => {
            say(&name, &standing, &standing.status, Verdict::Refused(reason, message.clone()), &means).await;
        }
    }
}

/// Writes what is to be said, until it is written. Returns the status as it is then.
async fn say(name: &ObjectName, standing: &Standing, before: &IngressStatus, verdict: Verdict, means: &Means) -> IngressStatus {
    let status = next(before, standing.generation, &verdict, &means.names, Timestamp::now());
    if status == *before {
        return status;
    }
    let mut retry = FIRST_RETRY;
    while let Err(error) = means.writer.write(name, &status).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "trying again");
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
    status
}

/// The first few, and how many more: on a large cluster a status would not hold them all, nor would
/// anybody read them.
fn summary(lacking: &[String]) -> String {
    const MOST: usize = 3;
    let (first, rest) = lacking.split_at(lacking.len().min(MOST));
    let more = if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) };
    first.join("; ") + &more
}

struct Proof<'a> {
    since: Revision,
    hash: &'a str,
    targets: &'a [ProbeTarget],
    proved: BTreeSet<GatewayPod>,
    unreachable: BTreeMap<IpAddr, Instant>,
}

impl Proof<'_> {
    /// Asks every gateway that has not proved the version yet. What is still lacking, or `None`
    /// when nothing is.
    async fn step(&mut self, means: &Means) -> Option<String> {
        let Some(gateways) = means.gateways.borrow().clone() else { return Some("gateways are not known yet".to_owned()) };
        if gateways.is_empty() {
            return Some("no gateway is ready".to_owned());
        }
        let open: Vec<_> = gateways.iter().filter(|gateway| !self.proved.contains(gateway)).collect();
        let answers = join_all(open.iter().map(|gateway| self.ask(gateway, means))).await;
        let mut lacking = Vec::new();
        for (gateway, found) in open.into_iter().zip(answers) {
            match found {
                Found::Proved => {
                    self.unreachable.remove(&gateway.address);
                    self.proved.insert(gateway.clone());
                }
                Found::NotYet(why) => {
                    self.unreachable.remove(&gateway.address);
                    lacking.push(format!("gateway of {}: {why}", gateway.node));
                }
                Found::Unreachable(why) => {
                    let since = *self.unreachable.entry(gateway.address).or_insert_with(Instant::now);
                    let gone = means.connected.in_sync_at(&gateway.node).is_none() && since.elapsed() > GONE_AFTER;
                    if !gone {
                        lacking.push(format!("gateway of {}: {why}", gateway.node));
                    }
                }
            }
        }
        if self.proved.is_empty() && lacking.is_empty() {
            return Some("no gateway can be reached".to_owned());
        }
        (!lacking.is_empty()).then(|| summary(&lacking))
    }

    async fn ask(&self, gateway: &GatewayPod, means: &Means) -> Found {
        // One that is connected to another replica cannot be known to have confirmed; its answer
        // must do.
        let confirmed = means.connected.in_sync_at(&gateway.node).map(|at| at >= self.since);
        if confirmed == Some(false) {
            return Found::NotYet("has not confirmed the version".to_owned());
        }
        for target in self.targets {
            let Ok(_permit) = means.probes.acquire().await else { return Found::NotYet("stopping".to_owned()) };
            match means.prober.ask(gateway.address, target, self.hash).await {
                Found::Proved => {}
                other => {
                    means.metrics.failed_probes.inc();
                    return other;
                }
            }
        }
        Found::Proved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_gateways_that_lag_the_first_are_named_and_the_others_counted() {
        let lacking: Vec<_> = (0..200).map(|node| format!("gateway of node{node}: answers 404")).collect();
        assert_eq!(summary(&lacking[..1]), "gateway of node0: answers 404");
        assert!(summary(&lacking).ends_with("gateway of node2: answers 404; and 197 more"));
    }
}
