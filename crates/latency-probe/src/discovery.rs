//! Where peers come from: the endpoints of the prober's own Service, or a file. Both write the whole set into one channel that the prober
//! reads; whoever is in neither is no peer.

pub(crate) mod chooser;
mod endpoint_slices;
mod peers_file;
pub(crate) mod selection;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

pub use self::chooser::Choice;
pub use self::endpoint_slices::watch_service;
pub(crate) use self::peers_file::watch_file;
pub use self::peers_file::{PeersFileError, parse_peers_file};
pub use self::selection::{Selection, SelectionLimits};
use crate::peers::PeerSet;

/// A source of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The endpoints of a headless Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        service: String,
    },
    /// A file that is read again whenever it changed.
    File(PathBuf),
}

/// Why peers cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// There is no way to the API server.
    #[error("failed to find the API server (outside Kubernetes, give --peers-file)")]
    Client(#[source] Box<kube::Error>),
}

/// The sending end of the channel of peers: it tells only when something changed.
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
