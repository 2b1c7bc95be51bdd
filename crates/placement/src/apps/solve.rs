//! From an application to its plan.

use super::forest::cheapest;
use super::model::Model;
use super::packing::Packing;
use super::search::{Found, search};
use super::{AppError, AppPlan, Application};
use crate::plan::Proof;

impl Application {
    /// The best plan: exact where the calls form trees and the best places have room for all; else
    /// by search, with a lower bound. Equal applications get equal plans, on every machine. Of more
    /// than 1,024 places those in use and those nearest to the demand are looked at.
    ///
    /// # Errors
    /// When a workload is not listed or listed twice, workloads call each other in a circle, or a
    /// number is not finite or negative.
    pub fn solve(&self) -> Result<AppPlan, AppError> {
        let model = Model::new(self)?;
        let (kept, unplaced, start) = fitting(&model);
        let kept_model = model.keeping(&kept);
        let found = search(&kept_model, start);
        Ok(assemble(self, &kept_model, &kept, &unplaced, &found))
    }
}

/// The workloads for which there is room, those for which there is none, and where the former could
/// be.
fn fitting(model: &Model) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
    let may_run = |workload: &usize| model.unary[*workload].iter().any(|cost| cost.is_finite());
    let mut kept: Vec<usize> = (0..model.workloads()).filter(may_run).collect();
    loop {
        let part = model.keeping(&kept);
        // What runs stays, so that a placement that fits as it is is found whatever its shape.
        let at_home = (0..kept.len()).map(|at| part.running[at].filter(|place| part.unary[at][*place].is_finite()));
        let wish: Vec<usize> = at_home.enumerate().map(|(at, home)| home.unwrap_or_else(|| cheapest(&part.unary[at]))).collect();
        let (labels, left) = Packing::first_fit(&part, &wish);
        if left.is_empty() {
            let unplaced = (0..model.workloads()).filter(|workload| kept.binary_search(workload).is_err()).collect();
            return (kept, unplaced, labels);
        }
        let mut at = 0;
        kept.retain(|_| {
            at += 1;
            left.binary_search(&(at - 1)).is_err()
        });
    }
}

fn assemble(app: &Application, model: &Model, kept: &[usize], unplaced: &[usize], found: &Found) -> AppPlan {
    let mean = |sum: f64| if model.demand > 0.0 { sum / model.demand } else { 0.0 };
    let node = |label: usize| app.costs.nodes()[model.places[label]].clone();
    let name = |workload: usize| app.workloads[workload].name.clone();
    let moved =
        found.labels.iter().zip(&model.running).filter(|(place, running)| running.is_some_and(|running| running != **place));
    let moves = moved.count() as f64 * app.move_seconds * model.demand;
    let serving: f64 =
        kept.iter().zip(&model.rates).map(|(workload, rate)| rate * app.workloads[*workload].serving_seconds).sum();
    let (energy, calls) = (model.energy(&found.labels), model.calls(&found.labels));
    let proven = !model.is_cut && energy <= found.bound + model.tolerance(energy);
    AppPlan {
        placement: kept.iter().zip(&found.labels).map(|(workload, label)| (name(*workload), node(*label))).collect(),
        unplaced: unplaced.iter().map(|workload| name(*workload)).collect(),
        response_seconds: mean(energy - moves + serving),
        entry_seconds: mean(energy - moves - calls),
        call_seconds: mean(calls),
        objective_seconds: mean(energy + serving),
        proof: if proven && unplaced.is_empty() {
            Proof::Optimal
        } else {
            // Of the placements of the same workloads.
            Proof::AtLeast { objective: if model.is_cut { 0.0 } else { mean(found.bound + serving) } }
        },
    }
}
