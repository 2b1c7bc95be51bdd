//! The tick: gather, decide, apply, report; every second, and at once for the revisions whose
//! objects changed or that have waiting requests.

mod state;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use autoscaler::handback::Where;
use autoscaler::trace::Call;
use autoscaler::{ActivatorProbe, DecideError, Decision, Inputs, Memory, Now, decide, decide_some, follow};
use gateway_link::RevisionKey;
use jiff::Timestamp;
use k8s_api::PodAutoscaler;
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt as _};
use latency_matrix::{LatencyMatrix, NodeName};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::state::{Busy, Retries};
use crate::activator::ActivatorProber;
use crate::apply::{DECISION_ANNOTATION, Job, JobResult, WriteError, Writer, pod_template};
use crate::cold_start::{ColdStarts, Look, PhaseLabels};
use crate::demand::Demands;
use crate::explain::summary;
use crate::gather::Gatherer;
use crate::metrics::{InputLabels, Metrics};
use crate::objects::{ChangeLog, Objects};
use crate::report::{Reporter, is_not_owned};
use crate::routes::{Entry, RouteBook};
use crate::service_monitor::ServiceMonitors;
use crate::trace::{TraceBook, Tracer};

/// Changes that come within this time of each other are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// ServiceMonitors that are written in one tick.
const MONITORS_AT_ONCE: usize = 8;
/// How long writes in flight may take after the stop.
const STOP_WITHIN: Duration = Duration::from_secs(6);

/// Everything that a tick needs.
pub(crate) struct Parts {
    pub(crate) client: Client,
    pub(crate) objects: Objects,
    pub(crate) changes: ChangeLog,
    pub(crate) demands: Arc<Demands>,
    pub(crate) latency: watch::Receiver<Arc<LatencyMatrix>>,
    /// The known nodes, for the reader of latency.
    pub(crate) nodes: watch::Sender<Vec<NodeName>>,
    pub(crate) routes: Arc<RouteBook>,
    pub(crate) metrics: Metrics,
    pub(crate) monitors: ServiceMonitors,
    pub(crate) prober: ActivatorProber,
    /// Whether this instance leads.
    pub(crate) leads: watch::Receiver<bool>,
    /// Nodes that send or serve requests, for the probers.
    pub(crate) used: watch::Sender<BTreeSet<NodeName>>,
    /// Records decisions for listeners of the trace.
    pub(crate) trace: TraceBook,
    /// Decides and explains, but writes nothing.
    pub(crate) is_dry_run: bool,
}

/// The loop and what it keeps.
pub(crate) struct Ticker {
    parts: Parts,
    gatherer: Gatherer,
    reporter: Reporter,
    memory: Memory,
    tracer: Tracer,
    is_leading: bool,
    /// Writes under way, one task per revision.
    writes: JoinSet<Done>,
    probes: JoinSet<(RevisionKey, ActivatorProbe)>,
    busy: Busy,
    retries: Retries,
    decided: BTreeSet<RevisionKey>,
    cold_starts: ColdStarts,
    /// For how long the waiting requests of these revisions have been known.
    noticed_ago: Duration,
    /// The end of the last second whose demand is known whole.
    known_until: Duration,
}

/// A task that has ended.
enum Done {
    Written(Box<JobResult>, Instant),
    TakenOver(RevisionKey, Result<(), WriteError>),
    Monitored(RevisionKey, bool),
}

impl Ticker {
    pub(crate) fn new(parts: Parts, gatherer: Gatherer, reporter: Reporter) -> Self {
        Self {
            tracer: Tracer::new(parts.trace.clone()),
            parts,
            gatherer,
            reporter,
            memory: Memory::default(),
            is_leading: false,
            writes: JoinSet::new(),
            probes: JoinSet::new(),
            busy: Busy::default(),
            retries: Retries::default(),
            decided: BTreeSet::new(),
            cold_starts: ColdStarts::default(),
            noticed_ago: Duration::ZERO,
            known_until: Duration::ZERO,
        }
    }

    /// Runs until `stop`, then lets writes that are under way end.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let demands = self.parts.demands.clone();
        let changes = self.parts.changes.clone();
        let mut leads = self.parts.leads.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = leads.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let is_leading = *leads.borrow_and_update();
                    self.lead(is_leading);
                }
                _ = ticks.tick() => self.tick(),
                () = changes.noted() => {
                    tokio::time::sleep(DEBOUNCE).await;
                    let dirty = self.gatherer.absorb(changes.drain());
                    self.between_ticks(&dirty);
                }
                (woken, noticed_ago) = demands.woken() => {
                    self.noticed_ago = noticed_ago;
                    self.between_ticks(&woken);
                    self.noticed_ago = Duration::ZERO;
                }
                Some(done) = self.writes.join_next(), if !self.writes.is_empty() => {
                    if let Ok(done) = done {
                        self.done(done);
                    }
                }
                Some(probed) = self.probes.join_next(), if !self.probes.is_empty() => {
                    if let Ok((key, probe)) = probed {
                        self.busy.probed(&key);
                        self.gatherer.set_activator(&key, probe);
                    }
                }
            }
        }
        let all_written = async { while self.writes.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, all_written).await.is_err() {
            tracing::warn!("some writes were not answered before the program stopped");
        }
    }

    /// Called when leadership changes. On loss, decisions and writes in flight are dropped: those
    /// of the new leader supersede them.
    fn lead(&mut self, is_leading: bool) {
        self.is_leading = is_leading;
        self.parts.metrics.leading.set(is_leading.into());
        if !is_leading {
            self.writes.abort_all();
            self.probes.abort_all();
            let now = self.now();
            let started = self.tracer.before(Call::StopLeading, self.gatherer.picture(now), &self.memory);
            self.memory.keep_demand();
            self.tracer.after(started, &[]);
            self.parts.routes.reset();
            (self.busy, self.retries) = (Busy::default(), Retries::default());
            self.cold_starts = ColdStarts::default();
            for key in std::mem::take(&mut self.decided) {
                self.reporter.forget(&key);
            }
        }
    }

    fn now(&self) -> Now {
        let wall = Timestamp::now();
        // Conditions hold whole seconds, as all of Kubernetes writes them.
        Now { wall: Timestamp::from_second(wall.as_second()).unwrap_or(wall), monotonic: self.parts.demands.now() }
    }

    fn gather_latency(&mut self) {
        let nodes = self.gatherer.nodes();
        self.parts.nodes.send_if_modified(|held| {
            let is_changed = *held != nodes;
            if is_changed {
                held.clone_from(&nodes);
            }
            is_changed
        });
        let matrix = self.parts.latency.borrow().clone();
        self.gatherer.set_latency(&matrix, self.parts.demands.now());
    }

    fn tick(&mut self) {
        let begun = Instant::now();
        self.gatherer.absorb(self.parts.changes.drain());
        self.gather_latency();
        let ours: BTreeSet<RevisionKey> = self.gatherer.revisions().cloned().collect();
        let demand = {
            let mut board = self.parts.demands.board();
            let mut demand = board.tick(self.parts.demands.now(), |key| ours.contains(key));
            for (key, busy) in demand.busy.iter_mut().filter(|(key, _)| self.gatherer.has_goal(key)) {
                busy.service_seconds = board.service_seconds(key);
            }
            demand
        };
        if let Some((second, _)) = demand.quiet.seconds.iter().rfind(|(_, known)| known.is_some()) {
            self.known_until = Duration::from_secs(second + 1);
        }
        self.gatherer.set_demand(&Arc::new(demand.quiet), demand.busy);
        let now = self.now();
        let picture = self.gatherer.picture(now);
        self.reporter.surroundings(picture);
        let call = if self.is_leading { Call::Tick } else { Call::Follow };
        let started = self.tracer.before(call, picture, &self.memory);
        if self.is_leading {
            let decisions = decide(picture, &mut self.memory);
            self.tracer.after(started, &decisions);
            self.forget_others(&ours);
            self.carry_out(decisions);
            self.take_over();
            self.ensure_monitors();
            if !self.parts.routes.is_complete() && ours.is_subset(&self.decided) {
                self.parts.routes.complete();
            }
            self.tell_used();
            self.parts.demands.set_anyone_asleep(self.gatherer.is_any_at_zero());
        } else {
            follow(picture, &mut self.memory);
            self.tracer.after(started, &[]);
        }
        self.measure();
        self.parts.metrics.tick_seconds.observe(begun.elapsed().as_secs_f64());
    }

    /// What is known of the inputs as a whole.
    fn measure(&self) {
        let (metrics, now) = (&self.parts.metrics, self.parts.demands.now());
        let age = now.saturating_sub(self.known_until).as_secs_f64();
        metrics.input_age_seconds.get_or_create(&InputLabels::DEMAND).set(age);
        metrics.waiting_requests.set(self.gatherer.waiting_requests() as i64);
        metrics.nodes_avoided.set(i64::try_from(self.memory.avoided(now)).unwrap_or(i64::MAX));
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

    /// Decides on these revisions at once. Their demand of this instant counts; whole seconds are
    /// the ticks' own.
    fn between_ticks(&mut self, keys: &BTreeSet<RevisionKey>) {
        if !self.is_leading || keys.is_empty() {
            return;
        }
        self.gather_latency();
        for key in keys {
            let in_flight = self.parts.demands.board().in_flight(key);
            self.gatherer.set_in_flight(key, in_flight);
        }
        let now = self.now();
        let picture = self.gatherer.picture(now);
        let started = self.tracer.before(Call::Some(keys.clone()), picture, &self.memory);
        let decisions = decide_some(picture, keys, &mut self.memory);
        self.tracer.after(started, &decisions);
        self.carry_out(decisions);
    }

    fn forget_others(&mut self, ours: &BTreeSet<RevisionKey>) {
        let gone: Vec<RevisionKey> = self.decided.difference(ours).cloned().collect();
        for key in gone {
            self.decided.remove(&key);
            self.reporter.forget(&key);
            self.cold_starts.forget(&key);
        }
        self.parts.routes.retain(self.gatherer.nodes(), ours);
    }

    fn autoscaler(&self, key: &RevisionKey) -> Option<Arc<PodAutoscaler>> {
        self.parts.objects.autoscalers.get(&ObjectRef::new(&key.revision).within(&key.namespace))
    }

    fn carry_out(&mut self, decisions: Vec<Result<Decision, DecideError>>) {
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
        let entry = Entry { service: decision.service.clone(), routes: decision.routes.clone() };
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
        if job.is_empty() || !self.busy.begin_write(&key) {
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
    fn take_over(&mut self) {
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
            if !self.busy.begin_write(&key) {
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
    fn ensure_monitors(&mut self) {
        if self.parts.is_dry_run || !self.parts.monitors.are_there() {
            return;
        }
        let missing: Vec<RevisionKey> =
            self.decided.iter().filter(|key| !self.gatherer.has_monitor(key)).take(MONITORS_AT_ONCE).cloned().collect();
        for key in missing {
            let Some(autoscaler) = self.autoscaler(&key) else { continue };
            if self.busy.begin_write(&key) {
                let (client, monitors) = (self.parts.client.clone(), self.parts.monitors.clone());
                self.writes.spawn(async move {
                    let is_written = monitors.ensure(&client, &autoscaler).await;
                    Done::Monitored(key, is_written)
                });
            }
        }
    }

    fn done(&mut self, done: Done) {
        let (key, error) = match done {
            Done::Written(written, begun) => {
                self.parts.metrics.write_seconds.observe(begun.elapsed().as_secs_f64());
                self.wrote(*written)
            }
            Done::Monitored(key, is_written) => {
                self.gatherer.written(&key).has_monitor |= is_written;
                self.busy.wrote(&key);
                return;
            }
            Done::TakenOver(key, result) => {
                if let (Ok(()), Some(autoscaler)) = (&result, self.autoscaler(&key)) {
                    self.reporter.taken_over(&autoscaler, &key);
                }
                (key, result.err())
            }
        };
        self.busy.wrote(&key);
        match error {
            Some(error) => {
                self.retries.failed(&key, Instant::now());
                self.reporter.failed(&key, &error);
            }
            None => {
                self.retries.succeeded(&key);
                // Inputs may have changed while it was written.
                let dirty = self.gatherer.absorb_revision(&key);
                self.between_ticks(&dirty);
            }
        }
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

    /// Tells which nodes send or serve requests.
    fn tell_used(&self) {
        let mut used = self.parts.routes.serving();
        used.extend(self.gatherer.senders());
        self.parts.used.send_if_modified(|held| {
            let is_changed = *held != used;
            *held = used;
            is_changed
        });
    }
}
