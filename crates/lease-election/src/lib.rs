//! Leader election by a Lease: only its holder acts.
//!
//! Several replicas of a daemon run, and one of them leads. A leader that stops releases the Lease,
//! and another replica leads at once. A leader that vanishes is replaced within 10 seconds.
//! Clocks need not agree: each replica counts by its own clock from when it saw the Lease renewed.
//!
//! Source: client-go's `tools/leaderelection`. Unlike it, every write carries the resource version
//! that it was decided on, the release included.

mod election;
mod options;

use std::time::{Duration, Instant};

use kube::Client;
use tokio_util::sync::CancellationToken;

use self::election::{Election, RENEW_WITHIN};
pub use self::options::PodOptions;

/// How often the leader renews the lease.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How long to wait after a failed renewal.
const RENEW_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How often a candidate reads the lease; it reads it once more when it expires.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait after a failed release.
const RELEASE_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long the release is retried: well within the grace period of a pod.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);

/// Which Lease, and as whom.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Our holder identity; every process needs its own.
    pub identity: String,
}

/// Runs `act` whenever this process leads, until `stop` is cancelled.
///
/// - `ready` is called once the lease can be read, by candidates too.
/// - `leads` is called with true before `act` starts and with false after it has ended.
/// - `act` gets `stop`. When that is cancelled, `act` is awaited and the lease released.
/// - When the lease is lost, `act` is dropped at its current await point.
///
/// Errors are logged and retried.
pub async fn act_while_leading<F, A>(
    client: Client,
    settings: LeaseSettings,
    stop: CancellationToken,
    ready: impl Fn(),
    leads: impl Fn(bool),
    act: F,
) where
    F: Fn(CancellationToken) -> A,
    A: Future<Output = ()>,
{
    let mut election = Election::new(client, settings);
    while !stop.is_cancelled() {
        let held_at = tokio::select! {
            () = stop.cancelled() => break,
            held_at = until_held(&mut election, &ready) => held_at,
        };
        tracing::info!("leading");
        leads(true);
        let is_lost = tokio::select! {
            () = act(stop.clone()) => false,
            () = until_lost(&mut election, held_at) => true,
        };
        leads(false);
        if is_lost {
            tracing::warn!("no longer leading");
        } else {
            release(&mut election).await;
        }
    }
}

/// Waits until the lease is ours. Returns when the request that won it was sent.
async fn until_held(election: &mut Election, ready: impl Fn()) -> Instant {
    loop {
        let asked = Instant::now();
        match election.try_hold().await {
            Ok(held) => {
                ready();
                if held {
                    return asked;
                }
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to acquire the lease, retrying"),
        }
        tokio::time::sleep(election.free_in().map_or(LOOK_EVERY, next_look)).await;
    }
}

/// When to read a lease again that expires in `left`. An expired lease that could not be acquired
/// is retried after a pause.
fn next_look(left: Duration) -> Duration {
    if left.is_zero() { LOOK_EVERY } else { left.min(LOOK_EVERY) }
}

/// Waits until the lease is lost, or could not be renewed before another replica may take it.
async fn until_lost(election: &mut Election, mut held_at: Instant) {
    let mut wait = RENEW_EVERY;
    loop {
        // Never beyond the time after which another replica may take it.
        let Some(left) = RENEW_WITHIN.checked_sub(held_at.elapsed()) else { return };
        let renewed = async {
            tokio::time::sleep(wait).await;
            let asked = Instant::now();
            (asked, election.try_hold().await)
        };
        match tokio::time::timeout(left, renewed).await {
            Ok((asked, Ok(true))) => (held_at, wait) = (asked, RENEW_EVERY),
            // A refused renewal (a conflict) does not mean that the lease is lost: retry.
            Ok((_, Ok(false))) if election.is_held() => wait = RENEW_AGAIN_AFTER,
            Ok((_, Ok(false))) | Err(_) => return,
            Ok((_, Err(error))) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to renew the lease, retrying");
                wait = RENEW_AGAIN_AFTER;
            }
        }
    }
}

/// Retries for a while: without a release the next leader has to wait until the lease expires.
async fn release(election: &mut Election) {
    let begun = Instant::now();
    while let Err(error) = election.release().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "failed to release the lease");
        if begun.elapsed() > RELEASE_WITHIN {
            return;
        }
        tokio::time::sleep(RELEASE_AGAIN_AFTER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_looks_when_the_lease_runs_out_and_never_without_a_pause() {
        assert_eq!(next_look(Duration::from_secs(5)), LOOK_EVERY);
        assert_eq!(next_look(Duration::from_millis(300)), Duration::from_millis(300));
        assert_eq!(next_look(Duration::ZERO), LOOK_EVERY);
    }
}
