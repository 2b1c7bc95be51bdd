//! Prints how many milliseconds of this thread's time commit 678750a takes for one revision of a
//! tick: the matrix that it makes for each revision, and the decision. Arguments: nodes, revisions.

use std::collections::BTreeMap;
use std::time::Duration;

use extra_controller::autoscaler::*;
use extra_controller::decide::*;
use extra_controller::knative::*;
use extra_controller::latency::*;
use extra_controller::rollout::*;
use extra_controller::settings::*;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use placement::*;
use route_stream::RevisionKey;

const SOURCES: usize = 20;
const PODS: usize = 14;

fn thread_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().unwrap());
    let (nodes, revisions) = (arguments.next().unwrap(), arguments.next().unwrap());
    let names: Vec<NodeName> = (0..nodes).map(|node| NodeName::from(format!("node-{node:05}").as_str())).collect();

    let side = nodes.isqrt().max(1);
    let place = |node: usize| ((node % side) as f64, (node / side) as f64);
    let mut book = LatencyBook::default();
    let mut measured = Vec::new();
    for from in 0..nodes {
        for to in (0..nodes).filter(|to| *to != from) {
            let ((x, y), (u, v)) = (place(from), place(to));
            let stats = PairStats { age_seconds: 1.0, ..PairStats::constant(0.0005 + 0.002 * (x - u).hypot(y - v)) };
            measured.push(Measurement { from: names[from].clone(), to: names[to].clone(), state: PairState::Known(stats) });
        }
    }
    book.absorb(measured, 100.0);

    let capacities: Vec<NodeCapacity> = names.iter().map(|name| NodeCapacity::new(name.clone(), 10)).collect();
    let annotations = [("target", "10".to_owned()), ("window", "60s".to_owned()), ("max-scale", PODS.to_string())];
    let annotations = annotations.map(|(key, value)| (format!("autoscaling.knative.dev/{key}"), value));
    let settings = RevisionSettings::read(&BTreeMap::from(annotations), 0, true, &ClusterSettings::default());
    let source = |revision: usize, number: usize| names[(revision * 131 + number * 17) % nodes].clone();
    let wall = Timestamp::from_second(1000).unwrap();
    let mut world: Vec<_> = (0..revisions)
        .map(|revision| {
            let target = ObjectReference { name: Some("hello".to_owned()), ..Default::default() };
            let spec = PodAutoscalerSpec { scale_target_ref: target, protocol_type: "http1".to_owned(), ..Default::default() };
            let mut autoscaler = PodAutoscaler::new("hello", spec);
            autoscaler.metadata.generation = Some(1);
            autoscaler.metadata.creation_timestamp = Some(Time(wall));
            let mut history = DemandHistory::default();
            for second in 940..=1000_u64 {
                let demand = SourceDemand { concurrency: 4.62, requests_per_second: 20.0 };
                history.record(second, (0..SOURCES).map(|number| (source(revision, number), demand)).collect());
            }
            let pod = |number| Pod {
                name: format!("pod-{number}"),
                node: Some(source(revision, number)),
                maker: Maker::Seika,
                ready: true,
            };
            let pods: Vec<Pod> = (0..PODS).map(pod).collect();
            let mut seika = Counts::new();
            for node in pods.iter().filter_map(|pod| pod.node.clone()) {
                *seika.entry(node).or_default() += 1;
            }
            let key = RevisionKey::new("default", format!("hello-{revision:05}"));
            (key, autoscaler, history, pods, seika, Memory::default())
        })
        .collect();

    let policy = locality::Policy::default();
    let mut fastest = f64::INFINITY;
    for _ in 0..3 {
        let begun = thread_seconds();
        for (key, autoscaler, history, pods, seika, memory) in &mut world {
            let matrix = book.matrix(names.clone(), 101.0, Freshness::default()).unwrap();
            let observation = Observation {
                now: Now { wall, monotonic: Duration::from_secs(1000) },
                key,
                autoscaler,
                sks: None,
                settings: &settings,
                pods,
                seika,
                deployment: 0,
                history,
                held: &BTreeMap::new(),
                demand_unknown: false,
                latency: &matrix,
                capacities: &capacities,
                model: CostModel::LocalFirst,
                locality: Some(&policy),
            };
            std::hint::black_box(decide(&observation, memory).unwrap());
        }
        fastest = fastest.min((thread_seconds() - begun) / revisions as f64);
    }
    println!("{}", fastest * 1000.0);
}
