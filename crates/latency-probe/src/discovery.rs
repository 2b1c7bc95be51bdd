//! Discovery of peers: from the endpoints of the prober's own Service, or from a file. Each source
//! publishes the complete set; a node that is not in it is no peer. In a large fleet, `selection`
//! chooses the ones to probe.

pub(crate) mod chooser;
mod endpoint_slices;
mod peers_file;
pub(crate) mod selection;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

pub use self::chooser::SelectionInputs;
pub use self::endpoint_slices::watch_service;
pub(crate) use self::peers_file::watch_file;
pub use self::peers_file::{PeersFileError, parse_peers_file};
pub use self::selection::{PeerSelection, SelectionLimits};
use crate::peers::PeerSet;

/// A source of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerSource {
    /// The endpoints of a headless Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        service: String,
    },
    /// A file that is re-read when it changes.
    File(PathBuf),
}

/// A failure to discover peers.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// No configuration for the API server.
    #[error("failed to find the API server (outside Kubernetes, give --peers-file)")]
    Client(#[source] Box<kube::Error>),
}

/// Publishes the set of peers if it changed.
fn publish(peers: &watch::Sender<Arc<PeerSet>>, now: PeerSet) {
    let changed = peers.send_if_modified(|held| {
        let differs = **held != now;
        if differs {
            *held = Arc::new(now);
        }
        differs
    });
    if changed {
        crate::process::give_memory_back();
        tracing::info!(peers = peers.borrow().len(), "peers changed");
    }
}
