//! How each fault is made, and how it is seen that it is there. How it is undone is
//! [`Lab::mend`](super::lab::Lab::mend)'s, the same for all.

use std::process::Stdio;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, ResourceExt};
use nix::sys::signal::Signal;
use tokio::process::Child;

use super::FaultError;
use super::catalog::Fault;
use super::firewall::Dropped;
use super::lab::{Lab, SERVES, ask};
use super::service;
use crate::run::latency;

/// A fault that is there. What still works on it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Injected {
    fault: Fault,
    victim: String,
    /// `kubectl drain`, which waits for pods to end.
    _drain: Option<Child>,
    /// What pods are made to ask for.
    cpu: Option<String>,
}

impl Injected {
    /// Makes a fault. Where it concerns one node, that is `victim`.
    pub(super) async fn make(fault: Fault, victim: &str, lab: &Lab) -> Result<Self, FaultError> {
        let mut injected = Self { fault, victim: victim.to_owned(), _drain: None, cpu: None };
        if let Some(deployment) = fault.deployment() {
            lab.scale_to_none(deployment).await?;
            return Ok(injected);
        }
        match fault {
            Fault::CutAll | Fault::CutOne | Fault::ProbeFirewall => {
                let dropped = if fault == Fault::ProbeFirewall { Dropped::Probes } else { Dropped::ApiServer(lab.api_server()) };
                for (_, pid1) in lab.nodes.iter().filter(|(name, _)| fault != Fault::CutOne || *name == victim) {
                    lab.firewall.put_up(*pid1, dropped).await?;
                }
            }
            Fault::FreezeAll => lab.signal_kubelets(Signal::SIGSTOP)?,
            Fault::Drain => injected._drain = Some(drain(victim, lab)?),
            Fault::LabelOff => lab.set_serves(victim, false).await?,
            Fault::GrownTemplate => {
                let cpu = whole_node(lab).await?;
                lab.let_queue_proxies_ask_for(&cpu).await?;
                injected.cpu = Some(cpu);
            }
            Fault::PrometheusGone | Fault::ExtraControllerGone | Fault::SeikaControllerGone | Fault::LocalityIngressGone => {}
        }
        Ok(injected)
    }

    /// What is still missing of the fault; nothing once it is there.
    pub(super) async fn lacks(&self, lab: &Lab) -> Result<Option<String>, FaultError> {
        if let Some(deployment) = self.fault.deployment() {
            let left = lab.pods_of(deployment).await?;
            return Ok((!left.is_empty()).then(|| format!("{} still has {}", deployment.1, left.join(", "))));
        }
        let nodes = lab.node_objects().await?;
        Ok(match self.fault {
            Fault::CutAll | Fault::FreezeAll | Fault::CutOne => {
                let heard = nodes.iter().filter(|node| !super::whole::is_silent(node)).map(ResourceExt::name_any);
                let heard: Vec<String> = heard.filter(|name| self.fault != Fault::CutOne || *name == self.victim).collect();
                (!heard.is_empty()).then(|| format!("{} is still heard of", heard.join(", ")))
            }
            Fault::Drain => {
                let cordoned = nodes.iter().filter(|node| node.name_any() == self.victim);
                let cordoned = cordoned.filter_map(|node| node.spec.as_ref()?.unschedulable).any(|cordoned| cordoned);
                (!cordoned).then(|| format!("{} takes pods", self.victim))
            }
            Fault::LabelOff => {
                let labelled = nodes.iter().any(|node| node.name_any() == self.victim && node.labels().contains_key(SERVES));
                labelled.then(|| format!("{} has its label", self.victim))
            }
            Fault::GrownTemplate => {
                let cpu = self.cpu.as_deref().unwrap_or_default();
                let grown = seika_requests(lab).await?;
                (!grown.iter().any(|asked| asked == cpu)).then(|| "the Seika's template is as it was".to_owned())
            }
            Fault::ProbeFirewall => {
                let known = latency::from_probers(&lab.client).await.map_err(ask("ask the probers"))?;
                let pairs: usize = known.values().map(std::collections::BTreeMap::len).sum();
                (pairs > 0).then(|| format!("{pairs} pairs are still known"))
            }
            Fault::PrometheusGone | Fault::ExtraControllerGone | Fault::SeikaControllerGone | Fault::LocalityIngressGone => None,
        })
    }
}

fn drain(node: &str, lab: &Lab) -> Result<Child, FaultError> {
    lab.kubectl(&["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| FaultError::Do { what: format!("drain {node}"), problem: error.to_string() })
}

/// All the processors of the smallest node: something runs on every node, so that nowhere is room
/// for a pod that asks for these.
async fn whole_node(lab: &Lab) -> Result<String, FaultError> {
    let nodes = lab.node_objects().await?;
    let cpus = nodes.iter().filter_map(|node| node.status.as_ref()?.allocatable.as_ref()?.get("cpu").cloned());
    let smallest = cpus.min_by_key(|cpu| cpu.0.parse::<u64>().unwrap_or(u64::MAX));
    smallest.map(|cpu| cpu.0).ok_or_else(|| FaultError::Do {
        what: "find out how many processors a node has".to_owned(),
        problem: "no node says it".to_owned(),
    })
}

/// How many processors the containers of the service's Seikas ask for, each.
async fn seika_requests(lab: &Lab) -> Result<Vec<String>, FaultError> {
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("batch.bonavadeur.io", "v1", "Seika"), "seikas");
    let seikas: Api<DynamicObject> = Api::namespaced_with(lab.client.clone(), service::NAMESPACE, &kind);
    let seikas = seikas.list(&ListParams::default()).await.map_err(ask("list the Seikas"))?;
    let of_service = seikas.iter().filter(|seika| seika.name_any().starts_with(service::NAME));
    let containers =
        of_service.flat_map(|seika| seika.data["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default());
    Ok(containers.map(|container| container["resources"]["requests"]["cpu"].as_str().unwrap_or_default().to_owned()).collect())
}
