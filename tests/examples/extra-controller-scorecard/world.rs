//! A cluster in numbers: nodes in a plane, revisions whose demand enters at some of them, and pods
//! that come and go at once as the decisions say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use autoscaler::kpa::SourceDemand;
use autoscaler::latency::Networks;
use autoscaler::rollout::{Counts, Maker, Pod};
use autoscaler::room::{NodeRoom, Resources, Template};
use autoscaler::settings::{ClusterSettings, RevisionSettings};
use autoscaler::{Decision, Facts, Inputs, Memory, Now, ObservedDemand, Picture, ServerlessFacts, decide};
use gateway_link::RevisionKey;
use jiff::Timestamp;
use k8s_api::{ConditionStatus, PodAutoscalerStatus, Reachability, ServerlessServiceStatus, ServingMode, set_condition};
use latency_matrix::{Freshness, LatencyBook, Measurement, NodeName, PairState, PairStats};
use placement::CostPolicy;
use placement::problem::CostModel;

/// Requests in flight at each source of a revision: twenty of them ask for fourteen pods of target
/// 10 at 70 %.
const SOURCE_CONCURRENCY: f64 = 4.62;
const SOURCE_RATE: f64 = 20.0;

/// How large it is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) revisions: usize,
    /// Of these, how many have demand; the others rest on pods of their own that nobody asks.
    pub(crate) busy: usize,
    pub(crate) sources: usize,
    pub(crate) pods: u32,
}

pub(crate) struct World {
    size: Size,
    second: u64,
    names: Vec<NodeName>,
    book: LatencyBook,
    networks: Networks,
    noise: Noise,
    picture: Picture,
    memory: Memory,
    rest: Arc<ObservedDemand>,
    keys: Vec<RevisionKey>,
}

impl World {
    pub(crate) fn new(size: Size) -> Self {
        let names: Vec<NodeName> = (0..size.nodes).map(|node| NodeName::new(format!("node-{node:05}"))).collect();
        let mut book = LatencyBook::new(Freshness::default());
        book.follow(names.iter().cloned());
        let mut networks = Networks::new(CostModel::LocalFirst, CostPolicy::default());
        let room: Vec<NodeRoom> = names.iter().map(room).collect();
        let now = Now { wall: Timestamp::UNIX_EPOCH, monotonic: Duration::ZERO };
        let network = networks.network(&book.matrix(0.0), &room, 0.0);
        let mut world = Self {
            size,
            second: 1000,
            names,
            book,
            networks,
            noise: Noise(1),
            picture: Picture { now, network, room: Arc::new(room), revisions: BTreeMap::new() },
            memory: Memory::default(),
            rest: Arc::default(),
            keys: (0..size.revisions).map(|revision| RevisionKey::new("default", format!("hello-{revision:05}"))).collect(),
        };
        for revision in 0..size.revisions {
            let inputs = Inputs { facts: Arc::new(world.born(revision)), demand: Arc::default(), activator: None };
            world.picture.revisions.insert(world.keys[revision].clone(), inputs);
        }
        world.measure_latency();
        world
    }

    /// Lets seconds pass in which demand changes by some percent and everything is obeyed.
    pub(crate) fn settle(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.next_second();
            let decisions = self.decide();
            self.obey(decisions);
        }
    }

    /// The next second comes, with its demand.
    pub(crate) fn next_second(&mut self) {
        self.second += 1;
        let wall = Timestamp::from_second(self.second.cast_signed()).unwrap_or_default();
        self.picture.now = Now { wall, monotonic: Duration::from_secs(self.second) };
        self.rest = Arc::new(ObservedDemand { seconds: vec![(self.second, Some(BTreeMap::new()))], ..ObservedDemand::default() });
        for revision in 0..self.size.revisions {
            let demand = if revision < self.size.busy { Arc::new(self.demand(revision)) } else { self.rest.clone() };
            if let Some(inputs) = self.picture.revisions.get_mut(&self.keys[revision]) {
                inputs.demand = demand;
            }
        }
    }

    /// Every pair is measured anew, and differs by up to a tenth; so does what is taken on every
    /// node.
    pub(crate) fn measure_latency(&mut self) {
        let side = self.names.len().isqrt().max(1);
        let place = |node: usize| ((node % side) as f64, (node / side) as f64);
        let mut measured = Vec::with_capacity(self.names.len() * self.names.len());
        for from in 0..self.names.len() {
            for to in (0..self.names.len()).filter(|to| *to != from) {
                let ((x, y), (u, v)) = (place(from), place(to));
                let rtt_seconds = (0.0005 + 0.002 * (x - u).hypot(y - v)) * self.noise.about_one(0.1);
                let state = PairState::Known(PairStats::constant(rtt_seconds));
                let (from, to) = (self.names[from].clone(), self.names[to].clone());
                measured.push(Measurement { from, to, state, reported_seconds_ago: 0.0 });
            }
        }
        self.book.absorb(measured, self.second as f64);
        for room in Arc::make_mut(&mut self.picture.room) {
            room.taken.cpu_millis = (10_000.0 * self.noise.about_one(0.33)) as u64;
        }
    }

    /// Something about each of the first `revisions` is different now.
    pub(crate) fn change_facts(&mut self, revisions: usize) {
        for key in &self.keys[..revisions] {
            if let Some(inputs) = self.picture.revisions.get_mut(key) {
                let facts = Facts { deployment_generation: inputs.facts.deployment_generation + 1, ..(*inputs.facts).clone() };
                inputs.facts = Arc::new(facts);
            }
        }
    }

    /// What a tick does between gathering objects and writing: the network from what was measured,
    /// and all decisions.
    pub(crate) fn decide(&mut self) -> Vec<Decision> {
        let matrix = self.book.matrix(self.second as f64);
        self.picture.network = self.networks.network(&matrix, &self.picture.room, self.second as f64);
        let decisions = decide(&self.picture, &mut self.memory);
        decisions.into_iter().map(|decision| decision.expect("sound numbers")).collect()
    }

    /// All of it is done at once.
    pub(crate) fn obey(&mut self, decisions: Vec<Decision>) {
        let wall = self.picture.now.wall;
        for decision in decisions {
            let Some(inputs) = self.picture.revisions.get_mut(&decision.key) else { continue };
            let is_same = decision.status == inputs.facts.status
                && inputs.facts.sks.as_ref().is_some_and(|sks| sks.mode == decision.mode)
                && decision.step.as_ref().is_none_or(|step| step.seika == inputs.facts.seika);
            if is_same {
                continue;
            }
            let mut facts = (*inputs.facts).clone();
            if let Some(step) = decision.step {
                facts.pods = pods(&step.seika);
                facts.seika = step.seika;
            }
            facts.sks = Some(serverless(decision.mode, wall));
            facts.status = decision.status;
            inputs.facts = Arc::new(facts);
        }
    }

    fn demand(&mut self, revision: usize) -> ObservedDemand {
        let mut sources = BTreeMap::new();
        for source in 0..self.size.sources {
            let demand = SourceDemand {
                concurrency: SOURCE_CONCURRENCY * self.noise.about_one(0.2),
                requests_per_second: SOURCE_RATE * self.noise.about_one(0.2),
            };
            sources.insert(self.names[self.source(revision, source)].clone(), demand);
        }
        let in_flight = sources.iter().map(|(node, demand)| (node.clone(), demand.concurrency.round())).collect();
        ObservedDemand { seconds: vec![(self.second, Some(sources))], in_flight, is_unknown: false, ..ObservedDemand::default() }
    }

    /// Where the `source`-th source of a revision is: coprime strides, so that all are different.
    fn source(&self, revision: usize, source: usize) -> usize {
        (revision * 131 + source * 17) % self.names.len()
    }

    fn born(&self, revision: usize) -> Facts {
        let is_busy = revision < self.size.busy;
        let count = if is_busy { self.size.pods } else { 2 };
        let bound = if is_busy { "max-scale" } else { "min-scale" };
        let annotations = [("target", "10".to_owned()), ("window", "60s".to_owned()), (bound, count.to_string())];
        let annotations = annotations.map(|(key, value)| (format!("autoscaling.knative.dev/{key}"), value));
        let settings = RevisionSettings::read(&BTreeMap::from(annotations), 0, true, &ClusterSettings::default());
        let mut seika = Counts::new();
        for pod in 0..count as usize {
            *seika.entry(self.names[self.source(revision, pod)].clone()).or_default() += 1;
        }
        let mut status = PodAutoscalerStatus::default();
        for condition in [PodAutoscalerStatus::INITIALIZED, PodAutoscalerStatus::ACTIVE] {
            set_condition(&mut status.conditions, condition, ConditionStatus::True, None, Timestamp::UNIX_EPOCH);
        }
        let each = Resources { cpu_millis: 100, memory_bytes: 128 << 20, pods: 1, ..Resources::default() };
        Facts {
            uid: format!("uid-{revision}"),
            service: format!("hello-{revision}"),
            generation: 1,
            created: Some(Timestamp::UNIX_EPOCH),
            status,
            reachability: Reachability::Reachable,
            settings,
            sks: Some(serverless(ServingMode::Serve, Timestamp::UNIX_EPOCH)),
            pods: pods(&seika),
            seika,
            deployment: 0,
            deployment_generation: 1,
            template: Arc::new(Template { each: each.clone(), ..Template::default() }),
            each,
            earns_locality: true,
            is_seika_observed: true,
            is_handing_back: false,
            was_handed_back: false,
        }
    }
}

fn room(node: &NodeName) -> NodeRoom {
    NodeRoom {
        node: node.clone(),
        offers: Resources { cpu_millis: 64_000, memory_bytes: 1 << 40, pods: 500, ..Resources::default() },
        taken: Resources { cpu_millis: 10_000, memory_bytes: 1 << 35, pods: 80, ..Resources::default() },
        taken_ports: Vec::new(),
        is_ready: true,
        is_cordoned: false,
        os: Some("linux".into()),
        taints: Arc::default(),
        labels: Arc::default(),
    }
}

fn pods(seika: &Counts) -> Vec<Pod> {
    let places = seika.iter().flat_map(|(node, count)| (0..*count).map(move |number| (node, number)));
    places
        .map(|(node, number)| Pod { is_ready: true, ..Pod::on(&format!("hello-{node}-{number}"), node.clone(), Maker::Seika) })
        .collect()
}

fn serverless(mode: ServingMode, now: Timestamp) -> ServerlessFacts {
    let mut status = ServerlessServiceStatus { observed_generation: 1, ..ServerlessServiceStatus::default() };
    (status.service_name, status.private_service_name) = ("hello".to_owned(), "hello-private".to_owned());
    set_condition(&mut status.conditions, ServerlessServiceStatus::READY, ConditionStatus::True, None, now);
    ServerlessFacts { name: "hello".to_owned(), is_owned: true, generation: 1, mode, status: Some(status) }
}

/// Numbers that look random and are the same in every run.
/// Source: xorshift64* (Vigna 2016).
struct Noise(u64);

impl Noise {
    /// Between `1 - width` and `1 + width`.
    fn about_one(&mut self, width: f64) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let unit = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64;
        1.0 + width * (2.0 * unit - 1.0)
    }
}
