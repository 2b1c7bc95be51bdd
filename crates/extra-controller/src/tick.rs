//! The tick: gather, decide, apply, report; every second, and at once for the revisions whose
//! objects changed or that have waiting requests.

mod state;
mod writing;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use autoscaler::trace::TracedCall;
use autoscaler::{ActivatorProbe, Memory, Now, decide, decide_some, follow};
use gateway_link::RevisionKey;
use jiff::Timestamp;
use kube::Client;
use latency_matrix::{LatencyMatrix, NodeName};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::state::{Busy, Retries};
use self::writing::Done;
use crate::activator::ActivatorProber;
use crate::cold_start::ColdStarts;
use crate::demand::Demands;
use crate::gather::Gatherer;
use crate::metrics::{InputLabels, Metrics};
use crate::objects::{ChangeLog, Objects};
use crate::report::Reporter;
use crate::routes::RouteBook;
use crate::service_monitor::ServiceMonitors;
use crate::trace::{TraceBook, Tracer};

/// Changes that come within this time of each other are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(5);
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
            let started = self.tracer.before(TracedCall::StopLeading, self.gatherer.picture(now), &self.memory);
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
        let call = if self.is_leading { TracedCall::Tick } else { TracedCall::Follow };
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
        let started = self.tracer.before(TracedCall::Some(keys.clone()), picture, &self.memory);
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

    /// Tells which nodes send or serve requests.
    fn tell_used(&self) {
        let mut used = self.parts.routes.serving();
        used.extend(self.gatherer.senders().into_iter().cloned());
        self.parts.used.send_if_modified(|held| {
            let is_changed = *held != used;
            *held = used;
            is_changed
        });
    }
}
