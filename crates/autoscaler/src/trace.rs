//! Decisions on record: what went in and what came out, one JSON object a line, to be decided
//! again.
//!
//! A [`DecisionRecorder`] stands beside the loop of decisions. A recording begins with everything
//! that is kept and known; each further line holds what is different from the line before. Nothing
//! but what was recorded goes into a decision, so [`replay`] gives the same bytes; where it does
//! not, the program or the line was changed. Numbers are written so that reading them gives the
//! same bits.
//!
//! - `version`: [`VERSION`] of this form.
//! - `memory`: on the first line of a recording, what earlier decisions left.
//! - `call`: `tick`, all revisions; `some`, these alone, between two ticks; `follow`, only demand
//!   is taken in, another instance leads; `stop_leading`, what was decided is dropped.
//! - `picture`: what changed of the [`Picture`]: `network` with its own version, `nodes` and
//!   `room`, `facts`, `activators`, `gone`; `demand`, which all share but those in `demands`.
//! - `decisions`: what was decided, or why it could not be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_link::RevisionKey;
use latency_matrix::NodeName;
use serde::{Deserialize, Serialize};

use crate::decide::{DecideError, Decision, decide, decide_some, follow};
use crate::memory::Memory;
use crate::picture::{ActivatorProbe, Facts, Inputs, Network, Now, ObservedDemand, Picture};
use crate::room::NodeRoom;

/// The version of the form of a line.
pub const VERSION: u32 = 1;

/// What is done with a picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TracedCall {
    /// [`decide`].
    Tick,
    /// [`decide_some`].
    Some(BTreeSet<RevisionKey>),
    /// [`follow`].
    Follow,
    /// [`Memory::keep_demand`].
    StopLeading,
}

/// Why a recording cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum DecisionTraceError {
    /// It is no JSON of this form.
    #[error("failed to read or write line {line} of a trace")]
    Format {
        /// The line, from 1 on; 0 for one that is being written.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It is of a version that this program does not know.
    #[error("failed to read line {line} of a trace: its version is {version}, not {VERSION}")]
    Version {
        /// The line, from 1 on.
        line: usize,
        /// What it says.
        version: u32,
    },
    /// The first line does not hold what later ones go on from.
    #[error("failed to replay line {line} of a trace: no line before it holds everything")]
    NoBeginning {
        /// The line, from 1 on.
        line: usize,
    },
}

/// What one line goes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Cause {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    call: TracedCall,
    picture: PictureChange,
}

#[derive(Serialize)]
struct TraceLine<'a> {
    #[serde(flatten)]
    cause: &'a Cause,
    decisions: Vec<Made<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Made<'a> {
    Decided(&'a Decision),
    Failed { key: &'a RevisionKey, error: String },
}

impl<'a> From<&'a Result<Decision, DecideError>> for Made<'a> {
    fn from(decision: &'a Result<Decision, DecideError>) -> Self {
        match decision {
            Ok(decision) => Self::Decided(decision),
            Err(error) => Self::Failed { key: &error.key, error: error.source.to_string() },
        }
    }
}

/// What is different from the picture before.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PictureChange {
    now: Now,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<Arc<Network>>,
    /// All nodes, in the order of their rooms, where there are others than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<NodeName>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    room: Vec<NodeRoom>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    facts: Vec<(RevisionKey, Arc<Facts>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    activators: Vec<(RevisionKey, Option<ActivatorProbe>)>,
    demand: Arc<ObservedDemand>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    demands: Vec<(RevisionKey, Arc<ObservedDemand>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<RevisionKey>,
}

impl PictureChange {
    fn between(before: Option<&Picture>, after: &Picture) -> Self {
        let network = before.is_none_or(|before| before.network != after.network).then(|| after.network.clone());
        let rooms = before.map_or(&[][..], |before| &before.room);
        let is_same_nodes =
            rooms.len() == after.room.len() && rooms.iter().zip(after.room.iter()).all(|(one, other)| one.node == other.node);
        let by_node: BTreeMap<&NodeName, &NodeRoom> = rooms.iter().map(|room| (&room.node, room)).collect();
        let is_new = |room: &&NodeRoom| by_node.get(&room.node).is_none_or(|held| *held != *room);
        let demand = most_common(after);
        let held = |key: &RevisionKey| before.and_then(|before| before.revisions.get(key));
        let of = |inputs: &Inputs| (!Arc::ptr_eq(&inputs.demand, &demand)).then(|| inputs.demand.clone());
        let pairs = || after.revisions.iter();
        Self {
            now: after.now,
            network,
            nodes: (!is_same_nodes).then(|| after.room.iter().map(|room| room.node.clone()).collect()),
            room: after.room.iter().filter(is_new).cloned().collect(),
            facts: pairs()
                .filter(|(key, inputs)| held(key).is_none_or(|held| held.facts != inputs.facts))
                .map(|(key, inputs)| (key.clone(), inputs.facts.clone()))
                .collect(),
            activators: pairs()
                .filter(|(key, inputs)| held(key).and_then(|held| held.activator) != inputs.activator)
                .map(|(key, inputs)| (key.clone(), inputs.activator))
                .collect(),
            demands: pairs().filter_map(|(key, inputs)| Some((key.clone(), of(inputs)?))).collect(),
            demand,
            gone: before
                .into_iter()
                .flat_map(|before| before.revisions.keys())
                .filter(|key| !after.revisions.contains_key(*key))
                .cloned()
                .collect(),
        }
    }

    /// Carries the change out.
    fn onto(self, picture: &mut Picture) {
        picture.now = self.now;
        if let Some(network) = self.network {
            picture.network = network;
        }
        if self.nodes.is_some() || !self.room.is_empty() {
            let mut rooms: BTreeMap<NodeName, NodeRoom> =
                picture.room.iter().cloned().chain(self.room).map(|room| (room.node.clone(), room)).collect();
            let nodes = self.nodes.unwrap_or_else(|| picture.room.iter().map(|room| room.node.clone()).collect());
            picture.room = Arc::new(nodes.iter().filter_map(|node| rooms.remove(node)).collect());
        }
        for key in &self.gone {
            picture.revisions.remove(key);
        }
        for inputs in picture.revisions.values_mut() {
            inputs.demand = self.demand.clone();
        }
        for (key, facts) in self.facts {
            match picture.revisions.get_mut(&key) {
                Some(inputs) => inputs.facts = facts,
                None => {
                    let inputs = Inputs { facts, demand: self.demand.clone(), activator: None };
                    picture.revisions.insert(key, inputs);
                }
            }
        }
        for (key, activator) in self.activators {
            if let Some(inputs) = picture.revisions.get_mut(&key) {
                inputs.activator = activator;
            }
        }
        for (key, demand) in self.demands {
            if let Some(inputs) = picture.revisions.get_mut(&key) {
                inputs.demand = demand;
            }
        }
    }
}

/// The demand that most revisions share.
fn most_common(picture: &Picture) -> Arc<ObservedDemand> {
    let mut counts: BTreeMap<usize, (usize, &Arc<ObservedDemand>)> = BTreeMap::new();
    for inputs in picture.revisions.values() {
        counts.entry(Arc::as_ptr(&inputs.demand) as usize).or_insert((0, &inputs.demand)).0 += 1;
    }
    counts.into_values().max_by_key(|(count, _)| *count).map(|(_, demand)| demand.clone()).unwrap_or_default()
}

/// Writes down what is decided.
#[derive(Debug, Default)]
pub struct DecisionRecorder {
    /// The picture of the last line; `None` before the first.
    last: Option<Picture>,
}

/// A line that lacks its decisions.
#[derive(Debug)]
pub struct Begun(Box<Cause>);

impl DecisionRecorder {
    /// The next line begins a recording.
    pub fn begin(&mut self) {
        self.last = None;
    }

    /// Whether the next line begins a recording.
    #[must_use]
    pub fn begins(&self) -> bool {
        self.last.is_none()
    }

    /// To be called before the call itself, which changes `memory`.
    #[must_use]
    pub fn before(&mut self, call: TracedCall, picture: &Picture, memory: &Memory) -> Begun {
        let memory = self.last.is_none().then(|| memory.clone());
        let change = PictureChange::between(self.last.as_ref(), picture);
        self.last = Some(picture.clone());
        Begun(Box::new(Cause { version: VERSION, memory, call, picture: change }))
    }
}

impl Begun {
    /// The line, without a line feed.
    ///
    /// # Errors
    /// Where something in it has no JSON, which is a fault of this crate.
    pub fn line(&self, decisions: &[Result<Decision, DecideError>]) -> Result<String, DecisionTraceError> {
        let line = TraceLine { cause: &self.0, decisions: decisions.iter().map(Made::from).collect() };
        serde_json::to_string(&line).map_err(|source| DecisionTraceError::Format { line: 0, source })
    }
}

/// Decides again what was recorded. The lines, as they come out now: of a recording of this
/// program, the same ones.
///
/// # Errors
/// Where a line cannot be read, or the first is not the beginning of a recording.
pub fn replay<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>, DecisionTraceError> {
    let mut state = None;
    let decided = (1..).zip(lines).map(|(line, text)| {
        let (begun, decisions) = advance(&mut state, line, text)?;
        begun.line(&decisions)
    });
    decided.collect()
}

/// What a recording ends in: the last picture, and what the decisions until then left. A revision
/// whose last line has no sample of demand has the last one that any line has.
///
/// # Errors
/// As [`replay`]; also where there is no line.
pub fn state<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<(Picture, Memory), DecisionTraceError> {
    let has_sample = |inputs: &Inputs| inputs.demand.seconds.iter().any(|(_, sources)| sources.is_some());
    let (mut state, mut sampled) = (None, BTreeMap::new());
    for (line, text) in (1..).zip(lines) {
        advance(&mut state, line, text)?;
        let revisions = state.iter().flat_map(|(picture, _): &(Picture, Memory)| &picture.revisions);
        sampled
            .extend(revisions.filter(|(_, inputs)| has_sample(inputs)).map(|(key, inputs)| (key.clone(), inputs.demand.clone())));
    }
    let (mut picture, memory) = state.ok_or(DecisionTraceError::NoBeginning { line: 0 })?;
    for (key, inputs) in picture.revisions.iter_mut().filter(|(_, inputs)| !has_sample(inputs)) {
        if let Some(demand) = sampled.remove(key) {
            inputs.demand = demand;
        }
    }
    Ok((picture, memory))
}

/// Decides again what one line recorded.
fn advance(
    state: &mut Option<(Picture, Memory)>,
    line: usize,
    text: &str,
) -> Result<(Begun, Vec<Result<Decision, DecideError>>), DecisionTraceError> {
    let cause: Cause = serde_json::from_str(text).map_err(|source| DecisionTraceError::Format { line, source })?;
    if cause.version != VERSION {
        return Err(DecisionTraceError::Version { line, version: cause.version });
    }
    let begun = Begun(Box::new(cause.clone()));
    let Cause { memory, call, picture: change, .. } = cause;
    if let Some(memory) = memory {
        let network = change.network.clone().ok_or(DecisionTraceError::NoBeginning { line })?;
        *state = Some((Picture { now: change.now, network, room: Arc::default(), revisions: BTreeMap::new() }, memory));
    }
    let Some((picture, memory)) = state else { return Err(DecisionTraceError::NoBeginning { line }) };
    change.onto(picture);
    let decisions = match &call {
        TracedCall::Tick => decide(picture, memory),
        TracedCall::Some(keys) => decide_some(picture, keys, memory),
        TracedCall::Follow => {
            follow(picture, memory);
            Vec::new()
        }
        TracedCall::StopLeading => {
            memory.keep_demand();
            Vec::new()
        }
    };
    Ok((begun, decisions))
}

/// A map whose keys are no texts, as pairs.
pub(crate) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(crate) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Vec::<(K, V)>::deserialize(deserializer).map(|pairs| pairs.into_iter().collect())
    }
}
