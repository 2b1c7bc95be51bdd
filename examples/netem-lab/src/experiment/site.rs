//! The cluster that an experiment runs on, and what is done there.

use std::cell::Cell;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::column::{Column, NAMESPACE};
use super::machine::CpuWatch;
use super::measure::{PodLife, Stretch};
use super::{Experiment, ExperimentError, Fault, Load, Service};
use crate::cluster::Cluster;
use crate::faults;
use crate::load::{self, Connections, Outcome};
use crate::report::{RttTable, injected_rtt_ms};
use crate::run::latency;
use crate::run::pods::PodWatch;
use crate::wire::{Lateness, Link, LinkMatrix, WireClient};

/// Our ingress, and the variable by which its policy is chosen.
const INGRESS: (&str, &str) = ("kantai-system", "locality-ingress");
const POLICY: &str = "KANTAI_POLICY";

const READY_WITHIN: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How far medians of round trips may be from what is injected, beside the jitter.
const RTT_TOLERANCE_MS: f64 = 1.0;

/// A cluster that is up, and those who watch it.
pub(super) struct Site<'a> {
    cluster: &'a Cluster,
    lab: &'a faults::Lab,
    client: Client,
    pub(super) wire: WireClient,
    pods: PodWatch,
    cpu: CpuWatch,
    policy: Cell<&'static str>,
}

impl<'a> Site<'a> {
    pub(super) fn new(cluster: &'a Cluster, lab: &'a faults::Lab, wire: WireClient, name: &str) -> Result<Self, ExperimentError> {
        let client = cluster
            .client()
            .ok_or_else(|| ExperimentError::Cluster { experiment: name.to_owned(), problem: "the cluster is down".to_owned() })?;
        let (pods, cpu) = (PodWatch::start(client.clone()), CpuWatch::start());
        Ok(Self { cluster, lab, client, wire, pods, cpu, policy: Cell::new("locality") })
    }

    /// Waits until the probers measure what is injected, and tells what they measure.
    pub(super) async fn latency(&self, links: &LinkMatrix) -> Result<RttTable, ExperimentError> {
        let injected = injected_rtt_ms(links);
        let mut measured = RttTable::new();
        let what = format!("every round trip measured within {RTT_TOLERANCE_MS} ms and the jitter of what is injected");
        self.until(&what, READY_WITHIN, async || {
            measured = latency::from_probers(&self.client).await.map_err(api("ask the probers"))?;
            Ok(wrong_pair(&injected, links, &measured))
        })
        .await?;
        Ok(measured)
    }

    /// Lets our ingress choose pods as a column's users would see it.
    pub(super) async fn choose_policy(&self, column: Column) -> Result<(), ExperimentError> {
        let Some(policy) = column.policy().filter(|policy| *policy != self.policy.get()) else { return Ok(()) };
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), INGRESS.0);
        let patch = json!({ "spec": { "template": { "spec": { "containers": [
            { "name": INGRESS.1, "env": [{ "name": POLICY, "value": policy }] }
        ] } } } });
        let what = "change the policy of the ingress";
        deployments.patch(INGRESS.1, &PatchParams::default(), &Patch::Strategic(patch)).await.map_err(api(what))?;
        self.until("the ingress with another policy", READY_WITHIN, async || {
            let deployment = deployments.get(INGRESS.1).await.map_err(api(what))?;
            Ok((!is_rolled_out(&deployment)).then(|| "it is not rolled out".to_owned()))
        })
        .await?;
        self.policy.set(policy);
        Ok(())
    }

    fn objects(&self, object: &Value) -> Api<DynamicObject> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let (group, version) = object["apiVersion"].as_str().unwrap_or_default().rsplit_once('/').unwrap_or(("", "v1"));
        let kind = GroupVersionKind::gvk(group, version, kind);
        let plural = format!("{}s", kind.kind.to_lowercase());
        Api::namespaced_with(self.client.clone(), NAMESPACE, &ApiResource::from_gvk_with_plural(&kind, &plural))
    }

    pub(super) async fn apply(&self, column: Column, name: &str, service: &Service) -> Result<(), ExperimentError> {
        for object in column.objects(name, service) {
            let applied = PatchParams::apply("netem-lab");
            let what = format!("apply {} {name}", object["kind"].as_str().unwrap_or_default());
            self.objects(&object).patch(name, &applied, &Patch::Apply(&object)).await.map_err(api(what))?;
        }
        Ok(())
    }

    pub(super) async fn delete(&self, column: Column, name: &str, service: &Service) -> Result<(), ExperimentError> {
        for object in column.objects(name, service) {
            let what = format!("delete {} {name}", object["kind"].as_str().unwrap_or_default());
            self.objects(&object).delete(name, &DeleteParams::default()).await.map_err(api(what))?;
        }
        self.until_no_pods(column, name).await
    }

    /// Waits until a service can be asked.
    pub(super) async fn until_ready(&self, column: Column, name: &str, service: &Service) -> Result<(), ExperimentError> {
        let Some(first) = column.objects(name, service).into_iter().next() else { return Ok(()) };
        let api_of_it = self.objects(&first);
        self.until(&format!("service {name} ready"), READY_WITHIN, async || {
            let object = api_of_it.get(name).await.map_err(api(format!("read {name}")))?;
            Ok((!is_ready(&object.data)).then(|| object.data["status"]["conditions"].to_string()))
        })
        .await
    }

    /// The pods of a service, also those that are gone.
    pub(super) fn pods(&self, column: Column, name: &str) -> Vec<PodLife> {
        let (key, value) = column.label(name);
        let all = self.pods.all();
        all.iter().filter(|pod| pod.labels.get(key) == Some(&value)).map(PodLife::from).collect()
    }

    /// Waits until the end of every pod of a service is asked for.
    pub(super) async fn until_no_pods(&self, column: Column, name: &str) -> Result<(), ExperimentError> {
        self.until(&format!("no pod of {name}"), READY_WITHIN, async || {
            let left = self.pods(column, name).iter().filter(|pod| pod.ends_unix_seconds.is_none()).count();
            Ok((left > 0).then(|| format!("{left} pods")))
        })
        .await
    }

    /// Waits until a pod of a service serves.
    pub(super) async fn until_a_pod_serves(&self, column: Column, name: &str) -> Result<(), ExperimentError> {
        self.until(&format!("a pod of {name}"), READY_WITHIN, async || {
            let now = crate::run::unix_seconds();
            Ok((!self.pods(column, name).iter().any(|pod| pod.serves_at(now))).then(|| "none serves".to_owned()))
        })
        .await
    }

    async fn until(
        &self,
        what: &str,
        within: Duration,
        mut lacks: impl AsyncFnMut() -> Result<Option<String>, ExperimentError>,
    ) -> Result<(), ExperimentError> {
        let began = Instant::now();
        while let Some(instead) = lacks().await? {
            if began.elapsed() > within {
                return Err(ExperimentError::Late { what: what.to_owned(), seconds: within.as_secs(), instead });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Sends as a load says for so long, and waits for the answers. Ends when dropped.
    pub(super) async fn send(&self, load: &Load, url: &str, seconds: f64) -> Result<Vec<Outcome>, ExperimentError> {
        let mut arguments = vec!["load".to_owned(), "--seconds".to_owned(), seconds.to_string()];
        arguments.extend(match (load.per_second, load.at_a_time) {
            (Some(rate), _) => ["--rate".to_owned(), rate.to_string()],
            (None, senders) => ["--workers".to_owned(), senders.unwrap_or(1).to_string()],
        });
        let connections = if load.connections == Connections::New { "new" } else { "keep-alive" };
        arguments.extend(["--connections".to_owned(), connections.to_owned()]);
        self.ask(&load.from, url, load.timeout_seconds, arguments).await
    }

    /// Sends one request.
    pub(super) async fn send_one(&self, node: &str, url: &str, timeout_seconds: f64) -> Result<Outcome, ExperimentError> {
        let outcomes = self.ask(node, url, timeout_seconds, vec!["request".to_owned()]).await?;
        let nothing = || ExperimentError::Load { node: node.to_owned(), source: std::io::Error::other("no outcome") };
        outcomes.into_iter().next().ok_or_else(nothing)
    }

    async fn ask(
        &self,
        node: &str,
        url: &str,
        timeout_seconds: f64,
        arguments: Vec<String>,
    ) -> Result<Vec<Outcome>, ExperimentError> {
        let failed = |source| ExperimentError::Load { node: node.to_owned(), source };
        let handle = self.cluster.node(node).ok_or_else(|| failed(std::io::Error::other("the cluster has no such node")))?;
        let output = handle
            .command(load::own_program().map_err(failed)?)
            .args(arguments)
            .args(["--from-node", node, "--url", url, "--timeout-seconds", &timeout_seconds.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(failed)?;
        let read = |line| serde_json::from_str(line).map_err(|error| failed(std::io::Error::other(error)));
        let outcomes = String::from_utf8_lossy(&output.stdout).lines().map(read).collect::<Result<Vec<_>, _>>()?;
        if output.status.success() { Ok(outcomes) } else { Err(failed(std::io::Error::other(output.status.to_string()))) }
    }

    /// Lets something be amiss.
    pub(super) async fn make(&self, fault: &Fault, links: &LinkMatrix) -> Result<(), ExperimentError> {
        match fault {
            Fault::CutOff(node) => Ok(self.lab.cut_off(node).await?),
            Fault::LinkDown(a, b) => {
                let mut without = links.clone();
                for (from, to) in [(a, b), (b, a)] {
                    let link = links.get(from, to).unwrap_or_default();
                    without.set(from, to, Link { loss_ratio: 1.0, ..link });
                }
                Ok(self.wire.set_links(without).await?)
            }
        }
    }

    /// Undoes it.
    pub(super) async fn mend(&self, fault: &Fault, links: &LinkMatrix) -> Result<(), ExperimentError> {
        match fault {
            Fault::CutOff(node) => Ok(self.lab.reconnect(node).await?),
            Fault::LinkDown(..) => Ok(self.wire.set_links(links.clone()).await?),
        }
    }

    /// What else is to be known of a stretch of time that is over.
    pub(super) async fn complete(&self, stretch: &mut Stretch, name: &str) -> Result<(), ExperimentError> {
        let (from, to) = (stretch.from_unix_seconds, stretch.to_unix_seconds);
        stretch.pods = self.pods(stretch.column, name);
        stretch.cpu = self.cpu.between(from, to);
        let mut lateness = Lateness::default();
        for slice in self.wire.status(from).await?.slices.iter().filter(|slice| slice.at_unix_seconds < to) {
            lateness.merge(&slice.lateness);
        }
        stretch.emulator_late_p99_ms = lateness.quantile_seconds(0.99).map(|seconds| seconds * 1e3);
        Ok(())
    }
}

impl Experiment {
    /// The name of a column's service: never the same again, so that nothing is remembered of it.
    pub(super) fn service_name(&self, column: Column, repetition: u32) -> String {
        format!("{}-{}-{repetition}", self.name, column.name())
    }
}

fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> ExperimentError {
    move |source| ExperimentError::Api { what: what.into(), source: Box::new(source) }
}

fn wrong_pair(injected: &RttTable, links: &LinkMatrix, measured: &RttTable) -> Option<String> {
    for (from, row) in injected {
        for (to, wanted) in row {
            let Some(seen) = measured.get(from).and_then(|row| row.get(to)) else {
                return Some(format!("{from} to {to} is not measured"));
            };
            let jitter =
                [(from, to), (to, from)].into_iter().filter_map(|(a, b)| links.get(a, b)).map(|link| link.jitter_seconds);
            if (seen - wanted).abs() > RTT_TOLERANCE_MS + jitter.sum::<f64>() * 1e3 {
                return Some(format!("{from} to {to}: {seen:.2} instead of {wanted:.2} ms"));
            }
        }
    }
    None
}

/// A Knative Service that is Ready, or a Deployment with all its replicas available.
fn is_ready(object: &Value) -> bool {
    if let Some(wanted) = object["spec"]["replicas"].as_u64() {
        return object["status"]["availableReplicas"].as_u64() == Some(wanted);
    }
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn is_rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let Some(status) = &deployment.status else { return false };
    status.observed_generation == deployment.metadata.generation
        && [status.updated_replicas, status.available_replicas, status.replicas].iter().all(|count| *count == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_what_the_object_says_it_is() {
        assert!(is_ready(&json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } })));
        assert!(!is_ready(&json!({ "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] } })));
        assert!(!is_ready(&json!({ "spec": { "replicas": 3 }, "status": { "availableReplicas": 2 } })));
        assert!(is_ready(&json!({ "spec": { "replicas": 3 }, "status": { "availableReplicas": 3 } })));
    }

    #[test]
    fn a_median_may_stray_as_far_as_the_jitter() {
        let link = Link { delay_seconds: 0.025, jitter_seconds: 0.005, loss_ratio: 0.0 };
        let links = LinkMatrix::uniform(vec!["a".to_owned(), "b".to_owned()], link);
        let injected = injected_rtt_ms(&links);
        let measured = |ms: f64| {
            let row = |to: &str| [(to.to_owned(), ms)].into();
            RttTable::from([("a".to_owned(), row("b")), ("b".to_owned(), row("a"))])
        };
        assert_eq!(wrong_pair(&injected, &links, &measured(60.9)), None);
        assert_eq!(wrong_pair(&injected, &links, &measured(61.1)).as_deref(), Some("a to b: 61.10 instead of 50.00 ms"));
        assert_eq!(wrong_pair(&injected, &links, &RttTable::new()).as_deref(), Some("a to b is not measured"));
    }
}
