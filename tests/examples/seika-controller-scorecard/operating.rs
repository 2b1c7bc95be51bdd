//! What an operator meets: an API server that falls silent, and disruption budgets in the way of a
//! drain.

use std::path::Path;

use kantai_tests::seika::budgets::{kinds, lets_a_drain_pass};
use kantai_tests::seika::faults::Faults;
use kantai_tests::seika::kubectl::Kubectl;
use kantai_tests::seika::process::Launch;
use kantai_tests::seika::proxy::Proxy;
use kantai_tests::seika::silence::noticed_after;
use scorecards::note;

use crate::cluster::Audited;
use crate::process;

/// Seconds from when every watch has stalled without a word until a change of the counts is heeded.
pub(crate) async fn stall(audited: &Audited, binary: &Path) -> anyhow::Result<f64> {
    let cluster = audited.cluster();
    let faults = Faults::new(rand::random());
    let proxy = Proxy::start(faults.client(cluster.controllers_config().await?)?).await?;
    let folder = tempfile::Builder::new().prefix("kantai-scorecard-").tempdir()?;
    let (kubeconfig, log) = (folder.path().join("kubeconfig"), cluster.control_plane().folder().join("logs/seika-controller"));
    std::fs::write(&kubeconfig, proxy.kubeconfig().to_string())?;
    let case = cluster.case_without_controller(1).await?;
    cluster.allow_lease_in(&case.namespace).await?;
    let launch = Launch {
        binary,
        kubeconfig: &kubeconfig,
        namespace: Some(&case.namespace),
        lease_namespace: &case.namespace,
        identity: "scorecard-stall",
        log: &log,
    };
    let process = launch.start_leading(cluster.client()).await?;
    let took = noticed_after(&case, || faults.stall_watches()).await?;
    process.stop().await?;
    Ok(took.as_secs_f64())
}

/// How many kinds of budgets let a drain pass, and hold it up where they should; and how many there
/// are.
pub(crate) async fn budgets(audited: &Audited, binary: &Path) -> anyhow::Result<(usize, usize)> {
    let cluster = audited.cluster();
    let kubectl = Kubectl::of(cluster).await?;
    let process = process::start(binary, cluster).await?;
    let kinds = kinds();
    let mut passed = 0;
    for budget in &kinds {
        let case = cluster.case_without_controller(3).await?;
        match lets_a_drain_pass(&case, &kubectl, budget).await {
            Ok(()) => passed += 1,
            Err(error) => note(&format!("pdb_ok: {budget}: {error:#}")),
        }
    }
    process.stop().await?;
    Ok((passed, kinds.len()))
}
