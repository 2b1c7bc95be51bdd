//! Turns the routes between nodes and their pods to the emulator's devices.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{WireConfig, WireError, WireNode};

/// The emulator's device in every node's network namespace.
pub(super) const DEVICE: &str = "wire0";

/// Commands for `ip -batch` in the namespace of `node`. The device has no address of its own:
/// packets keep the node's.
fn batch(node: &WireNode, all: &[WireNode]) -> String {
    // The long queue holds what arrives while the emulator is kept from running; link-local IPv6
    // would only make noise.
    let mut lines = format!("link set {DEVICE} addrgenmode none\nlink set {DEVICE} mtu 1500 txqueuelen 10000 up\n");
    for other in all.iter().filter(|other| other.name != node.name) {
        for destination in [format!("{}/32", other.address), other.pod_cidr.to_string()] {
            lines += &format!("route replace {destination} dev {DEVICE} src {}\n", node.address);
        }
    }
    lines
}

/// Brings the devices up and turns the routes. The devices must exist.
pub(super) fn turn_routes(config: &WireConfig) -> Result<(), WireError> {
    for node in &config.nodes {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", node.netns.display())).args(["ip", "-batch", "-"]);
        run(command, Some(&batch(node, &config.nodes)))?;
    }
    Ok(())
}

/// Runs a short command to its end, with this on its standard input.
pub(super) fn run(mut command: Command, input: Option<&str>) -> Result<(), WireError> {
    let line = format!("{command:?}");
    let failed = |output: String| WireError::Command { command: line.clone(), output };
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A program that stopped reading has said why on its standard error.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(format!("{} {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_other_nodes_and_their_pods_are_turned() {
        let node = |number: u8| WireNode {
            name: format!("n{number}"),
            netns: "/run/netns/x".into(),
            address: std::net::Ipv4Addr::new(10, 89, 0, number),
            pod_cidr: format!("10.244.{number}.0/24").parse().unwrap(),
            uplink: "eth0".into(),
        };
        let nodes = [node(1), node(2)];
        let lines: Vec<String> = batch(&nodes[0], &nodes).lines().skip(2).map(str::to_owned).collect();
        assert_eq!(
            lines,
            ["route replace 10.89.0.2/32 dev wire0 src 10.89.0.1", "route replace 10.244.2.0/24 dev wire0 src 10.89.0.1"]
        );
    }

    #[test]
    fn a_command_that_fails_says_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat >&2; exit 3"]);
        let error = run(command, Some("so there")).unwrap_err().to_string();
        assert!(error.contains("so there") && error.contains('3'), "{error}");
    }
}
