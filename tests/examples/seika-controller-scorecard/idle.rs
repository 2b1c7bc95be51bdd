//! What the controller costs when there is nothing to do: 200 Seikas, 2,000 pods that run.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kantai_tests::seika::cluster::until;
use kube::api::ListParams;
use scorecards::note;
use serde_json::{Map, json};

use crate::cluster::Audited;
use crate::process;

const NODES: usize = 50;
const SEIKAS: usize = 200;
const PODS_PER_SEIKA: usize = 10;
/// For what was begun to end: the last statuses, the last events.
const QUIET: Duration = Duration::from_secs(20);

/// What came of it.
pub(crate) struct Idle {
    /// Writes that reached the API server, those of the Lease aside.
    pub(crate) writes: f64,
    pub(crate) millicores: f64,
    pub(crate) rss_mib: f64,
    /// Pods beyond what was asked for, at any instant until all ran.
    pub(crate) overshoot: usize,
}

pub(crate) async fn measure(audited: &Audited, binary: &Path, seconds: u64) -> anyhow::Result<Idle> {
    let cluster = audited.cluster();
    let case = cluster.case_without_controller(NODES).await?;
    let observer = case.observe().await?;
    let process = process::start(binary, cluster).await?;
    stream::iter(0..SEIKAS)
        .map(|number| create(&case, number))
        .buffer_unordered(8)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await?;
    until("all pods are there", async || Ok(observer.created() >= SEIKAS * PODS_PER_SEIKA)).await?;
    let pods = case.active().await?;
    stream::iter(&pods)
        .map(|pod| case.make_ready(pod))
        .buffer_unordered(16)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await?;
    until("all Seikas are available", async || {
        let seikas = case.seikas.list(&ListParams::default()).await?.items;
        let wanted = i32::try_from(PODS_PER_SEIKA)?;
        Ok(seikas.iter().all(|seika| seika.status.as_ref().is_some_and(|status| status.available_replicas == wanted)))
    })
    .await?;
    // Each Seika asks for one pod on each of its nodes.
    let most = observer.seen().most_per_node.into_values().max().unwrap_or(0);
    drop(observer);
    tokio::time::sleep(QUIET).await;

    let (writes, cpu, begun) = (audited.writes()?, process.cpu_seconds()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (writes_after, cpu_after, took) = (audited.writes()?, process.cpu_seconds()?, begun.elapsed().as_secs_f64());
    let rss_mib = process.rss_mib()?;
    process.stop().await?;
    note(&format!(
        "idle_writes: in {took:.0} s; beside them the Lease of the leader was renewed {} times",
        writes_after.lease - writes.lease
    ));
    case.pods.delete_collection(&Default::default(), &ListParams::default()).await?;
    case.seikas.delete_collection(&Default::default(), &ListParams::default()).await?;
    Ok(Idle {
        writes: (writes_after.others - writes.others) as f64,
        millicores: 1000.0 * (cpu_after - cpu) / took,
        rss_mib,
        overshoot: most.saturating_sub(SEIKAS * PODS_PER_SEIKA / NODES),
    })
}

async fn create(case: &kantai_tests::seika::cluster::Case, number: usize) -> anyhow::Result<()> {
    let nodes = (0..PODS_PER_SEIKA).map(|pod| &case.nodes[(number * PODS_PER_SEIKA + pod) % NODES]);
    let mut seika = case.sample(&[])?;
    let name = format!("hello-{number}");
    seika["metadata"]["name"] = json!(name);
    seika["spec"]["repurika"] = nodes.map(|node| (node.clone(), json!(1))).collect::<Map<_, _>>().into();
    // Selectors that do not overlap.
    seika["spec"]["selector"] = json!({ "matchLabels": { "app": name } });
    seika["spec"]["template"]["metadata"]["labels"] = json!({ "app": name });
    case.create(seika).await?;
    Ok(())
}
