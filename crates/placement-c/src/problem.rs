//! Questions, and who answers them.

use std::ffi::c_char;

use placement::Problem;
use placement::plan::Planner;
use placement::problem::ProblemSpec;
use serde_json::{Value, json};

use crate::costs::KantaiCosts;
use crate::edge::{Failure, KantaiStatus, exclusive, guard, hand_over, shared, take_back, text};
use crate::plan::KantaiPlan;

/// One service, and all that its placement depends on.
pub struct KantaiProblem {
    pub(crate) problem: Problem,
}

/// Plans one service again and again: begins where the plan before ended.
pub struct KantaiPlanner {
    planner: Planner,
}

/// A problem from JSON, as crates/placement/schema/problem-spec.json has it. Where `costs` is not
/// NULL, the JSON has no field "costs", and these count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_problem_from_json(
    json: *const c_char,
    costs: *const KantaiCosts,
    problem: *mut *mut KantaiProblem,
    error: *mut *mut c_char,
) -> KantaiStatus {
    // SAFETY: by the contract of the crate, here and below.
    unsafe {
        guard(error, || {
            let out = exclusive(problem, "the place for a problem")?;
            let json = text(json, "the problem")?;
            let costs = if costs.is_null() { None } else { Some(shared(costs, "the costs")?) };
            hand_over(out, KantaiProblem { problem: read(json, costs)? });
            Ok(())
        })
    }
}

fn read(json: &str, costs: Option<&KantaiCosts>) -> Result<Problem, Failure> {
    let Some(costs) = costs else { return Ok(serde_json::from_str::<ProblemSpec>(json)?.try_into()?) };
    let mut value: Value = serde_json::from_str(json)?;
    if let Some(fields) = value.as_object_mut() {
        if fields.contains_key("costs") {
            return Err(Failure::CostsTwice);
        }
        fields.insert("costs".to_owned(), json!({"nodes": [], "seconds": []}));
    }
    let mut spec: ProblemSpec = serde_json::from_value(value)?;
    spec.costs = costs.costs.clone();
    Ok(spec.try_into()?)
}

/// Gives a problem back. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_problem_free(problem: *mut KantaiProblem) {
    unsafe { take_back(problem) }
}

/// The best plan of a problem. It takes as long as the effort that the problem asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_problem_solve(
    problem: *const KantaiProblem,
    plan: *mut *mut KantaiPlan,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let out = exclusive(plan, "the place for a plan")?;
            hand_over(out, KantaiPlan { plan: shared(problem, "the problem")?.problem.solve()? });
            Ok(())
        })
    }
}

/// A planner that knows nothing yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_planner_new(planner: *mut *mut KantaiPlanner, error: *mut *mut c_char) -> KantaiStatus {
    unsafe {
        guard(error, || {
            hand_over(exclusive(planner, "the place for a planner")?, KantaiPlanner { planner: Planner::new() });
            Ok(())
        })
    }
}

/// Gives a planner back. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_planner_free(planner: *mut KantaiPlanner) {
    unsafe { take_back(planner) }
}

/// The plan of the next problem of the same service, in a part of the time of kantai_problem_solve.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_planner_plan(
    planner: *mut KantaiPlanner,
    problem: *const KantaiProblem,
    plan: *mut *mut KantaiPlan,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let out = exclusive(plan, "the place for a plan")?;
            let planner = exclusive(planner, "the planner")?;
            hand_over(out, KantaiPlan { plan: planner.planner.plan(&shared(problem, "the problem")?.problem)? });
            Ok(())
        })
    }
}
