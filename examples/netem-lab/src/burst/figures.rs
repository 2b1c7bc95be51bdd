//! What the bursts showed. Pure but for the writing of the report.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::load::Outcome;
use crate::report::ReportError;

/// Goal: share of calm requests that are answered on the node they entered, in percent.
const LEAST_LOCAL_PCT: f64 = 99.9;

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub id: &'static str,
    /// What it came to.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// The goal; empty for figures without one.
    pub goal: String,
    /// Whether it does.
    pub ok: bool,
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = (self.value * 1000.0).round() / 1000.0;
        write!(f, "{}\t{value}\t{}\t{}\t{}", self.id, self.unit, self.goal, if self.ok { "ok" } else { "short" })
    }
}

/// Calm requests.
#[derive(Debug, Clone)]
pub(super) struct Calm {
    /// How many failed, from the first on.
    pub(super) failed: usize,
    /// What became of those that were sent once pods were where they are needed.
    pub(super) settled: Vec<Outcome>,
    /// How many of the latter activators held.
    pub(super) held: u64,
}

/// What a run leaves behind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// All that was found.
    pub figures: Vec<Figure>,
    /// How often requests failed in which way, by the figure that counts them.
    pub failures: BTreeMap<&'static str, BTreeMap<String, usize>>,
}

impl Report {
    pub(super) fn new(
        steady: &[Outcome],
        steady_held: u64,
        sudden: &[Outcome],
        sudden_held: u64,
        at_once: usize,
        calm: &Calm,
    ) -> Self {
        let failed = |outcomes: &[Outcome]| outcomes.iter().filter(|outcome| !outcome.succeeded()).count();
        let none = |id, count: usize| figure(id, as_f64(count), "requests", "0", count == 0);
        let told = |id, value: f64, unit| figure(id, value, unit, "", true);
        let all = [steady, sudden].concat();
        let local = calm.settled.iter().filter(|one| one.served_by_node.as_deref() == Some(&one.from_node)).count();
        let local_pct = as_f64(local) / as_f64(calm.settled.len().max(1)) * 100.0;
        let figures = vec![
            none("burst_failed", failed(&all)),
            none("burst_steady_failed", failed(steady)),
            none("burst_sudden_failed", failed(sudden)),
            figure("burst_sudden_sent", as_f64(sudden.len()), "requests", &at_once.to_string(), sudden.len() == at_once),
            told("burst_steady_p50_s", quantile(steady, 0.5), "s"),
            told("burst_steady_p99_s", quantile(steady, 0.99), "s"),
            told("burst_steady_sent", as_f64(steady.len()), "requests"),
            told("burst_steady_held", count(steady_held), "requests"),
            told("burst_sudden_last_s", quantile(sudden, 1.0), "s"),
            told("burst_sudden_held", count(sudden_held), "requests"),
            none("calm_failed", calm.failed),
            figure("calm_local_pct", local_pct, "%", &format!(">= {LEAST_LOCAL_PCT}"), local_pct >= LEAST_LOCAL_PCT),
            figure("calm_held", count(calm.held), "requests", "0", calm.held == 0),
            told("calm_sent", as_f64(calm.settled.len()), "requests"),
        ];
        let failures = BTreeMap::from([
            ("burst_steady_failed", ways(steady)),
            ("burst_sudden_failed", ways(sudden)),
            ("calm_failed", ways(&calm.settled)),
        ]);
        Self { figures, failures }
    }

    /// Whether every figure came to what it should.
    #[must_use]
    pub fn all_ok(&self) -> bool {
        self.figures.iter().all(|figure| figure.ok)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), ReportError> {
        let path = folder.join("report.json");
        let failed = |source| ReportError { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        std::fs::write(&path, text).map_err(failed)
    }
}

fn figure(id: &'static str, value: f64, unit: &'static str, goal: &str, ok: bool) -> Figure {
    Figure { id, value, unit, goal: goal.to_owned(), ok }
}

/// In which ways requests failed.
fn ways(outcomes: &[Outcome]) -> BTreeMap<String, usize> {
    let mut ways = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| !outcome.succeeded()) {
        let status = outcome.status.map_or("no answer".to_owned(), |status| status.to_string());
        *ways.entry(format!("{status} {}", outcome.error.as_deref().unwrap_or_default().trim())).or_default() += 1;
    }
    ways
}

fn quantile(outcomes: &[Outcome], share: f64) -> f64 {
    let mut seconds: Vec<f64> = outcomes.iter().map(|outcome| outcome.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    // An index of the list.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let at = (as_f64(seconds.len().saturating_sub(1)) * share) as usize;
    seconds.get(at).copied().unwrap_or(f64::NAN)
}

/// How many requests for the revisions of `service` went to activators while pods served, by a page
/// of the ingress's metrics: those to no node.
pub(super) fn arrived_at_activators(page: &str, namespace: &str, service: &str) -> u64 {
    let revision = format!("revision=\"{service}-");
    let namespace = format!("namespace=\"{namespace}\"");
    let lines = page.lines().filter(|line| line.starts_with("kantai_locality_ingress_requests_arrived_total{"));
    let of_service = lines.filter(|line| line.contains(&revision) && line.contains(&namespace));
    let to_activators = of_service.filter(|line| line.contains("serving=\"\""));
    to_activators.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

// Counts of requests are far below what a float holds exactly.
#[allow(clippy::cast_precision_loss)]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[allow(clippy::cast_precision_loss)]
fn count(requests: u64) -> f64 {
    requests as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, by: &str, seconds: f64) -> Outcome {
        Outcome {
            from_node: "a".to_owned(),
            status: Some(status),
            served_by_node: Some(by.to_owned()),
            served_by_pod: None,
            seconds,
            at_unix_seconds: 1.0,
            error: (status != 200).then(|| "pending request queue full\n".to_owned()),
            late_seconds: 0.0,
        }
    }

    fn shown(report: &Report) -> Vec<String> {
        report.figures.iter().filter(|figure| !figure.goal.is_empty()).map(ToString::to_string).collect()
    }

    #[test]
    fn one_failed_request_is_one_too_many() {
        let calm = Calm { failed: 0, settled: vec![outcome(200, "a", 0.1)], held: 0 };
        let good = [outcome(200, "a", 1.0)];
        let report = Report::new(&good, 0, &[outcome(200, "a", 1.0), outcome(503, "a", 0.1)], 1, 2, &calm);
        assert_eq!(
            shown(&report)[..4],
            [
                "burst_failed\t1\trequests\t0\tshort",
                "burst_steady_failed\t0\trequests\t0\tok",
                "burst_sudden_failed\t1\trequests\t0\tshort",
                "burst_sudden_sent\t2\trequests\t2\tok",
            ]
        );
        assert!(!report.all_ok());
        assert_eq!(report.failures["burst_sudden_failed"], [("503 pending request queue full".to_owned(), 1)].into());
        assert!(Report::new(&good, 0, &good, 0, 1, &calm).all_ok());
        assert!(!Report::new(&good, 0, &[], 0, 1, &calm).all_ok(), "what was not sent shows nothing");
    }

    #[test]
    fn calm_requests_stay_on_their_node_and_none_is_held() {
        let good = [outcome(200, "a", 1.0)];
        let mut settled = vec![outcome(200, "a", 0.1); 998];
        settled.extend([outcome(200, "b", 0.1), outcome(200, "b", 0.1)]);
        let calm = Calm { failed: 0, settled, held: 0 };
        let report = Report::new(&good, 0, &good, 0, 1, &calm);
        assert!(shown(&report).contains(&"calm_local_pct\t99.8\t%\t>= 99.9\tshort".to_owned()));
        let calm = Calm { failed: 0, settled: Vec::new(), held: 3 };
        let report = Report::new(&good, 0, &good, 0, 1, &calm);
        assert!(shown(&report).contains(&"calm_local_pct\t0\t%\t>= 99.9\tshort".to_owned()));
        assert!(shown(&report).contains(&"calm_held\t3\trequests\t0\tshort".to_owned()));
    }

    #[test]
    fn requests_to_no_node_are_those_that_activators_hold() {
        let line = |revision: &str, serving: &str, count: u32| {
            format!(
                "kantai_locality_ingress_requests_arrived_total{{namespace=\"default\",revision=\"{revision}\",source=\"a\",serving=\"{serving}\"}} {count}"
            )
        };
        let page = [
            line("calm-00001", "", 3),
            line("calm-00001", "a", 50),
            line("calmer-00001", "", 7),
            line("calm-00002", "", 1),
            "# EOF".to_owned(),
        ];
        assert_eq!(arrived_at_activators(&page.join("\n"), "default", "calm"), 4);
        assert_eq!(arrived_at_activators(&page.join("\n"), "other", "calm"), 0);
    }
}
