//! Scores of nodes for schedulers that place one pod at a time.

use std::collections::BTreeMap;

use placement::score::{self, MAX_SCORE, PlacedDependency, Requirements};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::costs::Costs;

/// The candidates by position, all nodes where none are named, and what was found for each by name.
fn each<'py, T: Clone + Send>(
    py: Python<'py>,
    costs: &Costs,
    candidates: Option<Vec<String>>,
    none: T,
    find: impl FnOnce(&[usize], &mut [T]) + Send,
    show: impl Fn(&Bound<'py, PyDict>, &str, T) -> PyResult<()>,
) -> PyResult<Bound<'py, PyDict>> {
    let names = candidates.unwrap_or_else(|| costs.costs.nodes().iter().map(|node| node.as_str().to_owned()).collect());
    let positions: Vec<usize> = names.iter().map(|name| costs.place(name)).collect();
    let mut found = vec![none; positions.len()];
    py.detach(|| find(&positions, &mut found));
    let by_name = PyDict::new(py);
    for (name, found) in names.iter().zip(found) {
        show(&by_name, name, found)?;
    }
    Ok(by_name)
}

fn placed(costs: &Costs, called: &[(String, f64)]) -> Vec<PlacedDependency> {
    called.iter().map(|(node, most)| PlacedDependency { node: costs.place(node), max_cost: *most }).collect()
}

/// Scores nodes by the mean response time that demand would see there.
#[pyfunction]
#[pyo3(signature = (costs, demand, *, serving_seconds=0.0, candidates=None, best=MAX_SCORE))]
pub(crate) fn score_demand<'py>(
    py: Python<'py>,
    costs: &Costs,
    demand: BTreeMap<String, f64>,
    serving_seconds: f64,
    candidates: Option<Vec<String>>,
    best: u8,
) -> PyResult<Bound<'py, PyDict>> {
    let sources: Vec<(usize, f64)> = demand.iter().map(|(node, requests)| (costs.place(node), *requests)).collect();
    let find = |nodes: &[usize], scores: &mut [u8]| score::demand_into(&costs.costs, &sources, serving_seconds, nodes, best, scores);
    each(py, costs, candidates, 0, find, |all, name, score| all.set_item(name, score))
}

/// Scores nodes for a pod that will call pods on these nodes.
#[pyfunction]
#[pyo3(signature = (costs, called, *, candidates=None, best=MAX_SCORE))]
pub(crate) fn score_dependencies<'py>(
    py: Python<'py>,
    costs: &Costs,
    called: Vec<String>,
    candidates: Option<Vec<String>>,
    best: u8,
) -> PyResult<Bound<'py, PyDict>> {
    let called: Vec<(String, f64)> = called.into_iter().map(|node| (node, f64::INFINITY)).collect();
    let placed = placed(costs, &called);
    let find = |nodes: &[usize], scores: &mut [u8]| score::dependencies_into(&costs.costs, &placed, nodes, best, scores);
    each(py, costs, candidates, 0, find, |all, name, score| all.set_item(name, score))
}

/// Counts for each node how many of the pods that it will call are near enough, and how many not.
#[pyfunction]
#[pyo3(signature = (costs, called, *, candidates=None))]
pub(crate) fn requirements<'py>(
    py: Python<'py>,
    costs: &Costs,
    called: Vec<(String, f64)>,
    candidates: Option<Vec<String>>,
) -> PyResult<Bound<'py, PyDict>> {
    let placed = placed(costs, &called);
    let find = |nodes: &[usize], found: &mut [Requirements]| score::requirements_into(&costs.costs, &placed, nodes, found);
    let show = |all: &Bound<'py, PyDict>, name: &str, found: Requirements| all.set_item(name, (found.satisfied, found.violated));
    each(py, costs, candidates, Requirements::default(), find, show)
}
