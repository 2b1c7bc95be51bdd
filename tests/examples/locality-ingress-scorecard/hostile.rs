//! Hostile Ingresses and hostile requests of gateways, as many as it takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::rpc::Status;
use k8s_api::kingress::{BackendSplit, HeaderMatch, HttpPath, HttpRule, IngressRule, IngressSpec, IngressStatus, IngressTls};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use locality_ingress::endpoints::LocalityPolicy;
use locality_ingress::kubernetes::{Endpoint, IngressObject, ObjectName, RoutingObjects, ServiceObject, ServicePort};
use locality_ingress::routes::{Cluster, ClusterKey, ClusterTarget, TranslateSettings, merge, translate};
use locality_ingress::xds::{
    ClusterEndpoints, ConfigStore, Encoded, GatewayView, ListenerSettings, ResourceKind, Update, XdsSession, cluster, listeners,
    route_configuration,
};
use scorecards::{Figure, Goal};

use crate::figure::as_f64;
use crate::scale::resident_mib;

const OF_EACH: usize = 550_000;
/// A process that holds on to what it is sent would be far above this.
const MOST_GROWTH_MIB: f64 = 100.0;

/// Feeds both, and counts what neither panicked over nor held on to.
pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let before = resident_mib()?;
    let halves = [std::thread::spawn(ingresses), std::thread::spawn(requests)];
    let mut done = 0;
    for half in halves {
        done += half.join().map_err(|_| anyhow::anyhow!("hostile input made it panic"))?;
    }
    let grown = resident_mib()? - before;
    eprintln!("memory grew by {grown:.1} MiB");
    anyhow::ensure!(grown < MOST_GROWTH_MIB, "memory grew by {grown} MiB");
    Ok(vec![Figure { id: "fuzz_execs", value: as_f64(done), unit: "inputs", goal: Goal::AtLeast(1e6) }])
}

/// SplitMix64: the same inputs on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap_or(1).max(1)).unwrap_or(0)
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn word(&mut self) -> String {
        const WORDS: [&str; 18] = [
            "",
            "*",
            "ns",
            "a",
            "b.example",
            "h.ns.svc.cluster.local",
            "/",
            "/x",
            "Host",
            ":path",
            "K-Network-Hash",
            "override",
            "ä\u{0}",
            "a b",
            "\r\nx: y",
            "ExternalIP",
            "ClusterLocal",
            "Redirected",
        ];
        match self.below(6) {
            0 => {
                let most = if self.one_in(1_000) { 20_000 } else { 24 };
                let length = self.below(most);
                (0..length).map(|_| char::from_u32(u32::try_from(self.next() % 0x300).unwrap_or(0)).unwrap_or('x')).collect()
            }
            _ => WORDS[self.below(WORDS.len())].to_owned(),
        }
    }

    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn headers(&mut self) -> BTreeMap<String, String> {
        self.some(2, |chance| (chance.word(), chance.word())).into_iter().collect()
    }

    fn split(&mut self) -> BackendSplit {
        let port = match self.below(3) {
            0 => IntOrString::String(self.word()),
            1 => IntOrString::Int(80),
            _ => IntOrString::Int(u32::try_from(self.next() >> 32).unwrap_or(0).cast_signed()),
        };
        let percent = if self.one_in(4) { self.next().cast_signed() } else { i64::try_from(self.below(101)).unwrap_or(0) };
        let service_namespace = if self.one_in(4) { self.word() } else { "ns".to_owned() };
        BackendSplit { service_namespace, service_name: self.word(), service_port: port, percent, append_headers: self.headers() }
    }

    fn ingress(&mut self) -> IngressObject {
        let rules = self.some(3, |chance| IngressRule {
            hosts: chance.some(3, Self::word),
            visibility: chance.word(),
            http: (!chance.one_in(8)).then(|| HttpRule {
                paths: chance.some(3, |chance| HttpPath {
                    path: chance.word(),
                    rewrite_host: chance.word(),
                    headers: chance.headers().into_iter().map(|(name, exact)| (name, HeaderMatch { exact })).collect(),
                    splits: chance.some(3, Self::split),
                    append_headers: chance.headers(),
                }),
            }),
        });
        let tls = self.some(1, |chance| IngressTls {
            hosts: chance.some(2, Self::word),
            secret_name: chance.word(),
            secret_namespace: chance.word(),
        });
        let spec = IngressSpec { tls, rules, http_option: self.word() }.defaulted();
        let created = i64::try_from(self.below(3)).unwrap_or(0);
        IngressObject { uid: String::new(), generation: 1, created_unix_seconds: created, spec, status: IngressStatus::default() }
    }
}

/// Every Ingress is translated, merged with the ones before it, and made what Envoy is sent.
fn ingresses() -> usize {
    let settings = TranslateSettings {
        internal_gateway: "i.example".into(),
        internal_authority: ObjectName::new("knative-serving", "routing-serving-certs"),
    };
    let port = ServicePort { name: "http".into(), number: 80, http2: true };
    let service = ServiceObject { ports: vec![port], external_name: None, pods_of: None, of_revision: false };
    let named = ServiceObject { external_name: Some("b.example".into()), ..ServiceObject::default() };
    let services = [("a", service), ("ns", named)].map(|(name, service)| (ObjectName::new("ns", name), service)).into();
    let objects = RoutingObjects { services, ..RoutingObjects::default() };
    let mut chance = Chance(7);
    let mut kept = BTreeMap::new();
    for number in 0..OF_EACH {
        let ingress = chance.ingress();
        let name = ObjectName::new("ns", format!("i{}", number % 4));
        match translate(&name, &ingress, &objects, &settings) {
            Ok(routes) => kept.insert(name, routes),
            Err(_) => kept.remove(&name),
        };
        let (table, _) = merge(&kept);
        for (name, hosts) in [("external", &table.external), ("internal", &table.internal), ("tls", &table.external_tls)] {
            let _ = Encoded::new(&route_configuration(name, hosts, &Default::default()));
        }
        for (key, one) in &table.clusters {
            let _ = Encoded::new(&cluster(key, one, LocalityPolicy::Locality));
        }
        let _ = listeners(&table, ListenerSettings::default(), [127, 0, 0, 1].into());
    }
    OF_EACH
}

/// Every request is answered, in streams that end when they ask for too much, as the server ends
/// them.
fn requests() -> usize {
    let store = Arc::new(ConfigStore::new(LocalityPolicy::Locality, ListenerSettings::default()));
    let mut update = Update::default();
    let names: Vec<String> = (0..16)
        .map(|number| {
            let key = ClusterKey { service: ObjectName::new("ns", format!("s{number}")), port: "80".to_owned() };
            let one = Cluster { http2: false, tls: false, target: ClusterTarget::Endpoints { port_name: "http".into() } };
            let name = key.to_string();
            update.shared.insert(
                (ResourceKind::Cluster, name.clone()),
                Some(Encoded::new(&cluster(&key, &one, LocalityPolicy::Locality))),
            );
            let endpoints =
                vec![Endpoint { address: [10, 0, 0, 1].into(), port: 8012, node: Some("node1".into()), stand_in: false }];
            update.endpoints.insert(name.clone(), Some(ClusterEndpoints::Pods { endpoints, rows: None, limits: None }));
            name
        })
        .collect();
    store.publish(update);
    let view = GatewayView::of_node("node1");
    let mut chance = Chance(11);
    let mut session = XdsSession::new(view.clone());
    let mut now = Instant::now();
    for number in 0..OF_EACH {
        let name = |chance: &mut Chance| match chance.below(4) {
            0 => "*".to_owned(),
            1 => format!("never-{number}-{}", chance.next()),
            2 => chance.word(),
            _ => names[chance.below(names.len())].clone(),
        };
        let request = DeltaDiscoveryRequest {
            type_url: if chance.one_in(8) {
                chance.word()
            } else {
                ResourceKind::ALL[chance.below(ResourceKind::ALL.len())].type_url().to_owned()
            },
            resource_names_subscribe: chance.some(8, name),
            resource_names_unsubscribe: if chance.one_in(3) { chance.some(4, name) } else { Vec::new() },
            initial_resource_versions: chance.some(2, |chance| (name(chance), chance.word())).into_iter().collect(),
            response_nonce: if chance.one_in(2) { chance.below(64).to_string() } else { chance.word() },
            error_detail: chance.one_in(4).then(|| Status { message: chance.word(), ..Status::default() }),
            ..DeltaDiscoveryRequest::default()
        };
        let _ = session.on_request(request, &store);
        let _ = session.answers(&store, now);
        now += std::time::Duration::from_millis(1);
        if session.exceeds_limits(&store) || chance.one_in(50_000) {
            session = XdsSession::new(view.clone());
        }
    }
    OF_EACH
}
