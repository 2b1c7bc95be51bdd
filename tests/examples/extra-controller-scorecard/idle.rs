//! What the daemon costs when nobody asks for anything: 200 revisions at zero, 50 nodes.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_api::ServerlessService;
use kantai_tests::eventually;
use kantai_tests::knative::gateways::Gateways;
use kantai_tests::knative::kubelets::Kubelets;
use kantai_tests::knative::probers::Probers;
use kantai_tests::knative::serverless::Serverless;
use kantai_tests::knative::stage::{Born, Stage, address};
use kube::api::ListParams;
use local_control_plane::components::Components;
use scorecards::note;

use crate::binaries::Binaries;

const NODES: u8 = 50;
const REVISIONS: usize = 200;
/// For what was begun to end, and for windows to be full.
const QUIET: Duration = Duration::from_secs(30);

/// What came of it.
pub(crate) struct Idle {
    pub(crate) millicores: f64,
    pub(crate) rss_mib: f64,
    /// Those of the Lease aside.
    pub(crate) writes: f64,
}

pub(crate) async fn measure(components: &Components, binaries: &Binaries, seconds: u64) -> anyhow::Result<Idle> {
    let stage = Stage::start(components, NODES).await?;
    let kubelets = Kubelets::start(stage.client(), &stage.nodes[0]);
    let _serverless = Serverless::start(stage.client(), kubelets).await?;
    let _probers = Probers::start(&stage.nodes).await?;
    let ingress = address(1, 3);
    let _gateways = Gateways::start(&stage.nodes, (ingress, 8080).into()).await?;
    stage.daemon_pod("locality-ingress", &stage.nodes[0], ingress).await?;
    stream::iter(0..REVISIONS)
        .map(|number| {
            let stage = &stage;
            async move { stage.add_revision(&format!("hello-{number:03}"), Born { at_zero: true, window_seconds: 60 }).await }
        })
        .buffer_unordered(8)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await?;
    let daemon = binaries.extra_controller(&stage, "one", 18080).await?;
    eventually("every revision has its ServerlessService", async || {
        let services = stage.api::<ServerlessService>().list(&ListParams::default()).await?.items.len();
        Ok(if services == REVISIONS { Ok(()) } else { Err(format!("{services} of {REVISIONS}")) })
    })
    .await?;
    tokio::time::sleep(QUIET).await;

    let (writes, cpu, begun) = (stage.audit.writes()?, daemon.cpu_seconds()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (after, cpu_after, took) = (stage.audit.writes()?, daemon.cpu_seconds()?, begun.elapsed().as_secs_f64());
    let rss_mib = daemon.rss_mib()?;
    daemon.stop().await?;
    let lease = after.lease - writes.lease;
    note(&format!("idle: in {took:.0} s; the Lease of the leader was renewed {lease} times; probers and gateways are stand-ins"));
    let others = &after.others[writes.others.len()..];
    others.iter().for_each(|write| note(&format!("idle_writes: {write}")));
    Ok(Idle { millicores: 1000.0 * (cpu_after - cpu) / took, rss_mib, writes: others.len() as f64 })
}
