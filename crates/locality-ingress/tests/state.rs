//! The state as a whole, without I/O: what changes lead to what updates and what news.

#![allow(clippy::unwrap_used)] // A test may.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_link::demand::Load;
use gateway_link::{Event, RevisionKey, RevisionRoutes};
use k8s_api::kingress::{BackendSplit, HttpPath, HttpRule, IngressRule, IngressSpec, IngressStatus, IngressTls, KCondition};
use locality_ingress::endpoints::{LocalityPolicy, PlanChange};
use locality_ingress::kubernetes::{
    Concurrency, IngressObject, NodeObject, ObjectName, SecretObject, ServiceObject, ServicePort, SliceEndpoint, SliceObject,
};
use locality_ingress::routes::{Action, TranslateSettings};
use locality_ingress::state::{ControlPlaneState, LoadChange, ObjectChange, StateSettings};
use locality_ingress::status::{ProgressReport, RolloutProgress};
use locality_ingress::xds::{ConfigStore, GatewayView, ListenerSettings, Nack, ResourceKind, ResourceName, StoreRevision};

fn named(name: &str) -> ObjectName {
    ObjectName::new("ns", name)
}

struct Bench {
    store: Arc<ConfigStore>,
    state: ControlPlaneState,
    now: Instant,
    seen: StoreRevision,
}

impl Bench {
    fn new() -> Self {
        let store = Arc::new(ConfigStore::new(LocalityPolicy::Locality, ListenerSettings::default()));
        let settings = StateSettings {
            policy: LocalityPolicy::Locality,
            translate: TranslateSettings {
                internal_gateway: "internal.example".into(),
                internal_authority: ObjectName::new("knative-serving", "routing-serving-certs"),
            },
            activators: ObjectName::new("knative-serving", "activator-service"),
            bounds_retransmissions: "6.15".parse().ok(),
            fallback_certificate: Some(named("fallback")),
            gateway_service: ObjectName::new("kantai-system", "kantai-gateway-internal"),
            own_service: ObjectName::new("kantai-system", "locality-ingress"),
            own_pod: "locality-ingress-0".into(),
        };
        let state = ControlPlaneState::new(store.clone(), settings);
        Self { store, state, now: Instant::now(), seen: 0 }
    }

    fn settle(&mut self) -> ProgressReport {
        self.state.publish_changes(self.now)
    }

    /// What changed in the store since this was last asked.
    fn changed(&mut self) -> Vec<(ResourceKind, String)> {
        let mut changed = Vec::new();
        self.seen = self.store.changes_since(self.seen, |kind, name| changed.push((kind, name.as_str().to_owned()))).0;
        changed
    }

    fn service(&mut self, name: &str) {
        let port = ServicePort { name: "http".into(), number: 80, http2: false };
        self.state.apply_change(ObjectChange::Service(
            named(name),
            Some(ServiceObject { ports: vec![port], external_name: None, pods_of: None, of_revision: false }),
        ));
    }

    fn endpoints(&mut self, service: &str, on: &[(u8, &str)]) {
        let endpoint = |&(last, node): &(u8, &str)| SliceEndpoint {
            address: [10, 0, 0, last].into(),
            node: Some(node.to_owned()),
            ready: true,
            serving_last: false,
            pod: None,
            stand_in: false,
        };
        let slice = SliceObject { ports: vec![("http".into(), 8012)], endpoints: on.iter().map(endpoint).collect() };
        self.state.apply_change(ObjectChange::Slice(named(&format!("{service}-x")), Some((named(service), slice))));
    }

    /// The activators that the public Service of `revision` leads to.
    fn activators(&mut self, revision: &str, on: &[(u8, &str)]) {
        let endpoint = |&(last, node): &(u8, &str)| SliceEndpoint {
            address: [10, 0, 1, last].into(),
            node: Some(node.to_owned()),
            ready: true,
            serving_last: false,
            pod: None,
            stand_in: true,
        };
        let slice = SliceObject { ports: vec![("http".into(), 8012)], endpoints: on.iter().map(endpoint).collect() };
        self.state.apply_change(ObjectChange::Slice(named(&format!("{revision}-x")), Some((named(revision), slice))));
    }

    fn node(&mut self, name: &str, is_silent: bool) {
        let node = NodeObject { zone: None, kernel: None, is_silent };
        self.state.apply_change(ObjectChange::Node(name.to_owned(), Some(node)));
    }

    /// The pods of `revision`, ready or not: the Service that selects them names all of them, the
    /// public one those that are ready.
    fn pods(&mut self, revision: &str, on: &[(u8, &str, bool)]) {
        let endpoint = |&(last, node, ready): &(u8, &str, bool)| SliceEndpoint {
            address: [10, 0, 0, last].into(),
            node: Some(node.to_owned()),
            ready,
            serving_last: false,
            pod: None,
            stand_in: false,
        };
        let slice = SliceObject { ports: vec![("http".into(), 8012)], endpoints: on.iter().map(endpoint).collect() };
        let private = named(&format!("{revision}-private"));
        self.state.apply_change(ObjectChange::Slice(named(&format!("{revision}-private-x")), Some((private, slice))));
        let ready: Vec<_> = on.iter().filter(|(.., ready)| *ready).map(|&(last, node, _)| (last, node)).collect();
        self.endpoints(revision, &ready);
    }

    /// The Service that selects the pods of `revision`.
    fn pods_service(&mut self, revision: &str) {
        let service = ServiceObject { pods_of: Some(revision.to_owned()), ..ServiceObject::default() };
        self.state.apply_change(ObjectChange::Service(named(&format!("{revision}-private")), Some(service)));
    }

    fn ingress(&mut self, name: &str, generation: i64, host: &str, service: &str) {
        self.ingress_with(name, host, service, |ingress| ingress.generation = generation);
    }

    fn ingress_with(&mut self, name: &str, host: &str, service: &str, change: impl FnOnce(&mut IngressObject)) {
        let split = BackendSplit {
            service_namespace: "ns".into(),
            service_name: service.into(),
            service_port: k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(80),
            percent: 100,
            append_headers: BTreeMap::new(),
        };
        let path = HttpPath { splits: vec![split], ..HttpPath::default() };
        let rule = IngressRule { hosts: vec![host.into()], http: Some(HttpRule { paths: vec![path] }), ..IngressRule::default() };
        let spec = IngressSpec { rules: vec![rule], ..IngressSpec::default() }.defaulted();
        let mut ingress =
            IngressObject { uid: name.into(), generation: 1, created_unix_seconds: 0, spec, status: IngressStatus::default() };
        change(&mut ingress);
        self.state.apply_change(ObjectChange::Ingress(named(name), Some(Box::new(ingress))));
    }

    /// The cluster that requests for a host go to.
    fn target(&self, host: &str) -> Option<String> {
        match &self.store.table().internal.get(host)?.routes.last()?.action {
            Action::Forward { splits, .. } => Some(splits[0].cluster.to_string()),
            _ => None,
        }
    }

    fn serving(&self, node: &str, cluster: &str) -> Vec<(u32, String, u32)> {
        let view = GatewayView::of_node(node);
        let assignment = self.store.assignment(&view, cluster).unwrap_or_default();
        assignment.localities.into_iter().map(|one| (one.priority, one.node, one.weight)).collect()
    }
}

fn progress<'a>(news: &'a ProgressReport, name: &str) -> Option<&'a RolloutProgress> {
    news.progress_changes
        .iter()
        .find(|(one, _)| one.name == name)
        .and_then(|(_, standing)| standing.as_ref())
        .map(|one| &one.progress)
}

#[test]
fn an_endpoint_touches_one_assignment_and_nothing_else() {
    let mut bench = Bench::new();
    for name in ["a", "b"] {
        bench.service(name);
        bench.endpoints(name, &[(1, "node1")]);
        bench.ingress(name, 1, &format!("{name}.example"), name);
    }
    bench.settle();
    bench.changed();
    bench.endpoints("a", &[(1, "node1"), (2, "node2")]);
    bench.settle();
    assert_eq!(bench.changed(), [(ResourceKind::Assignment, "ns/a/80".to_owned())]);
    assert_eq!(bench.serving("node2", "ns/a/80"), [(0, "node2".into(), 1), (1, "node1".into(), 1)]);
    // The same again is no change at all.
    bench.endpoints("a", &[(1, "node1"), (2, "node2")]);
    bench.settle();
    assert_eq!(bench.changed(), []);
}

#[test]
fn with_pods_there_activators_get_what_each_can_use_and_at_zero_the_nearest_holds() {
    let limited = |limit| std::num::NonZeroU32::new(limit).map(|limit| Concurrency::Limited(limit).into());
    let mut bench = Bench::new();
    bench.service("a");
    bench.ingress("a", 1, "a.example", "a");
    bench.pods_service("a");
    bench.state.apply_change(ObjectChange::Revision(named("a"), limited(5)));
    bench.activators("a", &[(1, "node1"), (2, "node2"), (3, "node3")]);
    bench.settle();
    let nearest = [(0, "node1".into(), 1), (1, "node2".into(), 1), (1, "node3".into(), 1)];
    assert_eq!(bench.serving("node1", "ns/a/80"), nearest);
    // Pods become ready behind the other Service; the public one still leads to activators.
    bench.changed();
    let pods: Vec<_> = (1..=8).map(|pod| (pod, "node2")).collect();
    bench.endpoints("a-private", &pods);
    bench.settle();
    assert_eq!(bench.changed(), [(ResourceKind::Assignment, "ns/a/80".to_owned())]);
    for source in ["node1", "node3", "elsewhere"] {
        let shares = [(0, "node1".into(), 3), (0, "node2".into(), 3), (0, "node3".into(), 2)];
        assert_eq!(bench.serving(source, "ns/a/80"), shares, "from {source}");
    }
    // Whatever the plan says: it speaks of pods.
    let routes = RevisionRoutes::new(RevisionKey::new("ns", "a"), [("node1", [("node1", 100)])]).unwrap();
    bench.state.apply_change(ObjectChange::Plan(PlanChange::Event(Event::Snapshot {
        version: 1,
        parts_left: 0,
        routes: vec![routes],
    })));
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80").len(), 3);
    assert!(bench.serving("node1", "ns/a/80").iter().all(|(priority, ..)| *priority == 0));
    // With one pod there is one activator that can use it; the others are there for when that one
    // is not.
    bench.endpoints("a-private", &[(1, "node2")]);
    bench.settle();
    let one = [(0, "node1".into(), 1), (1, "node3".into(), 1), (2, "node2".into(), 1)];
    assert_eq!(bench.serving("node3", "ns/a/80"), one);
    // Without a limit each activator can use every pod.
    bench.state.apply_change(ObjectChange::Revision(named("a"), Some(Concurrency::Unlimited.into())));
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), nearest);
    // Back at zero.
    bench.state.apply_change(ObjectChange::Revision(named("a"), limited(5)));
    bench.endpoints("a-private", &[]);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), nearest);
}

/// A revision with a pod on each of two nodes, and an activator on each of three.
fn revision_on_two_nodes() -> Bench {
    let mut bench = Bench::new();
    bench.service("a");
    bench.ingress("a", 1, "a.example", "a");
    bench.pods_service("a");
    for node in ["node1", "node2", "node3"] {
        bench.node(node, false);
    }
    bench.pods("a", &[(1, "node1", true), (2, "node2", true)]);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), [(0, "node1".into(), 1), (1, "node2".into(), 1)]);
    bench
}

#[test]
fn pods_of_silent_nodes_serve_until_their_kubelets_have_said_how_they_are() {
    let mut bench = revision_on_two_nodes();
    let both = bench.serving("node1", "ns/a/80");
    for node in ["node1", "node2", "node3"] {
        bench.node(node, true);
    }
    bench.pods("a", &[(1, "node1", false), (2, "node2", false)]);
    bench.settle();
    bench.now += Duration::from_secs(600);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), both);
    // Kubelets say first that they are there, and seconds later that their pods are ready.
    for node in ["node1", "node2", "node3"] {
        bench.node(node, false);
    }
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), both);
    // An activator's may be the first: it holds requests until a pod is called ready.
    bench.activators("a", &[(3, "node3")]);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), both);
    bench.now += Duration::from_secs(9);
    bench.pods("a", &[(1, "node1", false), (2, "node2", true)]);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), [(0, "node2".into(), 1)]);
    // Knative has yet to list on the public Service what is ready behind the other one.
    bench.endpoints("a", &[]);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), [(0, "node2".into(), 1)]);

    // What a kubelet still does not call ready when it has gone through all its pods, is not.
    bench.node("node2", true);
    bench.pods("a", &[(1, "node1", false), (2, "node2", false)]);
    bench.settle();
    bench.node("node2", false);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80").len(), 2);
    while let Some(wake_at) = bench.state.wake_at(bench.now) {
        assert!(wake_at > bench.now && !bench.serving("node1", "ns/a/80").is_empty());
        bench.now = wake_at;
        bench.settle();
    }
    assert_eq!(bench.serving("node1", "ns/a/80"), []);
}

#[test]
fn activators_hold_the_requests_for_pods_of_a_silent_node_while_other_nodes_are_heard_of() {
    let mut bench = revision_on_two_nodes();
    for node in ["node1", "node2"] {
        bench.node(node, true);
    }
    bench.pods("a", &[(1, "node1", false), (2, "node2", false)]);
    bench.activators("a", &[(3, "node3")]);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), [(0, "node3".into(), 1)]);
    bench.node("node3", true);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80").len(), 2);
    // With the node its pods are gone.
    bench.state.apply_change(ObjectChange::Node("node1".to_owned(), None));
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), [(0, "node2".into(), 1)]);
    bench.pods("a", &[]);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), []);
}

#[test]
fn pods_serve_for_a_moment_until_it_is_told_whether_their_nodes_are_silent() {
    let mut bench = revision_on_two_nodes();
    let both = bench.serving("node1", "ns/a/80");
    bench.pods("a", &[(1, "node1", false), (2, "node2", false)]);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), both);
    bench.now = bench.state.wake_at(bench.now).unwrap();
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), []);
    bench.node("node2", true);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), [(0, "node2".into(), 1)]);
}

#[test]
fn a_pod_that_never_was_ready_does_not_serve_however_silent_its_node() {
    let mut bench = revision_on_two_nodes();
    for node in ["node1", "node2", "node3"] {
        bench.node(node, true);
    }
    bench.pods("a", &[(3, "node3", false)]);
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), []);
}

#[test]
fn spill_counts_what_gateways_of_other_replicas_have_in_flight() {
    let mut bench = Bench::new();
    bench.service("a");
    bench.ingress("a", 1, "a.example", "a");
    bench.state.apply_change(ObjectChange::Revision(
        named("a"),
        std::num::NonZeroU32::new(1).map(|one| Concurrency::Limited(one).into()),
    ));
    bench.endpoints("a", &[(1, "node1"), (2, "node2"), (3, "node3")]);
    let mut load = |heard_by: Option<&str>, source: &str, serving: &str, in_flight| {
        let loads = [(serving.to_owned(), Load { in_flight, ..Load::default() })].into();
        let change = LoadChange { heard_by: heard_by.map(Into::into), source: source.into(), loads };
        bench.state.apply_change(ObjectChange::Load(named("a"), change));
        bench.state.publish_changes(bench.now);
        bench.serving("node1", "ns/a/80").into_iter().filter(|(priority, ..)| *priority == 0).collect::<Vec<_>>()
    };
    let both = [(0, "node2".to_owned(), 50), (0, "node3".to_owned(), 50)];
    assert_eq!(load(None, "node1", "node1", 3), both, "its own pod is full, the others are idle");
    // The gateway of node2 is connected to another replica.
    assert_eq!(load(Some("b"), "node2", "node2", 1), [(0, "node3".to_owned(), 100)]);
    assert_eq!(load(Some("b"), "node2", "node2", 0), both);
}

#[test]
fn the_other_replicas_are_the_other_pods_of_our_own_service() {
    let mut bench = Bench::new();
    let own = ObjectName::new("kantai-system", "locality-ingress");
    let endpoint = |address: &str, pod: &str, ready, serving_last| SliceEndpoint {
        address: address.parse().unwrap(),
        node: Some("node1".to_owned()),
        ready,
        serving_last,
        pod: Some(pod.to_owned()),
        stand_in: false,
    };
    let endpoints = vec![
        endpoint("10.0.0.1", "locality-ingress-0", true, false),
        endpoint("fd00::2", "locality-ingress-1", true, false),
        endpoint("10.0.0.2", "locality-ingress-1", true, false),
        endpoint("10.0.0.3", "terminating", false, true),
        endpoint("10.0.0.4", "not-ready", false, false),
    ];
    let slice = SliceObject { ports: vec![("xds".into(), 18000)], endpoints };
    let name = ObjectName::new("kantai-system", "locality-ingress-x");
    bench.state.apply_change(ObjectChange::Slice(name, Some((own, slice))));
    let replicas = bench.settle().replicas.unwrap();
    let address = |last: u8| std::net::IpAddr::from([10, 0, 0, last]);
    assert_eq!(replicas, [("locality-ingress-1".to_owned(), address(2)), ("terminating".to_owned(), address(3))].into());
    bench.service("unrelated");
    assert_eq!(bench.settle().replicas, None);
}

#[test]
fn each_gateway_is_told_what_its_pods_take_and_activators_hold_the_rest() {
    let mut bench = Bench::new();
    bench.service("a");
    bench.ingress("a", 1, "a.example", "a");
    bench.endpoints("a", &[(1, "node1"), (2, "node2"), (3, "node2")]);
    let near = [("node1", [("node1", 100)]), ("node2", [("node2", 100)])];
    let routes = RevisionRoutes::new(RevisionKey::new("ns", "a"), near).unwrap();
    bench.state.apply_change(ObjectChange::Plan(PlanChange::Event(Event::Snapshot {
        version: 1,
        parts_left: 0,
        routes: vec![routes],
    })));
    let five = std::num::NonZeroU32::new(5).map(|limit| Concurrency::Limited(limit).into());
    bench.state.apply_change(ObjectChange::Revision(named("a"), five));
    bench.settle();
    let (one, two) = (GatewayView::of_node("node1"), GatewayView::of_node("node2"));
    assert_eq!(bench.store.limit(&one, "ns/a/80"), None, "there is nobody to hold anything");
    let activator = SliceEndpoint {
        address: [10, 0, 1, 1].into(),
        node: Some("node3".to_owned()),
        ready: true,
        serving_last: false,
        pod: None,
        stand_in: false,
    };
    let slice = SliceObject { ports: vec![("http".into(), 8012)], endpoints: vec![activator] };
    let of = ObjectName::new("knative-serving", "activator-service");
    bench.state.apply_change(ObjectChange::Slice(ObjectName::new("knative-serving", "x"), Some((of, slice))));
    bench.settle();
    let limits = |bench: &Bench, view: &GatewayView| {
        let names = bench.store.names(ResourceKind::Cluster).into_iter().map(|name| name.as_str().to_owned());
        let there =
            names.filter(|name| name.contains("/limit/") && bench.store.resource(view, ResourceKind::Cluster, name).is_some());
        there.collect::<Vec<_>>()
    };
    assert_eq!(limits(&bench, &one), ["ns/a/80/limit/12"]);
    assert_eq!(limits(&bench, &two), ["ns/a/80/limit/24"]);
    // Wherever the activator is, that is not where requests are served.
    assert_eq!(bench.serving("node1", "ns/a/80/overflow"), [(0, String::new(), 1)]);
    // A pod that goes changes one gateway's limit, and no routes.
    bench.changed();
    bench.endpoints("a", &[(1, "node1"), (2, "node2")]);
    bench.settle();
    let mut changed = bench.changed();
    changed.sort();
    let clusters = ["ns/a/80/limit/12", "ns/a/80/limit/24"].map(|name| (ResourceKind::Cluster, name.to_owned()));
    assert_eq!(changed[..2], clusters);
    assert_eq!(changed[2..], [(ResourceKind::Assignment, "ns/a/80".to_owned())]);
    assert_eq!(limits(&bench, &two), ["ns/a/80/limit/12"]);
    // A sender leaves fewer places to the others, until its node is gone.
    for source in ["node3", "node4", "node5"] {
        let loads = [("node1".to_owned(), Load { arrived: 1, ..Load::default() })].into();
        bench.state.apply_change(ObjectChange::Load(named("a"), LoadChange { heard_by: None, source: source.to_owned(), loads }));
    }
    bench.settle();
    assert_eq!(limits(&bench, &one), ["ns/a/80/limit/8"]);
    for source in ["node3", "node4", "node5"] {
        bench.state.apply_change(ObjectChange::Node(source.to_owned(), None));
    }
    bench.settle();
    assert_eq!(limits(&bench, &one), ["ns/a/80/limit/12"]);
    // It goes with the revision.
    bench.state.apply_change(ObjectChange::Revision(named("a"), None));
    bench.settle();
    assert_eq!(limits(&bench, &one), Vec::<String>::new());
}

#[test]
fn a_new_generation_is_held_until_its_backends_are_there() {
    let mut bench = Bench::new();
    bench.service("old");
    bench.endpoints("old", &[(1, "node1")]);
    bench.ingress("i", 1, "h.example", "old");
    bench.settle();
    // The Ingress comes before its Service, and the Service before its endpoints.
    bench.ingress("i", 2, "h.example", "new");
    let news = bench.settle();
    assert_eq!(
        progress(&news, "i"),
        Some(&RolloutProgress::Waiting { missing: vec!["Service ns/new".into(), "endpoints of Service ns/new".into()] })
    );
    assert_eq!(bench.target("h.example").as_deref(), Some("ns/old/80"));
    bench.service("new");
    bench.settle();
    assert_eq!(bench.target("h.example").as_deref(), Some("ns/old/80"));
    bench.endpoints("new", &[(2, "node1")]);
    let news = bench.settle();
    assert!(matches!(progress(&news, "i"), Some(RolloutProgress::Served { .. })));
    assert_eq!(bench.target("h.example").as_deref(), Some("ns/new/80"));
    // Endpoints that go do not take the route along.
    bench.endpoints("new", &[]);
    bench.settle();
    assert_eq!(bench.target("h.example").as_deref(), Some("ns/new/80"));
}

#[test]
fn a_first_generation_is_ready_only_with_endpoints_and_stays_so_without() {
    let mut bench = Bench::new();
    bench.service("a");
    bench.ingress("one", 1, "h", "a");
    let news = bench.settle();
    // Told to the gateways at once, which answer 503: that is the truth.
    assert_eq!(bench.target("h").as_deref(), Some("ns/a/80"));
    let waits =
        matches!(progress(&news, "one"), Some(RolloutProgress::Waiting { missing }) if missing == &["endpoints of Service ns/a"]);
    assert!(waits, "{news:?}");
    let before = bench.store.revision().0;

    bench.endpoints("a", &[(1, "node1")]);
    let news = bench.settle();
    // Gateways must have confirmed the endpoints, too.
    assert!(matches!(progress(&news, "one"), Some(RolloutProgress::Served { since, .. }) if *since > before), "{news:?}");

    let ready = KCondition {
        type_: "Ready".into(),
        status: "True".into(),
        last_transition_time: None,
        reason: String::new(),
        message: String::new(),
    };
    let status = IngressStatus { observed_generation: Some(1), conditions: vec![ready], ..IngressStatus::default() };
    bench.endpoints("a", &[]);
    bench.ingress_with("one", "h", "a", |ingress| ingress.status = status);
    let news = bench.settle();
    assert!(matches!(progress(&news, "one"), Some(RolloutProgress::Served { .. })), "{news:?}");
}

#[test]
fn a_gateway_that_is_being_ended_loses_its_listeners_and_its_successor_keeps_them() {
    let mut bench = Bench::new();
    let endpoint = |last: u8, ready: bool| SliceEndpoint {
        address: [10, 0, 0, last].into(),
        node: Some("node1".to_owned()),
        ready,
        serving_last: !ready,
        pod: None,
        stand_in: false,
    };
    let service = ObjectName::new("kantai-system", "kantai-gateway-internal");
    let slice = |endpoints| SliceObject { ports: vec![("http2".into(), 8081)], endpoints };
    let name = ObjectName::new("kantai-system", "kantai-gateway-internal-x");
    bench.state.apply_change(ObjectChange::Slice(name, Some((service, slice(vec![endpoint(1, false), endpoint(2, true)])))));
    let news = bench.settle();
    assert_eq!(news.gateways.map(|all| all.len()), Some(1));
    let view = |last: u8| GatewayView { pod_addresses: vec![[10, 0, 0, last].into()], ..GatewayView::of_node("node1") };
    let listens = |bench: &Bench, last| bench.store.resource(&view(last), ResourceKind::Listener, "external").is_some();
    assert!(listens(&bench, 1) && listens(&bench, 2));
    assert_eq!(bench.store.node_of_gateway([10, 0, 0, 1].into()).as_deref(), Some("node1"));
    assert_eq!(bench.store.node_of_gateway("::ffff:10.0.0.2".parse().unwrap()).as_deref(), Some("node1"));
    assert_eq!(bench.store.node_of_gateway([10, 0, 0, 3].into()), None);
    bench.changed();
    bench.now = bench.state.wake_at(bench.now).unwrap();
    bench.settle();
    assert!(!listens(&bench, 1) && listens(&bench, 2));
    assert_eq!(
        bench.changed(),
        [(ResourceKind::Listener, "external".to_owned()), (ResourceKind::Listener, "internal".to_owned())]
    );
}

#[test]
fn a_cluster_outlives_its_last_route_by_a_while() {
    let mut bench = Bench::new();
    for name in ["old", "new"] {
        bench.service(name);
        bench.endpoints(name, &[(1, "node1")]);
    }
    bench.ingress("i", 1, "h.example", "old");
    bench.settle();
    bench.ingress("i", 2, "h.example", "new");
    bench.settle();
    bench.changed();
    // Its endpoints are still followed.
    bench.endpoints("old", &[(3, "node1")]);
    bench.settle();
    assert_eq!(bench.changed(), [(ResourceKind::Assignment, "ns/old/80".to_owned())]);
    let wake_at = bench.state.wake_at(bench.now).unwrap();
    bench.now = wake_at + Duration::from_millis(1);
    bench.settle();
    assert_eq!(
        bench.changed(),
        [(ResourceKind::Cluster, "ns/old/80".to_owned()), (ResourceKind::Assignment, "ns/old/80".to_owned())]
    );
    assert_eq!(bench.state.wake_at(bench.now), None);
}

#[test]
fn a_mistake_keeps_the_last_good_generation() {
    let mut bench = Bench::new();
    bench.service("a");
    bench.endpoints("a", &[(1, "node1")]);
    bench.ingress("i", 1, "h.example", "a");
    bench.settle();
    bench.changed();
    bench.ingress("i", 2, "not a host", "a");
    let news = bench.settle();
    assert!(matches!(progress(&news, "i"), Some(RolloutProgress::Refused { reason: "InvalidIngress", .. })));
    assert_eq!(bench.changed(), []);
    assert_eq!(bench.target("h.example").as_deref(), Some("ns/a/80"));
    assert_eq!(bench.state.ingress_counts(), (1, 1));
}

#[test]
fn a_host_goes_to_the_next_when_its_holder_goes() {
    let mut bench = Bench::new();
    bench.service("a");
    bench.endpoints("a", &[(1, "node1")]);
    bench.ingress_with("older", "h.example", "a", |one| one.created_unix_seconds = 1);
    bench.ingress_with("newer", "h.example", "a", |one| one.created_unix_seconds = 2);
    let news = bench.settle();
    assert!(matches!(progress(&news, "older"), Some(RolloutProgress::Served { .. })));
    assert!(matches!(progress(&news, "newer"), Some(RolloutProgress::Refused { reason: "DomainConflict", .. })));
    bench.state.apply_change(ObjectChange::Ingress(named("older"), None));
    let news = bench.settle();
    assert!(matches!(progress(&news, "newer"), Some(RolloutProgress::Served { .. })), "{news:?}");
    assert_eq!(bench.store.table().internal["h.example"].ingress, named("newer"));
}

#[test]
fn the_plan_touches_only_its_revision_and_is_forgotten_when_it_expires() {
    let mut bench = Bench::new();
    for name in ["a", "b"] {
        bench.service(name);
        bench.endpoints(name, &[(1, "node1"), (2, "node2")]);
        bench.ingress(name, 1, &format!("{name}.example"), name);
    }
    bench.settle();
    bench.changed();
    let routes = RevisionRoutes::new(RevisionKey::new("ns", "a"), [("node1", [("node1", 30), ("node2", 70)])]).unwrap();
    bench.state.apply_change(ObjectChange::Plan(PlanChange::Event(Event::Snapshot {
        version: 1,
        parts_left: 0,
        routes: vec![routes],
    })));
    bench.settle();
    assert_eq!(bench.changed(), [(ResourceKind::Assignment, "ns/a/80".to_owned())]);
    assert_eq!(bench.serving("node1", "ns/a/80"), [(0, "node1".into(), 30), (0, "node2".into(), 70)]);
    assert_eq!(bench.state.planned_revisions(), 1);
    bench.state.apply_change(ObjectChange::Plan(PlanChange::Event(Event::Heartbeat { version: 1 })));
    bench.settle();
    assert_eq!(bench.changed(), []);
    bench.state.apply_change(ObjectChange::Plan(PlanChange::Expired));
    bench.settle();
    assert_eq!(bench.serving("node1", "ns/a/80"), [(0, "node1".into(), 1), (1, "node2".into(), 1)]);
}

#[test]
fn certificates_come_rotate_and_go_with_their_secret_and_ingress() {
    let secret = |text: &str| SecretObject { certificate_pem: text.into(), key_pem: text.into(), authority_pem: None };
    let mut bench = Bench::new();
    bench.service("a");
    bench.endpoints("a", &[(1, "node1")]);
    let tls = IngressTls { hosts: vec!["h.example".into()], secret_name: "cert".into(), secret_namespace: "ns".into() };
    bench.ingress_with("i", "h.example", "a", |one| one.spec.tls.push(tls));
    bench.settle();
    bench.changed();
    assert_eq!(bench.store.names(ResourceKind::Listener), ["external", "internal", "statistics"].map(ResourceName::new));
    bench.state.apply_change(ObjectChange::Secret(named("cert"), Some(secret("one"))));
    bench.settle();
    let changed: Vec<_> = bench.changed().into_iter().map(|(kind, name)| (kind.label(), name)).collect();
    let wanted = [("sds", "ns/cert"), ("lds", "external"), ("lds", "external-tls"), ("lds", "internal"), ("rds", "external-tls")];
    assert_eq!(changed, wanted.map(|(kind, name)| (kind, name.to_owned())));
    bench.state.apply_change(ObjectChange::Secret(named("cert"), Some(secret("two"))));
    bench.settle();
    assert_eq!(bench.changed(), [(ResourceKind::Secret, "ns/cert".to_owned())]);
    bench.state.apply_change(ObjectChange::Ingress(named("i"), None));
    bench.settle();
    assert_eq!(bench.store.names(ResourceKind::Listener), ["external", "internal", "statistics"].map(ResourceName::new));
    assert_eq!(bench.store.names(ResourceKind::Secret), Vec::<ResourceName>::new());
}

#[test]
fn a_certificate_stays_while_an_ingress_names_its_secret_and_goes_with_it() {
    let secret = SecretObject { certificate_pem: "one".into(), key_pem: "one".into(), authority_pem: None };
    let mut bench = Bench::new();
    bench.service("a");
    bench.endpoints("a", &[(1, "node1")]);
    let tls = IngressTls { hosts: vec!["h.example".into()], secret_name: "cert".into(), secret_namespace: "ns".into() };
    bench.ingress_with("i", "h.example", "a", |one| {
        one.spec.tls.push(tls);
        one.spec.http_option = "Redirected".into();
    });
    let redirects = |bench: &Bench| matches!(bench.store.table().external["h.example"].routes[0].action, Action::RedirectToHttps);
    bench.settle();
    assert!(!redirects(&bench), "nobody is sent to where nothing listens yet");
    bench.state.apply_change(ObjectChange::Secret(named("cert"), Some(secret)));
    bench.settle();
    assert!(redirects(&bench));
    bench.changed();
    bench.state.apply_change(ObjectChange::Secret(named("cert"), None));
    let news = bench.settle();
    assert_eq!(bench.changed(), []);
    let warned: Vec<_> = news.warnings.iter().map(|(ingress, reason, _)| (ingress.clone(), *reason)).collect();
    assert_eq!(warned, [(named("i"), "CertificateLost")]);
    // Whatever else happens meanwhile.
    bench.ingress("other", 1, "other.example", "a");
    bench.settle();
    assert!(bench.store.names(ResourceKind::Listener).contains(&ResourceName::new("external-tls")));
    assert!(bench.store.resource(&GatewayView::of_node("node1"), ResourceKind::Secret, "ns/cert").is_some());
    // The key is not kept for longer than it is needed.
    bench.state.apply_change(ObjectChange::Ingress(named("i"), None));
    bench.settle();
    assert_eq!(bench.store.names(ResourceKind::Secret), Vec::<ResourceName>::new());
    bench.ingress_with("i", "h.example", "a", |one| {
        one.spec.tls.push(IngressTls {
            hosts: vec!["h.example".into()],
            secret_name: "cert".into(),
            secret_namespace: "ns".into(),
        });
    });
    bench.settle();
    assert_eq!(bench.store.names(ResourceKind::Secret), Vec::<ResourceName>::new());
}

#[test]
fn a_fallback_certificate_is_there_for_clients_without_a_name_whoever_has_certificates() {
    let mut bench = Bench::new();
    bench.settle();
    let secure =
        |bench: &Bench| bench.store.resource(&GatewayView::of_node("node1"), ResourceKind::Listener, "external-tls").is_some();
    assert!(!secure(&bench));
    let secret = SecretObject { certificate_pem: "one".into(), key_pem: "one".into(), authority_pem: None };
    bench.state.apply_change(ObjectChange::Secret(named("fallback"), Some(secret)));
    bench.settle();
    assert!(secure(&bench));
    assert_eq!(bench.store.names(ResourceKind::Secret), [ResourceName::new("ns/fallback")]);
    bench.state.apply_change(ObjectChange::Secret(named("fallback"), None));
    bench.settle();
    assert!(secure(&bench));
}

#[test]
fn with_internal_encryption_an_ingress_waits_for_the_authority_and_then_clusters_speak_tls() {
    let mut bench = Bench::new();
    let ports = [("http2", 80, true), ("https", 443, false)];
    let ports = ports.map(|(name, number, http2)| ServicePort { name: name.into(), number, http2 });
    let service = ServiceObject { ports: ports.to_vec(), of_revision: true, ..ServiceObject::default() };
    bench.state.apply_change(ObjectChange::Service(named("a"), Some(service)));
    bench.endpoints("a", &[(1, "node1")]);
    let https = SliceObject {
        ports: vec![("https".into(), 8112)],
        endpoints: vec![SliceEndpoint {
            address: [10, 0, 0, 1].into(),
            node: None,
            ready: true,
            serving_last: false,
            pod: None,
            stand_in: false,
        }],
    };
    bench.state.apply_change(ObjectChange::Slice(named("a-x"), Some((named("a"), https))));
    bench.ingress_with("i", "h.example", "a", |one| {
        let path = &mut one.spec.rules[0].http.as_mut().unwrap().paths[0];
        path.splits[0].service_port = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(443);
    });
    let news = bench.settle();
    let waits = matches!(progress(&news, "i"), Some(RolloutProgress::Waiting { missing }) if missing[0].contains("routing-serving-certs"));
    assert!(waits, "{:?}", progress(&news, "i"));
    let authority = SecretObject { certificate_pem: "c".into(), key_pem: "k".into(), authority_pem: Some("ca".into()) };
    let name = ObjectName::new("knative-serving", "routing-serving-certs");
    bench.state.apply_change(ObjectChange::Secret(name.clone(), Some(authority)));
    let news = bench.settle();
    assert!(matches!(progress(&news, "i"), Some(RolloutProgress::Served { .. })), "{:?}", progress(&news, "i"));
    let cluster = &bench.store.table().clusters[&"ns/a/443".parse().unwrap()];
    assert!(cluster.tls && cluster.http2);
    assert_eq!(bench.store.names(ResourceKind::Secret), [ResourceName::new("internal-authority")]);
    // Neither its keys nor its certificate are anybody's business; and it stays when it is gone.
    bench.state.apply_change(ObjectChange::Secret(name, None));
    bench.settle();
    assert_eq!(bench.store.names(ResourceKind::Secret), [ResourceName::new("internal-authority")]);
}

#[test]
fn a_refusal_is_forgotten_when_the_secret_that_it_was_about_is_put_right() {
    let secret = |text: &str| SecretObject { certificate_pem: text.into(), key_pem: text.into(), authority_pem: None };
    let mut bench = Bench::new();
    bench.service("a");
    bench.endpoints("a", &[(1, "node1")]);
    let tls = IngressTls { hosts: vec!["h.example".into()], secret_name: "cert".into(), secret_namespace: "ns".into() };
    bench.state.apply_change(ObjectChange::Secret(named("cert"), Some(secret("key of another"))));
    bench.ingress_with("i", "h.example", "a", |one| one.spec.tls.push(tls));
    bench.settle();
    let names = vec!["ns/cert".to_owned()];
    let nack = Nack { kind: ResourceKind::Secret, names: names.clone(), at_fault: names, ..nack("bad key", 0, 1) };
    assert_eq!(bench.state.apply_nack("node1", &nack), [named("i")]);
    assert!(refused(&bench.settle(), "i"));
    // Anything else that changes does not help.
    bench.endpoints("a", &[(2, "node1")]);
    bench.ingress("other", 1, "other.example", "a");
    assert_eq!(progress(&bench.settle(), "i"), None);
    bench.state.apply_change(ObjectChange::Secret(named("cert"), Some(secret("its own key"))));
    let news = bench.settle();
    assert!(matches!(progress(&news, "i"), Some(RolloutProgress::Served { .. })), "{:?}", progress(&news, "i"));
    // And is said again if that is refused, too.
    assert_eq!(bench.state.apply_nack("node1", &nack), [named("i")]);
    assert!(refused(&bench.settle(), "i"));
}

#[test]
fn only_gateways_on_kernels_at_least_as_new_as_the_one_that_was_tried_bound_retransmissions() {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use prost::Message as _;
    let mut bench = Bench::new();
    bench.service("a");
    bench.endpoints("a", &[(1, "node1")]);
    bench.ingress("a", 1, "a.example", "a");
    let node = |name: &str, kernel: &str| {
        ObjectChange::Node(name.into(), Some(NodeObject { zone: None, kernel: kernel.parse().ok(), is_silent: false }))
    };
    bench.state.apply_change(node("new", "6.15.3-arch1"));
    bench.state.apply_change(node("old", "5.15.0-139-generic"));
    bench.settle();
    let options = |bench: &Bench, node: &str| {
        let encoded = bench.store.resource(&GatewayView::of_node(node), ResourceKind::Cluster, "ns/a/80").unwrap();
        let cluster = Cluster::decode(encoded.content).unwrap();
        cluster.upstream_bind_config.unwrap().socket_options.into_iter().map(|one| one.description).collect::<Vec<_>>()
    };
    assert_eq!(options(&bench, "new"), ["TCP_RTO_MAX_MS"]);
    assert_eq!(options(&bench, "old"), ["TCP_USER_TIMEOUT"]);
    assert_eq!(options(&bench, "unknown"), ["TCP_USER_TIMEOUT"]);
    bench.changed();
    bench.state.apply_change(node("old", "6.18.44"));
    bench.settle();
    assert_eq!(bench.changed(), [(ResourceKind::Cluster, "ns/a/80".to_owned())]);
    assert_eq!(options(&bench, "old"), ["TCP_RTO_MAX_MS"]);
    // A node that only says that it is well.
    bench.state.apply_change(node("old", "6.18.44"));
    bench.settle();
    assert_eq!(bench.changed(), []);
}

#[test]
fn a_refusal_by_a_gateway_is_said_of_the_ingress_at_fault_until_its_next_generation() {
    let mut bench = Bench::new();
    for name in ["a", "b"] {
        bench.service(name);
        bench.endpoints(name, &[(1, "node1")]);
        bench.ingress(name, 1, &format!("{name}.example"), name);
    }
    bench.settle();
    bench.changed();
    assert_eq!(bench.state.users_of_cluster("ns/a/80"), [named("a")]);
    let clusters = |at_fault: &[&str]| Nack {
        kind: ResourceKind::Cluster,
        names: ["ns/a/80", "ns/b/80"].map(Into::into).into(),
        at_fault: at_fault.iter().map(ToString::to_string).collect(),
        ..nack("bad", 0, 1)
    };
    // As long as it is not known who is at fault nobody is blamed.
    assert_eq!(bench.state.apply_nack("node1", &clusters(&[])), []);
    let nack = clusters(&["ns/a/80"]);
    assert_eq!(bench.state.apply_nack("node1", &nack), [named("a")]);
    let news = bench.settle();
    assert!(refused(&news, "a"), "{:?}", progress(&news, "a"));
    assert_eq!(progress(&news, "b"), None);
    assert_eq!(bench.changed(), []);
    bench.ingress("a", 2, "a.example", "a");
    let news = bench.settle();
    assert!(matches!(progress(&news, "a"), Some(RolloutProgress::Served { .. })));
}

#[test]
fn a_port_that_a_gateway_cannot_have_is_no_ingress_s_fault() {
    let mut bench = Bench::new();
    bench.service("a");
    bench.endpoints("a", &[(1, "node1")]);
    bench.ingress("a", 1, "a.example", "a");
    bench.settle();
    bench.ingress("a", 2, "a2.example", "a");
    bench.settle();
    let listener = |message: &str| Nack { kind: ResourceKind::Listener, ..nack(message, 1, 2) };
    let bind = "Error adding/updating listener(s) external: cannot bind '0.0.0.0:8080': Address already in use";
    assert_eq!(bench.state.apply_nack("node1", &listener(bind)), []);
    let chains = "error adding listener: multiple filter chains with the same matching rules are defined";
    assert_eq!(bench.state.apply_nack("node1", &listener(chains)), [named("a")]);
}

/// A refusal of what came after revision `confirmed` and up to `revision`.
fn nack(message: &str, confirmed: StoreRevision, revision: StoreRevision) -> Nack {
    let names = vec!["external".to_owned(), "internal".to_owned()];
    Nack { kind: ResourceKind::Routes, names, at_fault: Vec::new(), message: message.to_owned(), revision, confirmed }
}

fn refused(news: &ProgressReport, ingress: &str) -> bool {
    matches!(progress(news, ingress), Some(RolloutProgress::Refused { reason: "RefusedByGateway", .. }))
}

#[test]
fn an_ingress_whose_routes_are_refused_is_held_back_and_the_others_go_on() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.service(name);
        bench.endpoints(name, &[(1, "node1")]);
        bench.ingress(name, 1, &format!("{name}.example"), name);
    }
    bench.settle();
    let hosts = |bench: &Bench| bench.store.table().external.keys().cloned().collect::<Vec<_>>();
    // Two change at once; the message has a host of one.
    bench.ingress("a", 2, "a2.example", "a");
    bench.ingress("b", 2, "b2.example", "b");
    bench.settle();
    assert_eq!(hosts(&bench), ["a2.example", "b2.example", "c.example"]);
    let message = "Only unique values for domains are permitted. Duplicate entry of domain b2.example.";
    assert_eq!(bench.state.apply_nack("node1", &nack(message, 1, 2)), [named("b")]);
    let news = bench.settle();
    assert!(refused(&news, "b") && progress(&news, "a").is_none());
    assert_eq!(hosts(&bench), ["a2.example", "b.example", "c.example"]);
    // The other gateways refuse the same, which says nothing new.
    assert_eq!(bench.state.apply_nack("node2", &nack("something", 1, 2)), []);
    // What comes later is served, without the one held back.
    bench.ingress("c", 2, "c2.example", "c");
    bench.service("b");
    bench.settle();
    assert_eq!(hosts(&bench), ["a2.example", "b.example", "c2.example"]);
    // A new one, found by the number of its virtual host, has nothing to fall back to.
    bench.service("d");
    bench.endpoints("d", &[(1, "node1")]);
    bench.ingress("d", 1, "d.example", "d");
    bench.ingress("c", 3, "c3.example", "c");
    bench.settle();
    let message = "Proto constraint validation failed (RouteConfigurationValidationError.VirtualHosts[3]: ...)";
    let (now, _) = bench.store.revision();
    assert_eq!(bench.state.apply_nack("node1", &nack(message, now - 1, now)), [named("d")]);
    assert!(refused(&bench.settle(), "d"));
    assert_eq!(hosts(&bench), ["a2.example", "b.example", "c3.example"]);
    // Nobody is blamed on a guess.
    bench.ingress("a", 3, "a3.example", "a");
    bench.ingress("c", 4, "c4.example", "c");
    bench.settle();
    let (now, _) = bench.store.revision();
    assert_eq!(bench.state.apply_nack("node1", &nack("something", now - 1, now)), []);
    // The next generation is judged anew.
    bench.ingress("b", 3, "b3.example", "b");
    let news = bench.settle();
    assert!(matches!(progress(&news, "b"), Some(RolloutProgress::Served { .. })));
    assert_eq!(hosts(&bench), ["a3.example", "b3.example", "c4.example"]);
}
