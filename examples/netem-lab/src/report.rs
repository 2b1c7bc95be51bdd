//! What a run leaves behind: `report.json` for programs, and `report.html`, one self-contained page
//! for people.

mod bars;
mod html;
mod matrix;
mod summary;
mod timeline;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::wire::{Lateness, LinkMatrix, Slice, WireStatus};
pub use summary::{ResponseSummary, summaries};

/// A run whose emulator let more than 1 % of packets go later than this, outside bursts of pod
/// starts, is not to be relied on.
pub const UNRELIABLE_LATENESS_SECONDS: f64 = 0.002;

/// Round trips in milliseconds: source node to other node.
pub type RttTable = BTreeMap<String, BTreeMap<String, f64>>;

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write {}", path.display())]
pub struct ReportError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

/// What ran, where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunFacts {
    /// The scenario's name.
    pub scenario: String,
    /// What the scenario says of itself.
    pub description: String,
    /// The nodes, in the scenario's order.
    pub nodes: Vec<String>,
    /// Namespace and name of the service.
    pub service: String,
    /// Its autoscaling class.
    pub class: String,
    /// When the run began.
    pub began_at_unix_seconds: f64,
    /// How long it took, without building or fetching components.
    pub seconds: f64,
    /// Kernel release of the machine.
    pub kernel: String,
    /// Processors of the machine.
    pub processors: usize,
}

/// A quantile in milliseconds; null when nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LatenessMs {
    /// Half of the packets were not later.
    pub p50: Option<f64>,
    /// 99 % of the packets were not later.
    pub p99: Option<f64>,
}

/// Whether the network between the nodes was what it claims to be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmulatorReport {
    /// Which emulator.
    pub kind: String,
    /// Whether figures that depend on delays are unreliable.
    pub unreliable: bool,
    /// Why.
    pub reason: Option<String>,
    /// Taken off every one-way delay for the cost of the way through the emulator.
    pub compensation_ms: f64,
    /// What the system refused to do for its punctuality.
    pub refused_by_the_system: Vec<String>,
    /// Packets let go.
    pub packets_delivered: u64,
    /// Packets that the scenario's loss took.
    pub packets_lost: u64,
    /// Packets that the emulator dropped for want of room.
    pub packets_overflowed: u64,
    /// Lateness with the bursts of pod starts, for comparison.
    pub lateness_with_bursts_ms: LatenessMs,
}

/// One step of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// What it shows.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// How long it took.
    pub seconds: f64,
    /// When it began.
    pub began_at_unix_seconds: f64,
    /// What was seen; for a step that did not hold, also what was expected.
    pub detail: String,
}

/// A step that means nothing for this class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SkippedStep {
    /// What it would show.
    pub name: String,
    /// Why it does not apply.
    pub reason: String,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestReport {
    /// The step that sent it.
    pub step: String,
    /// The node it was sent from.
    pub from_node: String,
    /// The answer's status; null when there was none.
    pub status: Option<u16>,
    /// The node that answered; null when there was no answer.
    pub served_by_node: Option<String>,
    /// From when it was meant to be sent to the end of its answer.
    pub seconds: f64,
    /// When it was meant to be sent.
    pub at_unix_seconds: f64,
    /// Why there was no answer.
    pub error: Option<String>,
}

impl RequestReport {
    /// Whether it was answered with success.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// How a service woke up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColdStart {
    /// The autoscaling class.
    pub class: String,
    /// From the request to the pod object; null when no new pod was seen.
    pub seconds_to_pod_created: Option<f64>,
    /// From the request to the end of its answer.
    pub seconds_to_response: f64,
}

/// What a component costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Footprint {
    /// Resident memory of its processes together.
    pub rss_mib: f64,
    /// Thousandths of a processor, mean over the run from the cluster's being up.
    pub mcores: f64,
}

/// All that a run found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What ran.
    pub run: RunFacts,
    /// Whether every step held.
    pub ok: bool,
    /// Component to version.
    pub components: BTreeMap<String, String>,
    /// What the scenario asks for.
    pub injected_rtt_ms: RttTable,
    /// What the probers saw: the median.
    pub measured_rtt_ms: RttTable,
    /// How late packets were let go, outside bursts of pod starts.
    pub emulator_lateness_ms: LatenessMs,
    /// The emulator.
    pub emulator: EmulatorReport,
    /// The steps, in order.
    pub steps: Vec<StepReport>,
    /// Steps that mean nothing for this class.
    pub not_applicable_steps: Vec<SkippedStep>,
    /// Every request of every step.
    pub requests: Vec<RequestReport>,
    /// The Seika's READY column after the first request; null for other classes.
    pub seika_ready: Option<String>,
    /// How many requests were not answered with success.
    pub failed_requests: usize,
    /// The first request to a service scaled to zero; null when there was none.
    pub cold_start: Option<ColdStart>,
    /// Component to cost.
    pub footprint: BTreeMap<String, Footprint>,
}

impl Report {
    /// Writes both files into a folder, which is made if it is not there. Answers with the page.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, ReportError> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(&path, text))
                .map_err(|source| ReportError { path: path.clone(), source })?;
            Ok(path)
        };
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| ReportError { path: folder.join("report.json"), source: error.into() })?;
        write("report.json", &json)?;
        write("report.html", &html::page(self))
    }
}

/// The round trips that links ask for.
#[must_use]
pub fn injected_rtt_ms(links: &LinkMatrix) -> RttTable {
    let mut table = RttTable::new();
    for (from, to, _) in links.pairs() {
        if let Some(rtt) = links.rtt_seconds(from, to) {
            table.entry(from.to_owned()).or_default().insert(to.to_owned(), rtt * 1e3);
        }
    }
    table
}

/// Quantiles in milliseconds.
#[must_use]
pub fn lateness_ms(lateness: &Lateness) -> LatenessMs {
    let millis = |quantile| lateness.quantile_seconds(quantile).map(|seconds| seconds * 1e3);
    LatenessMs { p50: millis(0.5), p99: millis(0.99) }
}

/// Judges the emulator: `quiet` is its lateness outside bursts of pod starts.
#[must_use]
pub fn judge_emulator(status: &WireStatus, quiet: &Lateness) -> EmulatorReport {
    let kind = serde_json::to_value(status.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
    let sum = |count: fn(&Slice) -> u64| status.slices.iter().map(count).sum::<u64>();
    let overflowed = sum(|slice| slice.overflowed);
    let mut all = Lateness::default();
    for slice in &status.slices {
        all.merge(&slice.lateness);
    }
    let mut reasons = Vec::new();
    if let Some(p99) = quiet.quantile_seconds(0.99).filter(|p99| *p99 > UNRELIABLE_LATENESS_SECONDS) {
        reasons.push(format!("1 % of packets were let go more than {:.1} ms late", p99 * 1e3));
    }
    if overflowed > 0 {
        reasons.push(format!("{overflowed} packets were dropped because too many were under way"));
    }
    EmulatorReport {
        kind,
        unreliable: !reasons.is_empty(),
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        compensation_ms: status.compensation_seconds * 1e3,
        refused_by_the_system: status.refused.clone(),
        packets_delivered: sum(|slice| slice.delivered),
        packets_lost: sum(|slice| slice.lost),
        packets_overflowed: overflowed,
        lateness_with_bursts_ms: lateness_ms(&all),
    }
}

/// The verdict on an emulator that does not answer: its figures are unreliable.
#[must_use]
pub fn silent_emulator(reason: String) -> EmulatorReport {
    EmulatorReport {
        kind: "unknown".to_owned(),
        unreliable: true,
        reason: Some(reason),
        compensation_ms: 0.0,
        refused_by_the_system: Vec::new(),
        packets_delivered: 0,
        packets_lost: 0,
        packets_overflowed: 0,
        lateness_with_bursts_ms: LatenessMs::default(),
    }
}

#[cfg(test)]
mod tests;
