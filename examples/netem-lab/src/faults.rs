//! Faults, one after the other, in a running lab whose service is under load from two nodes:
//! nothing that serves may be taken away for want of knowledge, so no request may fail.
//!
//! Each fault is made, seen to be there, left for its time, and undone; load flows from before it
//! until the cluster is whole again. All that is judged can fail: a fault that never came to be, or
//! under which nothing was sent, is no proof.

mod catalog;
mod firewall;
mod inject;
mod lab;
mod report;
mod service;
mod standing;
mod watch;
mod whole;

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use tokio::time::Instant;

pub use catalog::Fault;
pub use lab::Lab;
pub use report::{FailureKind, FaultReport, Figure, Goal, Report};
pub use standing::Change;

use crate::load::{Outcome, Pace};
use crate::run::check::{self, Tally};
use crate::run::flow::{Flow, Outcomes};
use crate::run::{RunError, unix_seconds};
use inject::Injected;
use lab::ask;
use local_control_plane::components::ComponentsError;
use local_control_plane::progress::Progress;
use watch::PodWatch;

/// How many requests each of the two nodes sends in a second.
const PER_SECOND: f64 = 75.0;

/// The number of connections. They are opened before the fault: after all nodes were silent,
/// kube-proxy has no ready endpoint of any Service for a moment, DNS and gateways included, so that
/// no new connection can be opened, with or without Kantai.
const POOL: usize = 16;

/// How long the cluster may take to be whole again.
const WHOLE_WITHIN: Duration = Duration::from_secs(180);

/// How long the service may take to be ready, and its load to be answered where it enters.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// A state that lasts this long counts as settled.
const SETTLED_SECONDS: f64 = 3.0;

/// Requests sent longer ago than this have their answers, if the service answers as it should.
const ANSWER_SECONDS: f64 = 1.5;

/// How long load flows on when the cluster is whole again.
const AFTERWARDS: Duration = Duration::from_secs(5);

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why faults could not be made, or not be judged.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// There is no cluster.
    #[error("failed to find a running lab; `cargo lab -- up` starts one")]
    NoLab,
    /// The cluster has too few nodes.
    #[error("failed to use a lab of {0} nodes: load comes from two, and one of them can be lost")]
    TooFewNodes(usize),
    /// The API server refused.
    #[error("failed to {what}")]
    Ask {
        /// What was asked.
        what: &'static str,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// This machine refused.
    #[error("failed to {what}: {problem}")]
    Do {
        /// What was tried.
        what: String,
        /// What came of it.
        problem: String,
    },
    /// Something did not come in time.
    #[error("failed to see that {what}, within {} s; instead: {instead}", within.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
        /// What was seen last.
        instead: String,
    },
    /// A program is missing.
    #[error(transparent)]
    Components(#[from] ComponentsError),
    /// Load could not be started.
    #[error(transparent)]
    Load(#[from] RunError),
}

/// The faults to inject and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The faults, in order.
    pub faults: Vec<Fault>,
    /// Whether they last for a shorter time.
    pub brief: bool,
    /// Component to version, for the report.
    pub components: BTreeMap<String, String>,
}

/// Makes the faults in a lab. What it changed is undone, also where it fails, but for a fault under
/// way when it is dropped: then [`Lab::mend`] is the caller's to call.
///
/// # Errors
/// When a fault cannot be made or judged at all. Failed requests are no such error: they are in the
/// report.
pub async fn run(lab: &Lab, settings: &Settings, progress: &Progress) -> Result<Report, FaultError> {
    let began = Instant::now();
    // By name; the last one does not hold what exists once.
    let names: Vec<&String> = lab.nodes.keys().collect();
    let [first, .., last] = names[..] else { return Err(FaultError::TooFewNodes(lab.nodes.len())) };
    let runner = Runner {
        lab,
        progress,
        loaded: [first.clone(), last.clone()],
        victim: last.clone(),
        pods: PodWatch::start(lab.client.clone()),
    };
    lab.mend().await?;
    let result = runner.all(settings).await;
    let tidied = runner.tidy().await;
    let (faults, figures) = result?;
    tidied?;
    Ok(Report {
        ok: figures.iter().all(|figure| figure.ok) && faults.len() == settings.faults.len(),
        brief: settings.brief,
        loaded_nodes: runner.loaded.to_vec(),
        requests_per_second_and_node: PER_SECOND,
        pods: service::PODS,
        seconds: began.elapsed().as_secs_f64(),
        components: settings.components.clone(),
        faults,
        figures,
    })
}

struct Runner<'a> {
    lab: &'a Lab,
    progress: &'a Progress,
    loaded: [String; 2],
    victim: String,
    pods: PodWatch,
}

impl Runner<'_> {
    async fn all(&self, settings: &Settings) -> Result<(Vec<FaultReport>, Vec<Figure>), FaultError> {
        let step = self.progress.step(format!("waiting for the service {}", service::NAME));
        let applied = PatchParams::apply("netem-lab");
        let service = whole::knative_services(self.lab);
        service.patch(service::NAME, &applied, &Patch::Apply(service::object())).await.map_err(ask("apply the service"))?;
        self.wait_until("the service is ready", SETTLED_WITHIN, async || whole::service_lacks(self.lab).await).await?;
        step.done();
        let (mut reports, mut figures) = (Vec::new(), Vec::new());
        for fault in &settings.faults {
            let report = self.one(*fault, fault.lasts(settings.brief)).await?;
            let judged = report::figures(*fault, &report, 2.0 * PER_SECOND, WHOLE_WITHIN.as_secs_f64());
            for figure in &judged {
                self.progress.line(figure.line());
            }
            for FailureKind { from_node, how, count, first_after_seconds, last_after_seconds } in &report.failures {
                self.progress.line(format_args!(
                    "{count} from {from_node}, {first_after_seconds:.1} to {last_after_seconds:.1} s after the beginning: {how}"
                ));
            }
            let is_whole = report.whole_after_seconds.is_some();
            for missing in &report.missing {
                self.progress.line(format_args!("missing: {missing}"));
            }
            reports.push(report);
            figures.extend(judged);
            if !is_whole {
                // What comes next would be judged for what this one did.
                break;
            }
        }
        Ok((reports, figures))
    }

    /// One fault, from calm to calm.
    async fn one(&self, fault: Fault, lasts: Duration) -> Result<FaultReport, FaultError> {
        let step = self.progress.step(format!("{fault}: {}", fault.what()));
        let outcomes = Outcomes::default();
        let mut flows = Vec::new();
        for node in &self.loaded {
            let pace = Pace::PerSecond(PER_SECOND, POOL);
            flows.push(Flow::start(self.lab.in_node(node)?, node, &service::url(), pace, &outcomes)?);
        }
        self.wait_until("requests are answered where they enter", SETTLED_WITHIN, async || Ok(self.unsettled(&outcomes))).await?;

        let began_at = unix_seconds();
        let began = Instant::now();
        let restarts = self.pods.standing().restarts();
        self.progress.line(format_args!("{fault}: made"));
        let injected = self.make(fault).await;
        let there = match &injected {
            Ok(injected) => self.hold(injected, began, lasts).await,
            Err(_) => Ok(None),
        };
        self.progress.line(format_args!("{fault}: undone"));
        let undone = began.elapsed();
        let mended = self.lab.mend().await;
        injected?;
        let there = there?;
        mended?;
        let waited = Instant::now();
        let missing = self.wait_until("the cluster is whole", WHOLE_WITHIN, async || self.missing().await).await;
        let whole_after = missing.is_ok().then(|| waited.elapsed());
        tokio::time::sleep(AFTERWARDS).await;
        for flow in flows {
            flow.stop().await;
        }
        step.done();

        let mut sent = outcomes.all();
        sent.retain(|outcome| outcome.at_unix_seconds >= began_at);
        let standing = self.pods.standing();
        let drained = (fault == Fault::Drain).then_some(self.victim.as_str());
        Ok(FaultReport {
            name: fault.to_string(),
            what: fault.what().to_owned(),
            node: matches!(fault, Fault::CutOne | Fault::Drain | Fault::LabelOff).then(|| self.victim.clone()),
            began_at_unix_seconds: began_at,
            undone_after_seconds: undone.as_secs_f64(),
            there_after_seconds: there.map(|there| there.as_secs_f64()),
            whole_after_seconds: whole_after.map(|after| after.as_secs_f64()),
            missing: missing.err().map(|error| error.to_string()).into_iter().collect(),
            sent: sent.len(),
            failed: sent.iter().filter(|outcome| !outcome.succeeded()).count(),
            failures: failure_kinds(&sent, began_at),
            changes: standing.since(began_at).cloned().collect(),
            taken_too_early: standing
                .taken_too_early(began_at, service::PODS, drained)
                .into_iter()
                .map(|change| format!("{} on {}", change.pod, change.node))
                .collect(),
            restarts: standing.restarts() - restarts,
            elsewhere_after_seconds: drained.and_then(|node| standing.elsewhere_after(node, began_at, service::PODS)),
        })
    }

    async fn make(&self, fault: Fault) -> Result<Injected, FaultError> {
        Injected::make(fault, &self.victim, self.lab).await
    }

    /// Waits until the fault has lasted long enough. Tells when it was first seen to be there.
    async fn hold(&self, injected: &Injected, began: Instant, lasts: Duration) -> Result<Option<Duration>, FaultError> {
        let mut there = None;
        let mut lacks = String::new();
        while began.elapsed() < lasts {
            if there.is_none() {
                match injected.lacks(self.lab).await? {
                    None => there = Some(began.elapsed()),
                    Some(instead) => lacks = instead,
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        match there {
            Some(after) => self.progress.line(format_args!("it was there after {:.1} s", after.as_secs_f64())),
            None => self.progress.line(format_args!("it never was there: {lacks}")),
        }
        Ok(there)
    }

    /// What is missing of calm: as many pods as wanted, and requests of the last seconds that were
    /// all answered, and nearly all where they entered.
    fn unsettled(&self, outcomes: &Outcomes) -> Option<String> {
        if let Some(missing) = self.pods_missing() {
            return Some(missing);
        }
        let to = unix_seconds() - ANSWER_SECONDS;
        let all = outcomes.all();
        let mut far = self.loaded.iter().filter_map(|node| {
            let tally = Tally::of(&all, node, to - SETTLED_SECONDS, to);
            (!tally.is_local() || tally.failed > 0).then(|| tally.describe(node))
        });
        far.next()
    }

    fn pods_missing(&self) -> Option<String> {
        let standing = self.pods.standing();
        let count = standing.count();
        if count != service::PODS {
            return Some(format!("{count} pods of the service stand"));
        }
        standing.under_way(unix_seconds())
    }

    async fn missing(&self) -> Result<Option<String>, FaultError> {
        let mut missing = whole::lacks(self.lab).await?;
        missing.extend(self.pods_missing());
        Ok((!missing.is_empty()).then(|| missing.join(", ")))
    }

    async fn wait_until(
        &self,
        what: &str,
        within: Duration,
        lacks: impl AsyncFn() -> Result<Option<String>, FaultError>,
    ) -> Result<(), FaultError> {
        let begun = Instant::now();
        loop {
            let instead = match lacks().await {
                Ok(None) => return Ok(()),
                Ok(Some(instead)) => instead,
                // It may be just the API server that has to come back.
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > within {
                return Err(FaultError::Late { what: what.to_owned(), within, instead });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Undoes all that a run made.
    async fn tidy(&self) -> Result<(), FaultError> {
        let mended = self.lab.mend().await;
        let service: Api<DynamicObject> = whole::knative_services(self.lab);
        let deleted = match service.delete(service::NAME, &Default::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(|_| ()).map_err(ask("delete the service")),
        };
        mended.and(deleted).and(self.lab.forget_labels().await)
    }
}

/// Requests that failed, by the node they were sent from and how they failed.
fn failure_kinds(outcomes: &[Outcome], began_at: f64) -> Vec<FailureKind> {
    let mut kinds: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| !outcome.succeeded()) {
        let how = (outcome.from_node.clone(), check::kind(outcome));
        kinds.entry(how).or_default().push(outcome.at_unix_seconds - began_at);
    }
    kinds
        .into_iter()
        .map(|((from_node, how), at)| FailureKind {
            from_node,
            how,
            count: at.len(),
            first_after_seconds: at.iter().copied().fold(f64::INFINITY, f64::min),
            last_after_seconds: at.iter().copied().fold(0.0, f64::max),
        })
        .collect()
}
