//! Only the holder of a Lease acts.
//!
//! Several replicas of a daemon run, and one of them leads. Where it ends it gives the Lease back,
//! so that another one leads at once; where it is gone without a word, another one leads within 10
//! seconds. Clocks need not agree: each replica counts by its own from when it saw the Lease
//! renewed.
//!
//! Source: client-go's `tools/leaderelection`; unlike it, each write carries the version it was decided on also when the Lease is given back.

mod election;

use std::time::{Duration, Instant};

use kube::Client;
use tokio_util::sync::CancellationToken;

use self::election::{Election, RENEW_WITHIN};

/// Who leads renews the lease this often.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// Who could not renew it tries again after this.
const RENEW_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// Who waits for the lease looks at it this often, and when it runs out.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Who could not give it back tries again after this.
const GIVE_BACK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// For how long giving the lease back is tried: well within the grace period of a pod.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// The Lease that is held.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Who we are in it; another process must have another name.
    pub identity: String,
}

/// Runs `act` whenever the lease is ours, until `stop`; calls `ready` once the lease can be read, and tells `leads` before `act` begins and after it
/// has ended. The token that `act` gets is `stop`; `act` is then waited for and the lease given back, so that another can take over at once. When the
/// lease is lost, `act` is dropped where it stands. What goes wrong is logged and tried again.
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
            give_back(&mut election).await;
        }
    }
}

/// Comes back when the lease is ours; returns from when on it is.
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
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "failed to ask for the lease, trying again"),
        }
        tokio::time::sleep(election.free_in().map_or(LOOK_EVERY, next_look)).await;
    }
}

/// When to look again at a lease that runs out in `left`. One that has run out and still could not
/// be had is not asked for without a pause.
fn next_look(left: Duration) -> Duration {
    if left.is_zero() { LOOK_EVERY } else { left.min(LOOK_EVERY) }
}

/// Comes back when the lease is no longer ours, or may no longer be: where it could not be renewed in time, somebody else may hold it.
async fn until_lost(election: &mut Election, mut held_at: Instant) {
    let mut wait = RENEW_EVERY;
    loop {
        // Whatever happens meanwhile, not beyond the time that nobody else may take it.
        let Some(left) = RENEW_WITHIN.checked_sub(held_at.elapsed()) else { return };
        let renewed = async {
            tokio::time::sleep(wait).await;
            let asked = Instant::now();
            (asked, election.try_hold().await)
        };
        match tokio::time::timeout(left, renewed).await {
            Ok((asked, Ok(true))) => (held_at, wait) = (asked, RENEW_EVERY),
            // One that was refused for another reason than that somebody else holds it is ours still: the next try tells.
            Ok((_, Ok(false))) if election.is_held() => wait = RENEW_AGAIN_AFTER,
            Ok((_, Ok(false))) | Err(_) => return,
            Ok((_, Err(error))) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to renew the lease, trying again");
                wait = RENEW_AGAIN_AFTER;
            }
        }
    }
}

/// Tries for a while: otherwise whoever comes next has to wait until the lease runs out.
async fn give_back(election: &mut Election) {
    let begun = Instant::now();
    while let Err(error) = election.give_back().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "failed to give the lease back");
        if begun.elapsed() > GIVE_BACK_WITHIN {
            return;
        }
        tokio::time::sleep(GIVE_BACK_AGAIN_AFTER).await;
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
