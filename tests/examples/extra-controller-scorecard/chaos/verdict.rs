//! What everything has to come to when nothing is disturbed any more.

use std::collections::BTreeMap;

use k8s_api::seika::Seika;
use k8s_api::{PodAutoscaler, ServerlessService};
use k8s_openapi::api::core::v1::Pod;
use kantai_tests::knative::removals::{OFF, PER_POD, least_pods};
use kantai_tests::knative::stage::{is_ready, revision_of};
use kantai_tests::seika::cluster::is_of_a_seika;
use kube::ResourceExt as _;
use kube::api::ListParams;

use super::{STEADY, World};

/// Silent watches are noticed within half a minute, lost Leases run out, retries wait for half a
/// minute at most, and then windows have to pass.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(150);

/// The most: each source may earn one more than its load is worth.
fn most_pods(by_source: &[u32]) -> usize {
    let total: u32 = by_source.iter().sum();
    let asked = ((f64::from(total) + OFF) / PER_POD).ceil() as usize;
    let earned: usize = by_source.iter().filter(|clients| **clients > 0).map(|clients| *clients as usize / 7 + 1).sum();
    if total == 0 { 0 } else { asked.max(earned) }
}

impl World<'_> {
    /// Waits until every revision has the pods that its load asks for, all of them ready.
    pub(super) async fn converge(&self) -> anyhow::Result<()> {
        let begun = std::time::Instant::now();
        loop {
            let amiss = self.amiss().await?;
            if amiss.is_empty() {
                return Ok(());
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "a decision was lost: {}", amiss.join("; "));
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
    }

    async fn amiss(&self) -> anyhow::Result<Vec<String>> {
        let seikas = self.stage.api::<Seika>().list(&ListParams::default()).await?.items;
        let counts: BTreeMap<String, i32> =
            seikas.iter().map(|seika| (seika.name_any(), seika.spec.repurika.values().sum())).collect();
        let pods = self.stage.api::<Pod>().list(&ListParams::default()).await?.items;
        let mut amiss = Vec::new();
        for name in STEADY.iter().map(|(name, _)| (*name).to_owned()).chain(self.changing.clone()) {
            let by_source: Vec<u32> = self.stage.nodes.iter().map(|node| self.gateways.clients_at(&name, node)).collect();
            let (least, most) = (least_pods(by_source.iter().sum::<u32>().into()), most_pods(&by_source));
            let own: Vec<&Pod> = pods.iter().filter(|pod| revision_of(pod) == Some(&name)).collect();
            let ready = own.iter().filter(|pod| is_ready(pod)).count();
            // The Deployment's first pods may be among them.
            let made = own.iter().filter(|pod| is_of_a_seika(pod)).count();
            let asked = counts.get(&name).map_or(0, |count| usize::try_from(*count).unwrap_or(0));
            if asked != made || ready != own.len() || !(least..=most).contains(&ready) {
                let pods = own.len();
                amiss.push(format!(
                    "{name}: its Seika asks for {asked} and has {made}, {pods} are there, {ready} ready; {by_source:?} ask for {least} to {most}"
                ));
            }
        }
        Ok(amiss)
    }

    /// Waits until nothing is left of revisions that are gone.
    pub(super) async fn nothing_left(&self) -> anyhow::Result<()> {
        let begun = std::time::Instant::now();
        loop {
            let mut left = Vec::new();
            let mut look = |kind: &str, names: Vec<String>| {
                let is_alive = |name: &String| STEADY.iter().any(|(steady, _)| name.starts_with(steady));
                left.extend(names.into_iter().filter(|name| !is_alive(name)).map(|name| format!("{kind} {name}")));
            };
            let all = ListParams::default();
            look("PodAutoscaler", names(&self.stage.api::<PodAutoscaler>().list(&all).await?.items));
            look("Seika", names(&self.stage.api::<Seika>().list(&all).await?.items));
            look("ServerlessService", names(&self.stage.api::<ServerlessService>().list(&all).await?.items));
            look("Pod", names(&self.stage.api::<Pod>().list(&all).await?.items));
            if left.is_empty() {
                return Ok(());
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "left behind: {}", left.join(", "));
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
    }
}

fn names<K: kube::Resource>(objects: &[K]) -> Vec<String> {
    objects.iter().map(kube::ResourceExt::name_any).collect()
}
