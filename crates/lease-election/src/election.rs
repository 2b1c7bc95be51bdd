//! Who holds the lease, by the rules of client-go's leader election.
//!
//! A holder counts as alive for the lease's duration, measured by *our* clock from when we saw it
//! renewed, so that clocks need not agree. Every write carries the resource version that it was
//! decided on, so that the API server refuses one of two candidates.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

use super::LeaseSettings;

/// How long a holder counts as alive after its last renewal. In whole seconds, as the object has
/// it.
const LEASE: Duration = Duration::from_secs(8);
/// A holder that failed to renew for this long considers the lease lost, well before another
/// replica may take it.
pub(super) const RENEW_WITHIN: Duration = Duration::from_millis(5500);
/// Time limit of one request: short enough for a retry before the lease is lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Why the lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ElectionError {
    /// The API server refused, or its answer cannot be read.
    #[error("failed to {action} lease {namespace}/{name}")]
    Request {
        /// The request: `get`, `create`, `renew` or `release`.
        action: &'static str,
        /// The lease's namespace.
        namespace: String,
        /// The lease's name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// No answer within the time limit; whether the request took effect is unknown.
    #[error("failed to get an answer about lease {namespace}/{name} in time")]
    NoAnswer {
        /// The lease's namespace.
        namespace: String,
        /// The lease's name.
        name: String,
    },
}

/// What we know of the lease.
pub(super) struct Election {
    leases: Api<Lease>,
    settings: LeaseSettings,
    seen: Option<Seen>,
}

struct Seen {
    lease: Lease,
    /// When we saw it change last.
    at: Instant,
    /// No write of ours is of unknown outcome: a change by another replica makes our next write
    /// fail.
    current: bool,
}

impl Election {
    pub(super) fn new(client: Client, settings: LeaseSettings) -> Self {
        Self { leases: Api::namespaced(client, &settings.namespace), settings, seen: None }
    }

    /// Acquires or renews the lease if it is free or ours. Returns whether we hold it.
    ///
    /// # Errors
    /// When the outcome is unknown. We may hold the lease then.
    pub(super) async fn try_hold(&mut self) -> Result<bool, ElectionError> {
        if !self.seen.as_ref().is_some_and(|seen| seen.current && self.is_ours(&seen.lease)) {
            self.look().await?;
        }
        let identity = &self.settings.identity;
        let answer = match &self.seen {
            None => {
                let metadata = ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() };
                let lease = claimed(&Lease { metadata, spec: None }, identity, Timestamp::now());
                self.answered("create", self.leases.create(&PostParams::default(), &lease)).await
            }
            Some(seen) if !self.is_ours(&seen.lease) && is_alive(&seen.lease, seen.at.elapsed()) => return Ok(false),
            Some(seen) => {
                let lease = claimed(&seen.lease, identity, Timestamp::now());
                self.answered("renew", self.leases.replace(&self.settings.name, &PostParams::default(), &lease)).await
            }
        };
        self.doubt();
        match answer {
            Ok(lease) => {
                self.saw(lease);
                Ok(true)
            }
            // Another replica was quicker, or the lease changed since we read it.
            Err(ElectionError::Request { source, .. }) if is_conflict(&source) => {
                self.look().await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Releases the lease if we hold it, so that the next leader need not wait.
    ///
    /// # Errors
    /// When the outcome is unknown.
    pub(super) async fn release(&mut self) -> Result<(), ElectionError> {
        self.look().await?;
        let Some(seen) = self.seen.as_ref().filter(|seen| self.is_ours(&seen.lease)) else { return Ok(()) };
        let mut lease = seen.lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        let given = self.answered("release", self.leases.replace(&self.settings.name, &PostParams::default(), &lease)).await;
        self.doubt();
        given.map(|lease| self.saw(lease))
    }

    /// How long the present holder counts as alive without another renewal.
    pub(super) fn free_in(&self) -> Option<Duration> {
        let seen = self.seen.as_ref()?;
        let left = length(&seen.lease).saturating_sub(seen.at.elapsed());
        (holder(&seen.lease).is_some() && !self.is_ours(&seen.lease)).then_some(left)
    }

    /// Whether we held it when we read it last.
    pub(super) fn is_held(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| self.is_ours(&seen.lease))
    }

    async fn look(&mut self) -> Result<(), ElectionError> {
        match self.answered("get", self.leases.get_opt(&self.settings.name)).await? {
            Some(lease) => self.saw(lease),
            None => self.seen = None,
        }
        Ok(())
    }

    fn saw(&mut self, lease: Lease) {
        let unchanged = self.seen.as_ref().filter(|seen| seen.lease.spec == lease.spec);
        let at = unchanged.map_or_else(Instant::now, |seen| seen.at);
        self.seen = Some(Seen { lease, at, current: true });
    }

    fn doubt(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.current = false;
        }
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        holder(lease) == Some(&self.settings.identity)
    }

    async fn answered<T>(
        &self,
        action: &'static str,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ElectionError> {
        let (namespace, name) = (self.settings.namespace.clone(), self.settings.name.clone());
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(ElectionError::Request { action, namespace, name, source: Box::new(source) }),
            Err(_elapsed) => Err(ElectionError::NoAnswer { namespace, name }),
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// The present holder, if there is one.
fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

/// Whether a holder that renewed this long ago counts as alive.
fn is_alive(lease: &Lease, unheard_for: Duration) -> bool {
    holder(lease).is_some() && unheard_for < length(lease)
}

fn length(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(LEASE, Duration::from_secs)
}

/// The lease as `identity`'s from `now`.
fn claimed(lease: &Lease, identity: &str, now: Timestamp) -> Lease {
    let before = lease.spec.clone().unwrap_or_default();
    let goes_on = holder(lease).is_some_and(|holder| holder == identity);
    let mut lease = lease.clone();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
        acquire_time: before.acquire_time.filter(|_| goes_on).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(i32::from(!goes_on))),
        ..before
    });
    lease
}

#[cfg(test)]
mod tests {
    use super::super::{LOOK_EVERY, RENEW_AGAIN_AFTER, RENEW_EVERY};
    use super::*;

    const A_MINUTE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_holder_is_believed_to_live_for_as_long_as_its_lease_says() {
        let lease = claimed(&Lease::default(), "first", at(100));
        assert!(is_alive(&lease, LEASE - Duration::from_millis(1)));
        assert!(!is_alive(&lease, LEASE));
        let mut longer = lease.clone();
        longer.spec.as_mut().unwrap().lease_duration_seconds = Some(120);
        assert!(is_alive(&longer, A_MINUTE));
    }

    #[test]
    fn what_nobody_holds_is_free_at_once() {
        assert!(!is_alive(&Lease::default(), Duration::ZERO));
        let mut given_back = claimed(&Lease::default(), "first", at(100));
        given_back.spec.as_mut().unwrap().holder_identity = Some(String::new());
        assert!(!is_alive(&given_back, Duration::ZERO));
    }

    #[test]
    fn transitions_are_counted_and_a_renewal_is_none() {
        let first = claimed(&Lease::default(), "first", at(100)).spec.unwrap();
        assert_eq!((first.lease_transitions, &first.acquire_time), (Some(1), &Some(MicroTime(at(100)))));
        let lease = Lease { spec: Some(first), ..Lease::default() };
        let renewed = claimed(&lease, "first", at(110)).spec.unwrap();
        assert_eq!((renewed.lease_transitions, renewed.acquire_time), (Some(1), Some(MicroTime(at(100)))));
        assert_eq!(renewed.renew_time, Some(MicroTime(at(110))));
        let taken = claimed(&lease, "second", at(130)).spec.unwrap();
        assert_eq!((taken.lease_transitions, taken.acquire_time), (Some(2), Some(MicroTime(at(130)))));
    }

    #[test]
    fn there_is_time_for_another_try_before_another_may_lead() {
        assert!(RENEW_WITHIN + ANSWER_WITHIN < LEASE);
        // The first try goes unanswered, and there is still time for a second one.
        assert!(RENEW_EVERY + ANSWER_WITHIN + RENEW_AGAIN_AFTER < RENEW_WITHIN);
    }

    /// Who waits may see a renewal as late as its next look, and counts from there.
    #[test]
    fn a_holder_that_is_gone_is_replaced_within_ten_seconds() {
        assert!(LOOK_EVERY + LEASE < Duration::from_secs(10));
    }

    #[test]
    fn the_object_says_how_long_the_lease_is() {
        let lease = claimed(&Lease::default(), "first", at(100));
        assert_eq!(length(&lease), LEASE);
    }
}
