//! Measurements, and what a pair of nodes costs.

use ndarray::Array2;
use placement::latency::{self, PairState, PairStats, SiteCosts};
use placement::score::CallCosts;
use placement::{CostMatrix, CostPolicy, NodeName};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::json::{read, refused, write};

pub(crate) fn names(nodes: Vec<String>) -> Vec<NodeName> {
    nodes.into_iter().map(NodeName::from).collect()
}

/// A square table of numbers: an array of doubles (or floats) as it is, anything else by its lists.
/// None stands for a number that is not known.
fn square(table: &Bound<'_, PyAny>, size: usize, what: &str) -> PyResult<Vec<f64>> {
    let check = |shape: &[usize]| {
        let wrong = || refused(format!("failed to read {what}: its shape is {shape:?} and not ({size}, {size})"));
        if shape == [size, size] { Ok(()) } else { Err(wrong()) }
    };
    if let Ok(buffer) = PyBuffer::<f64>::get(table) {
        check(buffer.shape())?;
        return buffer.to_vec(table.py());
    }
    if let Ok(buffer) = PyBuffer::<f32>::get(table) {
        check(buffer.shape())?;
        return Ok(buffer.to_vec(table.py())?.into_iter().map(f64::from).collect());
    }
    let lists = if table.hasattr("tolist")? { table.call_method0("tolist")? } else { table.clone() };
    let rows: Vec<Vec<Option<f64>>> = lists.extract()?;
    check(&[rows.len(), rows.first().map_or(size, Vec::len)])?;
    for row in &rows {
        check(&[rows.len(), row.len()])?;
    }
    Ok(rows.into_iter().flatten().map(|seconds| seconds.unwrap_or(f64::NAN)).collect())
}

/// What was measured of the pairs of some nodes.
#[pyclass(module = "kantai_placement")]
pub(crate) struct LatencyMatrix {
    matrix: placement::LatencyMatrix,
}

impl LatencyMatrix {
    fn put(&mut self, source: &str, target: &str, state: PairState, symmetric: bool) -> PyResult<()> {
        let (source, target) = (source.into(), target.into());
        let set = if symmetric { placement::LatencyMatrix::set_symmetric } else { placement::LatencyMatrix::set };
        set(&mut self.matrix, &source, &target, state).map_err(refused)
    }
}

#[pymethods]
impl LatencyMatrix {
    #[new]
    fn new(nodes: Vec<String>) -> PyResult<Self> {
        Ok(Self { matrix: placement::LatencyMatrix::new(names(nodes)).map_err(refused)? })
    }

    #[getter]
    fn nodes(&self) -> Vec<&str> {
        self.matrix.nodes().iter().map(NodeName::as_str).collect()
    }

    #[pyo3(signature = (source, target, rtt_seconds, *, symmetric=false))]
    fn set(&mut self, source: &str, target: &str, rtt_seconds: f64, symmetric: bool) -> PyResult<()> {
        self.put(source, target, PairState::Known(PairStats::constant(rtt_seconds)), symmetric)
    }

    #[pyo3(signature = (source, target, stats, *, stale=false, symmetric=false))]
    fn set_stats(&mut self, source: &str, target: &str, stats: &Bound<'_, PyDict>, stale: bool, symmetric: bool) -> PyResult<()> {
        let stats = read(stats)?;
        self.put(source, target, if stale { PairState::Stale(stats) } else { PairState::Known(stats) }, symmetric)
    }

    #[pyo3(signature = (source, target, *, symmetric=false))]
    fn set_unreachable(&mut self, source: &str, target: &str, symmetric: bool) -> PyResult<()> {
        self.put(source, target, PairState::Unreachable, symmetric)
    }

    #[pyo3(signature = (source, target, *, symmetric=false))]
    fn set_unknown(&mut self, source: &str, target: &str, symmetric: bool) -> PyResult<()> {
        self.put(source, target, PairState::Unknown, symmetric)
    }

    fn get<'py>(&self, py: Python<'py>, source: &str, target: &str) -> PyResult<(&'static str, Bound<'py, PyAny>)> {
        let state = self.matrix.state(&source.into(), &target.into());
        let name = match state {
            PairState::Known(_) => "known",
            PairState::Stale(_) => "stale",
            PairState::Unknown => "unknown",
            PairState::Unreachable => "unreachable",
        };
        Ok((name, write(py, &state.stats())?))
    }

    #[pyo3(signature = (*, statistic="p50", jitters=None, stale_factor=None, loss_seconds=None))]
    fn costs(
        &self,
        py: Python<'_>,
        statistic: &str,
        jitters: Option<f64>,
        stale_factor: Option<f64>,
        loss_seconds: Option<f64>,
    ) -> PyResult<Costs> {
        let usual = CostPolicy::default();
        let statistic = match jitters {
            Some(jitters) => latency::Statistic::MeanPlusJitter { jitters },
            None => latency::Statistic::Quantile(serde_json::from_value(statistic.into()).map_err(refused)?),
        };
        let policy = CostPolicy {
            statistic,
            stale_factor: stale_factor.unwrap_or(usual.stale_factor),
            loss_seconds: loss_seconds.unwrap_or(usual.loss_seconds),
        };
        Ok(Costs { costs: py.detach(|| policy.costs(&self.matrix)).into() })
    }

    fn __repr__(&self) -> String {
        format!("<LatencyMatrix of {} nodes>", self.matrix.nodes().len())
    }
}

/// What a pair of nodes costs, seconds.
#[pyclass(frozen, module = "kantai_placement")]
pub(crate) struct Costs {
    pub(crate) costs: latency::Costs,
}

impl Costs {
    /// The position of a node; beyond the list, where nothing is known, for one that is not listed.
    pub(crate) fn place(&self, node: &str) -> usize {
        self.costs.position(node).unwrap_or(usize::MAX)
    }
}

#[pymethods]
impl Costs {
    #[new]
    fn new(nodes: Vec<String>, seconds: &Bound<'_, PyAny>) -> PyResult<Self> {
        let seconds = square(seconds, nodes.len(), "the seconds of all pairs")?;
        Ok(Self { costs: CostMatrix::from_row_major(names(nodes), seconds).into() })
    }

    #[staticmethod]
    #[pyo3(signature = (sites, between, *, access=None))]
    fn by_site(sites: Vec<(String, usize)>, between: &Bound<'_, PyAny>, access: Option<Vec<f64>>) -> PyResult<Self> {
        let size = between.len()?;
        let cells = square(between, size, "the seconds between sites")?;
        let between = Array2::from_shape_vec((size, size), cells).map_err(refused)?;
        let (nodes, sites): (Vec<String>, Vec<usize>) = sites.into_iter().unzip();
        let access = access.unwrap_or_else(|| vec![0.0; nodes.len()]);
        if access.len() != nodes.len() {
            return Err(refused(format!("failed to read what nodes add: {} numbers for {} nodes", access.len(), nodes.len())));
        }
        let found = SiteCosts::new(names(nodes), sites, between, access);
        Ok(Self { costs: found.into() })
    }

    #[getter]
    fn nodes(&self) -> Vec<&str> {
        self.costs.nodes().iter().map(NodeName::as_str).collect()
    }

    fn seconds(&self, source: &str, target: &str) -> Option<f64> {
        let (Some(from), Some(to)) = (self.costs.position(source), self.costs.position(target)) else { return None };
        self.costs.cost(from, to)
    }

    fn __len__(&self) -> usize {
        self.costs.nodes().len()
    }

    fn __repr__(&self) -> String {
        format!("<Costs of {} nodes>", self.costs.nodes().len())
    }
}
