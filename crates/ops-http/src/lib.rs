//! What an operator expects of a daemon: `/healthz`, `/readyz` and `/metrics` over HTTP, structured
//! logs, and a clean stop on SIGTERM or SIGINT.
//!
//! ```no_run
//! # async fn example() -> Result<(), ops_http::OpsError> {
//! use std::sync::Arc;
//!
//! ops_http::init_logging(ops_http::LogFormat::Json);
//! let stop = ops_http::stop_on_signal()?;
//! let readiness = ops_http::Readiness::waiting_for(["caches"]);
//! let registry = Arc::new(prometheus_client::registry::Registry::default());
//! let listener = ops_http::bind("[::]:8080".parse().expect("a literal")).await?;
//! readiness.reached("caches");
//! ops_http::serve(listener, ops_http::router(registry, readiness), stop).await
//! # }
//! ```

mod endpoints;
mod logging;
mod options;
mod readiness;
mod stop;

use std::net::SocketAddr;

pub use endpoints::{bind, router, serve};
pub use logging::{LogFormat, init_logging};
pub use options::{OpsOptions, duration};
pub use readiness::Readiness;
pub use stop::stop_on_signal;

/// Why a daemon could not serve its endpoints.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// The address is in use, or may not be bound.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The listener failed.
    #[error("failed to serve HTTP")]
    Serve {
        /// What the system said.
        source: std::io::Error,
    },
    /// Signals cannot be caught here.
    #[error("failed to listen for SIGTERM and SIGINT")]
    Signals {
        /// What the system said.
        source: std::io::Error,
    },
}
