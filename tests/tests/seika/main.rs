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

use std::time::Instant;

use kantai_tests::seika::cluster::Cluster;
use seika_controller::crd::Seika;

/// One control plane serves all cases, one after another, so that times mean something. Only that
/// of deletion, which waits for the garbage collector, runs beside the others.
#[tokio::test(flavor = "multi_thread")]
async fn seikas_on_a_real_api_server() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (others, deletion) = futures::join!(cases_in_turn(&cluster), counts::deletion_takes_the_pods_along(&cluster));
    deletion?;
    others
}

async fn cases_in_turn(cluster: &Cluster) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    // Parts of names, between commas: only the cases that have one of them in theirs. Without it,
    // all.
    let wanted = std::env::var("KANTAI_SEIKA_CASES").unwrap_or_default();
    macro_rules! cases {
        ($($module:ident::$case:ident),* $(,)?) => {$(
            if wanted.split(',').any(|part| stringify!($case).contains(part)) {
                let begun = Instant::now();
                let result = $module::$case(cluster).await;
                let verdict = if result.is_ok() { "ok    " } else { "FAILED" };
                println!("{verdict} {} {:.1} s", stringify!($case), begun.elapsed().as_secs_f64());
                if let Err(error) = result {
                    failed.push(format!("{}: {error:?}", stringify!($case)));
                }
            }
        )*};
    }
    cases![
        definition::the_definition_takes_the_sample_and_refuses_nonsense,
        definition::selectors_match_the_pods_to_be,
        definition::kubectl_shows_nodes_counts_and_age,
        definition::a_seika_of_as_many_nodes_as_there_may_be_has_a_status,
        definition::what_was_stored_before_the_rules_does_no_harm,
        definition::who_writes_counts_and_who_writes_the_template_need_not_be_one,
        definition::events_tell_of_changes_only,
        counts::the_sample_gets_six_pods_on_its_nodes,
        counts::a_node_set_to_zero_loses_its_pods_and_no_others,
        counts::a_key_that_goes_takes_its_pods_along,
        counts::readiness_reaches_the_status,
        counts::rapid_changes_never_overshoot,
        counts::a_restart_creates_nothing_twice,
        counts::failed_pods_are_replaced_and_tidied_up,
        counts::refusals_stop_the_creation,
        counts::a_node_for_which_pods_are_refused_holds_up_no_other,
        counts::from_zero_to_one_and_back,
        nodes::an_unknown_node_gets_a_condition_and_no_pod,
        nodes::pods_of_a_vanished_node_are_cleaned_up,
        nodes::a_cordoned_node_keeps_what_serves_and_says_why,
        nodes::a_node_that_flaps_keeps_its_pods,
        rollout::a_new_template_rolls_without_losing_a_ready_pod,
        rollout::templates_of_the_past_are_kept,
        rollout::a_template_that_makes_no_pods_is_kept_all_the_same,
        rollout::a_budget_holds_up_evictions_and_no_roll_out,
        ownership::foreign_pods_are_left_alone,
        ownership::orphans_are_taken_in_and_relabelled_pods_let_go,
        ownership::a_pod_that_may_not_be_adopted_or_released_stops_nothing,
        ownership::labels_that_admission_changes_make_no_pods_without_end,
        scale::the_total_follows_the_counts_whoever_writes_them,
        scale::a_total_by_itself_is_refused_and_says_what_to_write,
        scale::a_manifest_that_is_applied_again_changes_nothing,
        scale::budgets_of_every_kind_let_a_drain_pass,
        original::what_nobody_can_schedule_is_counted,
        original::a_selector_of_expressions_is_heeded,
        original::what_serves_least_goes_first_and_gently,
        original::running_is_not_ready,
        original::the_templates_own_constraints_stay,
        original::pods_that_always_fail_do_not_fill_the_namespace,
        rights::rights_in_one_namespace_are_enough,
        running::the_lease_passes_on,
        running::a_leader_that_is_gone_is_replaced_within_ten_seconds,
        running::silence_of_the_api_server_is_noticed,
        running::two_never_lead_at_once,
        running::chaos_ends_with_exactly_the_pods_asked_for,
    ];
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

/// A condition's status and reason; empty where there is none.
fn condition<'a>(seika: &'a Seika, type_: &str) -> (&'a str, &'a str) {
    let conditions = seika.status.as_ref().map(|status| &status.conditions[..]).unwrap_or_default();
    conditions.iter().find(|one| one.type_ == type_).map_or(("", ""), |one| (&one.status, &one.reason))
}
