//! The steps themselves.

mod load;
mod serving;

use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use super::flow::{Flow, Outcomes};
use super::footprint::FootprintWatch;
use super::journal::{Failure, Journal, StepResult, unix_seconds};
use super::objects::Objects;
use super::pods::PodWatch;
use super::{RunError, Stage, Verdict, check, diagnostics, latency, lay};
use crate::report::{self, ColdStart, EmulatorReport, LatenessMs, Report, RttTable, RunFacts};
use crate::scenario::{KANTAI_CLASS, Scenario};
use crate::wire::{WireClient, lateness_outside};
use local_control_plane::progress::Progress;

/// How long the probers may take to agree with the wire: their medians are over a window.
const LATENCY_WITHIN: Duration = Duration::from_secs(90);

/// How often a step looks again.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Our ingress, and how its baseline policy is chosen.
const INGRESS: (&str, &str) = ("kantai-system", "locality-ingress");
const POLICY: (&str, &str) = ("KANTAI_POLICY", "spread");

/// Why a step about Kantai's own objects says nothing about other classes.
const ONLY_KANTAI: &str = "only services of Kantai's class have this";

/// A run under way.
struct Runner<'a, 'c> {
    stage: &'a mut Stage<'c>,
    scenario: &'a Scenario,
    client: Client,
    objects: Objects,
    journal: Journal,
    outcomes: Outcomes,
    pods: PodWatch,
    flows: Vec<Flow>,
    wire: Option<WireClient>,
    injected: RttTable,
    measured: RttTable,
    cold_start: Option<ColdStart>,
    seika_ready: Option<String>,
}

/// Runs all steps of a scenario on a cluster that is up, and writes the report.
///
/// # Errors
///
/// When the run cannot go on at all. Steps that do not hold and requests that fail are no errors:
/// the verdict has them.
pub async fn run_scenario(stage: &mut Stage<'_>, scenario: &Scenario, progress: Progress) -> Result<Verdict, RunError> {
    for node in scenario.links.nodes() {
        stage.node(&scenario.name, node)?;
    }
    let client = stage.client(&scenario.name)?;
    let footprint = FootprintWatch::start(stage.cgroup());
    let mut runner = Runner {
        client: client.clone(),
        objects: Objects::new(client.clone(), scenario.service.clone()),
        journal: Journal::new(progress),
        outcomes: Outcomes::default(),
        pods: PodWatch::start(client),
        flows: Vec::new(),
        wire: None,
        injected: report::injected_rtt_ms(&scenario.links),
        measured: RttTable::new(),
        cold_start: None,
        seika_ready: None,
        stage,
        scenario,
    };
    let footprint_before_deletion = runner.all_steps(&footprint).await?;
    runner.finish(footprint_before_deletion).await
}

type Costs = std::collections::BTreeMap<String, report::Footprint>;

impl Runner<'_, '_> {
    fn is_kantai(&self) -> bool {
        self.scenario.service.class == KANTAI_CLASS
    }

    async fn all_steps(&mut self, footprint: &FootprintWatch) -> Result<Costs, RunError> {
        let up = self.stage.up;
        let detail = format!("{} nodes: {}", self.scenario.links.nodes().len(), self.scenario.links.nodes().join(", "));
        self.journal.done_before("cluster up", up.began_at_unix_seconds, up.seconds, detail);

        if !self.is_kantai() {
            let open = self.journal.begin("ingress told to spread evenly");
            let result = self.spread_evenly().await;
            self.journal.end(open, result);
        }
        let open = self.journal.begin("measured latency is the injected one");
        match lay::lay_wire(self.stage.cluster, &self.stage.lab_binary, &self.scenario.links).await {
            Ok((wire, status)) => {
                self.wire = Some(wire);
                for refusal in status.refused {
                    self.journal.note(format!("the emulator runs without all it asked for: {refusal}"));
                }
            }
            Err(error) => {
                // Without a network between the nodes nothing else means anything.
                self.journal.end(open, Err(Failure::new("a wire between the nodes", error.to_string())));
                return Ok(footprint.so_far());
            }
        }
        let result = self.latency_settles().await;
        self.journal.end(open, result);

        let open = self.journal.begin("service applied and Ready");
        let result = self.apply().await;
        if !self.journal.end(open, result) {
            return Ok(footprint.so_far());
        }
        self.step_of_kantai("hand-over from the bootstrap pod", async |runner| runner.handed_over().await).await;
        let open = self.journal.begin("scaled to zero");
        let result = self.scaled_to_zero().await;
        self.journal.end(open, result);

        let open = self.journal.begin(&format!("cold request from {}", self.scenario.steps.far));
        let result = self.cold_request().await;
        self.journal.end(open, result);
        let open = self.journal.begin("objects as kubectl shows them");
        let result = self.objects_shown().await;
        self.journal.end(open, result);

        self.loads().await?;
        self.step_of_kantai("toggle off: handed back to the stock autoscaler", async |runner| runner.toggled(false).await).await;
        self.step_of_kantai("toggle on: taken over again", async |runner| runner.toggled(true).await).await;
        self.journal.mark("after the load");
        for flow in std::mem::take(&mut self.flows) {
            flow.stop().await;
        }
        let costs = footprint.so_far();
        let open = self.journal.begin("service deleted, nothing left of it");
        let result = self.nothing_left().await;
        self.journal.end(open, result);
        Ok(costs)
    }

    /// A step about what only Kantai has.
    async fn step_of_kantai(&mut self, name: &str, step: impl AsyncFnOnce(&mut Self) -> StepResult) {
        if !self.is_kantai() {
            return self.journal.not_applicable(name, ONLY_KANTAI);
        }
        let open = self.journal.begin(name);
        let result = step(self).await;
        self.journal.end(open, result);
    }

    async fn spread_evenly(&mut self) -> StepResult {
        let (namespace, name) = INGRESS;
        self.objects.set_deployment_env(namespace, name, POLICY.0, POLICY.1).await?;
        let begun = Instant::now();
        while !self.objects.is_rolled_out(namespace, name).await? {
            if begun.elapsed() > Duration::from_secs(90) {
                return Err(Failure::new(
                    format!("Deployment {name} rolled out with {}={}", POLICY.0, POLICY.1),
                    "not within 90 s",
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(format!("{name} has {}={}", POLICY.0, POLICY.1))
    }

    async fn latency_settles(&mut self) -> StepResult {
        let begun = Instant::now();
        loop {
            let measured = latency::measured(&self.client).await;
            let wrong = match &measured {
                Ok(measured) => check::wrong_pairs(&self.injected, &measured.table),
                Err(error) => vec![error.to_string()],
            };
            if let Ok(measured) = measured {
                self.measured = measured.table;
                if wrong.is_empty() {
                    let table = self.pairs_in_words();
                    return Ok(format!(
                        "medians from {}, within {} ms of the injected ones\n{table}",
                        measured.source,
                        check::RTT_TOLERANCE_MS
                    ));
                }
            }
            if begun.elapsed() > LATENCY_WITHIN {
                return Err(Failure::new(
                    format!(
                        "medians within {} ms of the injected ones, in {} s",
                        check::RTT_TOLERANCE_MS,
                        LATENCY_WITHIN.as_secs()
                    ),
                    wrong.join("; "),
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn pairs_in_words(&self) -> String {
        let mut lines = Vec::new();
        for (from, row) in &self.injected {
            for (to, wanted) in row {
                let seen = self.measured.get(from).and_then(|row| row.get(to));
                let seen = seen.map_or("unknown".to_owned(), |seen| format!("{seen:.2}"));
                lines.push(format!("{from} -> {to}: injected {wanted:.2} ms, measured {seen} ms"));
            }
        }
        lines.join("\n")
    }

    async fn finish(self, footprint: Costs) -> Result<Verdict, RunError> {
        let (emulator, lateness) = self.emulator().await;
        let requests = self.journal.requests(self.outcomes.all());
        let failed_requests = requests.iter().filter(|request| !request.succeeded()).count();
        let ok = failed_requests == 0 && self.journal.steps.iter().all(|step| step.ok);
        let report = Report {
            run: RunFacts {
                scenario: self.scenario.name.clone(),
                description: self.scenario.description.clone(),
                nodes: self.scenario.links.nodes().to_vec(),
                service: format!("{}/{}", self.scenario.service.namespace, self.scenario.service.name),
                class: self.scenario.service.class.clone(),
                began_at_unix_seconds: self.stage.up.began_at_unix_seconds,
                seconds: self.stage.up.seconds + self.journal.seconds(),
                kernel: nix::sys::utsname::uname()
                    .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned()),
                processors: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            },
            ok,
            components: self.stage.components.clone(),
            injected_rtt_ms: self.injected.clone(),
            measured_rtt_ms: self.measured.clone(),
            emulator_lateness_ms: lateness,
            emulator,
            steps: self.journal.steps.clone(),
            not_applicable_steps: self.journal.skipped.clone(),
            requests,
            seika_ready: self.seika_ready.clone(),
            failed_requests,
            cold_start: self.cold_start.clone(),
            footprint,
        };
        let page = report.write(&self.stage.folder)?;
        if let Some(reason) = &report.emulator.reason {
            self.journal.note(format!("times of this run are unreliable: {reason}"));
        }
        if !ok {
            self.dump_diagnostics().await;
        }
        Ok(Verdict { ok, page })
    }

    /// How the emulator did, and how late it was outside bursts of pod starts.
    async fn emulator(&self) -> (EmulatorReport, LatenessMs) {
        let Some(wire) = &self.wire else {
            return (report::silent_emulator("no wire was laid".to_owned()), LatenessMs::default());
        };
        match wire.status(0.0).await {
            Ok(status) => {
                let quiet = lateness_outside(&status.slices, &check::bursts(&self.pods.all(), unix_seconds()));
                (report::judge_emulator(&status, &quiet), report::lateness_ms(&quiet))
            }
            Err(error) => (report::silent_emulator(error.to_string()), LatenessMs::default()),
        }
    }

    async fn dump_diagnostics(&self) {
        let folder = super::diagnostics_folder(&self.stage.folder);
        let Some(kubeconfig) = self.stage.cluster.kubeconfig() else { return };
        let dumped =
            diagnostics::dump(&folder, &self.stage.kubectl, kubeconfig, &self.client, &self.scenario.service.namespace).await;
        match dumped {
            Ok(()) => self.journal.note(format!("pods, events, objects and logs are in {}", folder.display())),
            Err(error) => self.journal.note(format!("failed to write diagnostics into {}: {error}", folder.display())),
        }
    }
}
