//! Peers from a file, for use outside Kubernetes.
//!
//! ```toml
//! [[peers]]
//! node = "node2"
//! address = "10.0.0.2"        # or "10.0.0.2:9799", or "[fd00::2]:9799"
//! zone = "here"               # optional
//! ```
//!
//! The same in JSON: `{"peers": [{"node": "node2", "address": "10.0.0.2"}]}`. The prober's own node may be in it, so that all nodes can share
//! one file.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;

use super::publish;
use crate::peers::{NodeName, Peer, PeerSet};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    peers: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    node: String,
    address: String,
    zone: Option<String>,
}

/// What is wrong with a file of peers.
#[derive(Debug, thiserror::Error)]
pub enum PeersFileError {
    /// It cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is neither what it should be in TOML nor in JSON.
    #[error("failed to understand the peers: {0}")]
    Syntax(String),
    /// A node has no name.
    #[error("failed to understand the peers: the node at {0:?} has no name")]
    NoName(String),
    /// A node is there twice.
    #[error("failed to understand the peers: node {0} is listed twice")]
    Twice(NodeName),
    /// An address is none.
    #[error("failed to understand the peers: {address:?} of node {node} is no address")]
    Address {
        /// Whose.
        node: NodeName,
        /// What is there.
        address: String,
    },
}

/// Reads a file's text. Where an address has no port, it is `echo_port`.
///
/// # Errors
/// [`PeersFileError`] naming what is wrong.
///
/// ```
/// let peers = latency_probe::discovery::parse_peers_file("[[peers]]\nnode = \"b\"\naddress = \"10.0.0.2\"", 9799).unwrap();
/// assert_eq!(peers[&"b".into()].echo, "10.0.0.2:9799".parse().unwrap());
/// ```
pub fn parse_peers_file(text: &str, echo_port: u16) -> Result<PeerSet, PeersFileError> {
    let document: Document = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| PeersFileError::Syntax(error.to_string()))?
    } else {
        toml::from_str(text).map_err(|error| PeersFileError::Syntax(error.to_string()))?
    };
    let mut peers = PeerSet::new();
    for line in document.peers {
        let node: NodeName = line.node.parse().map_err(|_| PeersFileError::NoName(line.address.clone()))?;
        let echo = parse_address(&line.address, echo_port)
            .ok_or_else(|| PeersFileError::Address { node: node.clone(), address: line.address.clone() })?;
        if peers.insert(node.clone(), Peer { echo, zone: line.zone.map(Into::into) }).is_some() {
            return Err(PeersFileError::Twice(node));
        }
    }
    Ok(peers)
}

/// An address with its port, or with `port` where it has none.
pub(crate) fn parse_address(text: &str, port: u16) -> Option<SocketAddr> {
    let alone = || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port));
    text.parse().ok().or_else(alone)
}

async fn read(path: &Path, echo_port: u16) -> Result<PeerSet, PeersFileError> {
    let text = tokio::fs::read_to_string(path).await.map_err(|source| PeersFileError::Read { path: path.to_owned(), source })?;
    parse_peers_file(&text, echo_port)
}

/// Tells `peers` what the file says, every `period` anew, for as long as anybody listens. While the file cannot be read or understood, the
/// last known peers stay. (It is read, not watched: a mounted ConfigMap changes by a link being turned, which file watches miss.)
pub async fn watch_file(path: &Path, echo_port: u16, period: Duration, peers: watch::Sender<Arc<PeerSet>>, found: impl Fn()) {
    let mut complained = None;
    let mut ticks = tokio::time::interval(period);
    loop {
        tokio::select! {
            () = peers.closed() => return,
            _ = ticks.tick() => match read(path, echo_port).await {
                Ok(now) => {
                    complained = None;
                    publish(&peers, now);
                    found();
                }
                Err(error) => {
                    let complaint = Some(error.to_string());
                    if complained != complaint {
                        tracing::warn!(path = %path.display(), error = &error as &dyn std::error::Error, "keeping the peers known so far");
                        complained = complaint;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = "[[peers]]\nnode = \"a\"\naddress = \"10.0.0.1\"\n[[peers]]\nnode = \"b\"\naddress = \"[fd00::2]:99\"\nzone = \"here\"\n";
        let json =
            r#"{"peers": [{"node": "a", "address": "10.0.0.1"}, {"node": "b", "address": "[fd00::2]:99", "zone": "here"}]}"#;
        let peers = parse_peers_file(toml, 9799).unwrap();
        assert_eq!(peers, parse_peers_file(json, 9799).unwrap());
        assert_eq!(peers[&"b".into()], Peer { echo: "[fd00::2]:99".parse().unwrap(), zone: Some("here".into()) });
        assert!(parse_peers_file("peers = []", 1).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("[[peers]]\nnode = \"a\"\naddress = \"nowhere\"", "nowhere"),
            ("[[peers]]\nnode = \"a\"\naddress = \"1.1.1.1\"\n[[peers]]\nnode = \"a\"\naddress = \"1.1.1.2\"", "listed twice"),
            ("[[peers]]\nnode = \"\"\naddress = \"1.1.1.1\"", "no name"),
            ("[[peers]]\nnode = \"a\"\naddress = \"1.1.1.1\"\nport = 1", "port"),
            ("{\"peers\": 1}", "line 1"),
        ] {
            let said = parse_peers_file(text, 1).unwrap_err().to_string();
            assert!(said.contains(named), "{said}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".{0,200}") {
            let _ = parse_peers_file(&text, 1);
            let _ = parse_peers_file(&format!("{{{text}"), 1);
            let _ = parse_peers_file(&format!("[[peers]]\n{text}"), 1);
        }
    }
}
