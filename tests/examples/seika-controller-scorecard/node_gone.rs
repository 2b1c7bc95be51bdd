//! How long after a Node object went its pods are gone and the status says so.

use std::path::Path;
use std::time::{Duration, Instant};

use kantai_tests::seika::cluster::node_of;
use kube::api::ListParams;
use scorecards::note;

use crate::cluster::Audited;
use crate::process;

const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest of several times, in seconds, and pods beyond what was asked for.
pub(crate) async fn measure(audited: &Audited, binary: &Path) -> anyhow::Result<(f64, usize)> {
    let cluster = audited.cluster();
    let process = process::start(binary, cluster).await?;
    let case = cluster.case_without_controller(3).await?;
    let observer = case.observe().await?;
    case.create(case.sample(&[4, 4, 4])?).await?;
    let gone = case.nodes[0].clone();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        case.until_per_node(&[4, 4, 4]).await?;
        // Half of them are bound and run: those would wait for a kubelet for ever.
        for pod in case.active().await?.iter().filter(|pod| node_of(pod) == gone).take(2) {
            case.make_ready(pod).await?;
        }
        case.remove_node(&gone).await?;
        let begun = Instant::now();
        loop {
            let pods = case.pods.list(&ListParams::default()).await?.items;
            let status = case.seikas.get("hello").await?.status.unwrap_or_default();
            let is_told = status
                .per_node
                .iter()
                .any(|node| node.node == gone && node.current == 0 && node.reason.as_deref() == Some("NodeNotFound"));
            if is_told && pods.iter().all(|pod| node_of(pod) != gone) {
                break;
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "the pods of a node that is gone are still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        times.push(begun.elapsed().as_secs_f64());
        case.add_node(&gone).await?;
    }
    let most = observer.seen().most_per_node.into_values().max().unwrap_or(0);
    process.stop().await?;
    note(&format!("node_gone_s: {}", times.iter().map(|time| format!("{time:.2} s")).collect::<Vec<_>>().join(", ")));
    Ok((times.into_iter().fold(0.0, f64::max), most.saturating_sub(4)))
}
