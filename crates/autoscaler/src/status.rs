//! The PodAutoscaler's status, from which a Revision takes its readiness. Pure.

use jiff::Timestamp;
use k8s_api::{Condition, ConditionStatus, PodAutoscalerStatus, ServerlessServiceStatus, happy, set_condition};

use crate::picture::ServerlessFacts;

/// What the status follows from.
#[derive(Clone, Debug)]
pub struct StatusInputs<'a> {
    /// The wall clock.
    pub now: Timestamp,
    /// The PodAutoscaler's generation.
    pub generation: i64,
    /// Its ServerlessService, where there is one.
    pub sks: Option<&'a ServerlessFacts>,
    /// Pods ready.
    pub ready: u32,
    /// Desired pods; `None` if unknown.
    pub want: Option<u32>,
    /// Pods that must be ready before the revision is active.
    pub threshold: u32,
    /// What the status says of the goal for the response time.
    pub goal: GoalStatus<'a>,
}

/// What a status says of the goal for the response time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GoalStatus<'a> {
    /// There is none.
    #[default]
    None,
    /// Unknown: without demand the condition stays as it is.
    Unknown,
    /// It is met.
    Met,
    /// It is missed for this reason.
    Blocked(&'a str),
}

/// The condition that says whether 95 % of the requests can be answered in time. Knative does not
/// read it.
pub const GOAL_MET: &str = "ServiceGoalMet";

/// Why there is nothing to serve.
const NO_TRAFFIC: (&str, &str) = ("NoTraffic", "The target is not receiving traffic.");
/// Why there is nothing to serve with.
const TIMED_OUT: (&str, &str) = ("TimedOut", "The target could not be activated.");
/// Why requests wait.
const QUEUED: (&str, &str) = ("Queued", "Requests to the target are being buffered as resources are provisioned.");

/// The next status after `before`. `threshold` in `facts` is meant for the state before; this
/// function raises Initialized first.
#[must_use]
pub fn next(before: &PodAutoscalerStatus, facts: &StatusInputs<'_>, threshold_once_initialized: u32) -> PodAutoscalerStatus {
    let mut status = before.clone();
    let sks_status = facts.sks.and_then(|sks| sks.status.as_ref());
    status.conditions.sort_by(|one, other| one.kind.cmp(&other.kind));
    status.observed_generation = facts.generation;
    if let Some(sks) = sks_status {
        status.service_name.clone_from(&sks.service_name);
        status.metrics_service_name.clone_from(&sks.private_service_name);
    }
    status.actual_scale = Some(as_scale(facts.ready));
    status.desired_scale = match (facts.want, before.desired_scale) {
        (Some(want), _) => Some(as_scale(want)),
        (None, Some(held)) if held >= 0 => Some(held),
        (None, _) => Some(-1),
    };

    let conditions = &mut status.conditions;
    let mut set = |kind, state, why| set_condition(conditions, kind, state, why, facts.now);
    match facts.sks.map(|sks| sks_ready(sks, sks_status)) {
        Some(true) => set(PodAutoscalerStatus::SKS_READY, ConditionStatus::True, None),
        Some(false) => {
            set(
                PodAutoscalerStatus::SKS_READY,
                ConditionStatus::Unknown,
                Some(("NotReady", "The ServerlessService is not ready.")),
            );
        }
        None => {
            set(PodAutoscalerStatus::SKS_READY, ConditionStatus::Unknown, Some(("NotReady", "No ServerlessService yet.")));
        }
    }
    if before.is_initialized() || (facts.ready >= facts.threshold && !status.service_name.is_empty()) {
        set(PodAutoscalerStatus::INITIALIZED, ConditionStatus::True, None);
    } else {
        set(PodAutoscalerStatus::INITIALIZED, ConditionStatus::Unknown, Some(QUEUED));
    }

    // As the stock class reads it, the threshold of the state that has just been reached.
    let initialized = status.is_initialized();
    let threshold = if initialized { threshold_once_initialized } else { facts.threshold };
    let was = before.condition(PodAutoscalerStatus::ACTIVE).map(|condition| condition.status);
    let inactive_before = was == Some(ConditionStatus::False);
    let conditions = &mut status.conditions;
    let mut active = |state, why| set_condition(conditions, PodAutoscalerStatus::ACTIVE, state, why, facts.now);
    if facts.want == Some(0) || facts.threshold == 0 && !before.is_initialized() {
        let why = if was == Some(ConditionStatus::Unknown) && facts.threshold > 0 { TIMED_OUT } else { NO_TRAFFIC };
        // A time-out stays one until there is traffic again.
        let timed_out_before = inactive_before
            && before.condition(PodAutoscalerStatus::ACTIVE).is_some_and(|c| c.reason.as_deref() == Some(TIMED_OUT.0));
        active(ConditionStatus::False, Some(if timed_out_before { TIMED_OUT } else { why }));
    } else if facts.ready < threshold {
        if inactive_before && facts.want.is_none() {
            active(ConditionStatus::False, Some(NO_TRAFFIC));
        } else {
            active(ConditionStatus::Unknown, Some(QUEUED));
        }
    } else if !(inactive_before && facts.want.is_none()) {
        active(ConditionStatus::True, None);
    }
    match facts.goal {
        GoalStatus::None => status.conditions.retain(|condition| condition.kind != GOAL_MET),
        GoalStatus::Unknown => {}
        GoalStatus::Met => set_condition(&mut status.conditions, GOAL_MET, ConditionStatus::True, None, facts.now),
        GoalStatus::Blocked(why) => {
            set_condition(&mut status.conditions, GOAL_MET, ConditionStatus::False, Some(("GoalOutOfReach", why)), facts.now);
        }
    }
    sum_up(&mut status, facts.now);
    status
}

/// The status where the name of its ServerlessService is taken by an object of another owner.
#[must_use]
pub fn not_owned(before: &PodAutoscalerStatus, generation: i64, taken: &str, now: Timestamp) -> PodAutoscalerStatus {
    let mut status = before.clone();
    status.conditions.sort_by(|one, other| one.kind.cmp(&other.kind));
    status.observed_generation = generation;
    let message = format!("There is an existing ServerlessService {taken:?} that we do not own.");
    let why = Some(("NotOwned", message.as_str()));
    set_condition(&mut status.conditions, PodAutoscalerStatus::ACTIVE, ConditionStatus::False, why, now);
    sum_up(&mut status, now);
    status
}

/// Ready follows from the others.
fn sum_up(status: &mut PodAutoscalerStatus, now: Timestamp) {
    let (ready, why) = {
        let (ready, cause) = happy(
            &status.conditions,
            &[PodAutoscalerStatus::ACTIVE, PodAutoscalerStatus::INITIALIZED, PodAutoscalerStatus::SKS_READY],
        );
        (ready, cause.cloned())
    };
    let why = why.as_ref().map(reason_and_message);
    set_condition(&mut status.conditions, PodAutoscalerStatus::READY, ready, why, now);
}

fn reason_and_message(condition: &Condition) -> (&str, &str) {
    (condition.reason.as_deref().unwrap_or_default(), condition.message.as_deref().unwrap_or_default())
}

fn sks_ready(sks: &ServerlessFacts, status: Option<&ServerlessServiceStatus>) -> bool {
    status.is_some_and(|status| {
        sks.generation == status.observed_generation && status.holds(ServerlessServiceStatus::READY).is_some()
    })
}

fn as_scale(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use k8s_api::ServingMode;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn sks(ready: ConditionStatus) -> ServerlessFacts {
        let mut status = ServerlessServiceStatus {
            observed_generation: 1,
            service_name: "hello-00001".to_owned(),
            private_service_name: "hello-00001-private".to_owned(),
            ..Default::default()
        };
        set_condition(&mut status.conditions, ServerlessServiceStatus::READY, ready, None, at(0));
        ServerlessFacts {
            name: "hello-00001".to_owned(),
            is_owned: true,
            generation: 1,
            mode: ServingMode::Proxy,
            status: Some(status),
        }
    }

    fn facts(sks: Option<&ServerlessFacts>, ready: u32, want: Option<u32>) -> StatusInputs<'_> {
        StatusInputs { now: at(10), generation: 3, sks, ready, want, threshold: 1, goal: GoalStatus::None }
    }

    fn summary(status: &PodAutoscalerStatus) -> [ConditionStatus; 4] {
        ["Active", "ScaleTargetInitialized", "SKSReady", "Ready"].map(|kind| status.condition(kind).unwrap().status)
    }

    use ConditionStatus::{False, True, Unknown};

    #[test]
    fn at_birth_nothing_is_known_and_nothing_is_false() {
        let status = next(&PodAutoscalerStatus::default(), &facts(None, 0, None), 1);
        assert_eq!(summary(&status), [Unknown, Unknown, Unknown, Unknown]);
        assert_eq!((status.observed_generation, status.desired_scale, status.actual_scale), (3, Some(-1), Some(0)));
        assert!(status.service_name.is_empty());
    }

    #[test]
    fn ready_pods_and_services_make_it_ready_and_zero_keeps_it_initialized() {
        let (up, down) = (sks(True), sks(Unknown));
        let active = next(&PodAutoscalerStatus::default(), &facts(Some(&up), 1, Some(1)), 1);
        assert_eq!(summary(&active), [True, True, True, True]);
        assert_eq!((active.service_name.as_str(), active.metrics_service_name.as_str()), ("hello-00001", "hello-00001-private"));
        let zero = next(&active, &StatusInputs { now: at(20), ..facts(Some(&down), 0, Some(0)) }, 1);
        assert_eq!(summary(&zero), [False, True, Unknown, False]);
        assert_eq!(zero.condition("Ready").unwrap().reason.as_deref(), Some("NoTraffic"));
        assert_eq!(zero.condition("ScaleTargetInitialized").unwrap().last_transition_time, Some(at(10)));
        // Without data, or before it, it stays so; a request makes it wait.
        assert_eq!(summary(&next(&zero, &facts(Some(&down), 0, None), 1))[0], False);
        let waking = next(&zero, &facts(Some(&down), 0, Some(1)), 1);
        assert_eq!((summary(&waking)[0], waking.desired_scale), (Unknown, Some(1)));
    }

    #[rstest]
    #[case::never_started(1, False, "TimedOut")]
    #[case::born_at_zero(0, False, "NoTraffic")]
    fn giving_up_says_why(#[case] threshold: u32, #[case] active: ConditionStatus, #[case] reason: &str) {
        let services = sks(Unknown);
        let waiting = next(&PodAutoscalerStatus::default(), &facts(Some(&services), 0, None), 1);
        assert_eq!(summary(&waiting)[0], Unknown);
        let before = if threshold == 0 { PodAutoscalerStatus::default() } else { waiting };
        let want = if threshold == 0 { None } else { Some(0) };
        let status = next(&before, &StatusInputs { threshold, ..facts(Some(&services), 0, want) }, 1);
        assert_eq!((summary(&status)[0], status.condition("Active").unwrap().reason.as_deref()), (active, Some(reason)));
        let again = next(&status, &StatusInputs { threshold, ..facts(Some(&services), 0, Some(0)) }, 1);
        assert_eq!(again.condition("Active").unwrap().reason.as_deref(), Some(reason));
    }

    #[test]
    fn a_name_that_is_taken_is_said() {
        let status = not_owned(&PodAutoscalerStatus::default(), 3, "hello-00001", at(10));
        let ready = status.condition("Ready").unwrap();
        assert_eq!((ready.status, ready.reason.as_deref()), (False, Some("NotOwned")));
        assert_eq!(not_owned(&status, 3, "hello-00001", at(99)), status);
    }

    #[test]
    fn a_stale_serverless_service_is_not_ready() {
        let mut services = sks(True);
        services.generation = 2;
        let status = next(&PodAutoscalerStatus::default(), &facts(Some(&services), 1, Some(1)), 1);
        assert_eq!(summary(&status), [True, True, Unknown, Unknown]);
    }

    #[test]
    fn nothing_new_writes_nothing_new() {
        let services = sks(True);
        let once = next(&PodAutoscalerStatus::default(), &facts(Some(&services), 1, Some(1)), 1);
        assert_eq!(next(&once, &StatusInputs { now: at(99), ..facts(Some(&services), 1, Some(1)) }, 1), once);
    }
}
