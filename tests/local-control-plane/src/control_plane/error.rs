//! Why there is no control plane.

use std::path::PathBuf;
use std::process::ExitStatus;

use crate::components::ComponentsError;

/// Why there is no control plane.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// One of its programs is not available.
    #[error(transparent)]
    Components(#[from] ComponentsError),
    /// The search for its programs was cut short.
    #[error("failed to wait for the components")]
    Ensure {
        /// What the runtime said.
        source: tokio::task::JoinError,
    },
    /// A file of its folder cannot be used.
    #[error("failed to {what} {}", path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate cannot be made.
    #[error("failed to make the cluster's certificates")]
    Pki {
        /// What the library said.
        source: rcgen::Error,
    },
    /// The kubeconfig that was just written cannot be used.
    #[error("failed to use the admin's kubeconfig")]
    Kubeconfig {
        /// What the client library said.
        #[from]
        source: kube::config::KubeconfigError,
    },
    /// There is no client.
    #[error("failed to make a client of the API server")]
    Client {
        /// What the client library said.
        source: kube::Error,
    },
    /// Loopback has no free port.
    #[error("failed to find a free port on 127.0.0.1")]
    NoPort,
    /// A program cannot be started.
    #[error("failed to start {program}")]
    Start {
        /// The program.
        program: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ended that should run.
    #[error("failed to keep {program} running: it ended with {status}; the end of its log:\n{log}")]
    Died {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A program runs, and yet does not do its work in time.
    #[error("failed to see {program} ready in time; the end of its log:\n{log}")]
    NotReady {
        /// The program.
        program: &'static str,
        /// The end of its log.
        log: String,
    },
}
