//! From what became of every request to the rows of a report. Pure.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::column::Column;
use crate::load::Outcome;
use crate::run::pods::PodSeen;

/// A request, and where it belongs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Whose it is.
    pub column: Column,
    /// In which repetition, from 1.
    pub repetition: u32,
    /// In which phase.
    pub phase: String,
    /// How long it might have taken.
    pub timeout_seconds: f64,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// From when it was meant to be sent until a pod was made for it, where that was looked for.
    pub pod_seconds: Option<f64>,
    /// And until one was ready.
    pub ready_seconds: Option<f64>,
}

impl Sample {
    /// How long it took. One that failed counts as its whole time-out: failing fast is no merit.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        if self.outcome.succeeded() { self.outcome.seconds } else { self.outcome.seconds.max(self.timeout_seconds) }
    }

    fn is_local(&self) -> bool {
        self.outcome.served_by_node.as_deref() == Some(&self.outcome.from_node)
    }
}

/// A phase as it was run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stretch {
    /// Whose.
    pub column: Column,
    /// In which repetition, from 1.
    pub repetition: u32,
    /// Its name.
    pub phase: String,
    /// When it began.
    pub from_unix_seconds: f64,
    /// When the next one began.
    pub to_unix_seconds: f64,
    /// The service's pods on it.
    pub pods: Vec<PodLife>,
    /// Share of the machine's processors that were busy.
    pub cpu: Option<Share>,
    /// 99 % of packets were let go no later than this after they were due.
    pub emulator_late_p99_ms: Option<f64>,
}

/// Mean and most of a share, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// In the mean.
    pub mean_pct: f64,
    /// In the worst second.
    pub max_pct: f64,
}

/// A pod of the service.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PodLife {
    /// Where.
    pub node: Option<String>,
    /// When it was made.
    pub made_unix_seconds: f64,
    /// From when on it served.
    pub ready_unix_seconds: Option<f64>,
    /// When its end was asked for, or it was gone.
    pub ends_unix_seconds: Option<f64>,
}

impl From<&PodSeen> for PodLife {
    fn from(pod: &PodSeen) -> Self {
        Self {
            node: pod.node.clone(),
            made_unix_seconds: pod.first_seen_unix_seconds,
            ready_unix_seconds: pod.ready_unix_seconds,
            ends_unix_seconds: pod.ends_unix_seconds.or(pod.gone_unix_seconds),
        }
    }
}

impl PodLife {
    /// Whether it served then.
    #[must_use]
    pub fn serves_at(&self, unix_seconds: f64) -> bool {
        self.ready_unix_seconds.is_some_and(|ready| ready <= unix_seconds)
            && self.ends_unix_seconds.is_none_or(|ends| ends > unix_seconds)
    }
}

impl Stretch {
    /// Every moment at which the number of pods changed, the beginning among them, and how many
    /// served from then on: on a node, or anywhere.
    #[must_use]
    pub fn pods_over_time(&self, node: Option<&str>) -> Vec<(f64, usize)> {
        let mine = || self.pods.iter().filter(|pod| node.is_none() || pod.node.as_deref() == node);
        let inside = |at: &f64| (self.from_unix_seconds..=self.to_unix_seconds).contains(at);
        let changes = mine().flat_map(|pod| pod.ready_unix_seconds.into_iter().chain(pod.ends_unix_seconds)).filter(inside);
        let mut moments: Vec<f64> = [self.from_unix_seconds, self.to_unix_seconds].into_iter().chain(changes).collect();
        moments.sort_by(f64::total_cmp);
        moments.into_iter().map(|at| (at, mine().filter(|pod| pod.serves_at(at)).count())).collect()
    }

    /// From the beginning until a pod serves on this node.
    fn ready_after(&self, node: &str) -> Option<f64> {
        self.pods_over_time(Some(node)).iter().find(|(_, count)| *count > 0).map(|(at, _)| at - self.from_unix_seconds)
    }
}

/// What a column did in a phase with requests from a node; or from all, or in all phases.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)] // The names say it; failed requests count as their whole time-out.
pub struct Row {
    pub column: Column,
    pub phase: Option<String>,
    pub from: Option<String>,
    pub requests: usize,
    pub failed: usize,
    pub completed_pct: Option<f64>,
    pub local_pct: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub max_ms: Option<f64>,
    /// The p95 of each repetition by itself.
    pub p95_ms_by_repetition: Vec<f64>,
    /// From a request to the pod object; to the pod's being ready.
    pub pod_p50_ms: Option<f64>,
    pub pod_ready_p50_ms: Option<f64>,
    pub ready_seconds: Option<f64>,
    pub most_pods: Option<f64>,
    pub pods_made: Option<f64>,
    pub cpu_mean_pct: Option<f64>,
    pub cpu_max_pct: Option<f64>,
    pub emulator_late_p99_ms: Option<f64>,
    /// 99 % of requests were sent no later than this after they were meant to be.
    pub sender_late_p99_ms: Option<f64>,
    /// How often requests failed in which way.
    pub failures: BTreeMap<String, usize>,
}

impl Row {
    pub(super) fn empty(column: Column) -> Self {
        Self {
            column,
            phase: None,
            from: None,
            requests: 0,
            failed: 0,
            completed_pct: None,
            local_pct: None,
            p50_ms: None,
            p95_ms: None,
            p99_ms: None,
            max_ms: None,
            p95_ms_by_repetition: Vec::new(),
            pod_p50_ms: None,
            pod_ready_p50_ms: None,
            ready_seconds: None,
            most_pods: None,
            pods_made: None,
            cpu_mean_pct: None,
            cpu_max_pct: None,
            emulator_late_p99_ms: None,
            sender_late_p99_ms: None,
            failures: BTreeMap::new(),
        }
    }
}

/// The rows of all columns, phases and sources, and of all together.
#[must_use]
pub(super) fn rows(
    columns: &[Column],
    phases: &[String],
    nodes: &[String],
    samples: &[Sample],
    stretches: &[Stretch],
) -> Vec<Row> {
    let optional = |names: &[String]| names.iter().cloned().map(Some).chain([None]).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for phase in optional(phases) {
        for from in optional(nodes) {
            for column in columns {
                let in_phase = |its: &str| phase.as_deref().is_none_or(|wanted| wanted == its);
                let mine = samples.iter().filter(|sample| sample.column == *column && in_phase(&sample.phase));
                let mine: Vec<&Sample> =
                    mine.filter(|sample| from.as_ref().is_none_or(|from| *from == sample.outcome.from_node)).collect();
                if mine.is_empty() && from.is_some() {
                    continue;
                }
                let during: Vec<&Stretch> =
                    stretches.iter().filter(|one| one.column == *column && in_phase(&one.phase)).collect();
                rows.push(row(*column, phase.clone(), from.clone(), &mine, &during));
            }
        }
    }
    rows
}

fn row(column: Column, phase: Option<String>, from: Option<String>, samples: &[&Sample], during: &[&Stretch]) -> Row {
    let answered: Vec<&&Sample> = samples.iter().filter(|sample| sample.outcome.succeeded()).collect();
    let took = histogram(samples.iter().map(|sample| sample.seconds()));
    let by_repetition = |number| histogram(samples.iter().filter(|one| one.repetition == number).map(|one| one.seconds()));
    let repetitions = samples.iter().map(|sample| sample.repetition).max().unwrap_or(0);
    let mut failures = BTreeMap::new();
    for sample in samples.iter().filter(|sample| !sample.outcome.succeeded()) {
        *failures.entry(crate::run::check::kind(&sample.outcome)).or_default() += 1;
    }
    let ready = from.as_deref().map(|node| during.iter().map(|one| one.ready_after(node)).collect::<Option<Vec<f64>>>());
    let counts = during.iter().flat_map(|one| one.pods_over_time(None)).map(|(_, count)| count);
    let cpu = || during.iter().filter_map(|one| one.cpu);
    Row {
        requests: samples.len(),
        failed: samples.len() - answered.len(),
        completed_pct: percent(answered.len(), samples.len()),
        local_pct: percent(answered.iter().filter(|sample| sample.is_local()).count(), answered.len()),
        p50_ms: quantile_ms(&took, 0.5),
        p95_ms: quantile_ms(&took, 0.95),
        p99_ms: quantile_ms(&took, 0.99),
        max_ms: quantile_ms(&took, 1.0),
        p95_ms_by_repetition: (1..=repetitions).filter_map(|number| quantile_ms(&by_repetition(number), 0.95)).collect(),
        pod_p50_ms: quantile_ms(&histogram(samples.iter().filter_map(|sample| sample.pod_seconds)), 0.5),
        pod_ready_p50_ms: quantile_ms(&histogram(samples.iter().filter_map(|sample| sample.ready_seconds)), 0.5),
        ready_seconds: ready.flatten().and_then(|all| all.into_iter().max_by(f64::total_cmp)),
        most_pods: counts.max().map(as_f64),
        pods_made: mean(during.iter().map(|one| as_f64(made_during(one)))),
        cpu_mean_pct: mean(cpu().map(|share| share.mean_pct)),
        cpu_max_pct: cpu().map(|share| share.max_pct).max_by(f64::total_cmp),
        emulator_late_p99_ms: during.iter().filter_map(|one| one.emulator_late_p99_ms).max_by(f64::total_cmp),
        sender_late_p99_ms: quantile_ms(&histogram(samples.iter().map(|sample| sample.outcome.late_seconds)), 0.99),
        failures,
        phase,
        from,
        ..Row::empty(column)
    }
}

fn made_during(stretch: &Stretch) -> usize {
    let during = stretch.from_unix_seconds..stretch.to_unix_seconds;
    stretch.pods.iter().filter(|pod| during.contains(&pod.made_unix_seconds)).count()
}

/// Microseconds, to three digits.
pub(super) fn histogram(seconds: impl Iterator<Item = f64>) -> Option<Histogram<u64>> {
    let mut histogram = Histogram::new(3).ok()?;
    for one in seconds {
        // Hours at most, and never negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        histogram.record((one.max(0.0) * 1e6).round() as u64).ok()?;
    }
    Some(histogram)
}

#[allow(clippy::cast_precision_loss)]
pub(super) fn quantile_ms(histogram: &Option<Histogram<u64>>, quantile: f64) -> Option<f64> {
    let histogram = histogram.as_ref().filter(|histogram| !histogram.is_empty())?;
    Some(histogram.value_at_quantile(quantile) as f64 / 1e3)
}

fn percent(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| as_f64(part) / as_f64(whole) * 100.0)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / as_f64(values.len()))
}

// Counts are far below what a float holds exactly.
#[allow(clippy::cast_precision_loss)]
pub(super) fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
