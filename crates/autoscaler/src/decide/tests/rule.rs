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
    /// The API server's watch has not shown one of the pods yet, or shows all.
    Unseen(Option<usize>),
    /// Whether the revision is being handed back to the stock class.
    HandingBack(bool),
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
        1 => prop::option::of(0_usize..8).prop_map(Unseen),
        1 => any::<bool>().prop_map(HandingBack),
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
            Event::Unseen(pod) => self.unseen = pod.and_then(|at| Some(self.pods.get(at)?.0.name.clone())),
            Event::HandingBack(is) => self.handing_back = is,
        }
    }

    /// Lets a second pass.
    fn second(&mut self) -> Option<Second> {
        self.second += 1;
        self.schedule();
        let (serving, silent) = self.run_pods();
        let decision = self.look()?;
        let gone = self.gone(&decision, &serving);
        let left = rollout::as_count(serving.difference(&gone).count());
        let serving = rollout::as_count(serving.len());
        let second = Second {
            serving,
            left,
            want: decision.count.want,
            replaced_by: self.replaced_by(&decision, serving, left),
            // One that Kubernetes has evicted looks the same as one that was not seen yet: with
            // enough others ready its count may go.
            silent_gone: gone.intersection(&silent).filter(|name| self.unseen.as_ref() != Some(*name)).cloned().collect(),
        };
        self.obey(decision);
        Some(second)
    }

    /// As many pods as stay on the way back to the stock class: those that served when it began,
    /// less those that failed since. One fewer where a pod of the Deployment waits for the room of
    /// one that serves.
    fn replaced_by(&mut self, decision: &Decision, serving: u32, left: u32) -> Option<u32> {
        if decision.back.is_none() {
            self.back = None;
            return None;
        }
        let (before, last) = self.back.unwrap_or((serving, serving));
        let before = before.saturating_sub(last.saturating_sub(serving));
        self.back = Some((before, left));
        let is_stuck = self.pods.iter().any(|(pod, _)| pod.maker == Maker::Deployment && pod.node.is_none());
        Some(before.saturating_sub(u32::from(is_stuck)))
    }

    /// The pods that Kubernetes and the Seika's controller take away for a decision.
    fn gone(&self, decision: &Decision, serving: &BTreeSet<String>) -> BTreeSet<String> {
        let (seika, deployment, victims): (&Counts, u32, &[String]) = match (&decision.step, &decision.back) {
            (Some(step), _) => (&step.seika, step.deployment, &step.victims),
            (None, Some(BackStep::Counts { deployment, seika })) => (seika, *deployment, &[]),
            // The stock class keeps the Deployment as it is; the Seika is empty by then.
            (None, Some(BackStep::Flip(_)) | None) => return BTreeSet::new(),
        };
        let of = |maker| self.pods.iter().map(|(pod, _)| pod).filter(move |pod| pod.maker == maker);
        let mut gone = BTreeSet::new();
        let nodes: BTreeSet<&NodeName> = of(Maker::Seika).filter_map(Pod::place).collect();
        for node in nodes {
            let mut here: Vec<&Pod> = of(Maker::Seika).filter(|pod| pod.place() == Some(node)).collect();
            here.sort_by_key(|pod| serving.contains(&pod.name));
            let stay = seika.get(node).copied().unwrap_or(0) as usize;
            gone.extend(here.iter().take(here.len().saturating_sub(stay)).map(|pod| pod.name.clone()));
        }
        // Kubernetes takes the named ones first, then those that are not ready.
        let mut deployed: Vec<&Pod> = of(Maker::Deployment).collect();
        deployed.sort_by_key(|pod| (!victims.contains(&pod.name), pod.is_ready));
        gone.extend(deployed.iter().take(deployed.len().saturating_sub(deployment as usize)).map(|pod| pod.name.clone()));
        gone
    }
}

/// What one decision did.
struct Second {
    /// Pods that serve before it, whatever Kubernetes knows of them.
    serving: u32,
    /// Those that it leaves.
    left: u32,
    /// Pods that measured demand asks for.
    want: Option<u32>,
    /// While the revision is handed back: pods that are to serve until the Deployment's do.
    replaced_by: Option<u32>,
    /// Pods on silent nodes that it takes away.
    silent_gone: Vec<String>,
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
                let Some(Second { serving, left, want, replaced_by, silent_gone }) = world.second() else { continue };
                // Where nobody knows how many are wanted, all stay.
                let least = serving.min(want.unwrap_or(u32::MAX)).min(replaced_by.unwrap_or(u32::MAX));
                let at = format!("event {number}, second {}: {left} of {serving} left, {want:?} wanted", world.second);
                prop_assert!(left >= least, "{at}");
                // Whether a silent pod serves is unknown: it goes only where no pod is wanted at
                // all.
                prop_assert!(silent_gone.is_empty() || want == Some(0), "{at}: {silent_gone:?} on silent nodes");
            }
        }
    }
}
