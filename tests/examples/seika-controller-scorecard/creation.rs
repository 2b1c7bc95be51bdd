//! How fast a thousand pods are created: by the controller, by a bare client with the same pods and
//! as many requests at once, and by the ReplicaSet controller as kube-controller-manager runs it by
//! default. All on one API server, in turn.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kantai_tests::daemon::Daemon;
use kantai_tests::seika::cluster::{Case, until};
use kantai_tests::seika::observer::Observer;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::core::{PartialObjectMeta, Request};
use kube::{Client, Resource as _};
use scorecards::note;
use seika_controller::ControllerOptions;
use seika_controller::{manifest, naming};
use serde_json::{Value, json};

use crate::cluster::Audited;
use crate::process;

const NODES: usize = 50;
const PODS_PER_NODE: usize = 20;
const PODS: usize = NODES * PODS_PER_NODE;
/// A measurement that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(300);

/// What came of it.
pub(crate) struct Creation {
    /// From the apply to the last pod, the median of all rounds.
    pub(crate) step_seconds: f64,
    /// Our rate in percent of the bare client's of the same round, the median of all rounds; each
    /// counted from the first pod created to the last, since the one is told what to create before
    /// its time runs, and the other has to hear of it.
    pub(crate) ceiling_percent: f64,
    /// Our median rate in multiples of the ReplicaSet controller's.
    pub(crate) replica_set_ratio: f64,
    /// Pods beyond what was asked for, at any instant.
    pub(crate) overshoot: usize,
}

pub(crate) async fn measure(audited: &Audited, binary: &Path, rounds: usize) -> anyhow::Result<Creation> {
    let cluster = audited.cluster();
    let nodes = cluster.case_without_controller(NODES).await?.nodes;
    let (mut ours, mut percents, mut bares, mut overshoot) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 0..=rounds {
        // Each is first in every other round, so that none has a warmer API server on the whole.
        let (mut bare, mut step) = (Taken::default(), Taken::default());
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                bare = bare_client(&cluster.case_on(&nodes).await?, cluster.controllers_client().await?).await?;
            } else {
                let process = process::start(binary, cluster).await?;
                let (taken, beyond) = controller(&cluster.case_on(&nodes).await?, process).await?;
                step = taken;
                overshoot = overshoot.max(beyond);
            }
        }
        let percent = 100.0 * bare.creating / step.creating;
        if round == 0 {
            note(&format!("warming up: {:.2} s, bare client {:.2} s", step.whole, bare.whole));
            continue;
        }
        note(&format!(
            "round {round}: {PODS} pods in {:.2} s, {:.2} s of it from the first to the last ({:.0} pods/s); the server's own ceiling, a bare client: {:.2} s, {:.2} s ({:.0} pods/s)",
            step.whole,
            step.creating,
            PODS as f64 / step.creating,
            bare.whole,
            bare.creating,
            PODS as f64 / bare.creating
        ));
        ours.push(step.whole);
        bares.push(bare.whole);
        percents.push(percent);
    }
    let replica_set = replica_set(&cluster.case_on(&nodes).await?).await?;
    let step_seconds = median(&mut ours);
    note(&format!(
        "step_1000_s: the server's own ceiling is {:.2} s; the ReplicaSet controller takes {replica_set:.2} s ({:.1} pods/s)",
        median(&mut bares),
        PODS as f64 / replica_set
    ));
    Ok(Creation {
        step_seconds,
        ceiling_percent: median(&mut percents),
        replica_set_ratio: replica_set / step_seconds,
        overshoot,
    })
}

/// How long it took to create the pods, in seconds.
#[derive(Clone, Copy, Default)]
struct Taken {
    /// From the beginning: the request for the Seika, or that for the first pod.
    whole: f64,
    /// From the first pod to the last.
    creating: f64,
}

/// By the controller, and pods beyond what was asked for.
async fn controller(case: &Case, process: Daemon) -> anyhow::Result<(Taken, usize)> {
    let observer = case.observe().await?;
    let begun = Instant::now();
    case.create(seika(case, PODS_PER_NODE)?).await?;
    let taken = until_created(&observer, begun).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let most = observer.seen().most_per_node.into_values().max().unwrap_or(0);
    // Stopped before its pods are taken away, lest it bring them back.
    process.stop().await?;
    clear(case).await?;
    Ok((taken, most.saturating_sub(PODS_PER_NODE)))
}

/// By a client that does nothing but post the pods that the controller would.
async fn bare_client(case: &Case, client: Client) -> anyhow::Result<Taken> {
    let seika = case.create(seika(case, 0)?).await?;
    let owner = seika.controller_owner_ref(&()).ok_or_else(|| anyhow::anyhow!("a Seika without a name"))?;
    let uid = seika.metadata.uid.clone().unwrap_or_default();
    let template = &seika.spec.template;
    let revision = naming::revision(template);
    let labels = manifest::labels(&seika.spec.selector.match_labels.clone().unwrap_or_default(), template);
    let slots = (0..PODS_PER_NODE as u32).flat_map(|slot| case.nodes.iter().map(move |node| (slot, node)));
    let pods: Vec<Value> = slots
        .map(|(slot, node)| {
            manifest::pod(&naming::pod_name("hello", &uid, node, slot), node, &revision, &labels, template, &owner)
        })
        .collect();
    let observer = case.observe().await?;
    let begun = Instant::now();
    stream::iter(&pods)
        .map(|pod| post(&client, &case.namespace, pod))
        .buffer_unordered(ControllerOptions::default().writes_at_once)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await?;
    let taken = until_created(&observer, begun).await?;
    clear(case).await?;
    Ok(taken)
}

async fn post(client: &Client, namespace: &str, pod: &Value) -> anyhow::Result<()> {
    let request = Request::new(Pod::url_path(&(), Some(namespace))).create(&PostParams::default(), serde_json::to_vec(pod)?)?;
    client.request::<PartialObjectMeta<Pod>>(request).await?;
    Ok(())
}

/// By the ReplicaSet controller.
async fn replica_set(case: &Case) -> anyhow::Result<f64> {
    let sets: Api<ReplicaSet> = Api::namespaced(case.client.clone(), &case.namespace);
    let template = seika(case, 0)?["spec"]["template"].clone();
    let set = json!({ "metadata": { "name": "hello" },
        "spec": { "replicas": PODS, "selector": { "matchLabels": { "app": "hello" } }, "template": template } });
    let begun = Instant::now();
    sets.create(&PostParams::default(), &serde_json::from_value(set)?).await?;
    loop {
        // Its own word for it: asking for all pods again and again would slow down what is
        // measured.
        let replicas = sets.get("hello").await?.status.map_or(0, |status| status.replicas);
        if usize::try_from(replicas).is_ok_and(|replicas| replicas >= PODS) {
            break;
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "the ReplicaSet controller has made {replicas} pods");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    sets.delete("hello", &DeleteParams::background()).await?;
    clear(case).await?;
    Ok(seconds)
}

fn seika(case: &Case, per_node: usize) -> anyhow::Result<Value> {
    case.sample(&vec![i32::try_from(per_node)?; case.nodes.len()])
}

async fn until_created(observer: &Observer, begun: Instant) -> anyhow::Result<Taken> {
    while observer.created() < PODS {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "only {} pods were created", observer.created());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (first, last) = observer.seen().created_within.context("no pod was created")?;
    Ok(Taken { whole: last.duration_since(begun).as_secs_f64(), creating: last.duration_since(first).as_secs_f64() })
}

async fn clear(case: &Case) -> anyhow::Result<()> {
    case.pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
    until("all pods are gone", async || Ok(case.pods.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty()))
        .await?;
    case.seikas.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
