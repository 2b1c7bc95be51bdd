//! A network namespace in which the addresses of pods and Services are local.

use std::process::Command;

use anyhow::Context as _;
use local_control_plane::components::{Component, Components};
use local_control_plane::control_plane::SERVICE_RANGE;

/// Where nodes' pods are: those of node N have the addresses 10.44.N.x.
const POD_RANGE: &str = "10.44.0.0/16";

/// Runs `work` on threads of a network namespace that ends with them: any port is free and any
/// address may be had, and nothing of the machine's own network is touched. Needs root, and the
/// component [`Component::Ip`].
///
/// # Errors
/// Where the namespace cannot be made, and those of `work`.
pub fn in_own_network<T, F: Future<Output = anyhow::Result<T>>>(
    components: &Components,
    work: impl FnOnce() -> F,
) -> anyhow::Result<T> {
    // Threads that this one starts from now on, and processes that they start, are in it, too.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).context("failed to make a network namespace: that takes root")?;
    let ip = |arguments: &str| -> anyhow::Result<()> {
        let status = Command::new(components.path(Component::Ip)?).args(arguments.split(' ')).status()?;
        anyhow::ensure!(status.success(), "failed to run ip {arguments}");
        Ok(())
    };
    ip("link set lo up")?;
    for range in [POD_RANGE, SERVICE_RANGE] {
        ip(&format!("route add local {range} dev lo"))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work())
}
