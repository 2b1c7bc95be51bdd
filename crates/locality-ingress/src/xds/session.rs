//! What one gateway is sent, and when: the delta protocol as a state machine without I/O.
//!
//! Per kind at most one answer is on its way; what changes meanwhile goes out together when the gateway has taken it. Routes wait until the
//! gateway has the endpoints of every cluster it was told of, so that no request ever meets a cluster that is not there yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::answer::Answer;
use super::store::{Revision, Store, View};
use super::{Kind, Name};

/// What one answer holds at most, beyond its last resource. The rest of what is due follows when the gateway has taken it, so that fifty
/// gateways which come at once do not each have all that there is on its way.
const PAGE_BYTES: usize = 256 * 1024;

/// How long routes wait for endpoints. Only a gateway that refused a cluster ever makes them wait that long.
const ROUTES_WAIT: Duration = Duration::from_secs(2);

/// A gateway may hold and ask for this many names beyond what there is: those that are gone, or not there yet. A stream with more is broken,
/// or meant to fill our memory.
const MOST_UNKNOWN_NAMES: usize = 50_000;
/// In how many lists of a stream a name that there is may be at the same time.
const LISTS: usize = 2;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// What it refused.
    pub kind: Kind,
    /// The names in the refused answer.
    pub names: Vec<String>,
    /// Why, in Envoy's words.
    pub message: String,
    /// What is refused is of this revision at the latest.
    pub revision: Revision,
    /// The last revision of which it took all of this kind.
    pub confirmed: Revision,
}

impl Nack {
    /// For people, from the gateway of `node`.
    #[must_use]
    pub fn by_gateway_of(&self, node: &str) -> String {
        format!("the gateway of node {node} refused an update: {}", self.message)
    }
}

/// The state of one stream.
#[derive(Debug)]
pub struct Session {
    view: View,
    kinds: BTreeMap<Kind, KindState>,
    seen: Revision,
    next_nonce: u64,
    // Clusters that this gateway was told of and has no endpoints for yet.
    awaiting_endpoints: BTreeSet<Name>,
    routes_waiting_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct KindState {
    all: bool,
    // What the gateway was last sent: name -> version, and what it asked for by name and does not have. A refused one has the version that it
    // was refused in, for the same again would be refused again.
    known: HashMap<Name, Option<NonZeroU64>>,
    // Names to look at; true where an answer is owed even if nothing changed.
    look_at: BTreeMap<Name, bool>,
    on_its_way: Option<OnItsWay>,
    confirmed: Revision,
    // A subscription to everything that is empty so far is owed an (empty) answer, or the gateway waits for ever.
    owes_first_answer: bool,
}

#[derive(Debug)]
struct OnItsWay {
    nonce: String,
    names: Vec<Name>,
    // What it holds is at least this new, and at most that.
    at_least: Revision,
    at_most: Revision,
}

impl KindState {
    fn wants(&self, name: &Name) -> bool {
        self.all || self.known.contains_key(name)
    }

    /// Notes that the gateway has the resource no more. Whether it had it.
    fn lose(&mut self, name: &Name) -> bool {
        if self.all { self.known.remove(name).flatten() } else { self.known.get_mut(name).and_then(Option::take) }.is_some()
    }
}

impl Session {
    /// A stream of the gateway of `view`.
    #[must_use]
    pub fn new(view: View) -> Self {
        Self {
            view,
            kinds: BTreeMap::new(),
            seen: 0,
            next_nonce: 1,
            awaiting_endpoints: BTreeSet::new(),
            routes_waiting_since: None,
        }
    }

    /// Which gateway this is.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Takes a request. A refusal in it is returned.
    pub fn on_request(&mut self, request: DeltaDiscoveryRequest, store: &Store) -> Option<Nack> {
        // A kind that we do not serve is never answered; Envoy has no such subscription from us.
        let kind = Kind::from_type_url(&request.type_url)?;
        let first = !self.kinds.contains_key(&kind);
        let state = self.kinds.entry(kind).or_default();
        let answered = state.on_its_way.take_if(|sent| sent.nonce == request.response_nonce);
        let nack = match (answered, request.error_detail) {
            (Some(sent), Some(error)) => Some(Nack {
                kind,
                names: sent.names.iter().map(|name| name.as_str().to_owned()).collect(),
                message: error.message,
                revision: sent.at_most,
                confirmed: state.confirmed,
            }),
            (Some(sent), None) => {
                state.confirmed = sent.at_least;
                None
            }
            (None, _) => None,
        };
        if let Some(nack) = &nack {
            // It keeps what it had, and asks for no endpoints of a cluster that it refused.
            if nack.kind == Kind::Cluster {
                nack.names.iter().for_each(|name| {
                    self.awaiting_endpoints.remove(name.as_str());
                });
            }
        }
        for (name, version) in request.initial_resource_versions {
            let name = store.name(kind, &name);
            if let Ok(version) = u64::from_str_radix(&version, 16) {
                state.known.insert(name.clone(), NonZeroU64::new(version));
            }
            state.look_at.entry(name).or_insert(false);
        }
        let everything = request.resource_names_subscribe.iter().any(|name| name == "*")
            || (first && request.resource_names_subscribe.is_empty());
        if everything && !state.all {
            state.all = true;
            state.owes_first_answer = true;
            for name in store.names(kind) {
                state.look_at.entry(name).or_insert(false);
            }
        }
        for name in request.resource_names_subscribe.into_iter().filter(|name| name != "*") {
            // Asking again for what it has means that it needs it again; but not when it has just told us that it has it.
            let name = store.name(kind, &name);
            let owed = !(first && state.known.contains_key(&name));
            *state.look_at.entry(name.clone()).or_insert(false) |= owed;
            state.known.entry(name).or_insert(None);
        }
        for name in request.resource_names_unsubscribe {
            if name == "*" {
                state.all = false;
            }
            state.known.remove(name.as_str());
            state.look_at.remove(name.as_str());
            if kind == Kind::Assignment {
                self.awaiting_endpoints.remove(name.as_str());
            }
        }
        nack
    }

    /// Whether the gateway asks for so many names that its stream should be ended.
    #[must_use]
    pub fn asks_too_much(&self, store: &Store) -> bool {
        let names: usize = self.kinds.values().map(|state| state.known.len() + state.look_at.len()).sum();
        names > MOST_UNKNOWN_NAMES + LISTS * store.len()
    }

    /// The answers that are due now, in order.
    pub fn answers(&mut self, store: &Store, now: Instant) -> Vec<Answer> {
        let kinds = &mut self.kinds;
        let since = self.seen;
        // Before the first publication there is nothing to say: not even that something does not exist.
        let (seen, all) = store.changes_since(since, |kind, name| {
            if let Some(state) = kinds.get_mut(&kind).filter(|state| state.wants(name)) {
                state.look_at.entry(name.clone()).or_insert(false);
            }
        });
        if !all {
            for state in kinds.values_mut() {
                for name in state.known.keys() {
                    state.look_at.entry(name.clone()).or_insert(false);
                }
            }
        }
        self.seen = seen;
        if self.seen == 0 {
            return Vec::new();
        }
        Kind::ALL.into_iter().filter_map(|kind| self.answer(kind, store, now)).collect()
    }

    fn answer(&mut self, kind: Kind, store: &Store, now: Instant) -> Option<Answer> {
        let state = self.kinds.get(&kind)?;
        if state.on_its_way.is_some() || (state.look_at.is_empty() && !state.owes_first_answer) {
            return None;
        }
        if kind == Kind::Routes && self.routes_must_wait(now) {
            return None;
        }
        let state = self.kinds.get_mut(&kind)?;
        let (mut resources, mut removed, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < PAGE_BYTES
            && let Some((name, owed)) = state.look_at.pop_first()
        {
            match store.resource(&self.view, kind, name.as_str()) {
                Some(resource) if owed || state.known.get(&name) != Some(&Some(resource.version)) => {
                    bytes += name.as_str().len() + resource.content.len();
                    state.known.insert(name.clone(), Some(resource.version));
                    resources.push((name, resource));
                }
                Some(_) => {}
                None => {
                    if state.lose(&name) || owed {
                        bytes += name.as_str().len();
                        removed.push(name);
                    }
                }
            }
        }
        let nothing = resources.is_empty() && removed.is_empty();
        if nothing && !std::mem::take(&mut state.owes_first_answer) {
            return None;
        }
        state.owes_first_answer = false;
        let nonce = self.next_nonce.to_string();
        self.next_nonce += 1;
        state.on_its_way = Some(OnItsWay {
            nonce: nonce.clone(),
            names: resources.iter().map(|(name, _)| name.clone()).collect(),
            at_least: self.seen,
            at_most: store.revision().0,
        });
        let answer = Answer { kind, nonce, revision: self.seen, resources, removed };
        match kind {
            Kind::Cluster => self.clusters_sent(&answer, store),
            Kind::Assignment => {
                for (name, _) in &answer.resources {
                    self.awaiting_endpoints.remove(name);
                }
            }
            _ => {}
        }
        Some(answer)
    }

    fn clusters_sent(&mut self, answer: &Answer, store: &Store) {
        for name in &answer.removed {
            self.awaiting_endpoints.remove(name);
        }
        for (name, _) in answer.resources.iter().filter(|(name, _)| store.has_endpoints(name)) {
            self.awaiting_endpoints.insert(name.clone());
            // A cluster that changes warms up again and needs its endpoints again, but Envoy may take it that it has asked for them.
            if let Some(state) = self.kinds.get_mut(&Kind::Assignment).filter(|state| state.wants(name)) {
                state.look_at.insert(name.clone(), true);
            }
        }
    }

    fn routes_must_wait(&mut self, now: Instant) -> bool {
        let clusters = self.kinds.get(&Kind::Cluster);
        let clusters_pending = clusters.is_some_and(|state| !state.look_at.is_empty());
        if !clusters_pending && self.awaiting_endpoints.is_empty() {
            self.routes_waiting_since = None;
            return false;
        }
        // A gateway asks for the endpoints of clusters before it confirms them, however long it takes over them.
        if clusters.is_some_and(|state| state.on_its_way.is_some()) {
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

    /// When to call [`answers`](Self::answers) again although nothing happened.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.routes_waiting_since.map(|since| since + ROUTES_WAIT)
    }

    /// The revision that the gateway has confirmed in full; `None` while something is on its way or waits.
    #[must_use]
    pub fn in_sync_at(&self) -> Option<Revision> {
        // A gateway asks for routes last. Before it did it cannot have all.
        let started = self.kinds.contains_key(&Kind::Routes);
        let quiet = self.kinds.values().all(|state| state.on_its_way.is_none() && state.look_at.is_empty());
        (started && quiet && self.awaiting_endpoints.is_empty()).then_some(self.seen)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use envoy_types::pb::google::rpc::Status;

    use super::*;
    use crate::locality::Policy;
    use crate::objects::ObjectName;
    use crate::route_table::{Cluster, ClusterKey, Target};
    use crate::xds::Encoded;
    use crate::xds::clusters::cluster;
    use crate::xds::listeners::GatewayPorts;
    use crate::xds::routes::route_configuration;
    use crate::xds::store::{ClusterEndpoints, Update};

    fn key(name: &str) -> ClusterKey {
        ClusterKey { service: ObjectName::new("ns", name), port: "80".into() }
    }

    fn add(update: &mut Update, name: &str) {
        let made = Cluster { http2: false, target: Target::Endpoints { port_name: "http".into() } };
        let encoded = Encoded::new(&cluster(&key(name), &made, Policy::Locality));
        update.shared.insert((Kind::Cluster, key(name).to_string()), Some(encoded));
        let pods = ClusterEndpoints::Pods { endpoints: Vec::new(), rows: None };
        update.endpoints.insert(key(name).to_string(), Some(pods));
    }

    fn routes(update: &mut Update, version: &str) {
        // Only that it differs matters.
        let encoded = Encoded::new(&route_configuration(version, &BTreeMap::new()));
        update.shared.insert((Kind::Routes, "external".into()), Some(encoded));
    }

    fn request(kind: Kind, names: &[&str]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn ack(answer: &Answer) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { response_nonce: answer.nonce.clone(), ..request(answer.kind, &[]) }
    }

    fn sent(answers: &[Answer]) -> Vec<(&'static str, Vec<&str>, Vec<&str>)> {
        let parts = |answer| {
            let Answer { kind, resources, removed, .. }: &Answer = answer;
            let resources = resources.iter().map(|(name, _)| name.as_str()).collect();
            (kind.label(), resources, removed.iter().map(Name::as_str).collect())
        };
        answers.iter().map(parts).collect()
    }

    struct Bench {
        store: Arc<Store>,
        session: Session,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let store = Arc::new(Store::new(Policy::Locality, GatewayPorts::default()));
            let session = Session::new(View { node: "node1".into(), listen_address: None, pod_address: None });
            Self { store, session, now: Instant::now() }
        }

        fn ask(&mut self, request: DeltaDiscoveryRequest) -> Vec<Answer> {
            assert_eq!(self.session.on_request(request, &self.store), None);
            self.answers()
        }

        fn answers(&mut self) -> Vec<Answer> {
            self.session.answers(&self.store, self.now)
        }

        fn ack_all(&mut self, responses: &[Answer]) -> Vec<Answer> {
            responses.iter().flat_map(|response| self.ask(ack(response))).collect()
        }

        /// A gateway that has everything of a store with cluster `a`.
        fn in_sync() -> Self {
            let mut bench = Self::new();
            let mut update = Update::default();
            add(&mut update, "a");
            routes(&mut update, "1");
            bench.store.publish(update);
            for (kind, names) in
                [(Kind::Cluster, &[][..]), (Kind::Assignment, &["ns/a/80"]), (Kind::Listener, &[]), (Kind::Routes, &["external"])]
            {
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
        assert_eq!(sent(&bench.ask(request(Kind::Cluster, &[]))), []);
        assert_eq!(sent(&bench.ask(request(Kind::Listener, &[]))), []);
        bench.store.publish(Update::default());
        // With no cluster in the world the gateway is told so, or it would wait for ever.
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
        let rest = bench.ask(request(Kind::Assignment, &["ns/b/80"]));
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
        let names = vec!["ns/b/80".into()];
        let expected = Nack { kind: Kind::Cluster, names, message: "bad ns/b/80".into(), revision: 2, confirmed: 1 };
        assert_eq!(reported, expected);
        assert_eq!(sent(&bench.answers()), [("rds", vec!["external"], vec![])]);
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
        let nonce = DeltaDiscoveryRequest { response_nonce: "5".into(), ..request(Kind::Cluster, &[]) };
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
            Bench { session: Session::new(before.session.view().clone()), store: before.store.clone(), now: before.now };
        let clusters = DeltaDiscoveryRequest {
            initial_resource_versions: [version(Kind::Cluster, "ns/a/80"), ("ns/gone/80".into(), "1".into())].into(),
            ..request(Kind::Cluster, &[])
        };
        assert_eq!(sent(&bench.ask(clusters)), [("cds", vec![], vec!["ns/gone/80"])]);
        let endpoints = DeltaDiscoveryRequest {
            initial_resource_versions: [version(Kind::Assignment, "ns/a/80")].into(),
            ..request(Kind::Assignment, &["ns/a/80"])
        };
        assert_eq!(sent(&bench.ask(endpoints)), []);
        // Asking again later means that it is needed again.
        assert_eq!(sent(&bench.ask(request(Kind::Assignment, &["ns/a/80"]))), [("eds", vec!["ns/a/80"], vec![])]);
    }

    #[test]
    fn a_cluster_that_changes_gets_its_endpoints_again() {
        let mut bench = Bench::in_sync();
        let http2 = Cluster { http2: true, target: Target::Endpoints { port_name: "http".into() } };
        let mut update = Update::default();
        let encoded = Encoded::new(&cluster(&key("a"), &http2, Policy::Locality));
        update.shared.insert((Kind::Cluster, key("a").to_string()), Some(encoded));
        bench.store.publish(update);
        assert_eq!(sent(&bench.answers()), [("cds", vec!["ns/a/80"], vec![]), ("eds", vec!["ns/a/80"], vec![])]);
    }

    #[test]
    fn what_is_removed_is_told_and_what_never_was_is_told_to_who_asks() {
        let mut bench = Bench::in_sync();
        let mut update = Update::default();
        update.shared.insert((Kind::Cluster, key("a").to_string()), None);
        update.endpoints.insert(key("a").to_string(), None);
        bench.store.publish(update);
        assert_eq!(sent(&bench.answers()), [("cds", vec![], vec!["ns/a/80"]), ("eds", vec![], vec!["ns/a/80"])]);
        assert_eq!(sent(&bench.ask(request(Kind::Secret, &["ns/tls"]))), [("sds", vec![], vec!["ns/tls"])]);
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
        let mut endpoints = bench.ask(request(Kind::Assignment, &keys.iter().map(String::as_str).collect::<Vec<_>>()));
        let mut kinds = Vec::new();
        while !endpoints.is_empty() {
            kinds.extend(endpoints.iter().map(|answer| (answer.kind, answer.resources.len())));
            endpoints = bench.ack_all(&endpoints);
        }
        assert_eq!(kinds.iter().filter(|(kind, _)| *kind == Kind::Assignment).map(|(_, count)| count).sum::<usize>(), 1_000);
        assert_eq!(kinds.last(), Some(&(Kind::Routes, 1)));
        assert_eq!(bench.session.in_sync_at(), Some(2));
    }

    #[test]
    fn a_gateway_that_slept_through_more_removals_than_are_remembered_still_loses_what_is_gone() {
        let mut bench = Bench::in_sync();
        for round in 0..6_000 {
            let name = (Kind::Secret, format!("ns/{round}"));
            let encoded = Encoded::from(vec![1]);
            bench.store.publish(Update { shared: [(name.clone(), Some(encoded))].into(), ..Update::default() });
            bench.store.publish(Update { shared: [(name, None)].into(), ..Update::default() });
            if round == 0 {
                let gone = [(key("a").to_string(), None)].into();
                bench.store.publish(Update {
                    shared: [((Kind::Cluster, key("a").to_string()), None)].into(),
                    endpoints: gone,
                    ..Update::default()
                });
            }
        }
        assert_eq!(sent(&bench.answers()), [("cds", vec![], vec!["ns/a/80"]), ("eds", vec![], vec!["ns/a/80"])]);
    }
}
