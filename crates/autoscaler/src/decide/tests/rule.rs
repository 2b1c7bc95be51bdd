//! The rule above all others, over everything that may happen to a small cluster: a decision takes
//! away a ready pod only because fewer are wanted by the demand that was measured.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    /// Requests in flight per node.
    Load([u8; 3]),
    Ready(usize, bool),
    Cordon(usize, bool),
    /// Cores that a node offers.
    Room(usize, u16),
    /// Whether every node has the label that the template asks for.
    Label(bool),
    /// Cores that a pod asks for.
    Template(u8),
    /// No pod gets ready on a node, and those that were are not.
    Broken(usize, bool),
    DemandKnown(bool),
    LatencyKnown(bool),
    /// Round trip between the first two nodes in milliseconds.
    Latency(u8),
    /// The program starts again.
    Restart,
    /// Somebody takes away one of the pods.
    Evict(usize),
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let node = || 0..NODES.len();
    prop_oneof![
        3 => prop::array::uniform3(prop_oneof![2 => Just(0), 3 => 0_u8..40]).prop_map(Load),
        2 => (node(), any::<bool>()).prop_map(|(node, is)| Ready(node, is)),
        1 => (node(), any::<bool>()).prop_map(|(node, is)| Cordon(node, is)),
        1 => (node(), prop::sample::select(vec![0, 1, 3, 20])).prop_map(|(node, cores)| Room(node, cores)),
        1 => any::<bool>().prop_map(Label),
        1 => prop::sample::select(vec![1, 15]).prop_map(Template),
        1 => (node(), any::<bool>()).prop_map(|(node, is)| Broken(node, is)),
        1 => any::<bool>().prop_map(DemandKnown),
        1 => any::<bool>().prop_map(LatencyKnown),
        1 => (1_u8..100).prop_map(Latency),
        1 => Just(Restart),
        1 => (0_usize..8).prop_map(Evict),
    ]
}

impl World {
    fn meet(&mut self, event: &Event) {
        let version = self.network.version + 1;
        match *event {
            Event::Load(in_flight) => {
                let load = NODES.into_iter().zip(in_flight).filter(|(_, requests)| *requests > 0);
                let demand = |requests| SourceDemand { concurrency: requests, requests_per_second: 10.0 * requests };
                self.load = load.map(|(node, requests)| (node.into(), demand(f64::from(requests)))).collect();
            }
            Event::Ready(node, is_ready) => self.node(NODES[node]).is_ready = is_ready,
            Event::Cordon(node, is_cordoned) => self.node(NODES[node]).is_cordoned = is_cordoned,
            Event::Room(node, cores) => self.node(NODES[node]).offers.cpu_millis = 1000 * u64::from(cores),
            Event::Label(true) => self.template.node.selector.clear(),
            Event::Label(false) => drop(self.template.node.selector.insert("disk".to_owned(), "ssd".to_owned())),
            Event::Template(cores) => self.template.each.cpu_millis = 1000 * u64::from(cores),
            Event::Broken(node, is_broken) => {
                self.broken.retain(|broken| *broken != NODES[node]);
                self.broken.extend(is_broken.then_some(NODES[node]));
            }
            Event::DemandKnown(is_known) => self.demand_unknown = !is_known,
            Event::LatencyKnown(true) => self.network = network(version, 0.001, 0.050, 0.050),
            Event::LatencyKnown(false) => self.network = network(version, 10.0, 10.0, 10.0),
            Event::Latency(milliseconds) => self.network = network(version, f64::from(milliseconds) / 1000.0, 0.050, 0.050),
            Event::Restart => self.memory = Memory::default(),
            Event::Evict(pod) if pod < self.pods.len() => drop(self.pods.remove(pod)),
            Event::Evict(_) => {}
        }
    }

    /// Lets a second pass. Ready pods before the decision, those that it leaves, and the pods that
    /// measured demand asks for.
    fn second(&mut self) -> Option<(u32, u32, Option<u32>)> {
        self.second += 1;
        self.schedule();
        for (pod, ready_at) in &mut self.pods {
            let is_broken = pod.node.as_ref().is_some_and(|node| self.broken.contains(&node.as_str()));
            pod.trouble = is_broken.then(|| "ErrImagePull".to_owned());
            pod.is_ready = *ready_at <= self.second && pod.node.is_some() && !is_broken;
        }
        let decision = self.look()?;
        let ready: Vec<Pod> = self.pods.iter().map(|(pod, _)| pod.clone()).filter(|pod| pod.is_ready).collect();
        let left = match &decision.step {
            None => ready.len(),
            Some(step) => {
                let on =
                    |node: &NodeName| ready.iter().filter(|pod| pod.maker == Maker::Seika && pod.place() == Some(node)).count();
                let nodes: BTreeSet<&NodeName> = ready.iter().filter_map(Pod::place).collect();
                let of_seika = nodes.iter().map(|node| on(node).min(step.seika.get(*node).copied().unwrap_or(0) as usize));
                // Kubernetes takes the named ones first.
                let deployed = ready.iter().filter(|pod| pod.maker == Maker::Deployment);
                let spared = deployed.filter(|pod| !step.victims.contains(&pod.name)).count();
                of_seika.sum::<usize>() + spared.min(step.deployment as usize)
            }
        };
        let counts = (rollout::as_count(ready.len()), rollout::as_count(left), decision.count.want);
        self.obey(decision);
        Some(counts)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn ready_pods_stay_as_many_as_measured_demand_asks_for(
        events in prop::collection::vec((event(), prop_oneof![3 => 0_u64..4, 1 => 4_u64..30]), 1..25),
        min_scale in prop_oneof![3 => Just(0_u32), 1 => 1_u32..4],
        max_scale in prop::option::of(1_u32..6),
    ) {
        let mut world = World::born();
        world.settings.min_scale = min_scale;
        world.settings.max_scale = max_scale.map(|most| most.max(min_scale.max(1)));
        world.pass(4);
        for (number, (event, seconds)) in events.iter().enumerate() {
            world.meet(event);
            for _ in 0..*seconds {
                let Some((ready, left, want)) = world.second() else { continue };
                // Where nobody knows how many are wanted, all stay.
                let least = want.map_or(ready, |want| want.min(ready));
                prop_assert!(left >= least, "event {number}, second {}: {left} of {ready} left, {want:?} wanted", world.second);
            }
        }
    }
}
