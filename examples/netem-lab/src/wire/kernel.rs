//! The kernel's own emulator: an `htb` qdisc on a node's uplink sorts packets by where they go, and
//! one `netem` per other node delays them. What goes nowhere else (to the control plane) is left
//! alone.

use std::process::Command;

use super::install::run;
use super::{Link, LinkMatrix, WireConfig, WireError, WireNode};

/// A command line: the program's arguments.
pub type Arguments = Vec<String>;

/// Whether this kernel has netem: tries it on the loopback interface of a network namespace that
/// lasts as long as the try.
#[must_use]
pub fn has_netem() -> bool {
    Command::new("unshare")
        .args(["--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Commands for `tc` in the namespace of `node`, so that its packets to each other node take
/// what `links` says.
///
/// The class of the n-th node (from 0) is `1:` and n + 16 in hexadecimal; class `1:1` takes
/// everything else.
#[must_use]
pub fn setup_commands(node: &WireNode, others: &[WireNode], links: &LinkMatrix) -> Vec<Arguments> {
    let device = node.uplink.as_str();
    let mut commands = vec![
        words(&["qdisc", "replace", "dev", device, "root", "handle", "1:", "htb", "default", "1"]),
        words(&["class", "replace", "dev", device, "parent", "1:", "classid", "1:1", "htb", "rate", "100gbit"]),
    ];
    for (place, other) in others.iter().enumerate() {
        let Some(link) = link_between(node, other, links) else { continue };
        let class = class_of(place);
        commands.push(words(&["class", "replace", "dev", device, "parent", "1:", "classid", &class, "htb", "rate", "100gbit"]));
        commands.push(netem_command("add", device, place, link));
        for destination in [format!("{}/32", other.address), other.pod_cidr.to_string()] {
            commands.push(words(&[
                "filter",
                "add",
                "dev",
                device,
                "parent",
                "1:",
                "protocol",
                "ip",
                "prio",
                "1",
                "u32",
                "match",
                "ip",
                "dst",
                &destination,
                "flowid",
                &class,
            ]));
        }
    }
    commands
}

/// Commands for `tc` to change the delays that [`setup_commands`] set up.
#[must_use]
pub fn change_commands(node: &WireNode, others: &[WireNode], links: &LinkMatrix) -> Vec<Arguments> {
    others
        .iter()
        .enumerate()
        .filter_map(|(place, other)| Some(netem_command("change", &node.uplink, place, link_between(node, other, links)?)))
        .collect()
}

fn link_between(node: &WireNode, other: &WireNode, links: &LinkMatrix) -> Option<Link> {
    if node.name == other.name { None } else { links.get(&node.name, &other.name) }
}

fn netem_command(verb: &str, device: &str, place: usize, link: Link) -> Arguments {
    let handle = format!("{:x}:", place + 16);
    let mut command =
        words(&["qdisc", verb, "dev", device, "parent", &class_of(place), "handle", &handle, "netem", "limit", "20000"]);
    command.extend(words(&["delay", &micros(link.delay_seconds)]));
    if link.jitter_seconds > 0.0 {
        command.push(micros(link.jitter_seconds));
    }
    if link.loss_ratio > 0.0 {
        command.extend(words(&["loss", &format!("{:.4}%", link.loss_ratio * 100.0)]));
    }
    command
}

/// `tc` reads class numbers as hexadecimal.
fn class_of(place: usize) -> String {
    format!("1:{:x}", place + 16)
}

fn micros(seconds: f64) -> String {
    format!("{:.0}us", seconds * 1e6)
}

fn words(words: &[&str]) -> Arguments {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(super) fn set_up(config: &WireConfig) -> Result<(), WireError> {
    apply(config, |node| setup_commands(node, &config.nodes, &config.links))
}

pub(super) fn change(config: &WireConfig, links: &LinkMatrix) -> Result<(), WireError> {
    apply(config, |node| change_commands(node, &config.nodes, links))
}

fn apply(config: &WireConfig, commands: impl Fn(&WireNode) -> Vec<Arguments>) -> Result<(), WireError> {
    for node in &config.nodes {
        for arguments in commands(node) {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", node.netns.display())).arg("tc").args(arguments);
            run(command, None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> WireNode {
        WireNode {
            name: format!("n{number}"),
            netns: "/run/netns/x".into(),
            address: std::net::Ipv4Addr::new(10, 89, 0, 10 + number),
            pod_cidr: format!("10.244.{number}.0/24").parse().unwrap(),
            uplink: "eth0".into(),
        }
    }

    fn lines(commands: &[Arguments]) -> Vec<String> {
        commands.iter().map(|arguments| arguments.join(" ")).collect()
    }

    #[test]
    fn a_node_between_two_others() {
        let nodes = [node(1), node(2), node(3)];
        let mut links = LinkMatrix::uniform(nodes.iter().map(|node| node.name.clone()).collect(), Link::default());
        links.set("n2", "n1", Link { delay_seconds: 0.0005, ..Link::default() });
        links.set("n2", "n3", Link { delay_seconds: 0.025, jitter_seconds: 0.005, loss_ratio: 0.001 });
        assert_eq!(
            lines(&setup_commands(&nodes[1], &nodes, &links)),
            [
                "qdisc replace dev eth0 root handle 1: htb default 1",
                "class replace dev eth0 parent 1: classid 1:1 htb rate 100gbit",
                "class replace dev eth0 parent 1: classid 1:10 htb rate 100gbit",
                "qdisc add dev eth0 parent 1:10 handle 10: netem limit 20000 delay 500us",
                "filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.89.0.11/32 flowid 1:10",
                "filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.244.1.0/24 flowid 1:10",
                "class replace dev eth0 parent 1: classid 1:12 htb rate 100gbit",
                "qdisc add dev eth0 parent 1:12 handle 12: netem limit 20000 delay 25000us 5000us loss 0.1000%",
                "filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.89.0.13/32 flowid 1:12",
                "filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.244.3.0/24 flowid 1:12",
            ]
        );
        assert_eq!(
            lines(&change_commands(&nodes[1], &nodes, &links)),
            [
                "qdisc change dev eth0 parent 1:10 handle 10: netem limit 20000 delay 500us",
                "qdisc change dev eth0 parent 1:12 handle 12: netem limit 20000 delay 25000us 5000us loss 0.1000%",
            ]
        );
    }
}
