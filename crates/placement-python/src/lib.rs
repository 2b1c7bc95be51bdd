//! The library `placement` for Python: the module `kantai_placement`. What it offers is described
//! in `kantai_placement.pyi`, which is what editors and type checkers read.

mod costs;
mod json;
mod plan;
mod score;

use pyo3::prelude::*;

/// Network-latency-aware placement: costs, scores, plans, routes and reasons.
#[pymodule]
mod kantai_placement {
    #[pymodule_export]
    use crate::costs::{Costs, LatencyMatrix};
    #[pymodule_export]
    use crate::plan::{Plan, Planner, Problem};
    #[pymodule_export]
    use crate::score::{requirements, score_demand, score_dependencies};
}
