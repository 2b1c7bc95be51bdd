//! The status of an Ingress, in the form that Knative Serving expects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use k8s_api::kingress::{IngressStatus, KCondition, LoadBalancer, LoadBalancerEntry};

/// The DNS names of the gateways. One of each: Serving refuses two.
#[derive(Clone, Debug)]
pub(crate) struct LoadBalancerNames {
    /// For clients outside the cluster.
    pub public: String,
    /// For clients inside the cluster.
    pub private: String,
}

/// The condition of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadyCondition {
    /// Every live gateway serves it.
    Ready,
    /// Not served everywhere yet, with a message.
    Pending(String),
    /// Refused, with a reason and a message.
    Refused(&'static str, String),
}

/// Whether `status` already has `generation` Ready, with these names.
#[must_use]
pub(crate) fn is_ready(status: &IngressStatus, generation: i64, names: &LoadBalancerNames) -> bool {
    let wanted = next_status(status, generation, &ReadyCondition::Ready, names, Timestamp::UNIX_EPOCH);
    // The transition time of an unchanged condition is kept, so an equal status means that nothing
    // would change.
    wanted == *status
}

/// The status that follows `before` for `condition`.
#[must_use]
pub(crate) fn next_status(
    before: &IngressStatus,
    generation: i64,
    condition: &ReadyCondition,
    names: &LoadBalancerNames,
    now: Timestamp,
) -> IngressStatus {
    let (ready, reason, message) = match condition {
        ReadyCondition::Ready => ("True", "", ""),
        ReadyCondition::Pending(message) => ("Unknown", "Uninitialized", message.as_str()),
        ReadyCondition::Refused(reason, message) => ("False", *reason, message.as_str()),
    };
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        let same = before.conditions.iter().find(|one| one.type_ == type_ && one.status == status);
        let since = same.and_then(|one| one.last_transition_time.clone()).unwrap_or(Time(now));
        KCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since),
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    };
    let entry = |name: &str| Some(LoadBalancer { ingress: vec![LoadBalancerEntry { domain_internal: name.to_owned() }] });
    IngressStatus {
        observed_generation: Some(generation),
        conditions: vec![
            condition("LoadBalancerReady", ready, reason, message),
            condition("NetworkConfigured", "True", "", ""),
            condition("Ready", ready, reason, message),
        ],
        // Both are kept for ever: Serving's placeholder Services depend on them.
        public_load_balancer: entry(&names.public),
        private_load_balancer: entry(&names.private),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> LoadBalancerNames {
        LoadBalancerNames { public: "p.ns.svc.cluster.local".into(), private: "i.ns.svc.cluster.local".into() }
    }

    #[test]
    fn ready_has_both_addresses_and_is_recognised() {
        let now = Timestamp::from_second(1_000).unwrap();
        let status = next_status(&IngressStatus::default(), 3, &ReadyCondition::Ready, &names(), now);
        insta::assert_json_snapshot!(status);
        assert!(is_ready(&status, 3, &names()));
        assert!(!is_ready(&status, 4, &names()));
        assert!(!is_ready(&IngressStatus::default(), 3, &names()));
        assert!(!is_ready(&status, 3, &LoadBalancerNames { public: "other".into(), ..names() }));
    }

    #[test]
    fn a_new_generation_is_never_seen_with_the_old_ready() {
        let before =
            next_status(&IngressStatus::default(), 1, &ReadyCondition::Ready, &names(), Timestamp::from_second(1).unwrap());
        let after =
            next_status(&before, 2, &ReadyCondition::Pending("waiting".into()), &names(), Timestamp::from_second(2).unwrap());
        assert_eq!(after.observed_generation, Some(2));
        assert!(after.conditions.iter().filter(|one| one.type_ != "NetworkConfigured").all(|one| one.status == "Unknown"));
    }

    #[test]
    fn times_change_only_with_the_status_of_a_condition() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let one = next_status(&IngressStatus::default(), 1, &ReadyCondition::Ready, &names(), second(1));
        let two = next_status(&one, 2, &ReadyCondition::Ready, &names(), second(2));
        assert_eq!(one.conditions, two.conditions);
        let three = next_status(&two, 3, &ReadyCondition::Refused("DomainConflict", "a".into()), &names(), second(3));
        let times: Vec<_> = three.conditions.iter().map(|one| one.last_transition_time.as_ref().unwrap().0.as_second()).collect();
        assert_eq!(times, [3, 1, 3]);
    }
}
