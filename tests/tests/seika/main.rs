//! Seikas on a real API server with real controllers: exact counts, at every instant, whatever
//! happens.

// A panic is how a test says that something is wrong.
#![allow(clippy::unwrap_used)]

mod counts;
mod definition;
mod nodes;
mod original;
mod ownership;
mod placement;
mod rights;
mod rollout;
mod running;
mod scale;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Context as _;
use k8s_api::seika::Seika;
use kantai_tests::seika::cluster::Cluster;
use tokio::runtime::Runtime;

/// One control plane for all cases. It goes with the last case that uses it, and each case that
/// waits for its turn uses it already.
struct Shared {
    cluster: Cluster,
    runtime: Runtime,
    turn: Mutex<()>,
}

impl Shared {
    fn now() -> anyhow::Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start a runtime")?;
        let cluster = runtime.block_on(Cluster::start())?;
        let started = Arc::new(Self { cluster, runtime, turn: Mutex::default() });
        *shared = Arc::downgrade(&started);
        Ok(started)
    }
}

/// Runs a case. Cases have their turns, so that times mean something.
fn in_turn(case: impl AsyncFnOnce(&Cluster) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let shared = Shared::now()?;
    // A case that failed leaves nothing behind that the next one could see.
    let _turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
    shared.runtime.block_on(case(&shared.cluster))
}

/// Runs a case beside the others.
fn beside_others(case: impl AsyncFnOnce(&Cluster) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let shared = Shared::now()?;
    shared.runtime.block_on(case(&shared.cluster))
}

/// One test per case, so that each runs by its name.
macro_rules! cases {
    ($how:ident, $($module:ident: $($case:ident),*;)*) => {$($(
        #[test]
        fn $case() -> anyhow::Result<()> {
            $how(async |cluster| $module::$case(cluster).await)
        }
    )*)*};
}

cases! { beside_others,
    // Waits for the garbage collector.
    counts: deletion_takes_the_pods_along;
}

cases! { in_turn,
    definition:
        the_definition_takes_the_sample_and_refuses_nonsense,
        selectors_match_the_pods_to_be,
        kubectl_shows_nodes_counts_and_age,
        a_seika_of_as_many_nodes_as_there_may_be_has_a_status,
        what_was_stored_before_the_rules_does_no_harm,
        who_writes_counts_and_who_writes_the_template_need_not_be_one,
        events_tell_of_changes_only;
    counts:
        the_sample_gets_six_pods_on_its_nodes,
        a_node_set_to_zero_loses_its_pods_and_no_others,
        a_key_that_goes_takes_its_pods_along,
        readiness_reaches_the_status,
        rapid_changes_never_overshoot,
        a_restart_creates_nothing_twice,
        failed_pods_are_replaced_and_tidied_up,
        refusals_stop_the_creation,
        a_node_for_which_pods_are_refused_holds_up_no_other,
        from_zero_to_one_and_back;
    nodes:
        an_unknown_node_gets_a_condition_and_no_pod,
        pods_of_a_vanished_node_are_cleaned_up,
        a_cordoned_node_keeps_what_serves_and_says_why,
        a_node_that_flaps_keeps_its_pods;
    rollout:
        a_new_template_rolls_without_losing_a_ready_pod,
        templates_of_the_past_are_kept,
        a_template_that_makes_no_pods_is_kept_all_the_same,
        a_budget_holds_up_evictions_and_no_roll_out;
    ownership:
        foreign_pods_are_left_alone,
        orphans_are_taken_in_and_relabelled_pods_let_go,
        a_pod_that_may_not_be_adopted_or_released_stops_nothing,
        labels_that_admission_changes_make_no_pods_without_end;
    scale:
        the_total_follows_the_counts_whoever_writes_them,
        a_total_by_itself_is_refused_and_says_what_to_write,
        a_manifest_that_is_applied_again_changes_nothing,
        budgets_of_every_kind_let_a_drain_pass;
    original:
        what_nobody_can_schedule_is_counted,
        a_selector_of_expressions_is_heeded,
        what_serves_least_goes_first_and_gently,
        running_is_not_ready,
        the_templates_own_constraints_stay,
        pods_that_always_fail_do_not_fill_the_namespace;
    rights:
        rights_in_one_namespace_are_enough;
    running:
        the_lease_passes_on,
        a_leader_that_is_gone_is_replaced,
        silence_of_the_api_server_is_noticed,
        two_never_lead_at_once,
        chaos_ends_with_exactly_the_pods_asked_for;
}

/// A condition's status and reason; empty where there is none.
fn condition<'a>(seika: &'a Seika, type_: &str) -> (&'a str, &'a str) {
    let conditions = seika.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    conditions.iter().find(|one| one.type_ == type_).map_or(("", ""), |one| (&one.status, &one.reason))
}
