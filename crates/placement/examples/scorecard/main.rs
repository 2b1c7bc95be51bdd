//! Prints one line per figure of merit: `id  value  unit  goal  ok|short`, tab-separated; lines that start with `#` are notes.
//!
//! `KANTAI_LATENCY_DATA` names a folder of measured latency matrices; without it the figures that need them are `absent`. Arguments choose
//! figures by the beginning of their id; without arguments all are computed.

mod data;
mod planning;
mod report;
mod sparse;

use anyhow::Result;

fn main() -> Result<()> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |id: &str| chosen.is_empty() || chosen.iter().any(|prefix| id.starts_with(prefix.as_str()));
    let slices = data::planetlab()?;

    if wanted("plan_5k") {
        planning::plan_5k()?;
    }
    if wanted("small_gap") {
        planning::small_gap(10_000)?;
    }
    match &slices {
        Some(slices) if wanted("lp_gap") || wanted("vs_faast") => planning::measured(slices)?,
        None if wanted("lp_gap") || wanted("vs_faast") => {
            report::absent("lp_gap_pct", "%");
            report::absent("vs_faast_ratio", "x");
        }
        _ => {}
    }
    if wanted("est_i") {
        sparse::sites();
    }
    // Figures whose capability is not there yet are short, not silent.
    for (id, unit, goal) in [
        ("score_10k_us", "us", "<= 50"),
        ("plan_many_ms", "ms", "<= 50"),
        ("weights_5k_ms", "ms", "<= 5"),
        ("weights_row_us", "us", "<= 10"),
        ("slo_replicas_ratio", "x", "<= 1.1"),
        ("moves_noise", "moves", "<= 1"),
        ("est_planetlab_pct", "%", "<= 5"),
        ("hostile_cases", "cases", ">= 10000000"),
    ] {
        if wanted(id) {
            report::missing(id, unit, goal);
        }
    }
    Ok(())
}
