//! What decisions come to: routes, reports, and writes, one at a time for each revision.

use std::sync::Arc;

use autoscaler::handback::Where;
use autoscaler::{ActivatorProbe, DecideError, Decision, Inputs};
use gateway_link::RevisionKey;
use k8s_api::PodAutoscaler;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use super::Ticker;
use crate::apply::{DECISION_ANNOTATION, Job, JobResult, WriteError, Writer, pod_template};
use crate::cold_start::{Look, PhaseLabels};
use crate::explain::summary;
use crate::report::is_not_owned;
use crate::routes::RouteEntry;

/// ServiceMonitors that are written in one tick.
const MONITORS_AT_ONCE: usize = 8;

/// A task that has ended.
pub(super) enum Done {
    Written(Box<JobResult>, Instant),
    TakenOver(RevisionKey, Result<(), WriteError>),
    Monitored(RevisionKey, bool),
}

impl Ticker {
    pub(super) fn carry_out(&mut self, decisions: Vec<Result<Decision, DecideError>>) {
        for decision in decisions {
            match decision {
                Ok(decision) => self.apply(decision),
                Err(error) => self.reporter.failed(&error.key, &error),
            }
        }
    }

    /// Routes are published first, so that requests are routed away before pods are removed.
    fn apply(&mut self, decision: Decision) {
        let key = decision.key.clone();
        let Some(autoscaler) = self.autoscaler(&key) else { return };
        let Some(inputs) = self.gatherer.inputs(&key).cloned() else { return };
        let entry = RouteEntry { service: decision.service.clone(), routes: decision.routes.clone() };
        if let Err(error) = self.parts.routes.set(&key, entry) {
            self.reporter.failed(&key, &error);
        }
        self.time_cold_start(&decision, &inputs);
        self.reporter.decided(&autoscaler, &inputs, &decision);
        if is_not_owned(&inputs.facts) && decision.status != inputs.facts.status {
            self.reporter.not_owned(&autoscaler, &key);
        }
        self.decided.insert(key.clone());
        if self.parts.is_dry_run {
            return;
        }
        if decision.probe_activator && self.busy.begin_probe(&key) {
            let (prober, demands) = (self.parts.prober.clone(), self.parts.demands.clone());
            let key = key.clone();
            self.probes.spawn(async move {
                let is_activator = prober(key.clone()).await;
                let probe = ActivatorProbe { at: demands.now(), is_activator };
                (key, probe)
            });
        }
        if !self.retries.may_write(&key, Instant::now()) {
            return;
        }
        let Some(job) = self.job(decision, &inputs.facts, autoscaler) else { return };
        // One write at a time for each revision: what this decision would change is decided again
        // when that is done.
        let is_waited_for = !inputs.demand.in_flight.is_empty();
        if job.is_empty() || !self.busy.begin_write(&key, is_waited_for) {
            return;
        }
        let client = self.parts.client.clone();
        let begun = Instant::now();
        self.writes.spawn(async move { Done::Written(Box::new(job.run(&client).await), begun) });
    }

    fn job(&mut self, decision: Decision, facts: &Arc<autoscaler::Facts>, autoscaler: Arc<PodAutoscaler>) -> Option<Job> {
        let namespace = &decision.key.namespace;
        let target = autoscaler.spec.scale_target_ref.name.as_deref().unwrap_or_default();
        let deployment = self.parts.objects.deployments.get(&ObjectRef::new(target).within(namespace))?;
        let sks = self.parts.objects.serverless_services.get(&ObjectRef::new(&decision.key.revision).within(namespace));
        let held = self.parts.objects.seikas.get(&ObjectRef::new(&decision.key.revision).within(namespace));
        let written = self.gatherer.written(&decision.key);
        let wanted = |deployment: &Deployment| pod_template(&decision.key.revision, deployment);
        let template_differs = written.template_differs(held.as_deref(), &deployment, wanted);
        // What was said of counts that stay is said as before, so that a new leader changes
        // nothing.
        let said = held.and_then(|seika| seika.annotations().get(DECISION_ANNOTATION).cloned());
        let is_new = decision.step.as_ref().is_some_and(|step| step.seika != facts.seika);
        let why = if is_new { Some(summary(&decision)) } else { said };
        Some(Job { why, template_differs, facts: facts.clone(), autoscaler, deployment, sks, decision })
    }

    /// Takes revisions over from the stock class.
    pub(super) fn take_over(&mut self) {
        if self.parts.is_dry_run {
            return;
        }
        let now = Instant::now();
        let due: Vec<(RevisionKey, Where)> = self
            .gatherer
            .take_overs()
            .iter()
            .filter(|(key, _)| self.retries.may_write(key, now))
            .map(|(key, place)| (key.clone(), *place))
            .collect();
        for (key, place) in due {
            let Some(autoscaler) = self.autoscaler(&key) else { continue };
            // Another class decides meanwhile, if any does.
            if !self.busy.begin_write(&key, true) {
                continue;
            }
            let client = self.parts.client.clone();
            self.writes.spawn(async move {
                let result = Writer::new(&client, &autoscaler).take_over(place).await;
                Done::TakenOver(key, result)
            });
        }
    }

    /// Creates the ServiceMonitors of all revisions, where the cluster has the kind; a few at a
    /// time, since nothing depends on them.
    pub(super) fn ensure_monitors(&mut self) {
        if self.parts.is_dry_run || !self.parts.monitors.are_there() {
            return;
        }
        let missing: Vec<RevisionKey> =
            self.decided.iter().filter(|key| !self.gatherer.has_monitor(key)).take(MONITORS_AT_ONCE).cloned().collect();
        for key in missing {
            let Some(autoscaler) = self.autoscaler(&key) else { continue };
            if self.busy.begin_write(&key, false) {
                let (client, monitors) = (self.parts.client.clone(), self.parts.monitors.clone());
                self.writes.spawn(async move {
                    let is_written = monitors.ensure(&client, &autoscaler).await;
                    Done::Monitored(key, is_written)
                });
            }
        }
    }

    pub(super) fn done(&mut self, done: Done) {
        let (key, error) = match done {
            Done::Written(written, begun) => {
                self.parts.metrics.write_seconds.observe(begun.elapsed().as_secs_f64());
                self.wrote(*written)
            }
            Done::Monitored(key, is_written) => {
                self.gatherer.written(&key).has_monitor |= is_written;
                let queued = self.busy.wrote(&key);
                self.between_ticks(&queued);
                return;
            }
            Done::TakenOver(key, result) => {
                if let (Ok(()), Some(autoscaler)) = (&result, self.autoscaler(&key)) {
                    self.reporter.taken_over(&autoscaler, &key);
                }
                (key, result.err())
            }
        };
        let mut undecided = self.busy.wrote(&key);
        match error {
            Some(error) => {
                self.retries.failed(&key, Instant::now());
                self.reporter.failed(&key, &error);
            }
            None => {
                self.retries.succeeded(&key);
                // Inputs may have changed while it was written.
                undecided.extend(self.gatherer.absorb_revision(&key));
            }
        }
        self.between_ticks(&undecided);
    }

    fn wrote(&mut self, written: JobResult) -> (RevisionKey, Option<WriteError>) {
        let held = self.gatherer.written(&written.key);
        if let Some((seika, template)) = &written.seika {
            held.wrote_seika(seika, template.clone());
        }
        if let Some(status) = &written.status {
            held.wrote_status(status);
        }
        if let Some(place) = written.flipped {
            held.seika_is_gone();
            if let Some(autoscaler) = self.autoscaler(&written.key) {
                self.reporter.handed_back(&autoscaler, &written.key, place);
            }
        }
        (written.key, written.error)
    }

    /// Takes the time of a cold start that is under way.
    fn time_cold_start(&mut self, decision: &Decision, inputs: &Inputs) {
        let key = &decision.key;
        let (waits, pods) = (!inputs.demand.in_flight.is_empty(), inputs.facts.pods.len());
        if !self.cold_starts.concerns(key, waits, pods) {
            return;
        }
        let look = Look {
            waits,
            is_wanted: !decision.target.pods.is_empty(),
            pods,
            ready: decision.count.ready,
            ended: self.parts.demands.board().ended_requests(key),
            noticed_ago: self.noticed_ago,
        };
        for (phase, since) in self.cold_starts.look(key, self.parts.demands.now(), look) {
            self.parts.metrics.cold_start_seconds.get_or_create(&PhaseLabels { phase }).observe(since.as_secs_f64());
        }
    }

    fn autoscaler(&self, key: &RevisionKey) -> Option<Arc<PodAutoscaler>> {
        self.parts.objects.autoscalers.get(&ObjectRef::new(&key.revision).within(&key.namespace))
    }
}
