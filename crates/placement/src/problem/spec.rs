//! A problem as plain data, for hosts that write it by hand: extenders, other languages, files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::latency::Costs;
use crate::problem::NodeCapacity;
use crate::problem::{CostModel, Effort, Problem, ProblemError, TIE_SECONDS};
use crate::problem::{Demand, DemandError};
use crate::problem::{Segment, ServingCurve, ServingError};
use latency_matrix::NodeName;

/// The version of [`ProblemSpec`] that this library reads and writes.
pub const SPEC_VERSION: u32 = 1;

/// A [`Problem`] as plain data. Absent fields have the defaults of the problem's builder; unknown
/// fields are refused.
///
/// ```
/// use placement::Problem;
/// use placement::problem::ProblemSpec;
///
/// let spec: ProblemSpec = serde_json::from_str(
///     r#"{
///         "version": 1,
///         "service": "hello",
///         "replicas": 1,
///         "replica_concurrency": 10.0,
///         "costs": {"nodes": ["a", "b"], "seconds": [[0.0, 0.02], [0.02, 0.0]]},
///         "nodes": [{"node": "a", "max_replicas": 3}, {"node": "b", "max_replicas": 3}],
///         "demand": {"b": 4.0}
///     }"#,
/// )?;
/// let plan = Problem::try_from(spec)?.solve()?;
/// assert_eq!(plan.replicas_on(&"b".into()), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProblemSpec {
    /// [`SPEC_VERSION`].
    pub version: u32,
    /// The service; its name settles ties.
    pub service: String,
    /// Replicas in all.
    pub replicas: u32,
    /// Requests that one replica serves at a time.
    pub replica_concurrency: f64,
    /// Seconds between nodes: a matrix (`nodes`, `seconds`) or by site (`nodes`, `sites`,
    /// `between`, `access`).
    pub costs: Costs,
    /// The candidates. A later entry for the same node replaces an earlier one.
    pub nodes: Vec<NodeCapacity>,
    /// Requests in flight per source node.
    #[serde(default)]
    #[cfg_attr(any(test, feature = "schema"), schemars(with = "BTreeMap<String, f64>"))]
    pub demand: BTreeMap<NodeName, f64>,
    /// Replicas that run now.
    #[serde(default)]
    #[cfg_attr(any(test, feature = "schema"), schemars(with = "BTreeMap<String, u32>"))]
    pub running: BTreeMap<NodeName, u32>,
    /// Serving time by utilisation; none: serving takes no time.
    #[serde(default)]
    pub serving: Vec<Segment>,
    /// How gateways spread requests.
    #[serde(default)]
    pub model: CostModel,
    /// Seconds of response time that starting a replica on a new node must gain.
    #[serde(default = "tie")]
    pub move_seconds: f64,
    /// Whether every running replica that may stay is kept.
    #[serde(default)]
    pub keep_running: bool,
    /// How long to search.
    #[serde(default)]
    pub effort: Effort,
    /// Steps of each kind, at most.
    #[serde(default)]
    pub most_steps: Option<u32>,
    /// The zone of each node.
    #[serde(default)]
    #[cfg_attr(any(test, feature = "schema"), schemars(with = "BTreeMap<String, String>"))]
    pub zones: BTreeMap<NodeName, String>,
    /// In how many zones at least there shall be replicas.
    #[serde(default)]
    pub least_zones: u32,
    /// The largest share of all replicas that may be on one node.
    #[serde(default)]
    pub node_share: Option<f64>,
}

#[cfg(any(test, feature = "schema"))]
impl ProblemSpec {
    /// The JSON schema of a problem as plain data, as it is also in `schema/problem-spec.json`.
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(ProblemSpec)
    }
}

fn tie() -> f64 {
    TIE_SECONDS
}

/// Why a spec cannot be turned into a problem.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SpecError {
    /// A version that this library does not read.
    #[error("failed to read the problem of {service}: version {version} is not {SPEC_VERSION}")]
    Version {
        /// The service.
        service: String,
        /// The version found.
        version: u32,
    },
    /// Demand that is not a number of requests.
    #[error("failed to read the problem of {service}: {source}")]
    Demand {
        /// The service.
        service: String,
        /// What is wrong with it.
        source: DemandError,
    },
    /// Segments that are no serving curve.
    #[error("failed to read the problem of {service}: {source}")]
    Serving {
        /// The service.
        service: String,
        /// What is wrong with them.
        source: ServingError,
    },
    /// A number that cannot be planned with.
    #[error(transparent)]
    Problem(#[from] ProblemError),
}

impl TryFrom<ProblemSpec> for Problem {
    type Error = SpecError;

    fn try_from(spec: ProblemSpec) -> Result<Self, SpecError> {
        let service = spec.service;
        if spec.version != SPEC_VERSION {
            return Err(SpecError::Version { service, version: spec.version });
        }
        let demand = match Demand::from_concurrency(spec.demand) {
            Ok(demand) => demand,
            Err(source) => return Err(SpecError::Demand { service, source }),
        };
        let serving = match spec.serving {
            none if none.is_empty() => ServingCurve::default(),
            segments => match ServingCurve::from_segments(segments) {
                Ok(serving) => serving,
                Err(source) => return Err(SpecError::Serving { service, source }),
            },
        };
        let mut problem = Self::new(service, spec.costs, spec.replicas, spec.replica_concurrency)
            .with_demand(demand)
            .with_capacities(spec.nodes)
            .with_running(spec.running)
            .with_serving(serving)
            .with_model(spec.model)
            .with_move_seconds(spec.move_seconds)
            .with_effort(spec.effort)
            .with_zones(spec.zones, spec.least_zones);
        problem.keep_running = spec.keep_running;
        problem.most_steps = spec.most_steps;
        if let Some(share) = spec.node_share {
            problem = problem.with_node_share(share);
        }
        problem.check()?;
        Ok(problem)
    }
}

impl From<&Problem> for ProblemSpec {
    fn from(problem: &Problem) -> Self {
        Self {
            version: SPEC_VERSION,
            service: problem.service.clone(),
            replicas: problem.replicas,
            replica_concurrency: problem.replica_concurrency,
            costs: problem.costs.clone(),
            nodes: problem.capacities.values().cloned().collect(),
            demand: problem.demand.clone().into(),
            running: problem.running.clone(),
            serving: problem.serving.segments().to_vec(),
            model: problem.model,
            move_seconds: problem.move_seconds,
            keep_running: problem.keep_running,
            effort: problem.effort,
            most_steps: problem.most_steps,
            zones: problem.zones.clone(),
            least_zones: problem.least_zones,
            node_share: problem.node_share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CostMatrix;
    use crate::problem::Exclusion;

    fn problem() -> Problem {
        let costs = CostMatrix::new(vec!["a".into(), "b".into()], ndarray::array![[0.0, 0.1 + 0.2], [f64::INFINITY, 0.0]]);
        Problem::new("hello", costs, 2, 10.0)
            .with_capacities([
                NodeCapacity::new("a".into(), 3).at_least(1),
                NodeCapacity::new("b".into(), 2).cordoned().excluded(Exclusion::Taint("gpu".into())),
            ])
            .with_demand(Demand::from_concurrency([("a".into(), 7.0 / 3.0)]).unwrap())
            .with_running([("b".into(), 1)])
            .with_serving(ServingCurve::queue(0.004, 3).unwrap())
            .with_model(CostModel::Uniform)
            .with_move_seconds(0.003)
            .keeping_what_runs()
            .with_zones([("a".into(), "west".into())], 1)
            .with_node_share(0.7)
            .with_effort(Effort::Quick)
            .with_most_steps(9)
    }

    #[test]
    fn plain_data_is_the_problem() {
        let spec = ProblemSpec::from(&problem());
        assert_eq!(Problem::try_from(spec.clone()).unwrap(), problem());
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ProblemSpec>(&text).unwrap(), spec);
    }

    #[test]
    fn what_is_not_said_is_the_default_and_what_is_not_known_is_refused() {
        let text = r#"{"version": 1, "service": "s", "replicas": 1, "replica_concurrency": 4, "costs": {"nodes": [], "seconds": []},
            "nodes": [{"node": "a", "max_replicas": 1}]}"#;
        let read = |text: &str| serde_json::from_str::<ProblemSpec>(text);
        let costs = CostMatrix::new(Vec::new(), ndarray::Array2::zeros((0, 0)));
        let expected = Problem::new("s", costs, 1, 4.0).with_capacities([NodeCapacity::new("a".into(), 1)]);
        assert_eq!(Problem::try_from(read(text).unwrap()).unwrap(), expected);
        assert!(read(&text.replace("\"replicas\"", "\"replica_count\": 1, \"replicas\"")).is_err());
        assert!(read(&text.replace("\"max_replicas\"", "\"cordoned\": true, \"max_replicas\"")).is_err());
        let refused = |text: String| Problem::try_from(read(&text).unwrap()).unwrap_err();
        assert!(matches!(refused(text.replace("\"version\": 1", "\"version\": 2")), SpecError::Version { version: 2, .. }));
        assert!(matches!(refused(text.replace(": 4,", ": 0,")), SpecError::Problem(_)));
        let with = |more: &str| refused(text.replace("\"service\"", &format!("{more}, \"service\"")));
        assert!(matches!(with("\"demand\": {\"a\": -1}"), SpecError::Demand { .. }));
        assert!(matches!(with("\"serving\": [{\"width\": 0.5, \"marginal_seconds\": 1}]"), SpecError::Serving { .. }));
    }

    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/problem-spec.json");
        let schema = serde_json::to_string_pretty(&ProblemSpec::json_schema()).unwrap() + "\n";
        if std::env::var_os("KANTAI_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &schema).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap();
        assert_eq!(committed, schema, "the schema has changed; if that is meant, run with KANTAI_BLESS=1");
    }
}
