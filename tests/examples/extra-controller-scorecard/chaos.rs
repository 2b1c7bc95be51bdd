//! Everything goes wrong under simulated load: daemons are killed and stopped, watches lag, break
//! and fall silent, the API server refuses and its answers get lost, demand and latency are not
//! told, nodes are cut off, pods fail and are deleted, revisions come and go. No decision takes a
//! ready pod that measured demand asks for (`kantai_tests::knative::removals` has the rule), and in
//! the end everything is as the demand says and nothing is left of what is gone.
//!
//! API server, controllers and daemons are real; the daemons are processes and reach it through a
//! proxy that makes the faults. Gateways, probers, kubelets and Knative's ServerlessService
//! controller are stand-ins (see `kantai_tests::knative`).

mod keeper;
mod observer;
mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kantai_tests::api_server::config_of;
use kantai_tests::knative::gateways::{self, Gateways};
use kantai_tests::knative::kubelets::Kubelets;
use kantai_tests::knative::probers::{self, Probers};
use kantai_tests::knative::serverless::Serverless;
use kantai_tests::knative::stage::{ACCOUNT, Born, Stage, address, is_ready};
use kantai_tests::seika::faults::{Faults, Weather};
use kantai_tests::seika::proxy::Proxy;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use local_control_plane::components::Components;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use scorecards::note;
use serde_json::json;

use self::keeper::Keeper;
use self::observer::Observer;
use crate::binaries::{Binaries, arguments};

/// Disturbances between two looks at what came of them.
pub(crate) const POINTS_PER_RUN: usize = 50;
const NODES: u8 = 6;
/// Revisions whose load never changes: node (from 0) and clients there.
const STEADY: [(&str, &[(usize, u32)]); 3] =
    [("steady-one", &[(0, 30), (3, 12)]), ("steady-two", &[(1, 5)]), ("steady-three", &[(2, 16), (5, 3)])];
/// Revisions at a time whose load changes.
const CHANGING: usize = 5;
/// The longest time between two disturbances.
const LONGEST_PAUSE: Duration = Duration::from_millis(150);

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Toll {
    /// Disturbances.
    pub(crate) points: usize,
    /// Runs that did not go as they should, and why.
    pub(crate) bad: Vec<String>,
    kinds: BTreeMap<&'static str, usize>,
}

struct World<'a> {
    stage: &'a Stage,
    gateways: Gateways,
    probers: Probers,
    kubelets: Kubelets,
    observer: Observer,
    extra_faults: Faults,
    seika_faults: Faults,
    extras: [Keeper; 2],
    seikas: Keeper,
    /// Revisions that there are, and whether their load may change.
    changing: Vec<String>,
    cut: Vec<String>,
    made: usize,
}

pub(crate) async fn unleash(components: &Components, binaries: &Binaries, points: usize, seed: u64) -> anyhow::Result<Toll> {
    let stage = Stage::start(components, NODES).await?;
    let mut world = World::start(&stage, binaries, seed).await?;
    let mut toll = Toll::default();
    let runs = points.div_ceil(POINTS_PER_RUN);
    for run in 0..runs {
        let seed = seed.wrapping_add(run as u64);
        let begun = std::time::Instant::now();
        if let Err(error) = world.run(seed, &mut toll).await {
            toll.bad.push(format!("seed {seed}: {error:#}"));
            note(&format!("seed {seed}: {error:#}"));
            world.keep_logs(seed)?;
        }
        eprintln!("  run {} of {runs}, seed {seed}: {:.0?}, {} bad so far", run + 1, begun.elapsed(), toll.bad.len());
    }
    let kinds: Vec<String> = toll.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    note(&format!("chaos: {}", kinds.join(", ")));
    let sudden = world.observer.sudden();
    note(&format!("chaos: {sudden} ready pods went by the rule that the clients of that very moment would have asked for"));
    world.stop().await?;
    Ok(toll)
}

impl<'a> World<'a> {
    async fn start(stage: &'a Stage, binaries: &Binaries, seed: u64) -> anyhow::Result<Self> {
        let client = stage.client();
        let kubelets = Kubelets::start(client.clone(), &stage.nodes[0]);
        let _serverless = Serverless::start(client, kubelets.clone()).await?;
        let probers = Probers::start(&stage.nodes).await?;
        let ingress = address(1, 3);
        let gateways = Gateways::start(&stage.nodes, (ingress, 8080).into()).await?;
        stage.daemon_pod("locality-ingress", &stage.nodes[0], ingress).await?;
        let (extra_faults, seika_faults) = (Faults::new(seed), Faults::new(seed.wrapping_add(1)));
        let way = async |faults: &Faults, account: &str| -> anyhow::Result<_> {
            let proxy = Proxy::start(faults.client(config_of(stage.control_plane(), account).await?)?).await?;
            let path = stage.folder().join(format!("proxied-{account}"));
            std::fs::write(&path, proxy.kubeconfig().to_string())?;
            Ok((std::sync::Arc::new(proxy), path))
        };
        let (extra_way, seika_way) = (way(&extra_faults, ACCOUNT).await?, way(&seika_faults, "seika-controller").await?);
        let extra = |name: &str, port| {
            Keeper::start(
                &binaries.path(ACCOUNT),
                extra_way.clone(),
                arguments(name, port),
                stage.folder().join(format!("{name}.log")),
            )
        };
        let seikas = vec!["--ops-listen=127.0.0.1:0".to_owned(), "--pod-name=seika-controller".to_owned()];
        let seikas = Keeper::start(&binaries.path("seika-controller"), seika_way, seikas, stage.folder().join("seikas.log"))?;
        let world = Self {
            stage,
            observer: Observer::start(stage, gateways.clone()).await?,
            gateways,
            probers,
            kubelets,
            extra_faults,
            seika_faults,
            extras: [extra("one", 18081)?, extra("two", 18082)?],
            seikas,
            changing: Vec::new(),
            cut: Vec::new(),
            made: 0,
        };
        for (name, load) in STEADY {
            stage.add_revision(name, Born { at_zero: true, ..Born::default() }).await?;
            load.iter().for_each(|(node, clients)| world.gateways.set_clients(name, &stage.nodes[*node], *clients));
        }
        world.converge().await?;
        Ok(world)
    }

    async fn run(&mut self, seed: u64, toll: &mut Toll) -> anyhow::Result<()> {
        let mut chance = StdRng::seed_from_u64(seed);
        self.observer.begin();
        while self.changing.len() < CHANGING {
            self.add(&mut chance).await?;
        }
        let disturbed = self.disturb_often(&mut chance, toll).await;
        self.calm().await?;
        let result = self.converge().await;
        // The next run begins with revisions of its own, whatever became of these.
        let removed = self.changing.clone();
        for name in &removed {
            self.remove(name).await?;
        }
        self.nothing_left().await?;
        disturbed?;
        result?;
        let wrongs = self.observer.wrongs();
        anyhow::ensure!(wrongs.is_empty(), "{}", wrongs.join("; "));
        Ok(())
    }

    async fn disturb_often(&mut self, chance: &mut StdRng, toll: &mut Toll) -> anyhow::Result<()> {
        for _ in 0..POINTS_PER_RUN {
            toll.points += 1;
            let kind = self.disturb(chance).await?;
            *toll.kinds.entry(kind).or_default() += 1;
            tokio::time::sleep(chance.random_range(Duration::ZERO..LONGEST_PAUSE)).await;
        }
        Ok(())
    }

    /// One disturbance, and what kind it was.
    async fn disturb(&mut self, chance: &mut StdRng) -> anyhow::Result<&'static str> {
        Ok(match chance.random_range(0..32) {
            0..=8 => {
                if let Some(name) = self.changing.choose(chance) {
                    let node = self.stage.nodes.choose(chance).expect("there are nodes");
                    let count = if chance.random_bool(0.4) { 0 } else { chance.random_range(1..25) };
                    self.gateways.set_clients(name, node, count);
                }
                "changes of load"
            }
            9..=11 => {
                let which = chance.random_range(0..2);
                self.extras[which].kill().await?;
                "kills of an extra-controller"
            }
            12 => {
                let which = chance.random_range(0..2);
                self.extras[which].restart().await?;
                "restarts of an extra-controller"
            }
            13 | 14 => {
                self.seikas.kill().await?;
                "kills of the seika-controller"
            }
            15 | 16 => {
                self.faults(chance).cut_watches();
                "times that all watches broke"
            }
            17..=20 => {
                let weather = Weather::any(chance);
                self.faults(chance).set(weather);
                "changes of the API server's faults (409, 410, 5xx, lost and late answers)"
            }
            // Each takes half a minute to be noticed.
            21 if chance.random_bool(0.3) => {
                self.faults(chance).stall_watches();
                "times that all watches fell silent"
            }
            21 | 22 => {
                let manners = [gateways::Manner::Well, gateways::Manner::Refused, gateways::Manner::Silent];
                self.gateways.set(*manners.choose(chance).expect("there are manners"));
                "changes of how demand is told"
            }
            23 | 24 => {
                let manners = [probers::Manner::Well, probers::Manner::Error, probers::Manner::Silent];
                self.probers.set(*manners.choose(chance).expect("there are manners"));
                "changes of how latency is told"
            }
            25 | 26 => {
                self.cut_or_mend(chance).await?;
                "nodes cut off or back"
            }
            27..=29 => {
                self.hurt_a_pod(chance).await?;
                "pods that failed or were deleted"
            }
            30 => {
                if let Some(name) = self.changing.choose(chance).cloned() {
                    self.remove(&name).await?;
                }
                "revisions deleted"
            }
            _ => {
                self.add(chance).await?;
                "revisions made"
            }
        })
    }

    fn faults(&self, chance: &mut StdRng) -> &Faults {
        if chance.random_bool(0.6) { &self.extra_faults } else { &self.seika_faults }
    }

    async fn add(&mut self, chance: &mut StdRng) -> anyhow::Result<()> {
        let name = format!("changing-{}", self.made);
        self.made += 1;
        self.stage.add_revision(&name, Born { at_zero: chance.random_bool(0.5), ..Born::default() }).await?;
        self.changing.push(name);
        Ok(())
    }

    async fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        self.observer.excuse_revision(name);
        self.gateways.forget(name);
        self.changing.retain(|other| other != name);
        self.stage.remove_revision(name).await
    }

    async fn cut_or_mend(&mut self, chance: &mut StdRng) -> anyhow::Result<()> {
        if self.cut.len() == 2 || !self.cut.is_empty() && chance.random_bool(0.5) {
            let node = self.cut.remove(0);
            return self.set_cut(&node, false).await;
        }
        let node = self.stage.nodes.choose(chance).expect("there are nodes").clone();
        if !self.cut.contains(&node) {
            self.set_cut(&node, true).await?;
            self.cut.push(node);
        }
        Ok(())
    }

    async fn set_cut(&self, node: &str, is_cut: bool) -> anyhow::Result<()> {
        self.kubelets.set_cut(node, is_cut);
        self.gateways.set_cut(node, is_cut);
        self.stage.set_node_ready(node, if is_cut { "Unknown" } else { "True" }).await
    }

    async fn hurt_a_pod(&self, chance: &mut StdRng) -> anyhow::Result<()> {
        let pods = self.kubelets.pods();
        let active: Vec<_> = pods.iter().filter(|pod| is_ready(pod)).collect();
        let Some(pod) = active.choose(chance) else { return Ok(()) };
        self.observer.excuse_pod(pod);
        let pods = self.stage.api::<Pod>();
        // It may have gone meanwhile.
        if chance.random_bool(0.5) {
            let failed = json!({"status": {"phase": "Failed", "reason": "Evicted",
                "conditions": [{"type": "Ready", "status": "False"}]}});
            let _ = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(failed)).await;
        } else {
            let _ = pods.delete(&pod.name_any(), &DeleteParams::default()).await;
        }
        Ok(())
    }

    async fn calm(&mut self) -> anyhow::Result<()> {
        self.extra_faults.set(Weather::default());
        self.seika_faults.set(Weather::default());
        self.gateways.set(gateways::Manner::Well);
        self.probers.set(probers::Manner::Well);
        for node in std::mem::take(&mut self.cut) {
            self.set_cut(&node, false).await?;
        }
        Ok(())
    }

    /// What a daemon said is kept where it can be read after the measurement.
    fn keep_logs(&self, seed: u64) -> anyhow::Result<()> {
        let folder = std::env::temp_dir().join(format!("kantai-chaos-{seed}"));
        std::fs::create_dir_all(&folder)?;
        for keeper in self.extras.iter().chain([&self.seikas]) {
            std::fs::copy(keeper.log(), folder.join(keeper.log().file_name().unwrap_or_default()))?;
        }
        note(&format!("seed {seed}: what the daemons said is in {}", folder.display()));
        Ok(())
    }

    async fn stop(self) -> anyhow::Result<()> {
        for keeper in self.extras.into_iter().chain([self.seikas]) {
            keeper.stop().await?;
        }
        Ok(())
    }
}
