//! Counts change while everything goes wrong: the controller is killed, watches lag and break, the
//! API server refuses and its answers get lost, kubelets fail pods and people delete them. At no
//! instant is there a pod too many, and in the end there are exactly those asked for.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures::future;
use k8s_api::seika::{NODE_LABEL, Seika};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::cluster::{Case, Cluster, is_active, is_of_a_seika, until};
use super::faults::{Faults, Weather};
use super::keeper::Keeper;
use crate::api_server::apply;

/// How much of it.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// The seed of the first run; each following run has the next.
    pub seed: u64,
    /// How many runs.
    pub runs: usize,
    /// How many disturbances each run has.
    pub points_per_run: usize,
    /// How many runs there are at once, each in a namespace and on nodes of its own.
    pub lanes: usize,
    /// The controller's binary, to be run as a process; without it, the controller is a task of
    /// this process.
    pub binary: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Toll {
    /// Disturbances.
    pub points: usize,
    /// Pods beyond the most that was asked for during a run, at any instant.
    pub overshoot: usize,
    /// Runs that did not end as they should, and why.
    pub bad: Vec<String>,
}

impl Chaos {
    /// Does all of it.
    ///
    /// # Errors
    /// Where the tests' own requests fail. Runs that go wrong are in the toll.
    pub async fn unleash(&self, cluster: &Cluster) -> anyhow::Result<Toll> {
        let next = AtomicUsize::new(0);
        let lanes = (0..self.lanes.max(1)).map(|_| self.lane(cluster, &next));
        let mut toll = Toll::default();
        for lane in future::try_join_all(lanes).await? {
            toll.points += lane.points;
            toll.overshoot = toll.overshoot.max(lane.overshoot);
            toll.bad.extend(lane.bad);
        }
        Ok(toll)
    }

    /// Takes one run after the other until none is left.
    async fn lane(&self, cluster: &Cluster, next: &AtomicUsize) -> anyhow::Result<Toll> {
        let case = cluster.case_without_controller(3).await?;
        cluster.allow_lease_in(&case.namespace).await?;
        let foreign = plant_foreign_pods(&case).await?;
        let mut toll = Toll::default();
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= self.runs {
                return Ok(toll);
            }
            // A seed per run, so that a failing run can be replayed without those before it.
            let seed = self.seed.wrapping_add(run as u64);
            if let Err(error) = self.run(cluster, &case, seed, &mut toll).await {
                toll.bad.push(format!("seed {seed}: {error:#}"));
            }
            if foreign_pods(&case).await? != foreign {
                toll.bad.push(format!("seed {seed}: a pod of another owner was deleted"));
            }
        }
    }

    async fn run(&self, cluster: &Cluster, case: &Case, seed: u64, toll: &mut Toll) -> anyhow::Result<()> {
        let faults = Faults::new(seed);
        let mut keeper = Keeper::start(cluster, case, &faults, self.binary.as_deref()).await?;
        let result = self.disturb(case, &faults, &mut keeper, seed, toll).await;
        // Why it went wrong is in there, if anywhere.
        let said = if result.is_ok() { String::new() } else { keeper.said() };
        drop(keeper);
        // The next run starts from nothing, whatever the result of this one.
        clear(case).await?;
        result.with_context(|| said)
    }

    async fn disturb(&self, case: &Case, faults: &Faults, keeper: &mut Keeper, seed: u64, toll: &mut Toll) -> anyhow::Result<()> {
        let mut chance = StdRng::seed_from_u64(seed);
        let observer = case.observe().await?;
        // Where few pods are ever asked for, one too many shows at once.
        let ceiling = chance.random_range(1..=6);
        let mut counts = [0; 3].map(|_: i32| chance.random_range(0..=ceiling));
        let mut most = counts;
        case.create(case.sample(&counts)?).await?;

        for _ in 0..self.points_per_run {
            toll.points += 1;
            match chance.random_range(0..12) {
                0..=4 => {
                    counts = [0; 3].map(|_: i32| chance.random_range(0..=ceiling));
                    most = std::array::from_fn(|node| most[node].max(counts[node]));
                    case.set(&counts).await?;
                }
                5 => keeper.kill().await?,
                6 => keeper.hand_over().await?,
                7 => faults.cut_watches(),
                8 | 9 => faults.set(Weather::any(&mut chance)),
                10 => fail_or_make_ready(case, &mut chance).await?,
                _ => delete_one(case, &mut chance).await?,
            }
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..25))).await;
        }

        faults.set(Weather::default());
        // Until the last change has come to the controller, what it does is right by the one
        // before, and may pass through the right counts by chance.
        let is_heeded =
            |seika: &Seika| seika.status.as_ref().and_then(|status| status.observed_generation) == seika.metadata.generation;
        case.until_status("the last change is heeded", is_heeded).await?;
        let wanted = counts.map(|count| usize::try_from(count).unwrap_or(0));
        case.until_per_node(&wanted).await?;
        // What is still on its way must not add to it either.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = case.per_node().await?;
        anyhow::ensure!(now == wanted, "{now:?} pods in the end, {wanted:?} wanted");
        let seen = observer.seen();
        for (node, most) in case.nodes.iter().zip(most) {
            let beyond = seen.most_per_node.get(node).copied().unwrap_or(0).saturating_sub(usize::try_from(most).unwrap_or(0));
            toll.overshoot = toll.overshoot.max(beyond);
            anyhow::ensure!(beyond == 0, "{beyond} pods too many on {node} at some instant");
        }
        Ok(())
    }
}

async fn ours(case: &Case) -> anyhow::Result<Vec<Pod>> {
    let pods = case.pods.list(&ListParams::default()).await?.items;
    Ok(pods.into_iter().filter(|pod| is_of_a_seika(pod) && is_active(pod)).collect())
}

async fn fail_or_make_ready(case: &Case, chance: &mut StdRng) -> anyhow::Result<()> {
    let pods = ours(case).await?;
    let Some(pod) = pods.choose(chance) else { return Ok(()) };
    if chance.random_bool(0.5) {
        // It may have gone meanwhile.
        let _ = case.make_ready(pod).await;
    } else {
        let failed = json!({ "status": { "phase": "Failed", "reason": "Evicted" } });
        let _ = case.pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(failed)).await;
    }
    Ok(())
}

async fn delete_one(case: &Case, chance: &mut StdRng) -> anyhow::Result<()> {
    let pods = ours(case).await?;
    let Some(pod) = pods.choose(chance) else { return Ok(()) };
    let grace = if chance.random_bool(0.5) { DeleteParams::default() } else { DeleteParams::default().grace_period(0) };
    let _ = case.pods.delete(&pod.name_any(), &grace).await;
    Ok(())
}

async fn plant_foreign_pods(case: &Case) -> anyhow::Result<BTreeSet<String>> {
    let accounts: Api<ServiceAccount> = Api::namespaced(case.client.clone(), &case.namespace);
    let uid = accounts.get("default").await?.uid();
    // Their labels are those of our pods; only their controller is another one.
    let owner = json!([{ "apiVersion": "v1", "kind": "ServiceAccount", "name": "default", "uid": uid, "controller": true }]);
    for (index, node) in case.nodes.iter().enumerate() {
        let labels = json!({ "app": "hello", NODE_LABEL: node });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("foreign-{index}"), "namespace": case.namespace, "labels": labels, "ownerReferences": owner },
            "spec": { "containers": [{ "name": "hello", "image": "dev.local/kantai/hello:0.1.0" }] },
        });
        apply(&case.client, &pod).await?;
    }
    foreign_pods(case).await
}

async fn foreign_pods(case: &Case) -> anyhow::Result<BTreeSet<String>> {
    let pods = case.pods.list(&ListParams::default()).await?.items;
    Ok(pods.iter().filter(|pod| !is_of_a_seika(pod)).filter_map(Pod::uid).collect())
}

/// Deletes the Seika and its pods at once.
async fn clear(case: &Case) -> anyhow::Result<()> {
    match case.seikas.delete("hello", &DeleteParams::background()).await {
        // The run did not come that far.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => drop(other?),
    }
    until("all pods of the run are gone", async || {
        let pods = case.pods.list(&ListParams::default()).await?.items;
        let left: Vec<&Pod> = pods.iter().filter(|pod| is_of_a_seika(pod)).collect();
        for pod in &left {
            let _ = case.pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
        }
        Ok(left.is_empty())
    })
    .await
}
