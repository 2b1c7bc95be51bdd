//! One revision's way from its first pod to none and back.
//!
//! The states are Knative's own and live in the PodAutoscaler's Active condition, so that a restart
//! loses nothing:
//!
//! - Unknown: pods are starting and requests wait at the activators, until enough pods are ready or
//!   the progress deadline is over.
//! - True: served by pods, until there is no demand for a stable window.
//! - False: the public Service leads to the activators, until there is demand. The last pods end
//!   once an activator was seen to answer there and the grace period is over.
//!
//! Source: knative/serving `pkg/reconciler/autoscaling/kpa/scaler.go`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_api::{ConditionStatus, ServingMode};
use serde::{Deserialize, Serialize};

use crate::kpa::within_bounds;
use crate::picture::Now;
use crate::settings::RevisionSettings;

/// What is.
#[derive(Clone, Debug, PartialEq)]
pub struct Situation {
    /// The Active condition.
    pub active: ConditionStatus,
    /// For how long it has been so.
    pub active_for: Duration,
    /// Whether enough pods were ready once.
    pub initialized: bool,
    /// Pods that are neither terminating nor finished, with those that were asked for and are not
    /// known yet.
    pub pods: u32,
    /// Of these, those that count as capacity: not on nodes whose kubelet is silent, whose pods
    /// stay whatever is decided.
    pub counted: u32,
    /// What the autoscaler's formulae come to; `None` without data.
    pub asked: Option<u32>,
    /// Whether activators must stay in the request path.
    pub mode: ServingMode,
    /// Whether a gateway holds a request at this instant.
    pub held: bool,
    /// Whether some gateway's demand is unknown.
    pub demand_unknown: bool,
    /// For how long the revision has been inactive with its public Service asked to lead to the
    /// activators, on the clock that does not jump; `None` while it is not.
    pub hidden_for: Option<Duration>,
    /// Whether an activator has answered a probe of the public Service in that time.
    pub activator_answers: bool,
}

/// Since when a condition is as it is, by a clock that does not jump.
///
/// A condition says it by the wall clock, which is believed once: when this program first sees the
/// condition. From then on its own clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lasting {
    status: ConditionStatus,
    changed: Timestamp,
    /// How long it had lasted when it was first seen.
    before: Duration,
    seen: Duration,
}

impl Lasting {
    /// For how long the condition has had this status, which it got at `changed` of the wall clock.
    pub(crate) fn see(held: &mut Option<Self>, status: ConditionStatus, changed: Timestamp, now: Now) -> Duration {
        let is_new = held.is_none_or(|held| (held.status, held.changed) != (status, changed));
        if is_new {
            *held = None;
        }
        let first = || Self { status, changed, before: elapsed(changed, now.wall), seen: now.monotonic };
        let held = held.get_or_insert_with(first);
        held.before + now.monotonic.saturating_sub(held.seen)
    }
}

/// How the number of pods should change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Leave them as they are.
    Keep,
    /// Add pods up to this number and remove none.
    AtLeast(u32),
    /// Exactly this number.
    Pods(u32),
}

/// The next state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The change of the number of pods.
    pub goal: Goal,
    /// The desired count for the status; `None` if unknown.
    pub want: Option<u32>,
    /// Desired mode of the ServerlessService.
    pub mode: ServingMode,
}

/// Beyond the progress deadline, for the time it takes to notice.
const ACTIVATION_SLACK: Duration = Duration::from_secs(30);

/// Decides.
#[must_use]
pub fn decide(situation: &Situation, settings: &RevisionSettings) -> Outcome {
    // One that was given up stays at zero until there is demand: its initial scale had its chance.
    let is_past_start = situation.initialized || situation.active == ConditionStatus::False;
    let bounded = |count| within_bounds(count, is_past_start, settings);
    let asked = match (situation.asked, situation.held) {
        (Some(asked), true) => Some(bounded(asked.max(settings.activation_scale))),
        // Somebody waits and nothing else is known: pods that are there are not too many.
        (None, true) => Some(bounded(settings.activation_scale).max(situation.counted)),
        (Some(asked), false) => Some(bounded(asked)),
        (None, false) => None,
    };
    let keep = |want| Outcome { goal: Goal::Keep, want, mode: situation.mode };
    let have = |count| Outcome {
        goal: Goal::Pods(count),
        want: Some(count),
        mode: if count == 0 { ServingMode::Proxy } else { situation.mode },
    };
    match asked {
        // Until the first pods were ready they are Knative's own.
        _ if !situation.initialized && situation.active != ConditionStatus::False => first_pods(situation, settings, asked),
        None => keep(None),
        Some(0) if situation.demand_unknown => keep(None),
        Some(0) if !settings.scale_to_zero => have(1),
        Some(0) => to_zero(situation, settings),
        Some(count) if situation.demand_unknown => have(count.max(situation.counted)),
        Some(count) => have(count),
    }
}

fn first_pods(situation: &Situation, settings: &RevisionSettings, asked: Option<u32>) -> Outcome {
    // A revision with a minimum scale or with waiting requests is not given up.
    let is_needed = settings.min_scale > 0 || situation.held || situation.asked.is_some_and(|asked| asked > 0);
    if !is_needed && situation.active_for >= settings.progress_deadline + ACTIVATION_SLACK {
        return Outcome { goal: Goal::Pods(0), want: Some(0), mode: ServingMode::Proxy };
    }
    let threshold = settings.activation_threshold(false);
    Outcome {
        // Knative starts the initial pods itself; a higher min-scale is for us to reach.
        goal: Goal::AtLeast(threshold),
        want: asked.filter(|&count| count > 0).or((threshold > 0).then_some(threshold)),
        // Knative starts every revision behind its activators.
        mode: ServingMode::Proxy,
    }
}

fn to_zero(situation: &Situation, settings: &RevisionSettings) -> Outcome {
    let stay = |want, mode| Outcome { goal: Goal::Keep, want, mode };
    let gone = Outcome { goal: Goal::Pods(0), want: Some(0), mode: ServingMode::Proxy };
    let since = situation.active_for;
    match situation.active {
        // Pods on their way to a request are waited for, even if the request went away; not for
        // ever.
        ConditionStatus::Unknown if since >= settings.progress_deadline + ACTIVATION_SLACK => gone,
        ConditionStatus::Unknown => stay(None, situation.mode),
        ConditionStatus::True if since >= settings.stable_window => stay(Some(0), ServingMode::Proxy),
        ConditionStatus::True => Outcome { goal: Goal::Pods(1), want: Some(1), mode: situation.mode },
        ConditionStatus::False if situation.pods == 0 => gone,
        ConditionStatus::False => {
            let wait = settings.scale_to_zero_grace.max(settings.scale_to_zero_retention);
            let is_over = situation.hidden_for.is_some_and(|hidden| hidden >= wait);
            // Without an activator the next request would be neither held nor reported.
            if is_over && situation.activator_answers { gone } else { stay(Some(0), ServingMode::Proxy) }
        }
    }
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::settings::ClusterSettings;

    fn demo() -> RevisionSettings {
        let own = [("target", "10"), ("window", "12s")].map(|(k, v)| (format!("autoscaling.knative.dev/{k}"), v.to_owned()));
        RevisionSettings::read(&BTreeMap::from(own), 0, true, &ClusterSettings::default())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Active for 100 s with one pod and without requests.
    fn idle() -> Situation {
        Situation {
            active: ConditionStatus::True,
            active_for: SECOND * 100,
            initialized: true,
            pods: 1,
            counted: 1,
            asked: Some(0),
            mode: ServingMode::Serve,
            held: false,
            demand_unknown: false,
            hidden_for: None,
            activator_answers: false,
        }
    }

    /// Inactive for long, and not yet gone.
    fn hidden() -> Situation {
        Situation { active: ConditionStatus::False, active_for: SECOND * 1000, ..idle() }
    }

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    const KEEP_AND_HIDE: Outcome = Outcome { goal: Goal::Keep, want: Some(0), mode: ServingMode::Proxy };
    const GONE: Outcome = Outcome { goal: Goal::Pods(0), want: Some(0), mode: ServingMode::Proxy };
    const ONE: Outcome = Outcome { goal: Goal::Pods(1), want: Some(1), mode: ServingMode::Serve };

    #[rstest]
    #[case::first_it_hides(idle(), KEEP_AND_HIDE)]
    #[case::not_before_a_window(Situation { active_for: SECOND * 11, ..idle() }, ONE)]
    #[case::waits_for_an_activator(Situation { hidden_for: Some(HOUR), ..hidden() }, KEEP_AND_HIDE)]
    #[case::waits_for_the_grace_period(Situation { hidden_for: Some(SECOND * 29), activator_answers: true, ..hidden() }, KEEP_AND_HIDE)]
    #[case::goes_when_both_are_there(Situation { hidden_for: Some(SECOND * 30), activator_answers: true, ..hidden() }, GONE)]
    #[case::not_before_it_is_hidden(Situation { hidden_for: None, activator_answers: true, ..hidden() }, KEEP_AND_HIDE)]
    #[case::a_request_keeps_it(Situation { active: ConditionStatus::False, held: true, ..idle() }, ONE)]
    #[case::unknown_demand_keeps_it(
        Situation { active: ConditionStatus::False, active_for: SECOND * 1000, demand_unknown: true, ..idle() },
        Outcome { goal: Goal::Keep, want: None, mode: ServingMode::Serve })]
    #[case::a_request_wakes_at_once(Situation { active: ConditionStatus::False, pods: 0, asked: None, held: true, ..idle() }, ONE)]
    #[case::still_starting(
        Situation { active: ConditionStatus::Unknown, ..idle() }, Outcome { goal: Goal::Keep, want: None, mode: ServingMode::Serve })]
    #[case::started_in_vain(Situation { active: ConditionStatus::Unknown, active_for: SECOND * 630, ..idle() }, GONE)]
    #[case::load_rules(Situation { asked: Some(4), ..idle() }, Outcome { goal: Goal::Pods(4), want: Some(4), mode: ServingMode::Serve })]
    #[case::nothing_shrinks_on_the_unknown(
        Situation { asked: Some(2), pods: 5, counted: 5, demand_unknown: true, ..idle() },
        Outcome { goal: Goal::Pods(5), want: Some(5), mode: ServingMode::Serve })]
    #[case::no_data_no_decision(Situation { asked: None, ..idle() }, Outcome { goal: Goal::Keep, want: None, mode: ServingMode::Serve })]
    fn worked_examples(#[case] situation: Situation, #[case] expected: Outcome) {
        assert_eq!(decide(&situation, &demo()), expected);
    }

    #[test]
    fn a_clock_that_jumps_changes_nothing_of_what_was_seen() {
        let now = |wall, monotonic| Now { wall: at(wall), monotonic: SECOND * monotonic };
        let (mut held, active) = (None, ConditionStatus::True);
        assert_eq!(Lasting::see(&mut held, active, at(900), now(1000, 5)), SECOND * 100);
        assert_eq!(Lasting::see(&mut held, active, at(900), now(40, 15)), SECOND * 110, "back by a quarter of an hour");
        assert_eq!(Lasting::see(&mut held, active, at(900), now(9000, 16)), SECOND * 111, "and ahead");
        assert_eq!(Lasting::see(&mut held, ConditionStatus::False, at(9000), now(9000, 17)), Duration::ZERO);
        assert_eq!(Lasting::see(&mut held, ConditionStatus::False, at(9000), now(100, 57)), SECOND * 40);
        // The first that is seen of a condition may lie ahead.
        let mut held = None;
        assert_eq!(Lasting::see(&mut held, active, at(5000), now(1000, 5)), Duration::ZERO);
        assert_eq!(Lasting::see(&mut held, active, at(5000), now(1012, 17)), SECOND * 12);
    }

    #[test]
    fn a_new_revision_waits_for_the_pods_it_was_born_with() {
        let born = Situation {
            active: ConditionStatus::Unknown,
            active_for: SECOND * 1,
            initialized: false,
            asked: Some(7),
            mode: ServingMode::Serve,
            ..idle()
        };
        let outcome = decide(&born, &demo());
        assert_eq!(outcome, Outcome { goal: Goal::AtLeast(1), want: Some(7), mode: ServingMode::Proxy });
        let late = Situation { active_for: SECOND * 1000, asked: Some(0), ..born.clone() };
        assert_eq!(decide(&late, &demo()), GONE);
        let asked_for = Situation { active_for: SECOND * 1000, ..born };
        assert_ne!(decide(&asked_for, &demo()), GONE);
        let mut settings = demo();
        settings.min_scale = 1;
        assert_ne!(decide(&late, &settings), GONE, "one that is to have a pod in any case is never given up");
    }

    #[test]
    fn one_that_was_given_up_stays_at_zero_until_there_is_demand() {
        let given_up = Situation { initialized: false, pods: 0, hidden_for: Some(HOUR), activator_answers: true, ..hidden() };
        assert_eq!(decide(&given_up, &demo()), GONE);
        let asked = Situation { held: true, mode: ServingMode::Proxy, ..given_up };
        assert_eq!(decide(&asked, &demo()).goal, Goal::Pods(1));
    }

    #[test]
    fn retention_and_the_switch_keep_the_last_pod() {
        let hidden = Situation { hidden_for: Some(SECOND * 40), activator_answers: true, ..hidden() };
        let mut settings = demo();
        settings.scale_to_zero_retention = Duration::from_secs(60);
        assert_eq!(decide(&hidden, &settings), KEEP_AND_HIDE);
        let mut settings = demo();
        settings.scale_to_zero = false;
        assert_eq!(decide(&hidden, &settings), ONE);
        settings.min_scale = 2;
        assert_eq!(decide(&idle(), &settings).goal, Goal::Pods(2));
    }

    proptest! {
        /// Whatever happens, a held request is never answered by fewer pods than before, and pods
        /// never go to zero under one.
        #[test]
        fn a_held_request_is_never_deserted(
            asked in prop::option::of(0_u32..20),
            pods in 0_u32..20,
            since in 0_u64..1000,
            hidden in prop::option::of(0_u64..1000),
            activator_answers: bool,
            active in prop::sample::select(vec![ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown]),
        ) {
            let situation = Situation {
                asked, pods, counted: pods, active, held: true, active_for: Duration::from_secs(since), hidden_for: hidden.map(Duration::from_secs), activator_answers,
                ..idle()
            };
            prop_assert_ne!(decide(&situation, &demo()).goal, Goal::Pods(0));
        }

        /// Nothing that runs is taken away while demand is not known, nor to zero without an
        /// activator.
        #[test]
        fn the_unknown_takes_nothing_away(
            asked in prop::option::of(0_u32..20),
            pods in 1_u32..20,
            since in 0_u64..100,
            hidden in prop::option::of(0_u64..1000),
            held: bool,
            demand_unknown: bool,
            answers: bool,
            active in prop::sample::select(vec![ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown]),
        ) {
            let situation = Situation {
                asked, pods, counted: pods, active, held, demand_unknown, active_for: Duration::from_secs(since), hidden_for: hidden.map(Duration::from_secs),
                activator_answers: answers, ..idle()
            };
            let goal = decide(&situation, &demo()).goal;
            if demand_unknown || asked.is_none() {
                prop_assert!(!matches!(goal, Goal::Pods(count) if count < pods), "{goal:?}");
            }
            if !answers {
                prop_assert_ne!(goal, Goal::Pods(0));
            }
        }
    }
}
