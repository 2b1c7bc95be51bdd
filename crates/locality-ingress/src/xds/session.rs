//! What one gateway is sent, and when: the delta protocol as a state machine without I/O.
//!
//! Per kind at most one response is in flight; changes meanwhile are sent together after its ACK.
//! Routes wait until the gateway has the endpoints of every new cluster, so that no request meets a
//! missing cluster. Removals wait until the gateway has confirmed its routes: a gateway that was
//! away, or that sent a NACK, may still have routes to removed clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::answer::DeltaResponse;
use super::gateway_view::GatewayView;
use super::refusal::Nack;
use super::store::{ConfigStore, StoreRevision};
use super::subscription::Subscription;
use super::{ResourceKind, ResourceName};

/// How long routes wait for endpoints. Only a gateway that refused a cluster makes them wait that
/// long.
const ROUTES_WAIT: Duration = Duration::from_secs(2);

/// How long removals wait for a gateway that does not subscribe to routes: one without listeners
/// has none.
const REMOVALS_WAIT: Duration = Duration::from_secs(60);

/// The number of names that a gateway may hold and request beyond existing resources. A stream with
/// more is broken or hostile.
const MOST_UNKNOWN_NAMES: usize = 50_000;
/// The number of lists of a stream that an existing name can be in.
const LISTS: usize = 2;

/// The state of one stream.
#[derive(Debug)]
pub struct XdsSession {
    view: GatewayView,
    kinds: BTreeMap<ResourceKind, Subscription>,
    seen: StoreRevision,
    next_nonce: u64,
    // Clusters that were sent and whose endpoints were not.
    awaiting_endpoints: BTreeSet<ResourceName>,
    routes_waiting_since: Option<Instant>,
    began: Option<Instant>,
}

impl XdsSession {
    /// The session of a new stream of the gateway `view`.
    #[must_use]
    pub fn new(view: GatewayView) -> Self {
        Self {
            view,
            kinds: BTreeMap::new(),
            seen: 0,
            next_nonce: 1,
            awaiting_endpoints: BTreeSet::new(),
            routes_waiting_since: None,
            began: None,
        }
    }

    /// The gateway.
    #[must_use]
    pub fn view(&self) -> &GatewayView {
        &self.view
    }

    /// Applies a request. Returns the NACK in it.
    pub fn on_request(&mut self, mut request: DeltaDiscoveryRequest, store: &ConfigStore) -> Option<Nack> {
        // An unknown kind is never answered; Envoy has no such subscription to this server.
        let kind = ResourceKind::from_type_url(&request.type_url)?;
        let first = !self.kinds.contains_key(&kind);
        let subscription = self.kinds.entry(kind).or_insert_with(|| Subscription::new(kind));
        let nack = subscription.take_verdict(&mut request);
        // A gateway does not subscribe to the endpoints of a cluster that it refused or
        // unsubscribed from.
        let refused = nack.iter().filter(|nack| nack.kind == ResourceKind::Cluster).flat_map(|nack| &nack.names);
        let unwanted = request.resource_names_unsubscribe.iter().filter(|_| kind == ResourceKind::Assignment);
        for name in refused.chain(unwanted) {
            self.awaiting_endpoints.remove(name.as_str());
        }
        subscription.take_wishes(request, first, store);
        nack
    }

    /// Whether the gateway holds so many names that its stream must be ended.
    #[must_use]
    pub fn exceeds_limits(&self, store: &ConfigStore) -> bool {
        let names: usize = self.kinds.values().map(Subscription::len).sum();
        names > MOST_UNKNOWN_NAMES + LISTS * store.len()
    }

    /// The responses that are due now, in order.
    pub fn answers(&mut self, store: &ConfigStore, now: Instant) -> Vec<DeltaResponse> {
        let kinds = &mut self.kinds;
        let since = self.seen;
        // Before the first publication nothing can be said, not even that a resource does not
        // exist.
        let (seen, all) = store.changes_since(since, |kind, name| {
            if let Some(subscription) = kinds.get_mut(&kind) {
                subscription.note_change(name);
            }
        });
        if !all {
            kinds.values_mut().for_each(Subscription::note_changes_of_all);
        }
        self.seen = seen;
        if self.seen == 0 {
            return Vec::new();
        }
        self.began.get_or_insert(now);
        self.release_removals(now);
        let mut answers: Vec<_> = ResourceKind::ALL.into_iter().filter_map(|kind| self.answer(kind, store, now)).collect();
        // Routes come last: only now is it known whether they have to wait.
        if self.kinds.values().any(Subscription::holds_back) && self.release_removals(now) {
            answers.extend(ResourceKind::ALL.into_iter().filter_map(|kind| self.answer(kind, store, now)));
        }
        answers
    }

    /// Releases removals if nothing is left to wait for. Returns whether it did.
    fn release_removals(&mut self, now: Instant) -> bool {
        let free = !self.removals_must_wait(now);
        if free {
            self.kinds.values_mut().for_each(Subscription::release);
        }
        free
    }

    fn answer(&mut self, kind: ResourceKind, store: &ConfigStore, now: Instant) -> Option<DeltaResponse> {
        if !self.kinds.get(&kind)?.is_due() || (kind == ResourceKind::Routes && self.routes_must_wait(now)) {
            return None;
        }
        // Removed routes and listeners are what the other removals wait for.
        let hold = !matches!(kind, ResourceKind::Routes | ResourceKind::Listener) && self.removals_must_wait(now);
        let subscription = self.kinds.get_mut(&kind)?;
        let page = subscription.next_page(hold, |name| store.resource(&self.view, kind, name.as_str()))?;
        let nonce = self.next_nonce.to_string();
        self.next_nonce += 1;
        subscription.sent(&page, &nonce, self.seen, store.revision().0);
        let answer = DeltaResponse { kind, nonce, revision: self.seen, resources: page.resources, removed: page.removed };
        match kind {
            ResourceKind::Cluster => self.clusters_sent(&answer, store),
            ResourceKind::Assignment => {
                for (name, _) in &answer.resources {
                    self.awaiting_endpoints.remove(name);
                }
            }
            _ => {}
        }
        Some(answer)
    }

    fn clusters_sent(&mut self, answer: &DeltaResponse, store: &ConfigStore) {
        for name in &answer.removed {
            self.awaiting_endpoints.remove(name);
        }
        for (name, _) in answer.resources.iter().filter(|(name, _)| store.has_endpoints(name)) {
            self.awaiting_endpoints.insert(name.clone());
            // A changed cluster warms up again and needs its endpoints again, but Envoy may assume
            // that it has requested them.
            if let Some(assignments) = self.kinds.get_mut(&ResourceKind::Assignment) {
                assignments.owe(name);
            }
        }
    }

    fn routes_must_wait(&mut self, now: Instant) -> bool {
        let clusters = self.kinds.get(&ResourceKind::Cluster);
        let clusters_pending = clusters.is_some_and(Subscription::is_pending);
        if !clusters_pending && self.awaiting_endpoints.is_empty() {
            self.routes_waiting_since = None;
            return false;
        }
        // A gateway requests the endpoints of clusters before it confirms the clusters, however
        // long that takes.
        if clusters.is_some_and(Subscription::is_in_flight) {
            self.routes_waiting_since = Some(now);
            return true;
        }
        if now < *self.routes_waiting_since.get_or_insert(now) + ROUTES_WAIT {
            return true;
        }
        self.awaiting_endpoints.clear();
        self.routes_waiting_since = None;
        false
    }

    /// Whether the gateway may have routes to removed clusters: until it has confirmed the present
    /// routes.
    fn removals_must_wait(&self, now: Instant) -> bool {
        match self.kinds.get(&ResourceKind::Routes) {
            Some(routes) => routes.is_pending() || routes.is_in_flight() || routes.was_refused(),
            None => self.began.is_none_or(|began| now < began + REMOVALS_WAIT),
        }
    }

    /// When to call [`answers`](Self::answers) again although nothing happened.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let routes = self.routes_waiting_since.map(|since| since + ROUTES_WAIT);
        let waits = !self.kinds.contains_key(&ResourceKind::Routes) && self.kinds.values().any(Subscription::holds_back);
        let removals = self.began.filter(|_| waits).map(|began| began + REMOVALS_WAIT);
        routes.into_iter().chain(removals).min()
    }

    /// The revision that the gateway has confirmed in full; `None` while a response is in flight or
    /// due.
    #[must_use]
    pub fn in_sync_at(&self) -> Option<StoreRevision> {
        // A gateway requests routes last. Before that it cannot have everything.
        let started = self.kinds.contains_key(&ResourceKind::Routes);
        let quiet = self.kinds.values().all(|one| !one.is_in_flight() && !one.is_pending());
        (started && quiet && self.awaiting_endpoints.is_empty()).then_some(self.seen)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use envoy_types::pb::google::rpc::Status;

    use super::*;
    use crate::endpoints::locality::LocalityPolicy;
    use crate::kubernetes::objects::{Endpoint, ObjectName};
    use crate::routes::route_table::{Cluster, ClusterKey, ClusterTarget};
    use crate::xds::Encoded;
    use crate::xds::cluster_endpoints::ClusterEndpoints;
    use crate::xds::clusters::cluster;
    use crate::xds::listeners::ListenerSettings;
    use crate::xds::route_configuration::route_configuration;
    use crate::xds::store::Update;

    fn key(name: &str) -> ClusterKey {
        ClusterKey { service: ObjectName::new("ns", name), port: "80".into() }
    }

    fn add(update: &mut Update, name: &str) {
        let made = Cluster { http2: false, tls: false, target: ClusterTarget::Endpoints { port_name: "http".into() } };
        let encoded = Encoded::new(&cluster(&key(name), &made, LocalityPolicy::Locality));
        update.shared.insert((ResourceKind::Cluster, key(name).to_string()), Some(encoded));
        let pods = ClusterEndpoints::Pods { endpoints: Vec::new(), rows: None, limits: None };
        update.endpoints.insert(key(name).to_string(), Some(pods));
    }

    fn routes(update: &mut Update, version: &str) {
        // Only that it differs matters.
        let encoded = Encoded::new(&route_configuration(version, &BTreeMap::new(), &Default::default()));
        update.shared.insert((ResourceKind::Routes, "external".into()), Some(encoded));
    }

    fn request(kind: ResourceKind, names: &[&str]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn ack(answer: &DeltaResponse) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { response_nonce: answer.nonce.clone(), ..request(answer.kind, &[]) }
    }

    fn sent(answers: &[DeltaResponse]) -> Vec<(&'static str, Vec<&str>, Vec<&str>)> {
        let parts = |answer| {
            let DeltaResponse { kind, resources, removed, .. }: &DeltaResponse = answer;
            let resources = resources.iter().map(|(name, _)| name.as_str()).collect();
            (kind.label(), resources, removed.iter().map(ResourceName::as_str).collect())
        };
        answers.iter().map(parts).collect()
    }

    struct Bench {
        store: Arc<ConfigStore>,
        session: XdsSession,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let store = Arc::new(ConfigStore::new(LocalityPolicy::Locality, ListenerSettings::default()));
            let session = XdsSession::new(GatewayView::of_node("node1"));
            Self { store, session, now: Instant::now() }
        }

        fn ask(&mut self, request: DeltaDiscoveryRequest) -> Vec<DeltaResponse> {
            assert_eq!(self.session.on_request(request, &self.store), None);
            self.answers()
        }

        fn answers(&mut self) -> Vec<DeltaResponse> {
            self.session.answers(&self.store, self.now)
        }

        fn ack_all(&mut self, responses: &[DeltaResponse]) -> Vec<DeltaResponse> {
            responses.iter().flat_map(|response| self.ask(ack(response))).collect()
        }

        /// A gateway that has everything of a store with cluster `a`.
        fn in_sync() -> Self {
            let mut bench = Self::new();
            let mut update = Update::default();
            add(&mut update, "a");
            routes(&mut update, "1");
            bench.store.publish(update);
            for (kind, names) in [
                (ResourceKind::Cluster, &[][..]),
                (ResourceKind::Assignment, &["ns/a/80"]),
                (ResourceKind::Listener, &[]),
                (ResourceKind::Routes, &["external"]),
            ] {
                let answers = bench.ask(request(kind, names));
                assert_eq!(answers.len(), 1, "{kind:?}");
                assert_eq!(sent(&bench.ack_all(&answers)), []);
            }
            assert_eq!(bench.session.in_sync_at(), Some(1));
            bench
        }
    }

    #[test]
    fn nothing_is_said_before_the_first_publication() {
        let mut bench = Bench::new();
        assert_eq!(sent(&bench.ask(request(ResourceKind::Cluster, &[]))), []);
        assert_eq!(sent(&bench.ask(request(ResourceKind::Listener, &[]))), []);
        bench.store.publish(Update::default());
        // Without any cluster the gateway gets an empty response, or it would wait for ever.
        assert_eq!(sent(&bench.answers())[0], ("cds", vec![], vec![]));
    }

    #[test]
    fn routes_wait_until_the_endpoints_of_new_clusters_are_sent() {
        let mut bench = Bench::in_sync();
        let mut update = Update::default();
        add(&mut update, "b");
        routes(&mut update, "2");
        bench.store.publish(update);
        let clusters = bench.answers();
        assert_eq!(sent(&clusters), [("cds", vec!["ns/b/80"], vec![])]);
        assert_eq!(bench.session.in_sync_at(), None);
        assert_eq!(sent(&bench.ack_all(&clusters)), []);
        let rest = bench.ask(request(ResourceKind::Assignment, &["ns/b/80"]));
        assert_eq!(sent(&rest), [("eds", vec!["ns/b/80"], vec![]), ("rds", vec!["external"], vec![])]);
        assert_eq!(sent(&bench.ack_all(&rest)), []);
        assert_eq!(bench.session.in_sync_at(), Some(2));
    }

    #[test]
    fn a_refused_cluster_holds_nothing_up() {
        let mut bench = Bench::in_sync();
        let mut update = Update::default();
        add(&mut update, "b");
        routes(&mut update, "2");
        bench.store.publish(update);
        let clusters = bench.answers();
        let nack = DeltaDiscoveryRequest {
            error_detail: Some(Status { message: "bad ns/b/80".into(), ..Status::default() }),
            ..ack(&clusters[0])
        };
        let reported = bench.session.on_request(nack, &bench.store).unwrap();
        let names = vec!["ns/b/80".to_owned()];
        let message = "bad ns/b/80".to_owned();
        let expected = Nack { kind: ResourceKind::Cluster, at_fault: names.clone(), names, message, revision: 2, confirmed: 1 };
        assert_eq!(reported, expected);
        assert_eq!(sent(&bench.answers()), [("rds", vec!["external"], vec![])]);
    }

    #[test]
    fn what_was_refused_together_with_another_is_sent_again_without_it_and_only_then_all_is_there() {
        let mut bench = Bench::in_sync();
        let mut update = Update::default();
        ["b", "c", "d"].iter().for_each(|name| add(&mut update, name));
        bench.store.publish(update);
        let clusters = bench.answers();
        let rest = bench.ack_all(&clusters);
        assert_eq!(sent(&rest), []);
        let together = bench.ask(request(ResourceKind::Assignment, &["ns/b/80", "ns/c/80", "ns/d/80"]));
        assert_eq!(sent(&together), [("eds", vec!["ns/b/80", "ns/c/80", "ns/d/80"], vec![])]);
        // Meanwhile something else changes, which waits for its turn.
        let mut update = Update::default();
        let endpoint = Endpoint { address: [10, 0, 0, 1].into(), port: 8012, node: None, stand_in: false };
        let pods = ClusterEndpoints::Pods { endpoints: vec![endpoint], rows: None, limits: None };
        update.endpoints.insert("ns/a/80".to_owned(), Some(pods));
        bench.store.publish(update);
        let refuse = |answer: &DeltaResponse| DeltaDiscoveryRequest {
            error_detail: Some(Status { message: "bad".into(), ..Status::default() }),
            ..ack(answer)
        };
        let nack = bench.session.on_request(refuse(&together[0]), &bench.store).unwrap();
        assert_eq!((nack.names.len(), nack.at_fault, nack.confirmed), (3, vec![], 1));
        let first_half = bench.answers();
        assert_eq!(sent(&first_half), [("eds", vec!["ns/b/80"], vec![])]);
        assert_eq!(bench.session.in_sync_at(), None);
        let second_half = bench.ask(ack(&first_half[0]));
        assert_eq!(sent(&second_half), [("eds", vec!["ns/c/80", "ns/d/80"], vec![])]);
        let nack = bench.session.on_request(refuse(&second_half[0]), &bench.store).unwrap();
        assert_eq!((nack.at_fault, nack.confirmed), (vec![], 1));
        let one = bench.answers();
        assert_eq!(sent(&one), [("eds", vec!["ns/c/80"], vec![])]);
        let other = bench.ask(ack(&one[0]));
        assert_eq!(sent(&other), [("eds", vec!["ns/d/80"], vec![])]);
        let nack = bench.session.on_request(refuse(&other[0]), &bench.store).unwrap();
        assert_eq!(nack.at_fault, ["ns/d/80"]);
        let later = bench.answers();
        assert_eq!(sent(&later), [("eds", vec!["ns/a/80"], vec![])]);
        assert_eq!(sent(&bench.ask(ack(&later[0]))), []);
        assert_eq!(bench.session.in_sync_at(), Some(3));
    }

    #[test]
    fn routes_wait_for_no_gateway_that_never_asks() {
        let mut bench = Bench::in_sync();
        let mut update = Update::default();
        add(&mut update, "b");
        routes(&mut update, "2");
        bench.store.publish(update);
        let clusters = bench.answers();
        bench.ack_all(&clusters);
        let wake_at = bench.session.wake_at().unwrap();
        bench.now = wake_at;
        assert_eq!(sent(&bench.answers()), [("rds", vec!["external"], vec![])]);
        assert_eq!(bench.session.wake_at(), None);
    }

    #[test]
    fn changes_while_an_answer_is_on_its_way_go_out_together() {
        let mut bench = Bench::in_sync();
        for name in ["b", "c", "d"] {
            let mut update = Update::default();
            add(&mut update, name);
            bench.store.publish(update);
            if name == "b" {
                assert_eq!(sent(&bench.answers()), [("cds", vec!["ns/b/80"], vec![])]);
            } else {
                assert_eq!(sent(&bench.answers()), []);
            }
        }
        let nonce = DeltaDiscoveryRequest { response_nonce: "5".into(), ..request(ResourceKind::Cluster, &[]) };
        assert_eq!(sent(&bench.ask(nonce)), [("cds", vec!["ns/c/80", "ns/d/80"], vec![])]);
    }

    #[test]
    fn after_a_reconnect_only_what_differs_is_sent() {
        let before = Bench::in_sync();
        let version = |kind, name: &str| {
            let resource = before.store.resource(before.session.view(), kind, name).unwrap();
            (name.to_owned(), format!("{:x}", resource.version))
        };
        let mut bench =
            Bench { session: XdsSession::new(before.session.view().clone()), store: before.store.clone(), now: before.now };
        let clusters = DeltaDiscoveryRequest {
            initial_resource_versions: [version(ResourceKind::Cluster, "ns/a/80"), ("ns/gone/80".into(), "1".into())].into(),
            ..request(ResourceKind::Cluster, &[])
        };
        // Routes that it has may lead there.
        assert_eq!(sent(&bench.ask(clusters)), [("cds", vec![], vec![])]);
        let endpoints = DeltaDiscoveryRequest {
            initial_resource_versions: [version(ResourceKind::Assignment, "ns/a/80")].into(),
            ..request(ResourceKind::Assignment, &["ns/a/80"])
        };
        assert_eq!(sent(&bench.ask(endpoints)), []);
        // Asking again later means that it is needed again.
        assert_eq!(sent(&bench.ask(request(ResourceKind::Assignment, &["ns/a/80"]))), [("eds", vec!["ns/a/80"], vec![])]);
    }

    #[test]
    fn a_gateway_that_was_away_gets_its_new_routes_before_it_loses_the_clusters_of_the_old() {
        let before = Bench::in_sync();
        let version = |kind, name: &str| {
            let resource = before.store.resource(before.session.view(), kind, name).unwrap();
            (name.to_owned(), format!("{:x}", resource.version))
        };
        let (cluster, routes_before) = (version(ResourceKind::Cluster, "ns/a/80"), version(ResourceKind::Routes, "external"));
        // While it is away its only cluster goes, and another one comes.
        let mut update = Update::default();
        add(&mut update, "b");
        routes(&mut update, "2");
        update.shared.insert((ResourceKind::Cluster, key("a").to_string()), None);
        update.endpoints.insert(key("a").to_string(), None);
        before.store.publish(update);
        let mut bench =
            Bench { session: XdsSession::new(before.session.view().clone()), store: before.store.clone(), now: before.now };
        let had = |kind, names: &[&str], versions: &[(String, String)]| DeltaDiscoveryRequest {
            initial_resource_versions: versions.iter().cloned().collect(),
            ..request(kind, names)
        };
        let clusters = bench.ask(had(ResourceKind::Cluster, &[], &[cluster]));
        assert_eq!(sent(&clusters), [("cds", vec!["ns/b/80"], vec![])]);
        let endpoints = bench.ask(request(ResourceKind::Assignment, &["ns/b/80"]));
        assert_eq!(sent(&endpoints), [("eds", vec!["ns/b/80"], vec![])]);
        assert_eq!(sent(&bench.ack_all(&[clusters, endpoints].concat())), []);
        let routes = bench.ask(had(ResourceKind::Routes, &["external"], &[routes_before]));
        assert_eq!(sent(&routes), [("rds", vec!["external"], vec![])]);
        // One that refuses its routes has the old ones.
        let refusal = DeltaDiscoveryRequest {
            error_detail: Some(Status { message: "bad".into(), ..Status::default() }),
            ..ack(&routes[0])
        };
        assert!(bench.session.on_request(refusal, &bench.store).is_some());
        bench.now += REMOVALS_WAIT * 2;
        assert_eq!(sent(&bench.answers()), []);
        let mut update = Update::default();
        super::tests::routes(&mut update, "3");
        bench.store.publish(update);
        let routes = bench.answers();
        assert_eq!(sent(&bench.ack_all(&routes)), [("cds", vec![], vec!["ns/a/80"])]);
    }

    #[test]
    fn a_gateway_that_asks_for_no_routes_is_told_what_is_gone_after_a_while() {
        let mut bench = Bench::new();
        bench.store.publish(Update::default());
        let clusters = DeltaDiscoveryRequest {
            initial_resource_versions: [("ns/gone/80".into(), "1".into())].into(),
            ..request(ResourceKind::Cluster, &[])
        };
        let first = bench.ask(clusters);
        assert_eq!(sent(&first), [("cds", vec![], vec![])]);
        assert_eq!(sent(&bench.ack_all(&first)), []);
        bench.now = bench.session.wake_at().unwrap();
        assert_eq!(sent(&bench.answers()), [("cds", vec![], vec!["ns/gone/80"])]);
        assert_eq!(bench.session.wake_at(), None);
    }

    #[test]
    fn a_cluster_that_changes_gets_its_endpoints_again() {
        let mut bench = Bench::in_sync();
        let http2 = Cluster { http2: true, tls: false, target: ClusterTarget::Endpoints { port_name: "http".into() } };
        let mut update = Update::default();
        let encoded = Encoded::new(&cluster(&key("a"), &http2, LocalityPolicy::Locality));
        update.shared.insert((ResourceKind::Cluster, key("a").to_string()), Some(encoded));
        bench.store.publish(update);
        assert_eq!(sent(&bench.answers()), [("cds", vec!["ns/a/80"], vec![]), ("eds", vec!["ns/a/80"], vec![])]);
    }

    #[test]
    fn what_is_removed_is_told_and_what_never_was_is_told_to_who_asks() {
        let mut bench = Bench::in_sync();
        let mut update = Update::default();
        update.shared.insert((ResourceKind::Cluster, key("a").to_string()), None);
        update.endpoints.insert(key("a").to_string(), None);
        bench.store.publish(update);
        assert_eq!(sent(&bench.answers()), [("cds", vec![], vec!["ns/a/80"]), ("eds", vec![], vec!["ns/a/80"])]);
        assert_eq!(sent(&bench.ask(request(ResourceKind::Secret, &["ns/tls"]))), [("sds", vec![], vec!["ns/tls"])]);
    }

    #[test]
    fn more_than_a_page_goes_out_in_pages_and_routes_wait_for_the_last() {
        let mut bench = Bench::in_sync();
        let mut update = Update::default();
        let names: Vec<_> = (0..1_000).map(|number| format!("{number:0500}")).collect();
        names.iter().for_each(|name| add(&mut update, name));
        routes(&mut update, "2");
        bench.store.publish(update);
        let (mut clusters, mut answers) = (0, bench.answers());
        while clusters < names.len() {
            assert_eq!(answers.len(), 1, "after {clusters} clusters");
            assert!(answers[0].resources.len() < names.len() / 2);
            // A gateway that takes its time is waited for.
            bench.now += ROUTES_WAIT * 2;
            assert_eq!(sent(&bench.answers()), []);
            clusters += answers[0].resources.len();
            answers = bench.ack_all(&answers);
        }
        assert_eq!(sent(&answers), []);
        let keys: Vec<_> = names.iter().map(|name| key(name).to_string()).collect();
        let mut endpoints = bench.ask(request(ResourceKind::Assignment, &keys.iter().map(String::as_str).collect::<Vec<_>>()));
        let mut kinds = Vec::new();
        while !endpoints.is_empty() {
            kinds.extend(endpoints.iter().map(|answer| (answer.kind, answer.resources.len())));
            endpoints = bench.ack_all(&endpoints);
        }
        assert_eq!(
            kinds.iter().filter(|(kind, _)| *kind == ResourceKind::Assignment).map(|(_, count)| count).sum::<usize>(),
            1_000
        );
        assert_eq!(kinds.last(), Some(&(ResourceKind::Routes, 1)));
        assert_eq!(bench.session.in_sync_at(), Some(2));
    }

    #[test]
    fn a_gateway_that_slept_through_more_removals_than_are_remembered_still_loses_what_is_gone() {
        let mut bench = Bench::in_sync();
        for round in 0..6_000 {
            let name = (ResourceKind::Secret, format!("ns/{round}"));
            let encoded = Encoded::from(vec![1]);
            bench.store.publish(Update { shared: [(name.clone(), Some(encoded))].into(), ..Update::default() });
            bench.store.publish(Update { shared: [(name, None)].into(), ..Update::default() });
            if round == 0 {
                let gone = [(key("a").to_string(), None)].into();
                bench.store.publish(Update {
                    shared: [((ResourceKind::Cluster, key("a").to_string()), None)].into(),
                    endpoints: gone,
                    ..Update::default()
                });
            }
        }
        assert_eq!(sent(&bench.answers()), [("cds", vec![], vec!["ns/a/80"]), ("eds", vec![], vec!["ns/a/80"])]);
    }
}
