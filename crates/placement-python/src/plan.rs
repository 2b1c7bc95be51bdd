//! Questions, answers, and why.

use std::collections::BTreeMap;

use placement::plan::Proof;
use placement::plan::explain::explain;
use placement::problem::{ProblemSpec, SPEC_VERSION};
use placement::routing::assigned_row;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::costs::Costs;
use crate::json::{read, refused, write};

/// One service, and all that its placement depends on.
#[pyclass(frozen, module = "kantai_placement")]
pub(crate) struct Problem {
    problem: placement::Problem,
}

#[pymethods]
impl Problem {
    #[new]
    #[pyo3(signature = (service, costs, **fields))]
    fn new(py: Python<'_>, service: &str, costs: &Costs, fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let spec = match fields {
            Some(fields) => fields.copy()?,
            None => PyDict::new(py),
        };
        if let Some(rooms) = spec.get_item("nodes")?
            && let Ok(rooms) = rooms.cast::<PyDict>()
        {
            let nodes = PyList::empty(py);
            for (node, max_replicas) in rooms {
                let room = PyDict::new(py);
                room.set_item("node", node)?;
                room.set_item("max_replicas", max_replicas)?;
                nodes.append(room)?;
            }
            spec.set_item("nodes", nodes)?;
        }
        let none = PyDict::new(py);
        none.set_item("nodes", PyList::empty(py))?;
        none.set_item("seconds", PyList::empty(py))?;
        spec.set_item("version", SPEC_VERSION)?;
        spec.set_item("service", service)?;
        spec.set_item("costs", none)?;
        let mut spec: ProblemSpec = read(&spec)?;
        spec.costs = costs.costs.clone();
        Ok(Self { problem: spec.try_into().map_err(refused)? })
    }

    #[staticmethod]
    fn from_json(text: &str) -> PyResult<Self> {
        let spec: ProblemSpec = serde_json::from_str(text).map_err(refused)?;
        Ok(Self { problem: spec.try_into().map_err(refused)? })
    }

    fn to_json(&self) -> PyResult<String> {
        serde_json::to_string(&ProblemSpec::from(&self.problem)).map_err(refused)
    }

    fn solve(&self, py: Python<'_>) -> PyResult<Plan> {
        Ok(Plan { plan: py.detach(|| self.problem.solve()).map_err(refused)? })
    }

    fn explain<'py>(&self, py: Python<'py>, plan: &Plan) -> PyResult<Bound<'py, PyAny>> {
        write(py, &py.detach(|| explain(&self.problem, &plan.plan)))
    }

    fn explain_text(&self, py: Python<'_>, plan: &Plan) -> String {
        py.detach(|| explain(&self.problem, &plan.plan).to_string())
    }
}

/// Plans one service again and again.
#[pyclass(module = "kantai_placement")]
pub(crate) struct Planner {
    planner: placement::plan::Planner,
}

#[pymethods]
impl Planner {
    #[new]
    fn new() -> Self {
        Self { planner: placement::plan::Planner::new() }
    }

    fn plan(&mut self, py: Python<'_>, problem: &Problem) -> PyResult<Plan> {
        let planner = &mut self.planner;
        Ok(Plan { plan: py.detach(|| planner.plan(&problem.problem)).map_err(refused)? })
    }
}

/// Which nodes get how many replicas, who is served where, and what could not be done.
#[pyclass(frozen, module = "kantai_placement")]
pub(crate) struct Plan {
    plan: placement::Plan,
}

#[pymethods]
impl Plan {
    #[getter]
    fn replicas(&self) -> BTreeMap<&str, u32> {
        self.plan.replicas.iter().map(|(node, count)| (node.as_str(), *count)).collect()
    }

    #[getter]
    fn flows(&self) -> Vec<(&str, &str, f64)> {
        self.plan.flows.iter().map(|flow| (flow.source.as_str(), flow.node.as_str(), flow.concurrency)).collect()
    }

    #[getter]
    fn unplaced(&self) -> u32 {
        self.plan.unplaced.as_ref().map_or(0, |unplaced| unplaced.replicas)
    }

    #[getter]
    fn network_seconds(&self) -> f64 {
        self.plan.cost.network_seconds
    }

    #[getter]
    fn utilisation(&self) -> f64 {
        self.plan.utilisation
    }

    #[getter]
    fn proven(&self) -> bool {
        matches!(self.plan.proof, Proof::Optimal)
    }

    #[pyo3(signature = (costs, sources=None))]
    fn routes<'py>(&self, py: Python<'py>, costs: &Costs, sources: Option<Vec<String>>) -> PyResult<Bound<'py, PyDict>> {
        let nodes = costs.costs.nodes();
        let sources = sources.unwrap_or_else(|| nodes.iter().map(|node| node.as_str().to_owned()).collect());
        let routes = PyDict::new(py);
        for source in sources {
            let Some(position) = costs.costs.position(&source) else {
                return Err(refused(format!("failed to find the routes of {source}: the costs have no such node")));
            };
            let row = py.detach(|| assigned_row(&self.plan, &costs.costs, position));
            let targets: BTreeMap<&str, u32> = row.into_iter().map(|(target, weight)| (nodes[target].as_str(), weight)).collect();
            routes.set_item(source, targets)?;
        }
        Ok(routes)
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        write(py, &self.plan)
    }

    fn __repr__(&self) -> String {
        let places: Vec<String> = self.plan.replicas.iter().map(|(node, count)| format!("{node}: {count}")).collect();
        format!("<Plan {{{}}}>", places.join(", "))
    }
}
