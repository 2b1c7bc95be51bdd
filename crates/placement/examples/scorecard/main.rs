//! Prints one line per figure of merit: `id  value  unit  goal  ok|short`, tab-separated; lines
//! that start with `#` are notes.
//!
//! `KANTAI_LATENCY_DATA` names a folder of measured latency matrices; without it the figures that
//! need them are `absent`. Arguments choose figures by the beginning of their id; without arguments
//! all are computed. Standard error shows the progress.

mod apps;
mod data;
mod hostile;
mod linear;
mod planning;
mod policy;
mod report;
mod serving;
mod sparse;
mod speed;
mod timing;

use anyhow::Result;

fn main() -> Result<()> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    if chosen.iter().any(|argument| argument == planning::PEAK) {
        return planning::peak();
    }
    let wanted = |id: &str| {
        // A group of figures is computed when any of its ids is asked for.
        let asked = chosen.is_empty() || chosen.iter().any(|prefix| id.starts_with(prefix.as_str()) || prefix.starts_with(id));
        if asked {
            report::progress(id);
        }
        asked
    };
    let slices = data::planetlab()?;

    if wanted("plan_5k") {
        planning::plan_5k()?;
    }
    if wanted("plan_50k") || wanted("rss_50k") {
        planning::plan_50k()?;
    }
    if wanted("small_gap") {
        planning::small_gap(10_000)?;
    }
    match &slices {
        Some(slices) if wanted("lp_gap") || wanted("gap_fast") || wanted("vs_faast") => planning::measured(slices)?,
        None if wanted("lp_gap") || wanted("gap_fast") || wanted("vs_faast") => {
            report::absent("lp_gap_pct", "%");
            report::absent("gap_fast_pct", "%");
            report::absent("vs_faast_ratio", "x");
        }
        _ => {}
    }
    if wanted("est_i") {
        sparse::sites();
    }
    match &slices {
        Some(slices) if wanted("est_p") || wanted("est_wrong") => sparse::planetlab(slices),
        None if wanted("est_p") || wanted("est_wrong") => {
            report::absent("est_wrong_better", "pairs");
            report::absent("est_planetlab_pct", "%");
            report::absent("est_planetlab_p90_pct", "%");
        }
        _ => {}
    }
    if wanted("weights") {
        serving::weights()?;
    }
    if wanted("score_10k") {
        serving::scores();
    }
    if wanted("hostile") {
        hostile::hostile(10_000_000)?;
    }
    if wanted("plan_many") {
        planning::plan_many()?;
    }
    if wanted("speed") {
        speed::scale_down()?;
        speed::many()?;
    }
    if wanted("app_tree") || wanted("app_graph") {
        apps::gaps()?;
    }
    if wanted("app_vs_diktyo") {
        apps::against_diktyo()?;
    }
    if wanted("vs_before") || wanted("fuzz_execs") {
        report::elsewhere("vs_before", "x", "the README shows how to run it beside an earlier commit");
        report::elsewhere("fuzz_execs", "executions", "the example `fuzz` prints it");
    }
    if wanted("slo") {
        policy::service_levels(400)?;
    }
    if wanted("moves") {
        policy::moves()?;
    }
    Ok(())
}
