//! One stop signal for the whole daemon.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::OpsError;

/// A token that the first SIGTERM or SIGINT cancels. A second signal ends the process at once.
///
/// # Errors
/// [`OpsError::Signals`] where signals cannot be caught.
pub fn stop_on_signal() -> Result<CancellationToken, OpsError> {
    let catch = |kind| signal(kind).map_err(|source| OpsError::Signals { source });
    let mut terminate = catch(SignalKind::terminate())?;
    let mut interrupt = catch(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "stopping");
        token.cancel();
        next().await;
        // 128 + SIGINT, as a shell reports a program that a signal ended.
        std::process::exit(130);
    });
    Ok(stop)
}
