//! What clients notice when something goes or changes.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use local_control_plane::components::Component;
use scorecards::Figure;

use crate::figure::quantile_ms;
use crate::load::{OpenLoop, Outcome};
use crate::stage::{Stage, entry};
use kantai_tests::ingress::backend::Backend;
use kantai_tests::ingress::bench::{NODES, eventually, gateway_pod_address, pod_address};

const PER_SECOND: u32 = 200;

/// Tells how many failed, and why.
fn failed<'a>(what: &str, outcomes: impl IntoIterator<Item = &'a Outcome>) -> usize {
    let outcomes: Vec<_> = outcomes.into_iter().collect();
    let mut why: BTreeMap<&str, usize> = BTreeMap::new();
    for error in outcomes.iter().filter_map(|outcome| outcome.answer.as_ref().err()) {
        *why.entry(error).or_default() += 1;
    }
    let took: Vec<_> = outcomes.iter().filter(|outcome| outcome.answer.is_ok()).map(|outcome| outcome.took).collect();
    let (p50, p99, most) = (quantile_ms(&took, 0.5), quantile_ms(&took, 0.99), quantile_ms(&took, 1.0));
    eprintln!("{what}: {} requests, p50 {p50:.1} ms, p99 {p99:.1} ms, max {most:.1} ms, failed: {why:?}", outcomes.len());
    why.values().sum()
}

/// The node that serves is cut off without a word: packets to and from it vanish. Kubernetes
/// notices nothing of it here.
pub(crate) async fn serving_node_cut_off(stage: &Stage) -> anyhow::Result<Vec<Figure>> {
    let _pods = [Backend::start("near", pod_address(1, 1)).await?, Backend::start("far", pod_address(3, 1)).await?];
    stage.plan.say("cut-00001", &[("node1", &[("node3", 100)])])?;
    let host = stage.revision("cut", &[(1, 1), (3, 1)]).await?;
    let load = OpenLoop::start(entry(1), &host, PER_SECOND);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cut_at = Instant::now();
    let cut = Cut::make(stage, "10.44.3.0/24")?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    drop(cut);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let outcomes = load.end().await?;
    stage.forget("cut").await?;
    let later = cut_at + Duration::from_millis(100);
    failed("before the cut", outcomes.iter().filter(|outcome| outcome.sent < cut_at));
    failed("in the first 100 ms", outcomes.iter().filter(|outcome| outcome.sent >= cut_at && outcome.sent < later));
    let after = failed("after the first 100 ms", outcomes.iter().filter(|outcome| outcome.sent >= later));
    Ok(vec![Figure::failed("failover_failed", after)])
}

/// Lets packets to and from a network vanish until it is dropped.
struct Cut {
    nft: std::path::PathBuf,
}

impl Cut {
    fn make(stage: &Stage, network: &str) -> anyhow::Result<Self> {
        let nft = stage.components.path(Component::Nft)?.to_owned();
        let rules = format!(
            "table ip cut {{ chain out {{ type filter hook output priority 0; ip daddr {network} drop; ip saddr {network} drop; }}; }}"
        );
        let cut = Self { nft };
        anyhow::ensure!(Command::new(&cut.nft).arg(&rules).status()?.success(), "failed to cut {network} off");
        Ok(cut)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        // The namespace goes with this process anyway.
        let _ = Command::new(&self.nft).arg("delete table ip cut").status();
    }
}

/// The control plane is killed and comes back a minute later.
pub(crate) async fn control_plane_down(stage: &mut Stage) -> anyhow::Result<Vec<Figure>> {
    let _pods = [Backend::start("1", pod_address(1, 1)).await?, Backend::start("2", pod_address(2, 1)).await?];
    let host = stage.revision("steady", &[(1, 1), (2, 1)]).await?;
    let load = OpenLoop::start(entry(1), &host, PER_SECOND);
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.kill_daemon().await?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let restarted = Instant::now();
    stage.start_daemon()?;
    // A change that is followed shows that it is back in full.
    stage.bench.pods("steady-00001", &[(2, 1)]).await?;
    eventually("a change to be followed after the restart", async || {
        let (status, who) = stage.bench.get(1, 8081, &host, "/").await?;
        anyhow::ensure!(status == 200 && who == "2", "{status} from {who}");
        Ok(())
    })
    .await?;
    eprintln!("a change is followed {:.1} s after the restart", restarted.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let outcomes = load.end().await?;
    stage.forget("steady").await?;
    Ok(vec![Figure::failed("control_plane_down_failed", failed("control plane down", &outcomes))])
}

/// Two hundred changes of who gets the traffic, then every gateway replaced by a new one as the
/// DaemonSet does it.
pub(crate) async fn updates_and_restarts(stage: &mut Stage) -> anyhow::Result<Vec<Figure>> {
    const UPDATES: usize = 200;
    let _pods = [Backend::start("old", pod_address(1, 1)).await?, Backend::start("new", pod_address(1, 2)).await?];
    stage.bench.service("default", "moving-00002", "http").await?;
    stage.bench.pods("moving-00002", &[(1, 2)]).await?;
    let host = stage.revision("moving", &[(1, 1)]).await?;
    let loads = NODES.map(|node| OpenLoop::start(entry(node), &host, PER_SECOND / 3 + 1));
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for update in 0..UPDATES {
        let (old, new) = [(100, 0), (50, 50), (0, 100), (50, 50)][(update + 1) % 4];
        let splits: Vec<_> = [("moving-00001", old), ("moving-00002", new)].into_iter().filter(|(_, share)| *share > 0).collect();
        stage.bench.ingress("moving", &splits).await?;
        slowest = slowest.max(stage.bench.ready("moving").await?);
    }
    eprintln!("{UPDATES} updates in {:.1} s, slowest Ready {slowest:?}", began.elapsed().as_secs_f64());
    for (at, node) in NODES.into_iter().enumerate() {
        replace_gateway(stage, at, node, &loads[at]).await?;
    }
    stage.pod = 2;
    let mut outcomes = Vec::new();
    for load in loads {
        outcomes.extend(load.end().await?);
    }
    stage.forget("moving").await?;
    Ok(vec![Figure::failed("update_failed", failed("updates and restarts", &outcomes))])
}

/// What the kubelet and kube-proxy do: the new pod gets ready beside the old one; the old one is
/// marked as ending, so new connections go to the new one; it is told to end after its preStop
/// hook, and killed at the end of its grace.
async fn replace_gateway(stage: &mut Stage, at: usize, node: u8, load: &OpenLoop) -> anyhow::Result<()> {
    let replacement = stage.bench.gateway_pod(node, 2).await?;
    let pods: Vec<_> = NODES.into_iter().map(|other| (other, if other <= node { 2 } else { 1 })).collect();
    stage.bench.gateway_pods_ready(&pods, &[(node, 1)]).await?;
    load.turn_to((gateway_pod_address(node, 2), 8081).into());
    let old = std::mem::replace(&mut stage.gateways[at], replacement);
    old.end_as_a_pod().await
}
