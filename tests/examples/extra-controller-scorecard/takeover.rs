//! What happens when the leader is killed: how long until the standby acts, and what it changes
//! that nobody asked it to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use k8s_api::seika::Seika;
use k8s_api::{PodAutoscaler, ServerlessService};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kantai_tests::daemon::Daemon;
use kantai_tests::eventually;
use kantai_tests::knative::gateways::Gateways;
use kantai_tests::knative::kubelets::Kubelets;
use kantai_tests::knative::probers::Probers;
use kantai_tests::knative::serverless::Serverless;
use kantai_tests::knative::stage::{ACCOUNT, Born, Stage, address};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use local_control_plane::components::Components;
use scorecards::note;

use crate::binaries::Binaries;

/// Revisions with load: clients at some of the nodes.
const LOADS: [&[(usize, u32)]; 6] = [&[(0, 12)], &[(1, 30)], &[(0, 5), (2, 5)], &[(3, 60)], &[(1, 3)], &[(2, 24), (3, 9)]];
/// Leaders that are killed while a revision is being woken.
const KILLS: usize = 3;
/// For so long nothing may have changed before a leader is killed, and it is watched for so long
/// after.
const STILL: Duration = Duration::from_secs(20);
const WATCHED: Duration = Duration::from_secs(40);

/// What came of it.
pub(crate) struct Takeover {
    /// From the leader's end until the standby has asked for a pod: the longest.
    pub(crate) seconds: f64,
    /// Objects that are others than before, though nothing was to change.
    pub(crate) writes: f64,
}

struct Pair<'a> {
    stage: &'a Stage,
    binaries: &'a Binaries,
    instances: Vec<(String, u16, Daemon)>,
}

pub(crate) async fn measure(components: &Components, binaries: &Binaries) -> anyhow::Result<Takeover> {
    let stage = Stage::start(components, 4).await?;
    let kubelets = Kubelets::start(stage.client(), &stage.nodes[0]);
    let _serverless = Serverless::start(stage.client(), kubelets).await?;
    let _probers = Probers::start(&stage.nodes).await?;
    let ingress = address(1, 3);
    let gateways = Gateways::start(&stage.nodes, (ingress, 8080).into()).await?;
    stage.daemon_pod("locality-ingress", &stage.nodes[0], ingress).await?;
    for (number, load) in LOADS.iter().enumerate() {
        let name = format!("busy-{number}");
        stage.add_revision(&name, Born { at_zero: true, window_seconds: 60 }).await?;
        load.iter().for_each(|(node, clients)| gateways.set_clients(&name, &stage.nodes[*node], *clients));
    }
    for number in 0..KILLS {
        stage.add_revision(&format!("sleeping-{number}"), Born { at_zero: true, window_seconds: 60 }).await?;
    }
    let _seikas = binaries.seika_controller(&stage).await?;
    let mut pair = Pair { stage: &stage, binaries, instances: Vec::new() };
    pair.add("one", 18081).await?;
    pair.add("two", 18082).await?;
    pair.until_still().await?;

    let (asked, before) = (stage.audit.writes()?.others.len(), versions(&stage).await?);
    pair.kill_the_leader().await?;
    tokio::time::sleep(WATCHED).await;
    let (asked, after) = (stage.audit.writes()?.others.len() - asked, versions(&stage).await?);
    note(&format!("takeover_writes: {asked} writes were asked for"));
    let changed: Vec<&String> =
        after.iter().filter(|(name, version)| before.get(*name) != Some(*version)).map(|(name, _)| name).collect();
    changed.iter().for_each(|name| note(&format!("takeover_writes: {name} is another")));
    let gone = before.keys().filter(|name| !after.contains_key(*name)).count();
    let writes = (changed.len() + gone) as f64;

    let mut longest: f64 = 0.0;
    for number in 0..KILLS {
        pair.restart_the_killed().await?;
        pair.until_still().await?;
        let name = format!("sleeping-{number}");
        let seikas = stage.api::<Seika>();
        let version = seikas.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        let asleep = seikas.get_opt(&name).await?.is_none_or(|seika| seika.spec.repurika.values().all(|count| *count == 0));
        anyhow::ensure!(asleep, "{name} is not at zero");
        let begun = Instant::now();
        pair.kill_the_leader().await?;
        gateways.set_clients(&name, &stage.nodes[number], 1);
        let parameters = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = Box::pin(seikas.watch(&parameters, &version).await?);
        let asked = async {
            while let Some(event) = events.try_next().await? {
                if let WatchEvent::Added(seika) | WatchEvent::Modified(seika) = event
                    && seika.name_any() == name
                    && seika.spec.repurika.values().any(|count| *count > 0)
                {
                    return Ok(());
                }
            }
            anyhow::bail!("the watch ended")
        };
        tokio::time::timeout(Duration::from_secs(60), asked).await??;
        let seconds = begun.elapsed().as_secs_f64();
        note(&format!("takeover_s: {seconds:.2} s from the kill to the pod that is asked for"));
        longest = longest.max(seconds);
    }
    Ok(Takeover { seconds: longest, writes })
}

/// The version of every object that a decision may change, by kind and name.
async fn versions(stage: &Stage) -> anyhow::Result<BTreeMap<String, String>> {
    async fn of<K>(stage: &Stage, all: &mut BTreeMap<String, String>) -> anyhow::Result<()>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        for object in stage.api::<K>().list(&ListParams::default()).await?.items {
            let version = object.resource_version().unwrap_or_default();
            all.insert(format!("{} {}", K::kind(&()), object.name_any()), version);
        }
        Ok(())
    }
    let mut all = BTreeMap::new();
    of::<Seika>(stage, &mut all).await?;
    of::<ServerlessService>(stage, &mut all).await?;
    of::<PodAutoscaler>(stage, &mut all).await?;
    of::<Deployment>(stage, &mut all).await?;
    of::<Pod>(stage, &mut all).await?;
    Ok(all)
}

impl Pair<'_> {
    async fn add(&mut self, name: &str, port: u16) -> anyhow::Result<()> {
        let daemon = self.binaries.extra_controller(self.stage, name, port).await?;
        self.instances.push((name.to_owned(), port, daemon));
        Ok(())
    }

    async fn leader(&self) -> anyhow::Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.stage.client(), kantai_tests::api_server::SYSTEM_NAMESPACE);
        eventually("one of those that run leads", async || {
            let lease = leases.get_opt(ACCOUNT).await?;
            let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
            Ok(if self.instances.iter().any(|(name, ..)| *name == holder) {
                Ok(holder)
            } else {
                Err(format!("{holder:?} leads"))
            })
        })
        .await
    }

    async fn kill_the_leader(&mut self) -> anyhow::Result<()> {
        let leader = self.leader().await?;
        let at = self.instances.iter().position(|(name, ..)| *name == leader);
        let (_, _, daemon) = self.instances.remove(at.unwrap_or_default());
        daemon.kill().await
    }

    async fn restart_the_killed(&mut self) -> anyhow::Result<()> {
        let (name, port) = [("one", 18081), ("two", 18082)]
            .into_iter()
            .find(|(name, _)| self.instances.iter().all(|(running, ..)| running != name))
            .unwrap_or(("one", 18081));
        self.leader().await?;
        self.add(name, port).await
    }

    /// Waits until nothing has been written for a while.
    async fn until_still(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (mut count, mut since) = (self.stage.audit.writes()?.others.len(), Instant::now());
        while since.elapsed() < STILL {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(240), "it does not come to rest");
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.stage.audit.writes()?.others.len();
            if now != count {
                (count, since) = (now, Instant::now());
            }
        }
        Ok(())
    }
}
