//! Packets that a node drops: rules of the kernel in the node's own network namespace, which go
//! with the node.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::FaultError;
use crate::cluster::layout::CONTROL_PLANE_ADDRESS;

/// The table that holds the rules of a fault; kube-proxy's own tables are left alone.
const TABLE: &str = "lab_fault";

/// Ports of the probers, see `deploy/latency-probe`: for figures and rows, and for UDP echoes.
const PROBER_PORTS: (u16, u16) = (9798, 9799);

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// All to and from the API server, whose address this is: those of the node itself and those of
    /// its pods.
    ApiServer(Ipv4Addr),
    /// Those by which the other nodes' probers measure.
    Probes,
}

/// The programs by which rules come into a node.
#[derive(Clone, Debug)]
pub(super) struct Firewall {
    pub(super) nft: PathBuf,
    pub(super) nsenter: PathBuf,
}

impl Firewall {
    /// Drops packets on the node with this first process, beside none that were dropped before.
    pub(super) async fn put_up(&self, pid1: i32, dropped: Dropped) -> Result<(), FaultError> {
        self.tell(pid1, &rules(dropped)).await
    }

    /// Lets all packets pass again. Does nothing where none are dropped.
    pub(super) async fn take_down(&self, pid1: i32) -> Result<(), FaultError> {
        // A table can be deleted only where it is: it is made first.
        self.tell(pid1, &format!("table inet {TABLE}\ndelete table inet {TABLE}\n")).await
    }

    async fn tell(&self, pid1: i32, text: &str) -> Result<(), FaultError> {
        let failed = |problem: String| FaultError::Do { what: "change what a node drops".to_owned(), problem };
        let mut child = Command::new(&self.nsenter)
            .arg("--target")
            .arg(pid1.to_string())
            .args(["--net", "--"])
            .arg(&self.nft)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("{}: {error}", name(&self.nsenter))))?;
        if let Some(mut stdin) = child.stdin.take() {
            // Where it gave up early, its exit status and message say why.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
    }
}

fn name(program: &Path) -> String {
    program.display().to_string()
}

/// The rules, as input of `nft`.
fn rules(dropped: Dropped) -> String {
    let chains = match dropped {
        // The API server calls at pods and kubelets from either of the control plane's addresses.
        Dropped::ApiServer(api) => {
            let control_plane = format!("{{ {api}, {CONTROL_PLANE_ADDRESS} }}");
            format!(
                "  chain in {{ type filter hook input priority 0; ip saddr {control_plane} drop; }}\n  \
                 chain out {{ type filter hook output priority 0; ip daddr {control_plane} drop; }}\n  \
                 chain through {{ type filter hook forward priority 0; ip saddr {control_plane} drop; ip daddr {control_plane} drop; }}\n"
            )
        }
        // Nodes have addresses of the control plane's network, pods have others: who asks a prober
        // for its figures is let through.
        Dropped::Probes => {
            let (figures, echoes) = PROBER_PORTS;
            let from_nodes = format!("iifname != \"lo\" ip saddr {CONTROL_PLANE_ADDRESS}/24 ip saddr != {CONTROL_PLANE_ADDRESS}");
            format!(
                "  chain in {{ type filter hook input priority 0; {from_nodes} icmp type echo-request drop; \
                 {from_nodes} udp dport {echoes} drop; {from_nodes} tcp dport {figures} drop; }}\n"
            )
        }
    };
    format!("table inet {TABLE} {{\n{chains}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_cut_off_drops_what_it_and_its_pods_send_to_the_api_server_and_get_from_it() {
        let rules = rules(Dropped::ApiServer(Ipv4Addr::new(10, 88, 0, 2)));
        let both = "{ 10.88.0.2, 10.89.0.1 }";
        for part in [
            format!("hook input priority 0; ip saddr {both} drop;"),
            format!("hook output priority 0; ip daddr {both} drop;"),
            format!("hook forward priority 0; ip saddr {both} drop; ip daddr {both} drop;"),
        ] {
            assert!(rules.contains(&part), "{rules}");
        }
    }

    #[test]
    fn probes_of_other_nodes_are_dropped_and_questions_of_pods_are_not() {
        let rules = rules(Dropped::Probes);
        assert!(rules.contains("ip saddr 10.89.0.1/24 ip saddr != 10.89.0.1 udp dport 9799 drop;"), "{rules}");
        assert!(!rules.contains("hook forward"), "{rules}");
    }
}
