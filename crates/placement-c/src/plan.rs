//! Answers: replicas, routes and reasons.

use std::ffi::c_char;

use placement::plan::explain::explain;
use placement::routing::assigned_row;
use placement::{NodeName, Plan};

use crate::costs::KantaiCosts;
use crate::edge::{Failure, KantaiStatus, buffer, exclusive, guard, shared, string, take_back, text};
use crate::problem::KantaiProblem;

/// Which nodes get how many replicas, who is served where, and what could not be done.
pub struct KantaiPlan {
    pub(crate) plan: Plan,
}

/// Gives a plan back. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_plan_free(plan: *mut KantaiPlan) {
    // SAFETY: by the contract of the crate, here and below.
    unsafe { take_back(plan) }
}

/// The replicas on a node; 0 on one that has none or is not listed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_plan_replicas(
    plan: *const KantaiPlan,
    node_name: *const c_char,
    replicas: *mut u32,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let node = NodeName::from(text(node_name, "the name of a node")?);
            *exclusive(replicas, "the place for a number")? = shared(plan, "the plan")?.plan.replicas_on(&node);
            Ok(())
        })
    }
}

/// The whole plan as JSON: replicas, flows, what has no place and why, cost, proof. The caller
/// gives the text back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_plan_json(
    plan: *const KantaiPlan,
    json: *mut *mut c_char,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let out = exclusive(json, "the place for a text")?;
            *out = string(serde_json::to_string(&shared(plan, "the plan")?.plan)?);
            Ok(())
        })
    }
}

/// Which share of the requests that enter at a node goes to each node: whole numbers that sum to
/// 100, in the order of the costs' nodes, of which there are `weight_count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_plan_weights(
    plan: *const KantaiPlan,
    costs: *const KantaiCosts,
    source: usize,
    weights: *mut u32,
    weight_count: usize,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let (plan, costs) = (&shared(plan, "the plan")?.plan, shared(costs, "the costs")?);
            let nodes = costs.nodes();
            if weight_count != nodes {
                return Err(Failure::Length { what: "the weights of all nodes", found: weight_count, expected: nodes });
            }
            if source >= nodes {
                return Err(Failure::Position { from: source, to: source, nodes });
            }
            let weights = buffer(weights, weight_count, "the place for weights")?;
            weights.fill(0);
            for (target, weight) in assigned_row(plan, &costs.costs, source) {
                weights[target] = weight;
            }
            Ok(())
        })
    }
}

/// Why the plan of this problem is what it is, as JSON: for each node with replicas what they cost
/// and where one would go otherwise, for each other node what speaks against it. For a human who
/// asks: every alternative is priced. The caller gives the text back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_explain_json(
    problem: *const KantaiProblem,
    plan: *const KantaiPlan,
    json: *mut *mut c_char,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let out = exclusive(json, "the place for a text")?;
            let explanation = explain(&shared(problem, "the problem")?.problem, &shared(plan, "the plan")?.plan);
            *out = string(serde_json::to_string(&explanation)?);
            Ok(())
        })
    }
}

/// The same in English, one line per node. The caller gives the text back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_explain_text(
    problem: *const KantaiProblem,
    plan: *const KantaiPlan,
    lines: *mut *mut c_char,
    error: *mut *mut c_char,
) -> KantaiStatus {
    unsafe {
        guard(error, || {
            let out = exclusive(lines, "the place for a text")?;
            *out = string(explain(&shared(problem, "the problem")?.problem, &shared(plan, "the plan")?.plan).to_string());
            Ok(())
        })
    }
}
