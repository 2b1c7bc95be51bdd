//! Peers from a file, for use outside Kubernetes.
//!
//! ```toml
//! [[peers]]
//! node = "node2"
//! address = "10.0.0.2"        # or "10.0.0.2:9799", or "[fd00::2]:9799"
//! zone = "here"               # optional
//! http_port = 9798            # optional: where TCP and HTTP probes go
//! ```
//!
//! The same in JSON: `{"peers": [{"node": "node2", "address": "10.0.0.2"}]}`. The file may list the
//! prober's own node, so that all nodes can share one file.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use latency_matrix::NodeName;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::publish;
use crate::net::register;
use crate::peers::{Peer, PeerSet, Ports};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    peers: Vec<PeersFileLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeersFileLine {
    node: String,
    address: String,
    zone: Option<String>,
    http_port: Option<u16>,
}

/// Why a peers file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeersFileError {
    /// The file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The text is neither valid TOML nor valid JSON of this form.
    #[error("failed to understand the peers: {0}")]
    Syntax(String),
    /// A node's name is empty.
    #[error("failed to understand the peers: the node at {0:?} has no name")]
    NoName(String),
    /// A node is listed twice.
    #[error("failed to understand the peers: node {0} is listed twice")]
    Twice(NodeName),
    /// An address cannot be parsed.
    #[error("failed to understand the peers: {address:?} of node {node} is no address")]
    Address {
        /// The node.
        node: NodeName,
        /// The text in place of an address.
        address: String,
    },
}

/// Parses a peers file. `ports` are the defaults.
///
/// # Errors
/// [`PeersFileError`] with the entry that is wrong.
///
/// ```
/// use latency_probe::{Ports, discovery::parse_peers_file};
/// let text = "[[peers]]\nnode = \"b\"\naddress = \"10.0.0.2\"";
/// let peers = parse_peers_file(text, Ports::DEFAULT).unwrap();
/// assert_eq!(peers["b"].echo, "10.0.0.2:9799".parse().unwrap());
/// ```
pub fn parse_peers_file(text: &str, ports: Ports) -> Result<PeerSet, PeersFileError> {
    let document: Document = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| PeersFileError::Syntax(error.to_string()))?
    } else {
        toml::from_str(text).map_err(|error| PeersFileError::Syntax(error.to_string()))?
    };
    let mut peers = PeerSet::new();
    for line in document.peers {
        let node: NodeName = line.node.parse().map_err(|_| PeersFileError::NoName(line.address.clone()))?;
        let echo = parse_address(&line.address, ports.echo)
            .ok_or_else(|| PeersFileError::Address { node: node.clone(), address: line.address.clone() })?;
        if peers
            .insert(node.clone(), Peer { echo, http_port: line.http_port.unwrap_or(ports.http), zone: line.zone.map(Into::into) })
            .is_some()
        {
            return Err(PeersFileError::Twice(node));
        }
    }
    Ok(peers)
}

/// Parses an address, with `port` as default.
fn parse_address(text: &str, port: u16) -> Option<SocketAddr> {
    let alone = || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port));
    text.parse().ok().or_else(alone)
}

async fn read(path: &Path, ports: Ports) -> Result<PeerSet, PeersFileError> {
    let text = tokio::fs::read_to_string(path).await.map_err(|source| PeersFileError::Read { path: path.to_owned(), source })?;
    parse_peers_file(&text, ports)
}

/// Publishes the file's peers to `peers` until there are no receivers, again whenever something in
/// its folder changes. While the file cannot be read or parsed, the last known peers stay.
///
/// The folder is watched, not the file: a mounted ConfigMap changes by replacing a symlink beside
/// it. If the folder cannot be watched, the file is polled every `period`.
pub(crate) async fn watch_file(
    path: &Path,
    ports: Ports,
    period: Duration,
    peers: watch::Sender<Arc<PeerSet>>,
    found: impl Fn(),
) {
    let mut complained = None;
    let mut seen = None;
    let folder = match watch_folder(path) {
        Ok(folder) => Some(folder),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, ?period, "failed to watch the folder of the peers, looking every period");
            None
        }
    };
    let mut ticks = tokio::time::interval(if folder.is_some() { WATCHED_PERIOD.max(period) } else { period });
    loop {
        tokio::select! {
            () = peers.closed() => return,
            _ = ticks.tick() => {}
            () = something_was_put_in(folder.as_ref()) => {}
        }
        // Parsing thousands of peers each time would cost more than probing them.
        let found_there = Version::of(path);
        if found_there.is_some() && found_there == seen {
            continue;
        }
        match read(path, ports).await {
            Ok(now) => {
                complained = None;
                seen = found_there;
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

/// Polling period of a watched file: it may be a link into a folder that is not watched.
const WATCHED_PERIOD: Duration = Duration::from_secs(10);
/// Shortest time between two reads in a busy folder.
const CALM: Duration = Duration::from_millis(50);

/// An inotify descriptor that becomes readable when a file is written in, or renamed into, the
/// folder of `path`.
fn watch_folder(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let events = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    events.add_watch(folder, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO)?;
    register(OwnedFd::from(events))
}

/// Waits for a change; for ever without a watch.
async fn something_was_put_in(folder: Option<&AsyncFd<OwnedFd>>) {
    let Some(folder) = folder else { return std::future::pending().await };
    let Ok(mut ready) = folder.readable().await else { return std::future::pending().await };
    tokio::time::sleep(CALM).await;
    // The events are discarded: the file itself shows what changed.
    let mut events = [0; 4_096];
    while nix::unistd::read(folder, &mut events).is_ok_and(|length| length > 0) {}
    ready.clear_ready();
}

/// Identifies a version of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    /// The present version; none if there is no file.
    fn of(path: &Path) -> Option<Self> {
        let there = std::fs::metadata(path).ok()?;
        Some(Self {
            device: there.dev(),
            inode: there.ino(),
            length: there.len(),
            modified: (there.mtime(), there.mtime_nsec()),
            changed: (there.ctime(), there.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn toml_and_json_say_the_same() {
        let toml = "[[peers]]\nnode = \"a\"\naddress = \"10.0.0.1\"\n[[peers]]\nnode = \"b\"\naddress = \"[fd00::2]:99\"\nzone = \"here\"\nhttp_port = 80\n";
        let json = r#"{"peers": [{"node": "a", "address": "10.0.0.1"}, {"node": "b", "address": "[fd00::2]:99", "zone": "here", "http_port": 80}]}"#;
        let peers = parse_peers_file(toml, Ports::DEFAULT).unwrap();
        assert_eq!(peers, parse_peers_file(json, Ports::DEFAULT).unwrap());
        assert_eq!(peers["b"], Peer { echo: "[fd00::2]:99".parse().unwrap(), http_port: 80, zone: Some("here".into()) });
        assert!(parse_peers_file("peers = []", Ports::DEFAULT).unwrap().is_empty());
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
            let said = parse_peers_file(text, Ports::DEFAULT).unwrap_err().to_string();
            assert!(said.contains(named), "{said}");
        }
    }

    /// As the kubelet does with a mounted ConfigMap: the file is a link through another one, which
    /// is turned.
    #[tokio::test]
    async fn a_link_that_is_turned_is_noticed_without_looking() {
        let folder = tempfile::tempdir().unwrap();
        let version = |name: &str, text: &str| {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("peers.toml"), text).unwrap();
            std::os::unix::fs::symlink(name, folder.path().join("..new")).unwrap();
            std::fs::rename(folder.path().join("..new"), folder.path().join("..data")).unwrap();
        };
        version("..1", "[[peers]]\nnode = \"a\"\naddress = \"10.0.0.1\"\n");
        let path = folder.path().join("peers.toml");
        std::os::unix::fs::symlink("..data/peers.toml", &path).unwrap();
        let (peers, mut told) = watch::channel(Arc::default());
        let watching =
            tokio::spawn(async move { watch_file(&path, Ports::DEFAULT, Duration::from_secs(86_400), peers, || {}).await });
        told.wait_for(|peers| peers.len() == 1).await.unwrap();
        version("..2", "peers = []");
        told.wait_for(|peers| peers.is_empty()).await.unwrap();
        drop(told);
        watching.await.unwrap();
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".{0,200}") {
            let _ = parse_peers_file(&text, Ports::DEFAULT);
            let _ = parse_peers_file(&format!("{{{text}"), Ports::DEFAULT);
            let _ = parse_peers_file(&format!("[[peers]]\n{text}"), Ports::DEFAULT);
        }
    }
}
