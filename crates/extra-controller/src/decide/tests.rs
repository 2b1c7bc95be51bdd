//! Simulated timelines: a small cluster that obeys decisions, second by second.

use k8s_openapi::api::core::v1::ObjectReference;
use placement::{PairState, PairStats};

use super::*;
use crate::knative::{PodAutoscalerSpec, ServerlessServiceSpec, set_condition};
use crate::settings::ClusterSettings;

/// node1 and node2 one millisecond apart, node3 fifty from both.
fn latency() -> LatencyMatrix {
    let mut matrix = LatencyMatrix::new(["node1", "node2", "node3"].map(NodeName::from).to_vec()).unwrap();
    for (from, to, rtt_seconds) in [("node1", "node2", 0.001), ("node1", "node3", 0.050), ("node2", "node3", 0.050)] {
        matrix.set_symmetric(&from.into(), &to.into(), PairState::Known(PairStats::constant(rtt_seconds))).unwrap();
    }
    matrix
}

/// A revision with a cluster around it that does what it is told: pods are ready two seconds after they are asked for, the public Service
/// follows the mode at once.
struct World {
    second: u64,
    key: RevisionKey,
    autoscaler: PodAutoscaler,
    sks: Option<ServerlessService>,
    settings: RevisionSettings,
    pods: Vec<(Pod, u64)>,
    seika: Counts,
    deployment: u32,
    history: DemandHistory,
    demand_unknown: bool,
    memory: Memory,
    latency: LatencyMatrix,
    /// Requests in flight and per second by source.
    load: BTreeMap<NodeName, SourceDemand>,
    weights: Option<WeightMatrix>,
    /// What was noteworthy.
    fewest_ready: usize,
}

impl World {
    /// The demo, with its bootstrap pod on node1.
    fn born() -> Self {
        let own = [("target", "10"), ("window", "12s")].map(|(k, v)| (format!("autoscaling.knative.dev/{k}"), v.to_owned()));
        let spec = PodAutoscalerSpec {
            scale_target_ref: ObjectReference { name: Some("hello-00001-deployment".to_owned()), ..Default::default() },
            protocol_type: "http1".to_owned(),
            ..Default::default()
        };
        let mut world = Self {
            second: 1000,
            key: RevisionKey::new("default", "hello-00001"),
            autoscaler: PodAutoscaler::new("hello-00001", spec),
            sks: None,
            settings: RevisionSettings::read(&BTreeMap::from(own), 0, true, &ClusterSettings::default()),
            pods: Vec::new(),
            seika: Counts::new(),
            deployment: 1,
            history: DemandHistory::default(),
            demand_unknown: false,
            memory: Memory::default(),
            latency: latency(),
            load: BTreeMap::new(),
            weights: None,
            fewest_ready: usize::MAX,
        };
        world.autoscaler.metadata.generation = Some(1);
        world.autoscaler.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(1000).unwrap()));
        world.add("boot", Some("node1"), Maker::Deployment);
        world
    }

    fn add(&mut self, name: &str, node: Option<&str>, maker: Maker) {
        let pod = Pod { name: name.to_owned(), node: node.map(NodeName::from), maker, ready: false };
        self.pods.push((pod, self.second + 2));
    }

    fn loads(&mut self, sources: &[(&str, f64, f64)]) {
        let demand = |concurrency, requests_per_second| SourceDemand { concurrency, requests_per_second };
        self.load = sources.iter().map(|&(node, in_flight, rate)| (node.into(), demand(in_flight, rate))).collect();
    }

    /// Where ready pods are, in name order of the nodes.
    fn ready(&self) -> [usize; 3] {
        ["node1", "node2", "node3"].map(|node| {
            self.pods.iter().filter(|(pod, _)| pod.ready && pod.node.as_ref().is_some_and(|on| on.as_str() == node)).count()
        })
    }

    fn active(&self) -> ConditionStatus {
        let status = self.autoscaler.status.as_ref().unwrap();
        status.condition(PodAutoscalerStatus::ACTIVE).unwrap().status
    }

    fn row(&self, source: &str) -> Option<Vec<u32>> {
        self.weights.as_ref()?.row(&source.into())
    }

    fn look(&mut self) -> Decision {
        let now = Now { wall: Timestamp::from_second(self.second as i64).unwrap(), monotonic: Duration::from_secs(self.second) };
        let pods: Vec<Pod> = self.pods.iter().map(|(pod, _)| pod.clone()).collect();
        let nodes = ["node1", "node2", "node3"];
        let observation = Observation {
            now,
            key: &self.key,
            autoscaler: &self.autoscaler,
            sks: self.sks.as_ref(),
            settings: &self.settings,
            pods: &pods,
            seika: &self.seika,
            deployment: self.deployment,
            history: &self.history,
            held: &self.load.iter().filter(|(_, d)| d.concurrency >= 1.0).map(|(n, d)| (n.clone(), d.concurrency)).collect(),
            demand_unknown: self.demand_unknown,
            latency: &self.latency,
            capacities: &nodes.map(|node| NodeCapacity::new(node.into(), 20)),
            model: CostModel::LocalFirst,
            locality: Some(&locality::Policy::default()),
        };
        decide(&observation, &mut self.memory).unwrap()
    }

    fn obey(&mut self, decision: Decision) {
        let mut sks = self.sks.take().unwrap_or_else(|| {
            ServerlessService::new(
                "hello-00001",
                ServerlessServiceSpec {
                    mode: ServingMode::Serve,
                    object_ref: Default::default(),
                    protocol_type: String::new(),
                    num_activators: 0,
                },
            )
        });
        sks.metadata.generation = Some(1);
        sks.spec.mode = decision.mode;
        let any_ready = self.pods.iter().any(|(pod, _)| pod.ready);
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

        self.autoscaler.status = Some(decision.status);
        self.weights = decision.weights;
        if let Some(step) = decision.step {
            self.seika = step.seika;
            self.deployment = step.deployment;
            while self.pods.iter().filter(|(pod, _)| pod.maker == Maker::Deployment).count() > step.deployment as usize {
                let victim = self.pods.iter().position(|(pod, _)| step.victims.contains(&pod.name)).unwrap();
                self.pods.remove(victim);
            }
        }
        for node in ["node1", "node2", "node3"] {
            let here =
                |(pod, _): &&(Pod, u64)| pod.maker == Maker::Seika && pod.node.as_ref().is_some_and(|on| on.as_str() == node);
            let told = self.seika.get(node).copied().unwrap_or(0) as usize;
            let mut there = self.pods.iter().filter(here).count();
            while there < told {
                self.add(&format!("{node}-{}-{there}", self.second), Some(node), Maker::Seika);
                there += 1;
            }
            while there > told {
                let last = self.pods.iter().rposition(|pod| here(&pod)).unwrap();
                self.pods.remove(last);
                there -= 1;
            }
        }
    }

    /// Lets so many seconds pass.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            self.history.record(self.second, self.load.clone());
            for (pod, ready_at) in &mut self.pods {
                pod.ready = *ready_at <= self.second;
            }
            let decision = self.look();
            self.obey(decision);
            self.fewest_ready = self.fewest_ready.min(self.pods.iter().filter(|(pod, _)| pod.ready).count());
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
    assert_eq!(world.sks.as_ref().unwrap().spec.mode, ServingMode::Serve);
    // Nobody asks: hidden after its window, and gone when the activators are in.
    world.pass(12);
    assert_eq!((world.active(), world.ready()), (ConditionStatus::False, [1, 0, 0]));
    assert_eq!(world.sks.as_ref().unwrap().spec.mode, ServingMode::Proxy);
    world.pass(5);
    assert_eq!((world.ready(), world.deployment, world.seika.clone()), ([0, 0, 0], 0, Counts::new()));
    assert!(world.autoscaler.status.as_ref().unwrap().is_initialized() && world.weights.is_none());
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
    world.fewest_ready = usize::MAX;
    world.loads(&[("node3", 0.1, 20.0)]);
    world.pass(6);
    // It has earned a pod of its own there, while the window still remembers node1.
    assert_eq!(world.ready(), [1, 0, 1]);
    assert_eq!(world.row("node3"), Some(vec![0, 0, 100]));
    world.pass(20);
    assert_eq!((world.ready(), world.deployment), ([0, 0, 1], 0));
    assert!(world.fewest_ready >= 1);
}

#[test]
fn stray_requests_draw_no_pod_to_them() {
    let mut world = World::born();
    world.pass(4);
    // One that takes long on its way weighs more than many short ones while the window remembers it.
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

#[test]
fn load_from_both_ends_is_answered_on_both() {
    let mut world = World::born();
    world.loads(&[("node1", 0.1, 20.0), ("node3", 0.1, 20.0)]);
    world.pass(15);
    assert_eq!(world.ready(), [1, 0, 1]);
    assert_eq!((world.row("node1"), world.row("node3")), (Some(vec![100, 0, 0]), Some(vec![0, 0, 100])));
    // Switched off, the load alone asks for one.
    let mut settings = world.settings.clone();
    settings.locality_replicas = Some(false);
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
    world.pass(30);
    assert_eq!(world.ready(), [0, 0, 0]);
}

#[test]
fn a_restart_changes_nothing_that_serves() {
    let mut world = World::born();
    world.loads(&[("node1", 20.0, 400.0)]);
    world.pass(20);
    let before = (world.ready(), world.seika.clone());
    world.memory = Memory::default();
    world.history = DemandHistory::default();
    let decision = world.look();
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
    for rtt_seconds in [0.0009, 0.0011, 0.0008, 0.0012] {
        let state = PairState::Known(PairStats::constant(rtt_seconds));
        world.latency.set(&"node1".into(), &"node2".into(), state).unwrap();
        world.pass(3);
        assert_eq!(world.ready(), before);
    }
}

#[test]
fn nothing_known_of_the_network_still_serves() {
    let mut world = World::born();
    world.latency = LatencyMatrix::new(["node1", "node2", "node3"].map(NodeName::from).to_vec()).unwrap();
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
    let decision = world.look();
    assert_eq!(decision.unplaced.map(|unplaced| unplaced.replicas), Some(40));
    assert_eq!(world.ready().iter().sum::<usize>(), 60);
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
