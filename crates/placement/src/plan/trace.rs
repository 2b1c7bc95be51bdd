//! Decisions on record: what went in and what came out, one JSON object a line, to be decided
//! again.
//!
//! Nothing but what is on a line, and the costs on a line before it, goes into its decision, so
//! deciding it again gives the same bytes; where it does not, the program or the line was changed.
//! Numbers are written so that reading them gives the same bits; those that are not finite are
//! refused. A [`Recorder`] writes costs that decisions share once, on a line of their own.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::latency::Costs;
use crate::plan::Plan;
use crate::plan::{MoveHistory, Stability, Verdict};
use crate::problem::{Problem, ProblemError};

/// What one decision depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceInputs {
    /// When, in seconds since any fixed instant; only for the reader. Finite, as all numbers of a
    /// trace are.
    pub time_seconds: f64,
    /// The problem.
    pub problem: Problem,
    /// The rules against moving, where they are in use.
    pub stability: Option<Stability>,
    /// What was moved lately.
    pub history: MoveHistory,
}

/// The version of the lines that this library writes and reads.
pub const TRACE_VERSION: u32 = 1;

fn first() -> u32 {
    1
}

/// A decision with what it depended on: one line of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceEntry {
    /// [`TRACE_VERSION`]; lines without one are of the first.
    #[serde(default = "first")]
    pub version: u32,
    /// What went in.
    pub inputs: TraceInputs,
    /// What came out.
    pub plan: Plan,
    /// The verdict of the rules against moving.
    pub verdict: Option<Verdict>,
}

/// Why a trace cannot be written or replayed.
#[derive(Debug, Error)]
pub enum TraceError {
    /// A line that is no entry, or an entry that is no JSON.
    #[error("failed to read or write line {line} of a trace: {source}")]
    Format {
        /// The line, from 1 on; 0 for an entry that is being written.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line of a version that this library does not read.
    #[error("failed to read line {line} of a trace: version {version} is not {TRACE_VERSION}")]
    Version {
        /// The line, from 1 on.
        line: usize,
        /// The version found.
        version: u32,
    },
    /// A number that JSON has no way to write.
    #[error("failed to write a line of a trace: {name} is {value}")]
    NotFinite {
        /// Which number.
        name: &'static str,
        /// What it is.
        value: f64,
    },
    /// Inputs whose numbers make no sense.
    #[error("failed to decide line {line} of a trace again: {source}")]
    Problem {
        /// The line, from 1 on.
        line: usize,
        /// What is wrong with it.
        source: ProblemError,
    },
}

/// A line that was decided differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The line, from 1 on.
    pub line: usize,
    /// The recorded decision.
    pub recorded: String,
    /// The decision that the same inputs lead to now.
    pub replayed: String,
}

impl TraceInputs {
    /// Decides.
    ///
    /// # Errors
    /// When the problem's numbers make no sense.
    pub fn decide(self) -> Result<TraceEntry, ProblemError> {
        let (plan, verdict) = match &self.stability {
            Some(stability) => {
                let (plan, verdict) = stability.choose(&self.problem, &self.history)?;
                (plan, Some(verdict))
            }
            None => (self.problem.solve()?, None),
        };
        Ok(TraceEntry { version: TRACE_VERSION, inputs: self, plan, verdict })
    }
}

impl TraceEntry {
    /// The line of this entry, without the line's end.
    ///
    /// # Errors
    /// When a number is not finite: read back, it would be another one.
    pub fn to_line(&self) -> Result<String, TraceError> {
        self.check()?;
        serde_json::to_string(self).map_err(|source| TraceError::Format { line: 0, source })
    }

    /// The line without its costs, which are on a line before it.
    fn to_line_below_costs(&self) -> Result<String, TraceError> {
        self.check()?;
        let failed = |source| TraceError::Format { line: 0, source };
        let mut value = serde_json::to_value(self).map_err(failed)?;
        if let Some(costs) = value.pointer_mut(COSTS) {
            *costs = Value::String(ABOVE.to_owned());
        }
        serde_json::to_string(&value).map_err(failed)
    }

    fn check(&self) -> Result<(), TraceError> {
        let TraceInputs { time_seconds, stability, history, .. } = &self.inputs;
        let mut numbers =
            vec![("time_seconds", *time_seconds), ("since_last_seconds", history.since_last_seconds.unwrap_or(0.0))];
        if let Some(Stability { gain_ratio, gain_seconds, cooldown_seconds, .. }) = stability {
            let rules = [("gain_ratio", gain_ratio), ("gain_seconds", gain_seconds), ("cooldown_seconds", cooldown_seconds)];
            numbers.extend(rules.map(|(name, value)| (name, *value)));
        }
        if let Some((name, value)) = numbers.into_iter().find(|(_, value)| !value.is_finite()) {
            return Err(TraceError::NotFinite { name, value });
        }
        Ok(())
    }
}

/// Where the costs are in an entry, and what stands there instead when they are on a line before
/// it.
const COSTS: &str = "/inputs/problem/costs";
const ABOVE: &str = "above";

/// A line with costs for the entries below it.
#[derive(Serialize, Deserialize)]
struct CostsLine {
    version: u32,
    costs: Costs,
}

/// Writes the lines of a trace; costs are written when they are others than those before.
/// [`replay`] reads both forms.
///
/// ```
/// use placement::plan::trace::{Recorder, TraceInputs, replay};
/// use placement::{CostMatrix, Demand, NodeCapacity, Problem};
/// use placement::plan::MoveHistory;
///
/// let costs =
///     CostMatrix::new(vec!["a".into(), "b".into()], ndarray::array![[0.0, 0.02], [0.02, 0.0]]);
/// let (mut recorder, mut trace) = (Recorder::default(), String::new());
/// for busy in ["a", "b"] {
///     let problem = Problem::new("hello", costs.clone(), 1, 10.0)
///         .with_capacities(["a", "b"].map(|node| NodeCapacity::new(node.into(), 1)))
///         .with_demand(Demand::from_concurrency([(busy.into(), 4.0)])?);
///     let history = MoveHistory::default();
///     let inputs = TraceInputs { time_seconds: 0.0, problem, stability: None, history };
///     trace.push_str(&recorder.lines(&inputs.decide()?)?);
/// }
/// assert_eq!(trace.lines().count(), 3); // costs, and two decisions
/// assert!(replay(&trace)?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    costs: Option<Costs>,
}

impl Recorder {
    /// The lines of an entry, each with its end.
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn lines(&mut self, entry: &TraceEntry) -> Result<String, TraceError> {
        let below = entry.to_line_below_costs()?;
        let costs = &entry.inputs.problem.costs;
        if self.costs.as_ref().is_some_and(|known| known.is_same(costs) || known == costs) {
            return Ok(format!("{below}\n"));
        }
        let line = CostsLine { version: TRACE_VERSION, costs: costs.clone() };
        let line = serde_json::to_string(&line).map_err(|source| TraceError::Format { line: 0, source })?;
        self.costs = Some(costs.clone());
        Ok(format!("{line}\n{below}\n"))
    }
}

/// Decides every line of a trace again and returns those that come out different in any byte; empty
/// lines are skipped.
///
/// ```
/// use placement::plan::trace::{TraceInputs, replay};
/// use placement::{CostMatrix, Demand, NodeCapacity, NodeName, Problem};
/// use placement::plan::MoveHistory;
///
/// let nodes: Vec<NodeName> = vec!["a".into(), "b".into()];
/// let costs =
///     CostMatrix::new(nodes.clone(), ndarray::array![[0.0, 0.1 + 0.2], [f64::INFINITY, 0.0]]);
/// let problem = Problem::new("hello", costs, 2, 10.0)
///     .with_capacities(nodes.into_iter().map(|node| NodeCapacity::new(node, 1)))
///     .with_demand(Demand::from_concurrency([("a".into(), 7.0 / 3.0)])?);
/// let history = MoveHistory::default();
/// let inputs = TraceInputs { time_seconds: 0.0, problem, stability: None, history };
/// let line = inputs.decide()?.to_line()?;
/// assert!(replay(&line)?.is_empty());
/// let forged = line.replace("\"starts\":2", "\"starts\":1");
/// assert_eq!(replay(&forged)?[0].line, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When a line is no entry or its inputs make no sense.
pub fn replay(trace: &str) -> Result<Vec<Difference>, TraceError> {
    let mut differences = Vec::new();
    let mut above: Option<Value> = None;
    for (number, recorded) in trace.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line = number + 1;
        let failed = |source| TraceError::Format { line, source };
        let mut value: Value = serde_json::from_str(recorded).map_err(failed)?;
        let version = value.get("version").and_then(Value::as_u64).unwrap_or(1);
        if version != u64::from(TRACE_VERSION) {
            return Err(TraceError::Version { line, version: u32::try_from(version).unwrap_or(u32::MAX) });
        }
        if value.get("costs").is_some() {
            let CostsLine { costs, .. } = serde_json::from_value(value).map_err(failed)?;
            above = Some(serde_json::to_value(costs).map_err(failed)?);
            continue;
        }
        let below = value.pointer(COSTS).and_then(Value::as_str) == Some(ABOVE);
        if let (true, Some(place), Some(costs)) = (below, value.pointer_mut(COSTS), &above) {
            *place = costs.clone();
        }
        let entry: TraceEntry = serde_json::from_value(value).map_err(failed)?;
        let again = entry.inputs.decide().map_err(|source| TraceError::Problem { line, source })?;
        let replayed = if below { again.to_line_below_costs()? } else { again.to_line()? };
        if replayed != recorded {
            differences.push(Difference { line, recorded: recorded.to_owned(), replayed });
        }
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::synthetic::{Random, Shape, SyntheticNetwork, zipf_demand};
    use crate::problem::ServingCurve;
    use crate::{CostMatrix, Demand, NodeCapacity, NodeName};

    #[test]
    fn a_day_of_decisions_replays_byte_for_byte() {
        let network = SyntheticNetwork::new(Shape { sites: 4, nodes_per_site: 3, ..Shape::default() }, 8);
        let names: Vec<NodeName> = (0..12).map(|number| NodeName::new(format!("n{number}"))).collect();
        let mut random = Random::new(3);
        let (mut trace, mut short) = (String::new(), String::new());
        let mut recorder = Recorder::default();
        let mut running = std::collections::BTreeMap::new();
        for step in 0..12 {
            let cells = ndarray::Array2::from_shape_fn((12, 12), |(from, to)| {
                if random.below(20) == 0 { f64::NAN } else { network.measured_seconds(from, to, step) }
            });
            let demand = zipf_demand(12, 20.0, &mut random);
            let problem = Problem::new("any", CostMatrix::new(names.clone(), cells), 3, 10.0)
                .with_demand(Demand::from_concurrency(names.iter().cloned().zip(demand)).unwrap())
                .with_capacities(names.iter().map(|node| NodeCapacity::new(node.clone(), 2)))
                .with_serving(ServingCurve::queue(0.004, 3).unwrap())
                .with_running(running.clone());
            let history = MoveHistory { since_last_seconds: (step > 0).then_some(7.0 / 3.0), moves_in_window: 0 };
            let inputs = TraceInputs { time_seconds: step as f64 / 3.0, problem, stability: Some(Stability::default()), history };
            let entry = inputs.decide().unwrap();
            running = entry.plan.replicas.clone();
            trace.push_str(&entry.to_line().unwrap());
            trace.push('\n');
            short.push_str(&recorder.lines(&entry).unwrap());
            // Another decision on the same costs.
            short.push_str(&recorder.lines(&entry.inputs.decide().unwrap()).unwrap());
        }
        let mut unwritable: TraceEntry = serde_json::from_str(trace.lines().next().unwrap()).unwrap();
        unwritable.inputs.time_seconds = f64::NAN;
        assert!(matches!(unwritable.to_line(), Err(TraceError::NotFinite { name: "time_seconds", .. })));
        unwritable.inputs.time_seconds = 0.0;
        unwritable.inputs.stability = Some(Stability { gain_ratio: f64::INFINITY, ..Stability::default() });
        assert!(unwritable.to_line().is_err());
        assert_eq!(replay(&trace).unwrap(), []);
        assert_eq!(replay(&short).unwrap(), []);
        assert_eq!(short.lines().count(), 36);
        assert_eq!(replay(&short.replacen("\"starts\":", "\"starts\":1", 1)).unwrap()[0].line, 2);
        assert!(matches!(
            replay(&trace.replacen("\"version\":1", "\"version\":2", 1)),
            Err(TraceError::Version { line: 1, version: 2 })
        ));
        // Costs that are nowhere above.
        let lost = short.lines().nth(1).unwrap();
        assert!(matches!(replay(lost), Err(TraceError::Format { line: 1, .. })));
        assert!(matches!(replay("{}"), Err(TraceError::Format { line: 1, .. })));
    }
}
