//! Configuration of the wire process: a JSON file, written by the process that starts it.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{LinkMatrix, WireError};

/// A network of pod addresses, such as `10.244.1.0/24`.
///
/// ```
/// use netem_lab::wire::PodCidr;
///
/// let cidr: PodCidr = "10.244.1.0/24".parse().unwrap();
/// assert!(cidr.contains("10.244.1.77".parse().unwrap()));
/// assert!(!cidr.contains("10.244.2.77".parse().unwrap()));
/// assert_eq!(cidr.to_string(), "10.244.1.0/24");
/// assert!("10.244.1.0/40".parse::<PodCidr>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodCidr {
    network: Ipv4Addr,
    prefix_length: u8,
}

impl PodCidr {
    /// Whether the address belongs to the network.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.masked(address) == self.masked(self.network)
    }

    fn masked(self, address: Ipv4Addr) -> u32 {
        let host_bits = 32 - u32::from(self.prefix_length);
        u32::from(address).checked_shr(host_bits).unwrap_or(0)
    }
}

impl FromStr for PodCidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("{text:?} is not a network such as 10.244.1.0/24");
        let (network, length) = text.split_once('/').ok_or_else(bad)?;
        let cidr = Self { network: network.parse().map_err(|_| bad())?, prefix_length: length.parse().map_err(|_| bad())? };
        if cidr.prefix_length > 32 { Err(bad()) } else { Ok(cidr) }
    }
}

impl TryFrom<String> for PodCidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PodCidr> for String {
    fn from(cidr: PodCidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for PodCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_length)
    }
}

/// One end of the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireNode {
    /// The node's name, as in the links.
    pub name: String,
    /// Its network namespace, as a file that can be opened: `/run/netns/x` or `/proc/123/ns/net`.
    pub netns: PathBuf,
    /// Its address.
    pub address: Ipv4Addr,
    /// The addresses of its pods.
    pub pod_cidr: PodCidr,
    /// The interface in its namespace that leads to the other nodes, for the kernel's netem.
    pub uplink: String,
}

/// Which of the two ways to delay packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmulatorChoice {
    /// The kernel's netem where it is there, else our own.
    #[default]
    Auto,
    /// The kernel's netem, or fail.
    Kernel,
    /// Our own.
    Userspace,
}

/// All that the wire process needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireConfig {
    /// The nodes, as many as the links have and in the same order.
    pub nodes: Vec<WireNode>,
    /// What lies between them.
    pub links: LinkMatrix,
    /// Where the process puts its socket and its statistics.
    pub folder: PathBuf,
    /// Which emulator.
    #[serde(default)]
    pub emulator: EmulatorChoice,
    /// Of the random numbers behind jitter and loss.
    #[serde(default)]
    pub seed: u64,
    /// Most packets under way per ordered pair; more are dropped and counted.
    #[serde(default = "default_queue_limit")]
    pub queue_limit: usize,
}

fn default_queue_limit() -> usize {
    20_000
}

impl WireConfig {
    /// A wire between these nodes with everything else as usual.
    #[must_use]
    pub fn new(nodes: Vec<WireNode>, links: LinkMatrix, folder: PathBuf) -> Self {
        Self { nodes, links, folder, emulator: EmulatorChoice::Auto, seed: 1, queue_limit: default_queue_limit() }
    }

    /// Reads and checks a configuration.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or makes no sense.
    pub fn read(path: &Path) -> Result<Self, WireError> {
        let text = std::fs::read(path).map_err(|source| WireError::Config { path: path.to_owned(), source })?;
        let config: Self = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Writes the configuration where `netem-lab wire --config` will read it, whole or not at all.
    ///
    /// # Errors
    ///
    /// When it makes no sense or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), WireError> {
        self.check()?;
        let text = serde_json::to_vec_pretty(self).map_err(|error| invalid(error.to_string()))?;
        let draft = path.with_extension("draft");
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, path))
            .map_err(|source| WireError::Config { path: path.to_owned(), source })
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("wire.sock")
    }

    /// The statistics, written once a second.
    #[must_use]
    pub fn statistics(&self) -> PathBuf {
        self.folder.join("wire-statistics.json")
    }

    fn check(&self) -> Result<(), WireError> {
        if !self.links.is_sound() {
            return Err(invalid("a link is missing or its numbers make no sense".to_owned()));
        }
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        if names != self.links.nodes() {
            return Err(invalid(format!("the nodes are {names:?}, but the links are between {:?}", self.links.nodes())));
        }
        Ok(())
    }
}

fn invalid(problem: String) -> WireError {
    WireError::Invalid { problem }
}

#[cfg(test)]
mod tests {
    use super::super::Link;
    use super::*;

    fn config() -> WireConfig {
        let node = |number: u8| WireNode {
            name: format!("n{number}"),
            netns: format!("/run/netns/n{number}").into(),
            address: Ipv4Addr::new(10, 89, 0, 10 + number),
            pod_cidr: format!("10.244.{number}.0/24").parse().unwrap(),
            uplink: "eth0".into(),
        };
        let links = LinkMatrix::uniform(vec!["n1".into(), "n2".into()], Link { delay_seconds: 0.01, ..Link::default() });
        WireConfig::new(vec![node(1), node(2)], links, "/tmp".into())
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wire.json");
        config().write(&path).unwrap();
        assert_eq!(WireConfig::read(&path).unwrap(), config());
    }

    #[test]
    fn a_configuration_that_does_not_fit_is_refused() {
        let mut other_order = config();
        other_order.nodes.reverse();
        assert!(other_order.check().is_err());

        let mut negative = config();
        negative.links.set("n1", "n2", Link { delay_seconds: -1.0, ..Link::default() });
        assert!(negative.check().is_err());

        let mut lossy = config();
        lossy.links.set("n1", "n2", Link { loss_ratio: f64::NAN, ..Link::default() });
        assert!(lossy.check().is_err());
    }
}
