//! Lays the wire between the nodes of a cluster.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::RunError;
use crate::cluster::{Cluster, NodeHandle, launch};
use crate::wire::{LinkMatrix, WireClient, WireConfig, WireError, WireNode, WireStatus};

/// Starts the wire process for a cluster's nodes and waits until the wire is laid. The process ends
/// with the cluster.
///
/// # Errors
///
/// When the process cannot be started or does not lay the wire in time; the error then holds the
/// end of its log.
pub async fn lay_wire(
    cluster: &mut Cluster,
    lab_binary: &Path,
    links: &LinkMatrix,
) -> Result<(WireClient, WireStatus), RunError> {
    let folder: PathBuf = cluster.state().path().join("wire");
    let failed = |source| WireError::Config { path: folder.clone(), source };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let nodes = cluster.nodes().iter().map(wire_node).collect::<Result<_, _>>()?;
    let config = WireConfig::new(nodes, links.clone(), folder.clone());
    let config_file = folder.join("wire.json");
    config.write(&config_file)?;
    let log_file = folder.join("wire.log");
    let log = File::create(&log_file).map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;

    let mut process = launch::inside(lab_binary, &cluster.helpers_cgroup(), None, lab_binary)
        .arg("wire")
        .arg("--config")
        .arg(&config_file)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // A Ctrl-C on the terminal is for the lab, which then takes the wire down with everything
        // else.
        .process_group(0)
        .spawn()
        .map_err(|source| RunError::Start { program: format!("{} wire", lab_binary.display()), source })?;
    if let Some(pid) = process.id() {
        cluster.state().record_process("wire", pid.cast_signed())?;
    }

    let client = WireClient::new(&config.socket());
    let laid = tokio::select! {
        status = client.wait_until_laid(Duration::from_secs(20)) => status,
        _ = process.wait() => Err(WireError::Control { socket: config.socket(), problem: "the process ended".to_owned() }),
    };
    match laid {
        Ok(status) => Ok((client, status)),
        Err(error) => {
            let log = std::fs::read_to_string(&log_file).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(5).collect();
            let problem = format!("{error}; its log ends with: {}", end.into_iter().rev().collect::<Vec<_>>().join(" | "));
            Err(WireError::Control { socket: config.socket(), problem }.into())
        }
    }
}

fn wire_node(node: &NodeHandle) -> Result<WireNode, WireError> {
    Ok(WireNode {
        name: node.name.clone(),
        netns: node.netns.clone(),
        address: node.ip,
        pod_cidr: node.pod_cidr.to_string().parse().map_err(|problem| WireError::Invalid { problem })?,
        uplink: node.uplink.to_owned(),
    })
}
