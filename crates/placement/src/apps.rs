//! Whole applications: several workloads that call each other, placed together.
//!
//! Schedulers place one pod at a time, and the first pod of an application tells them nothing about
//! the second. Here all workloads are placed at once, at sites or nodes: demand enters at source
//! nodes, each request makes its calls one after the other, and the plan minimises the mean
//! response time. Where the calls form a tree and room is plenty, the plan is exact (dynamic
//! programming over the places); otherwise it is found by search, and comes with a lower bound.
//!
//! Source: Bokhari 1981 (trees); Kolmogorov 2006 (the bound for other graphs).

mod forest;
mod model;
mod packing;
mod proposals;
mod relaxation;
mod search;
mod solve;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::latency::Costs;
use crate::plan::Proof;
use crate::problem::many::ResourceAmounts;
use latency_matrix::NodeName;
pub use proposals::{Move, Proposal};

/// One workload of an application, placed as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    /// Its name, unique in the application.
    pub name: String,
    /// What all its replicas together need where they run.
    pub needs: ResourceAmounts,
    /// Seconds that it works on one request, beside its calls.
    pub serving_seconds: f64,
    /// Where it runs now.
    pub running: Option<NodeName>,
    /// The only places where it may run; empty: all.
    pub allowed: Vec<NodeName>,
}

impl Workload {
    /// A workload that needs nothing, serves in no time and may run anywhere.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// Calls that one workload makes to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRate {
    /// The workload that calls.
    pub from: String,
    /// The workload that is called.
    pub to: String,
    /// Calls per request of the caller.
    pub per_request: f64,
    /// Bytes of one call and its answer.
    #[serde(default)]
    pub bytes: f64,
}

/// An application, and all that its placement depends on.
///
/// # Objective
///
/// With `r[w]` the requests per second of workload `w` (demand, and what its callers make of
/// theirs) and `x[w]` its place, the plan minimises
///
/// ```text
/// sum over demand:  rate * cost(source, x[entry])
/// + sum over calls: r[caller] * per request * (cost(x[caller], x[called])
///                                              + bytes * seconds per byte, where these differ)
/// + sum over w:     r[w] * serving seconds
/// + move seconds * all demand * (workloads that move)
/// ```
///
/// subject to the room of every place, where it is given.
///
/// ```
/// use placement::apps::{Application, Workload};
/// use placement::plan::Proof;
/// use placement::{CostMatrix, NodeName};
///
/// // Requests come in at the edge; the data may not leave the cloud, 20 ms away.
/// let nodes = ["edge", "cloud"].map(NodeName::from).to_vec();
/// let costs = CostMatrix::new(nodes, ndarray::array![[0.0, 0.020], [0.020, 0.0]]);
/// let shop = |queries: f64| {
///     Application::new("shop", costs.clone())
///         .with_workload(Workload::named("front"))
///         .with_workload(Workload { allowed: vec!["cloud".into()], ..Workload::named("db") })
///         .with_calls("front", "db", queries, 0.0)
///         .with_demand("front", [("edge".into(), 100.0)])
/// };
/// // One request in two reads the database: the front end is better off near its users.
/// let plan = shop(0.5).solve()?;
/// assert_eq!(plan.placement["front"], NodeName::from("edge"));
/// assert!((plan.response_seconds - 0.010).abs() < 1e-9);
/// // Three queries per request: one trip of the request costs less than three of its queries.
/// let plan = shop(3.0).solve()?;
/// assert_eq!(plan.placement["front"], NodeName::from("cloud"));
/// assert_eq!(plan.proof, Proof::Optimal);
/// # Ok::<(), placement::apps::AppError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    name: String,
    costs: Costs,
    workloads: Vec<Workload>,
    calls: Vec<CallRate>,
    /// Requests per second by workload and source node.
    demand: BTreeMap<String, BTreeMap<NodeName, f64>>,
    /// What each place has for this application; none: every place has room for everything.
    #[serde(default)]
    room: Option<BTreeMap<NodeName, ResourceAmounts>>,
    #[serde(default)]
    seconds_per_byte: f64,
    #[serde(default)]
    move_seconds: f64,
}

/// Why an application cannot be planned as stated.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum AppError {
    /// A workload is listed twice.
    #[error("failed to plan application {application}: workload {workload} is listed twice")]
    DuplicateWorkload {
        /// The application.
        application: String,
        /// The workload.
        workload: String,
    },
    /// A call or demand names a workload that is not listed.
    #[error("failed to plan application {application}: workload {workload} is not listed")]
    UnknownWorkload {
        /// The application.
        application: String,
        /// The workload.
        workload: String,
    },
    /// Workloads call each other in a circle, so that a request would never end.
    #[error("failed to plan application {application}: workload {workload} calls itself, by way of others or directly")]
    Cycle {
        /// The application.
        application: String,
        /// One of the workloads.
        workload: String,
    },
    /// A rate, size or time is NaN, negative or not finite, or rates add up beyond reason.
    #[error("failed to plan application {application}: {what} is {value}")]
    Number {
        /// The application.
        application: String,
        /// What the number is about.
        what: String,
        /// The number.
        value: f64,
    },
    /// There are more workloads than are planned together.
    #[error("failed to plan application {application}: {workloads} workloads are more than {most}")]
    TooManyWorkloads {
        /// The application.
        application: String,
        /// Workloads listed.
        workloads: usize,
        /// The most that are planned together.
        most: usize,
    },
}

/// Where each workload of an application goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppPlan {
    /// The place of each workload.
    pub placement: BTreeMap<String, NodeName>,
    /// Workloads for which no allowed place was found to have room beside the others; the largest
    /// are placed first. Their calls are not part of the figures.
    pub unplaced: Vec<String>,
    /// Mean seconds from a request to its answer: network and serving.
    pub response_seconds: f64,
    /// The part of it that requests take from their sources.
    pub entry_seconds: f64,
    /// The part of it that calls between workloads take.
    pub call_seconds: f64,
    /// Mean response time and the cost of moves.
    pub objective_seconds: f64,
    /// Whether the objective is proven to be the least, or what none can be below.
    pub proof: Proof,
}

impl Application {
    /// An application without workloads. The nodes of `costs`, which may as well stand for sites,
    /// are the places.
    #[must_use]
    pub fn new(name: impl Into<String>, costs: impl Into<Costs>) -> Self {
        Self {
            name: name.into(),
            costs: costs.into(),
            workloads: Vec::new(),
            calls: Vec::new(),
            demand: BTreeMap::new(),
            room: None,
            seconds_per_byte: 0.0,
            move_seconds: 0.0,
        }
    }

    /// Adds a workload.
    #[must_use]
    pub fn with_workload(mut self, workload: Workload) -> Self {
        self.workloads.push(workload);
        self
    }

    /// Adds calls: per request of `from`, so many requests to `to` of so many bytes each.
    #[must_use]
    pub fn with_calls(mut self, from: impl Into<String>, to: impl Into<String>, per_request: f64, bytes: f64) -> Self {
        self.calls.push(CallRate { from: from.into(), to: to.into(), per_request, bytes });
        self
    }

    /// Sets the requests per second that enter at a workload, by source node.
    #[must_use]
    pub fn with_demand(mut self, workload: impl Into<String>, rates: impl IntoIterator<Item = (NodeName, f64)>) -> Self {
        self.demand.entry(workload.into()).or_default().extend(rates);
        self
    }

    /// Sets the room that places have for this application; a place that is not named has none.
    #[must_use]
    pub fn with_room(mut self, room: impl IntoIterator<Item = (NodeName, ResourceAmounts)>) -> Self {
        self.room.get_or_insert_default().extend(room);
        self
    }

    /// Sets the seconds that one byte takes from one place to another; default: 0.
    #[must_use]
    pub fn with_seconds_per_byte(mut self, seconds: f64) -> Self {
        self.seconds_per_byte = seconds;
        self
    }

    /// Sets the seconds of mean response time that the move of one workload must gain; default: 0.
    #[must_use]
    pub fn with_move_seconds(mut self, seconds: f64) -> Self {
        self.move_seconds = seconds;
        self
    }
}
