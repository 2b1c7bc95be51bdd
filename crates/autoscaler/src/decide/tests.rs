//! Simulated timelines: a small cluster that obeys decisions, second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_api::{Reachability, set_condition};
use placement::CostMatrix;
use placement::plan::Verdict;
use placement::problem::CostModel;

use super::*;
use crate::handback::BackStep;
use crate::kpa::SourceDemand;
use crate::picture::{ActivatorProbe, Network, Now, ObservedDemand, ServerlessFacts};
use crate::rollout::{Counts, Pod, Step};
use crate::room::{NodeRoom, Resources, Template};
use crate::routes::Routes;
use crate::settings::{ClusterSettings, RevisionSettings};
use crate::trace::{DecisionRecorder, TracedCall};

mod evidence;
mod forecast;
mod goal;
mod rule;
mod trace;
mod warm;
mod why;
mod wishes;

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// Round trips between node1 and node2, node1 and node3, node2 and node3.
fn network(version: u64, one_two: f64, one_three: f64, two_three: f64) -> Arc<Network> {
    let seconds = placement_costs(&[[0.0, one_two, one_three], [one_two, 0.0, two_three], [one_three, two_three, 0.0]]);
    Arc::new(Network { version, costs: seconds, model: CostModel::LocalFirst })
}

fn placement_costs(rows: &[[f64; 3]; 3]) -> CostMatrix {
    let flat = rows.iter().flatten().copied().collect();
    CostMatrix::from_row_major(NODES.map(NodeName::from).to_vec(), flat)
}

/// A revision with a cluster around it that does what it is told: pods are ready two seconds after
/// they are asked for, the public Service follows the mode at once, and an activator answers behind
/// it.
struct World {
    second: u64,
    key: RevisionKey,
    status: PodAutoscalerStatus,
    sks: Option<ServerlessFacts>,
    settings: RevisionSettings,
    template: Template,
    room: Vec<NodeRoom>,
    /// Nodes on which no pod ever gets ready.
    broken: Vec<&'static str>,
    pods: Vec<(Pod, u64)>,
    /// A pod that the watch has not shown yet.
    unseen: Option<String>,
    seika: Counts,
    deployment: u32,
    handing_back: bool,
    /// While it is handed back: pods that are to go on serving, and those that the last second
    /// left.
    back: Option<(u32, u32)>,
    earns_locality: bool,
    activator: Option<ActivatorProbe>,
    no_activator: bool,
    demand_unknown: bool,
    /// Whether requests are in flight that no second shows yet.
    is_sample_late: bool,
    service_seconds: BTreeMap<NodeName, f64>,
    memory: Memory,
    network: Arc<Network>,
    /// Requests in flight and per second by source.
    load: BTreeMap<NodeName, SourceDemand>,
    routes: Option<Arc<Routes>>,
    /// What was noteworthy.
    fewest_serving: usize,
    moves: usize,
    /// Lines of a recording, while there is one.
    recording: Option<(DecisionRecorder, Vec<String>)>,
}

impl World {
    /// The demo, with its bootstrap pod on node1.
    fn born() -> Self {
        let own = [("target", "10"), ("window", "12s")].map(|(k, v)| (format!("autoscaling.knative.dev/{k}"), v.to_owned()));
        let mut settings = RevisionSettings::read(&BTreeMap::from(own), 0, true, &ClusterSettings::default());
        settings.scale_to_zero_grace = Duration::from_secs(6);
        let room = NODES.map(|node| NodeRoom {
            node: node.into(),
            offers: Resources { cpu_millis: 20_000, memory_bytes: 1 << 40, pods: 110, ..Resources::default() },
            taken: Resources::default(),
            taken_ports: Vec::new(),
            is_ready: true,
            is_cordoned: false,
            os: None,
            taints: Arc::default(),
            labels: Arc::default(),
        });
        let mut world = Self {
            second: 1000,
            key: RevisionKey::new("default", "hello-00001"),
            status: PodAutoscalerStatus::default(),
            sks: None,
            settings,
            template: Template {
                each: Resources { cpu_millis: 1000, memory_bytes: 1, pods: 1, ..Resources::default() },
                ..Template::default()
            },
            room: room.to_vec(),
            broken: Vec::new(),
            pods: Vec::new(),
            unseen: None,
            seika: Counts::new(),
            deployment: 1,
            handing_back: false,
            back: None,
            earns_locality: true,
            activator: None,
            no_activator: false,
            demand_unknown: false,
            is_sample_late: false,
            service_seconds: BTreeMap::new(),
            memory: Memory::default(),
            // node1 and node2 one millisecond apart, node3 fifty from both.
            network: network(1, 0.001, 0.050, 0.050),
            load: BTreeMap::new(),
            routes: None,
            fewest_serving: usize::MAX,
            moves: 0,
            recording: None,
        };
        world.add("boot", Some("node1"), Maker::Deployment);
        world
    }

    fn add(&mut self, name: &str, node: Option<&str>, maker: Maker) {
        let mut pod = Pod::on(name, node.unwrap_or("none"), maker);
        if node.is_none() {
            (pod.node, pod.meant_for) = (None, None);
        }
        self.pods.push((pod, self.second + 2));
    }

    fn loads(&mut self, sources: &[(&str, f64, f64)]) {
        let demand = |concurrency, requests_per_second| SourceDemand { concurrency, requests_per_second };
        self.load = sources.iter().map(|&(node, in_flight, rate)| (node.into(), demand(in_flight, rate))).collect();
    }

    /// Where ready pods are, in name order of the nodes.
    fn ready(&self) -> [usize; 3] {
        NODES.map(|node| {
            self.pods.iter().filter(|(pod, _)| pod.is_ready && pod.node.as_ref().is_some_and(|on| on.as_str() == node)).count()
        })
    }

    fn active(&self) -> ConditionStatus {
        self.status.condition(PodAutoscalerStatus::ACTIVE).unwrap().status
    }

    fn row(&self, source: &str) -> Option<Vec<u32>> {
        let routes = self.routes.as_ref()?;
        let position = routes.nodes().iter().position(|node| node.as_str() == source)?;
        Some(routes.to_matrix()[position].clone())
    }

    fn node(&mut self, name: &str) -> &mut NodeRoom {
        self.room.iter_mut().find(|room| room.node.as_str() == name).unwrap()
    }

    fn picture(&self) -> Picture {
        let now = Now { wall: Timestamp::from_second(self.second as i64).unwrap(), monotonic: Duration::from_secs(self.second) };
        let mut room = self.room.clone();
        let seen = || self.pods.iter().map(|(pod, _)| pod).filter(|pod| self.unseen.as_ref() != Some(&pod.name));
        for pod in seen() {
            if let Some(node) = room.iter_mut().find(|room| pod.node.as_ref() == Some(&room.node)) {
                node.taken += &self.template.each;
            }
        }
        let facts = Facts {
            uid: "one".to_owned(),
            service: "hello".to_owned(),
            generation: 1,
            created: Some(Timestamp::from_second(1000).unwrap()),
            status: self.status.clone(),
            reachability: Reachability::Reachable,
            settings: self.settings.clone(),
            sks: self.sks.clone(),
            pods: seen().cloned().collect(),
            seika: self.seika.clone(),
            deployment: self.deployment,
            deployment_generation: 1,
            template: Arc::new(self.template.clone()),
            each: self.template.each.clone(),
            earns_locality: self.earns_locality,
            is_seika_observed: true,
            is_handing_back: self.handing_back,
            was_handed_back: false,
        };
        let in_flight = self.load.iter().filter(|(_, d)| d.concurrency >= 1.0).map(|(n, d)| (n.clone(), d.concurrency)).collect();
        let seconds = if self.is_sample_late { BTreeMap::new() } else { self.load.clone() };
        let sample = (!self.demand_unknown).then_some(seconds);
        let demand = ObservedDemand {
            seconds: vec![(self.second, sample)],
            in_flight,
            service_seconds: self.service_seconds.clone(),
            is_unknown: self.demand_unknown,
        };
        let inputs = Inputs { facts: Arc::new(facts), demand: Arc::new(demand), activator: self.activator };
        Picture {
            now,
            network: self.network.clone(),
            room: Arc::new(room),
            revisions: BTreeMap::from([(self.key.clone(), inputs)]),
        }
    }

    fn look(&mut self) -> Option<Decision> {
        let picture = self.picture();
        let begun = self.recording.as_mut().map(|(recorder, _)| recorder.before(TracedCall::Tick, &picture, &self.memory));
        let mut decisions = decide(&picture, &mut self.memory);
        if let (Some(begun), Some((_, lines))) = (begun, &mut self.recording) {
            lines.push(begun.line(&decisions).unwrap());
        }
        decisions.pop().map(Result::unwrap)
    }

    fn obey(&mut self, decision: Decision) {
        let mut sks = self.sks.take().unwrap_or_else(|| ServerlessFacts {
            name: "hello-00001".to_owned(),
            is_owned: true,
            generation: 1,
            mode: ServingMode::Serve,
            status: None,
        });
        sks.mode = decision.mode;
        let any_ready = self.pods.iter().any(|(pod, _)| pod.is_ready);
        let mut status = sks.status.take().unwrap_or_default();
        let now = Timestamp::from_second(self.second as i64).unwrap();
        status.observed_generation = 1;
        (status.service_name, status.private_service_name) = ("hello-00001".to_owned(), "hello-00001-private".to_owned());
        let state = |is| if is { ConditionStatus::True } else { ConditionStatus::False };
        set_condition(&mut status.conditions, ServerlessServiceStatus::READY, state(any_ready), None, now);
        let activators = !any_ready || decision.mode == ServingMode::Proxy;
        set_condition(&mut status.conditions, ServerlessServiceStatus::ACTIVATORS, state(activators), None, now);
        sks.status = Some(status);
        self.sks = Some(sks);
        if decision.probe_activator {
            let is_activator = activators && !self.no_activator;
            self.activator = Some(ActivatorProbe { at: Duration::from_secs(self.second), is_activator });
        }

        self.status = decision.status;
        self.routes = decision.routes;
        self.moves += usize::from(matches!(decision.target.verdict, Some(Verdict::Moved | Verdict::MovedPartly)));
        let counts = match (decision.step, decision.back) {
            (Some(step), _) => Some((step.seika, step.deployment, step.victims)),
            (None, Some(BackStep::Counts { deployment, seika })) => Some((seika, deployment, Vec::new())),
            _ => None,
        };
        if let Some((seika, deployment, victims)) = counts {
            self.seika = seika;
            self.deployment = deployment;
            let deployed = |pods: &[(Pod, u64)]| pods.iter().filter(|(pod, _)| pod.maker == Maker::Deployment).count();
            while deployed(&self.pods) > deployment as usize {
                // The named ones first, then those that are not ready, as Kubernetes chooses.
                let deployed = self.pods.iter().enumerate().filter(|(_, (pod, _))| pod.maker == Maker::Deployment);
                let victim = deployed.min_by_key(|(_, (pod, _))| (!victims.contains(&pod.name), pod.is_ready));
                let victim = victim.map(|(position, _)| position).unwrap();
                self.pods.remove(victim);
            }
        }
        for node in NODES {
            let here = |(pod, _): &&(Pod, u64)| pod.maker == Maker::Seika && pod.place().is_some_and(|on| on.as_str() == node);
            let told = self.seika.get(node).copied().unwrap_or(0) as usize;
            let mut there = self.pods.iter().filter(here).count();
            while there < told {
                self.add(&format!("{node}-{}-{there}", self.second), Some(node), Maker::Seika);
                there += 1;
            }
            while there > told {
                let unready = self.pods.iter().position(|pod| here(&pod) && !pod.0.is_ready);
                let last = unready.or(self.pods.iter().rposition(|pod| here(&pod))).unwrap();
                self.pods.remove(last);
                there -= 1;
            }
        }
        let deployed = |pods: &[(Pod, u64)]| pods.iter().filter(|(pod, _)| pod.maker == Maker::Deployment).count();
        while deployed(&self.pods) < self.deployment as usize {
            let node = self.room_for_one();
            self.add(&format!("{}-{}", self.second, self.pods.len()), node, Maker::Deployment);
            let last = self.pods.last_mut().unwrap();
            last.0.trouble = node.is_none().then(|| "Unschedulable".to_owned());
        }
    }

    /// A node with room for one more, as a scheduler would find it.
    fn room_for_one(&self) -> Option<&'static str> {
        let picture = self.picture();
        let open = picture
            .room
            .iter()
            .position(|room| room.is_ready && !room.is_cordoned && room.offers.fit(&room.taken, &self.template.each) > 0);
        open.map(|position| NODES[position])
    }

    /// Binds pods of the Deployment that found no node when they were made.
    fn schedule(&mut self) {
        for position in 0..self.pods.len() {
            if self.pods[position].0.place().is_none()
                && self.pods[position].0.trouble.is_some()
                && let Some(node) = self.room_for_one()
            {
                let ready_at = self.second + 2;
                let (pod, at) = &mut self.pods[position];
                (pod.node, pod.trouble, *at) = (Some(node.into()), None, ready_at);
            }
        }
    }

    /// Runs what the kubelets can run, and says what Kubernetes knows of it. Names of the pods that
    /// serve, and of those on nodes that are not heard of.
    fn run_pods(&mut self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut serving, mut silent) = (BTreeSet::new(), BTreeSet::new());
        for (pod, ready_at) in &mut self.pods {
            let is_broken = pod.node.as_ref().is_some_and(|node| self.broken.contains(&node.as_str()));
            if is_broken {
                pod.trouble = Some("ErrImagePull".to_owned());
            } else if pod.node.is_some() {
                pod.trouble = None;
            }
            let is_serving = *ready_at <= self.second && pod.node.is_some() && !is_broken;
            let is_silent = self.room.iter().any(|room| !room.is_ready && pod.node.as_ref() == Some(&room.node));
            // Kubernetes calls the pods of a node that it does not hear of not ready.
            pod.is_ready = is_serving && !is_silent;
            serving.extend(is_serving.then(|| pod.name.clone()));
            silent.extend(is_silent.then(|| pod.name.clone()));
        }
        (serving, silent)
    }

    /// Lets so many seconds pass.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            self.schedule();
            let (serving, _) = self.run_pods();
            if let Some(decision) = self.look() {
                self.obey(decision);
            }
            let left = self.pods.iter().filter(|(pod, _)| serving.contains(&pod.name)).count();
            self.fewest_serving = self.fewest_serving.min(left);
        }
    }
}

#[test]
fn from_birth_to_zero_and_back_on_the_node_that_asks() {
    let mut world = World::born();
    world.pass(1);
    assert_eq!((world.active(), world.deployment, world.seika.len()), (ConditionStatus::Unknown, 1, 0));
    world.pass(3);
    assert_eq!((world.active(), world.ready()), (ConditionStatus::True, [1, 0, 0]));
    assert_eq!(world.sks.as_ref().unwrap().mode, ServingMode::Serve);
    // Nobody asks: hidden after its window, and gone when the activators are in.
    world.pass(12);
    assert_eq!((world.active(), world.ready()), (ConditionStatus::False, [1, 0, 0]));
    assert_eq!(world.sks.as_ref().unwrap().mode, ServingMode::Proxy);
    world.pass(8);
    assert_eq!((world.ready(), world.deployment, world.seika.clone()), ([0, 0, 0], 0, Counts::new()));
    assert!(world.status.is_initialized() && world.routes.is_none());
    // One request enters node3 and is held.
    world.loads(&[("node3", 1.0, 0.0)]);
    world.pass(1);
    assert_eq!((world.seika.clone(), world.active()), (Counts::from([("node3".into(), 1)]), ConditionStatus::Unknown));
    world.pass(3);
    assert_eq!((world.ready(), world.active(), world.deployment), ([0, 0, 1], ConditionStatus::True, 0));
    assert_eq!(world.row("node1"), Some(vec![0, 0, 100]));
    // Answered; the pod stays for a window and goes again.
    world.loads(&[]);
    world.pass(11);
    assert_eq!(world.ready(), [0, 0, 1]);
    world.pass(25);
    assert_eq!((world.ready(), world.seika.clone()), ([0, 0, 0], Counts::new()));
}

#[test]
fn load_that_moves_takes_its_pod_along_without_a_gap() {
    let mut world = World::born();
    world.loads(&[("node1", 0.1, 20.0)]);
    world.pass(20);
    assert_eq!((world.ready(), world.deployment), ([1, 0, 0], 1));
    world.fewest_serving = usize::MAX;
    world.loads(&[("node3", 0.1, 20.0)]);
    world.pass(6);
    // It has earned a pod of its own there, while the window still remembers node1.
    assert_eq!(world.ready(), [1, 0, 1]);
    assert_eq!(world.row("node3"), Some(vec![0, 0, 100]));
    world.pass(20);
    assert_eq!((world.ready(), world.deployment), ([0, 0, 1], 0));
    assert!(world.fewest_serving >= 1);
}

#[test]
fn stray_requests_draw_no_pod_to_them() {
    let mut world = World::born();
    world.pass(4);
    // One that takes long on its way weighs more than many short ones while the window remembers
    // it.
    let (stray, steady) = (("node3", 0.25, 2.0), ("node1", 0.015, 5.0));
    for (load, seconds) in [(&[stray][..], 1), (&[], 1), (&[steady], 10), (&[steady, stray], 1), (&[steady], 5)] {
        world.loads(load);
        for _ in 0..seconds {
            world.pass(1);
            assert_eq!((world.ready(), world.deployment, world.seika.len()), ([1, 0, 0], 1, 0));
        }
    }
    // One that goes on does.
    world.loads(&[stray]);
    world.pass(20);
    assert_eq!((world.ready(), world.deployment), ([0, 0, 1], 0));
}

/// A pod that starts elsewhere costs more than a request a second saves on a short link.
#[test]
fn a_gain_that_would_earn_no_pod_moves_none() {
    let mut world = World::born();
    world.loads(&[("node2", 0.001, 1.0)]);
    world.pass(40);
    assert_eq!((world.ready(), world.deployment, world.moves), ([1, 0, 0], 1, 0));
    world.loads(&[("node2", 0.02, 20.0)]);
    world.pass(20);
    assert_eq!((world.ready(), world.deployment), ([0, 1, 0], 0));
}

#[test]
fn load_from_both_ends_is_answered_on_both() {
    let mut world = World::born();
    world.loads(&[("node1", 0.1, 20.0), ("node3", 0.1, 20.0)]);
    world.pass(15);
    assert_eq!(world.ready(), [1, 0, 1]);
    assert_eq!((world.row("node1"), world.row("node3")), (Some(vec![100, 0, 0]), Some(vec![0, 0, 100])));
    // Switched off, the load alone asks for one.
    let mut settings = world.settings.clone();
    world.earns_locality = false;
    settings.max_scale = Some(1);
    world.settings = settings;
    world.pass(20);
    assert_eq!(world.ready().iter().sum::<usize>(), 1);
}

#[test]
fn a_burst_spreads_by_where_it_enters() {
    let mut world = World::born();
    world.loads(&[("node1", 20.0, 400.0), ("node3", 10.0, 200.0)]);
    world.pass(20);
    let ready = world.ready();
    assert!(ready.iter().sum::<usize>() >= 5 && ready[0] >= 3 && ready[2] >= 2, "{ready:?}");
    assert_eq!(world.row("node3"), Some(vec![0, 0, 100]));
}

#[test]
fn an_unknown_gateway_keeps_what_runs() {
    let mut world = World::born();
    world.pass(4);
    world.demand_unknown = true;
    world.pass(120);
    assert_eq!(world.ready(), [1, 0, 0]);
    world.demand_unknown = false;
    world.pass(40);
    assert_eq!(world.ready(), [0, 0, 0]);
}

#[test]
fn a_restart_changes_nothing_that_serves() {
    let mut world = World::born();
    world.loads(&[("node1", 20.0, 400.0)]);
    world.pass(20);
    let before = (world.ready(), world.seika.clone());
    world.memory = Memory::default();
    let decision = world.look().unwrap();
    assert!(decision.step.is_none_or(|step| step.seika == before.1));
    world.pass(10);
    assert_eq!((world.ready(), world.seika.clone()), before);
}

#[test]
fn noise_of_the_network_moves_nothing() {
    let mut world = World::born();
    world.loads(&[("node1", 2.0, 40.0), ("node2", 2.0, 40.0)]);
    world.settings.max_scale = Some(1);
    world.pass(20);
    let before = world.ready();
    for (version, rtt_seconds) in (2..).zip([0.0009, 0.0011, 0.0008, 0.0012]) {
        world.network = network(version, rtt_seconds, 0.050, 0.050);
        world.pass(3);
        assert_eq!(world.ready(), before);
    }
}

/// The only source can host no pod, and two candidates lie at nearly the same distance.
#[test]
fn noise_of_slow_links_moves_nothing() {
    let mut world = World::born();
    world.node("node3").is_cordoned = true;
    world.loads(&[("node3", 2.0, 40.0)]);
    world.network = network(2, 0.010, 0.048, 0.052);
    world.pass(20);
    let (before, moves) = (world.ready(), world.moves);
    for (version, (one, two)) in (3..).zip([(0.052, 0.048), (0.048, 0.052)].repeat(20)) {
        world.network = network(version, 0.010, one, two);
        world.pass(3);
        assert_eq!((world.ready(), world.moves), (before, moves));
    }
}

#[test]
fn nothing_known_of_the_network_still_serves() {
    let mut world = World::born();
    world.network = network(2, 10.0, 10.0, 10.0);
    world.pass(25);
    world.loads(&[("node2", 1.0, 0.0)]);
    world.pass(4);
    assert_eq!(world.ready(), [0, 1, 0]);
}

#[test]
fn nodes_that_are_full_are_said_so() {
    let mut world = World::born();
    world.settings.min_scale = 100;
    world.pass(4);
    let decision = world.look().unwrap();
    assert_eq!(decision.target.unplaced.as_ref().map(|unplaced| unplaced.replicas), Some(40));
    assert!(decision.target.shortage().unwrap().starts_with("40 pods found no node (node1 and 2 more: room for 20 pods"));
    assert_eq!(world.ready().iter().sum::<usize>(), 60);
    // One pod that is tied to no node stays pending, for a cluster autoscaler to see.
    assert_eq!(world.pods.iter().filter(|(pod, _)| pod.node.is_none()).count(), 1);
    world.pass(10);
    assert_eq!(world.pods.iter().filter(|(pod, _)| pod.node.is_none()).count(), 1);
}

/// A pod that is tied to no node says that there is no room, and with every node silent nobody
/// knows.
#[test]
fn no_pod_stays_pending_for_want_of_knowledge() {
    let mut world = World::born();
    world.loads(&[("node1", 20.0, 400.0)]);
    world.pass(20);
    let unpinned = |world: &World| world.pods.iter().filter(|(pod, _)| pod.place().is_none()).count();
    for node in NODES {
        world.node(node).is_ready = false;
    }
    let (seika, deployment) = (world.seika.clone(), world.deployment);
    world.loads(&[("node1", 35.0, 700.0)]);
    for _ in 0..60 {
        world.pass(1);
        assert_eq!((unpinned(&world), &world.seika, world.deployment), (0, &seika, deployment), "second {}", world.second);
    }
    // One node is heard of, and it is known to be full.
    world.node("node2").is_ready = true;
    world.node("node2").offers.cpu_millis = 0;
    world.pass(10);
    assert_eq!(unpinned(&world), 1);
    // What was known to have no room goes on waiting when nothing is known any more.
    world.node("node2").is_ready = false;
    world.pass(10);
    assert_eq!(unpinned(&world), 1);
}

/// A revision that is just born knows one second of its demand, and that says less than the
/// requests that it holds.
#[test]
fn pods_that_requests_in_flight_ask_for_stay_until_a_window_is_known() {
    let mut world = World::born();
    world.seika = Counts::from([("node3".into(), 1)]);
    world.add("near", Some("node3"), Maker::Seika);
    world.is_sample_late = true;
    world.loads(&[("node3", 10.0, 0.0)]);
    for _ in 0..8 {
        world.pass(1);
        assert_eq!((world.seika.values().sum::<u32>() + world.deployment, world.pods.len()), (2, 2), "second {}", world.second);
    }
    // They ask for no more pods than there are: that is for the averages to say.
    world.loads(&[("node3", 100.0, 0.0)]);
    world.pass(1);
    assert_eq!(world.pods.len(), 2);
    world.loads(&[("node3", 1.0, 0.0)]);
    world.pass(2);
    assert_eq!(world.pods.len(), 1);
}

/// What a decision before the restart asked for was measured: that some of it is not ready when the
/// program starts is no reason for fewer.
#[test]
fn a_restart_while_pods_start_takes_none_away() {
    let mut world = World::born();
    world.loads(&[("node1", 20.0, 400.0)]);
    world.pass(20);
    world.loads(&[("node1", 60.0, 1200.0)]);
    world.pass(2);
    let (seika, deployment, ready) = (world.seika.clone(), world.deployment, world.ready().iter().sum::<usize>());
    assert!(world.pods.len() > ready, "some pods start: {:?}", world.pods);
    for is_held in [true, false] {
        world.memory = Memory::default();
        world.loads(if is_held { &[("node1", 1.0, 20.0)] } else { &[] });
        for is_unknown in [true, false] {
            world.demand_unknown = is_unknown;
            let decision = world.look().unwrap();
            let step = decision.step.unwrap_or_else(|| Step { seika: seika.clone(), deployment, victims: Vec::new() });
            assert_eq!((&step.seika, step.deployment), (&seika, deployment), "held {is_held}, unknown {is_unknown}");
        }
    }
}

#[test]
fn a_min_scale_above_the_initial_one_is_reached_without_doubling() {
    let mut world = World::born();
    world.settings.min_scale = 3;
    // The Deployment's pod is not even scheduled yet.
    world.pods[0].0.node = None;
    world.pass(1);
    assert_eq!((world.seika.values().sum::<u32>(), world.deployment), (2, 1));
    world.pods[0].0.node = Some("node1".into());
    world.pass(5);
    assert_eq!((world.ready().iter().sum::<usize>(), world.active()), (3, ConditionStatus::True));
    world.pass(30);
    assert_eq!(world.ready().iter().sum::<usize>(), 3);
}

/// The rule above all others, in what the API server may show of nodes.
#[test]
fn nodes_that_are_not_heard_of_lose_no_pod() {
    let mut world = World::born();
    world.loads(&[("node1", 20.0, 400.0), ("node3", 6.0, 100.0)]);
    world.pass(20);
    let ((before, _), seika) = (world.run_pods(), world.seika.clone());
    world.fewest_serving = usize::MAX;
    for node in NODES {
        world.node(node).is_ready = false;
    }
    world.pass(90);
    assert_eq!((world.run_pods().0, &world.seika), (before.clone(), &seika));
    for node in NODES {
        world.node(node).is_ready = true;
    }
    world.pass(30);
    assert_eq!(world.fewest_serving, before.len());
}

/// Its pods stay, and are replaced once: those that replace them are no reason for more.
#[test]
fn demand_that_is_unknown_beside_a_silent_node_starts_no_pod_after_pod() {
    for is_unknown in [true, false] {
        let mut world = World::born();
        world.loads(&[("node1", 4.0, 40.0), ("node3", 4.0, 40.0)]);
        world.pass(30);
        let before = world.pods.len();
        world.node("node1").is_ready = false;
        world.demand_unknown = is_unknown;
        if !is_unknown {
            // Somebody waits, and a program that has just started knows nothing else.
            world.is_sample_late = true;
            world.memory = Memory::default();
        }
        for _ in 0..30 {
            world.pass(1);
            let pods: Vec<_> = world.pods.iter().map(|(pod, _)| &pod.name).collect();
            assert!(pods.len() <= before + 1, "second {}: {pods:?}", world.second);
        }
    }
}

/// Kubernetes calls the pods of a node not ready once its kubelet is not heard of, whoever made
/// them.
#[test]
fn bootstrap_pods_of_a_node_that_is_not_heard_of_stay() {
    let mut world = World::born();
    world.pass(3);
    assert!(world.pods.iter().any(|(pod, _)| pod.maker == Maker::Deployment && pod.is_ready));
    world.loads(&[("node1", 4.0, 40.0), ("node3", 4.0, 40.0)]);
    world.node("node1").is_ready = false;
    for _ in 0..60 {
        world.second += 1;
        world.run_pods();
        let Some(decision) = world.look() else { continue };
        if let Some(step) = &decision.step {
            assert!(step.victims.is_empty() && step.deployment >= 1, "second {}: {step:?}", world.second);
        }
        world.obey(decision);
    }
    assert!(world.pods.iter().any(|(pod, _)| pod.is_ready), "nothing was started elsewhere: {:?}", world.pods);
}

#[test]
fn nodes_that_are_closed_to_new_pods_keep_those_they_have() {
    type Close = fn(&mut World);
    let close: [(&str, Close); 4] = [
        ("cordon", |world| NODES.iter().for_each(|node| world.node(node).is_cordoned = true)),
        ("label", |world| drop(world.template.node.selector.insert("disk".to_owned(), "ssd".to_owned()))),
        ("template", |world| world.template.each.cpu_millis = 15_000),
        ("no room", |world| NODES.iter().for_each(|node| world.node(node).offers.cpu_millis = 100)),
    ];
    for (name, close) in close {
        let mut world = World::born();
        world.loads(&[("node1", 20.0, 400.0)]);
        world.pass(20);
        let before = world.ready();
        world.fewest_serving = usize::MAX;
        close(&mut world);
        world.pass(60);
        assert_eq!((world.ready(), world.fewest_serving), (before, before.iter().sum()), "{name}");
    }
}

#[test]
fn links_that_no_probe_crosses_take_nothing_away() {
    let mut world = World::born();
    world.node("node3").is_cordoned = true;
    world.loads(&[("node3", 6.0, 100.0)]);
    world.pass(20);
    let before = world.ready();
    assert_eq!(before.iter().sum::<usize>(), 1);
    world.network = network(2, 10.0, 10.0, 10.0);
    world.pass(60);
    assert_eq!(world.ready(), before);
}

#[test]
fn what_a_drain_evicts_comes_back_elsewhere_at_once() {
    let mut world = World::born();
    world.settings.min_scale = 1;
    world.loads(&[("node1", 5.0, 100.0)]);
    world.pass(20);
    assert_eq!(world.ready(), [1, 0, 0]);
    world.node("node1").is_cordoned = true;
    world.pass(3);
    assert_eq!(world.ready(), [1, 0, 0], "a cordon alone moves nothing");
    world.pods.clear();
    world.deployment = 0;
    world.pass(1);
    assert_eq!(world.seika, Counts::from([("node2".into(), 1)]));
    world.pass(3);
    assert_eq!(world.ready(), [0, 1, 0]);
}

#[test]
fn a_node_that_refuses_pods_is_avoided_within_seconds() {
    let mut world = World::born();
    world.broken = vec!["node3"];
    world.pass(4);
    world.loads(&[("node3", 5.0, 100.0)]);
    world.settings.min_scale = 2;
    world.pass(30);
    let ready = world.ready();
    assert_eq!((ready[2], ready.iter().sum::<usize>()), (0, 2), "{ready:?}");
    assert_eq!(world.seika.get("node3"), None);
}

/// A burst from one node: the bootstrap pod on another follows once the source is steady.
#[test]
fn what_was_placed_before_a_source_was_steady_is_planned_again() {
    let mut world = World::born();
    world.pass(3);
    world.loads(&[("node3", 30.0, 30.0)]);
    world.pass(25);
    assert_eq!((world.ready(), world.deployment), ([0, 0, 5], 0));
}

#[test]
fn a_deleted_revision_leaves_nothing() {
    let mut world = World::born();
    world.loads(&[("node1", 20.0, 400.0)]);
    world.pass(3);
    assert!(!world.memory.is_empty() && !world.memory.reserved.is_empty());
    let mut picture = world.picture();
    picture.revisions.clear();
    assert!(decide(&picture, &mut world.memory).is_empty());
    assert!(world.memory.is_empty() && world.memory.reserved.is_empty());
}

/// Two revisions are woken by the same node's last free place.
#[test]
fn one_place_is_given_once() {
    let mut world = World::born();
    world.pods.clear();
    world.deployment = 0;
    set_condition(
        &mut world.status.conditions,
        PodAutoscalerStatus::INITIALIZED,
        ConditionStatus::True,
        None,
        Timestamp::UNIX_EPOCH,
    );
    set_condition(&mut world.status.conditions, PodAutoscalerStatus::ACTIVE, ConditionStatus::False, None, Timestamp::UNIX_EPOCH);
    world.node("node3").offers.cpu_millis = 1000;
    world.loads(&[("node3", 1.0, 1.0)]);
    let mut picture = world.picture();
    let inputs = picture.revisions[&world.key].clone();
    picture.revisions.insert(RevisionKey::new("default", "other-00001"), inputs);
    let decisions = decide(&picture, &mut world.memory);
    let on_node3 =
        decisions.iter().filter(|decision| decision.as_ref().unwrap().step.as_ref().unwrap().seika.contains_key("node3"));
    assert_eq!(on_node3.count(), 1);
    assert_eq!(decisions.len(), 2);
}

#[test]
fn the_last_pod_stays_while_no_activator_answers() {
    let mut world = World::born();
    world.no_activator = true;
    world.pass(120);
    assert_eq!((world.active(), world.ready()), (ConditionStatus::False, [1, 0, 0]));
    world.no_activator = false;
    world.pass(10);
    assert_eq!(world.ready(), [0, 0, 0]);
}

#[test]
fn one_pod_outlives_a_restart_of_the_controller() {
    let mut world = World::born();
    world.loads(&[("node1", 0.5, 1.0)]);
    world.pass(110);
    world.memory = Memory::default();
    world.loads(&[]);
    world.pass(8);
    assert_eq!((world.ready(), world.active()), ([1, 0, 0], ConditionStatus::True));
}

#[test]
fn a_revision_that_cannot_start_is_given_up_once() {
    let mut world = World::born();
    world.settings.progress_deadline = Duration::from_secs(10);
    world.broken = NODES.to_vec();
    world.pass(45);
    assert_eq!((world.active(), world.seika.clone(), world.deployment), (ConditionStatus::False, Counts::new(), 0));
    for _ in 0..60 {
        world.pass(1);
        assert_eq!((world.active(), world.seika.clone()), (ConditionStatus::False, Counts::new()));
    }
}

#[test]
fn a_source_that_can_host_no_pod_earns_none() {
    let mut world = World::born();
    world.node("node3").is_cordoned = true;
    world.loads(&[("node1", 0.1, 20.0), ("node3", 0.1, 20.0)]);
    world.pass(20);
    assert_eq!(world.ready().iter().sum::<usize>(), 1);
}

#[test]
fn handing_back_ends_also_where_both_sets_have_no_room() {
    let mut world = World::born();
    NODES.iter().for_each(|node| world.node(node).offers.cpu_millis = 1000);
    world.loads(&[("node1", 20.0, 400.0)]);
    world.pass(20);
    assert_eq!(world.ready().iter().sum::<usize>(), 3);
    world.handing_back = true;
    world.fewest_serving = usize::MAX;
    world.pass(30);
    assert_eq!((world.seika.clone(), world.deployment), (Counts::new(), 3));
    assert_eq!(world.ready().iter().sum::<usize>(), 3);
    assert!(world.fewest_serving >= 2);
    assert!(matches!(world.look().unwrap().back, Some(BackStep::Flip(_))));
}

#[test]
fn at_rest_nothing_is_decided() {
    let mut world = World::born();
    world.pass(40);
    assert_eq!(world.ready(), [0, 0, 0]);
    assert!(world.look().is_none());
    world.loads(&[("node3", 1.0, 1.0)]);
    assert!(world.look().is_some());
}
