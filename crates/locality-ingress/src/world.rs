//! Everything known, and what follows from it: changes of objects and of the plan go in, updates of the [`Store`] and news about
//! Ingresses come out. No I/O; time is passed in.
//!
//! Only what a change touches is made anew: an endpoint that comes or goes touches the assignments of its clusters and nothing else.

mod changes;
mod crowding;
mod gateways;
mod refusals;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::locality::Policy;
use crate::objects::{IngressObject, ObjectName, Objects};
use crate::plan::Plan;
use crate::route_table::{Cluster, ClusterKey, Host, RouteTable, Target, VirtualHost};
use crate::translate::{Conflicts, IngressRoutes, TranslateSettings, merge, translate};
use crate::validate::Problem;
use crate::xds::clusters::cluster as envoy_cluster;
use crate::xds::listeners::{EXTERNAL, EXTERNAL_TLS, INTERNAL, INTERNAL_TLS, certificate};
use crate::xds::routes::encoded_route_configuration;
use crate::xds::session::Nack;
use crate::xds::store::{ClusterEndpoints, Revision, Store, Update};
use crate::xds::{Encoded, Kind};

pub use changes::{Change, Source};
use crowding::Crowding;
use gateways::Gateways;
use refusals::{Refusals, at_fault};
use standing::probe_targets;
pub use standing::{GatewayPod, News, ProbeTarget, Progress, Standing};

/// How long a cluster stays after the last route to it went: gateways take routes and clusters one after the other, and requests that
/// began before may still be on their way.
const CLUSTER_LINGER: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct World {
    objects: Objects,
    plan: Plan,
    store: Arc<Store>,
    settings: WorldSettings,
    served: BTreeMap<ObjectName, Served>,
    standings: BTreeMap<ObjectName, Standing>,
    // Who names a Service or Secret.
    users: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    slice_owners: BTreeMap<ObjectName, ObjectName>,
    table: Arc<RouteTable>,
    conflicts: Conflicts,
    lingering: BTreeMap<ClusterKey, (Cluster, Instant)>,
    crowding: Crowding,
    gateways: Gateways,
    draining: BTreeSet<IpAddr>,
    refusals: Refusals,
    dirty: Dirty,
    published: bool,
}

/// What the world must know besides objects.
#[derive(Clone, Debug)]
pub struct WorldSettings {
    /// How gateways choose endpoints.
    pub policy: Policy,
    /// For translation.
    pub translate: TranslateSettings,
    /// The Service whose endpoints are the gateways.
    pub gateway_service: ObjectName,
}

#[derive(Debug)]
struct Served {
    routes: IngressRoutes,
    since: Revision,
}

#[derive(Debug, Default)]
struct Dirty {
    ingresses: BTreeSet<ObjectName>,
    services: BTreeSet<ObjectName>,
    secrets: BTreeSet<ObjectName>,
    zones: bool,
    // What is served changed without an object having done so.
    merge: bool,
}

impl World {
    /// An empty world that publishes to `store`.
    #[must_use]
    pub fn new(store: Arc<Store>, settings: WorldSettings) -> Self {
        Self {
            objects: Objects::default(),
            plan: Plan::default(),
            store,
            settings,
            served: BTreeMap::new(),
            standings: BTreeMap::new(),
            users: BTreeMap::new(),
            slice_owners: BTreeMap::new(),
            table: Arc::default(),
            conflicts: Conflicts::new(),
            lingering: BTreeMap::new(),
            crowding: Crowding::default(),
            gateways: Gateways::default(),
            draining: BTreeSet::new(),
            refusals: Refusals::default(),
            dirty: Dirty::default(),
            published: false,
        }
    }

    /// Notes a change. Nothing follows from it before [`settle`](Self::settle).
    pub fn note(&mut self, change: Change) {
        match change {
            Change::Ingress(name, ingress) => {
                for used in self.objects.ingresses.get(&name).map(uses).unwrap_or_default() {
                    if let Some(users) = self.users.get_mut(&used) {
                        users.remove(&name);
                    }
                }
                match ingress {
                    Some(ingress) => {
                        for used in uses(&ingress) {
                            self.users.entry(used).or_default().insert(name.clone());
                        }
                        self.objects.ingresses.insert(name.clone(), *ingress);
                    }
                    None => {
                        self.objects.ingresses.remove(&name);
                    }
                }
                self.dirty.ingresses.insert(name);
            }
            Change::Service(name, service) => {
                replace(&mut self.objects.services, name.clone(), service);
                self.dirty_users_of(&name);
                self.dirty.services.insert(name);
            }
            Change::Slice(name, slice) => {
                // Its label may have changed, and a deletion does not tell the label.
                if let Some(before) = self.slice_owners.remove(&name) {
                    if let Some(slices) = self.objects.slices.get_mut(&before) {
                        slices.retain(|(slice, _)| *slice != name.name);
                        if slices.is_empty() {
                            self.objects.slices.remove(&before);
                        }
                    }
                    self.dirty.services.insert(before);
                }
                if let Some((service, slice)) = slice {
                    self.slice_owners.insert(name.clone(), service.clone());
                    let slices = self.objects.slices.entry(service.clone()).or_default();
                    // By name, so that their order tells nothing of when they came. There are few.
                    let place = slices.partition_point(|(other, _)| *other < name.name);
                    slices.reserve_exact(1);
                    slices.insert(place, (name.name, slice));
                    // An Ingress that waits for endpoints may wait for these.
                    let waiting: Vec<_> = self.users_of(&service).filter(|user| self.waits(user)).cloned().collect();
                    self.dirty.ingresses.extend(waiting);
                    self.dirty.services.insert(service);
                }
            }
            Change::Zone(node, zone) => {
                replace(&mut self.objects.zones, node, zone);
                self.dirty.zones = true;
            }
            Change::Secret(name, secret) => {
                replace(&mut self.objects.secrets, name.clone(), secret);
                self.dirty_users_of(&name);
                self.dirty.secrets.insert(name);
            }
            Change::Plan(change) => self.dirty.services.extend(self.plan.take(change)),
            Change::Concurrency(revision, limit) => {
                self.crowding.set_limit(&revision, limit);
                self.dirty.services.insert(revision);
            }
            Change::Load(revision, loads) => {
                if self.crowding.set_loads(&revision, loads) {
                    self.dirty.services.insert(revision);
                }
            }
            Change::Listed(_) => {}
        }
    }

    fn users_of(&self, used: &ObjectName) -> impl Iterator<Item = &ObjectName> {
        self.users.get(used).into_iter().flatten()
    }

    fn dirty_users_of(&mut self, used: &ObjectName) {
        if let Some(users) = self.users.get(used) {
            self.dirty.ingresses.extend(users.iter().cloned());
        }
    }

    fn waits(&self, name: &ObjectName) -> bool {
        self.standings.get(name).is_some_and(|standing| matches!(standing.progress, Progress::Waiting { .. }))
    }

    /// Notes that the gateway of `node` refused something. Returns the Ingresses at fault: the present generation of each is blamed, and held
    /// back where it would hold up others. The next one is judged anew.
    pub fn refused(&mut self, node: &str, nack: &Nack) -> Vec<ObjectName> {
        let named = || nack.names.iter().filter(|name| nack.message.contains(name.as_str()));
        let blamed: BTreeSet<ObjectName> = match nack.kind {
            Kind::Cluster | Kind::Assignment => named().flat_map(|name| self.users_of_cluster(name)).collect(),
            Kind::Secret => {
                let secrets = nack.names.iter().filter(|name| nack.names.len() == 1 || nack.message.contains(name.as_str()));
                let secrets =
                    secrets.filter_map(|name| name.split_once('/')).map(|(namespace, name)| ObjectName::new(namespace, name));
                secrets.flat_map(|secret| self.users_of(&secret).cloned().collect::<Vec<_>>()).collect()
            }
            Kind::Routes | Kind::Listener => self.hold_back(nack),
        };
        let message = nack.by_gateway_of(node);
        for name in &blamed {
            if let Some(ingress) = self.objects.ingresses.get(name) {
                self.refusals.blame(name, ingress.generation, message.clone());
                self.dirty.ingresses.insert(name.clone());
            }
        }
        blamed.into_iter().collect()
    }

    fn hold_back(&mut self, nack: &Nack) -> BTreeSet<ObjectName> {
        if self.refusals.explain(nack) {
            return BTreeSet::new();
        }
        let new = |served: &Served| nack.confirmed < served.since && served.since <= nack.revision;
        let suspects: Vec<_> =
            self.served.iter().filter(|(_, served)| new(served)).map(|(name, served)| (name, &served.routes)).collect();
        let refused = sides(&self.table).into_iter().filter(|(name, _)| nack.names.iter().any(|one| one == name));
        let refused: Vec<_> = refused.map(|(_, hosts)| hosts).collect();
        let found: BTreeSet<ObjectName> = at_fault(&nack.message, &suspects, &refused).into_iter().cloned().collect();
        let until = self.store.revision().0;
        for name in &found {
            let (Some(served), Some(ingress)) = (self.served.remove(name), self.objects.ingresses.get(name)) else { continue };
            if let Some(routes) = self.refusals.hold(name, ingress.generation, (served.since, until)) {
                self.served.insert(name.clone(), Served { routes, since: 0 });
            }
            self.dirty.merge = true;
        }
        found
    }

    /// Number of revisions with a plan.
    #[must_use]
    pub fn planned_revisions(&self) -> usize {
        self.plan.len()
    }

    /// Number of Ingresses, and of those that cannot be served.
    #[must_use]
    pub fn ingress_counts(&self) -> (usize, usize) {
        let refused = self.standings.values().filter(|standing| matches!(standing.progress, Progress::Refused { .. })).count();
        (self.objects.ingresses.len(), refused)
    }

    /// The Ingresses that use the cluster called `cluster`.
    #[must_use]
    pub fn users_of_cluster(&self, cluster: &str) -> Vec<ObjectName> {
        let Ok(key) = cluster.parse::<ClusterKey>() else { return Vec::new() };
        self.users_of(&key.service).cloned().collect()
    }

    /// The `metadata.uid` of an Ingress.
    #[must_use]
    pub fn uid(&self, name: &ObjectName) -> Option<String> {
        self.objects.ingresses.get(name).map(|ingress| ingress.uid.clone())
    }

    /// When, after `now`, something follows from time alone.
    #[must_use]
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.lingering.values().map(|(_, until)| *until).chain(self.gateways.wake_at(now)).min()
    }

    /// Publishes what follows from all changes noted so far.
    pub fn settle(&mut self, now: Instant) -> News {
        let dirty = std::mem::take(&mut self.dirty);
        let mut verdicts: BTreeMap<ObjectName, Verdict> = BTreeMap::new();
        let mut merge_anew = !self.published || dirty.merge;
        for name in &dirty.ingresses {
            merge_anew |= self.translate_one(name, now, &mut verdicts);
        }
        let mut update = Update::default();
        let mut clusters_of_interest: BTreeSet<ClusterKey> = BTreeSet::new();
        if merge_anew {
            self.merge_all(now, &mut update, &mut clusters_of_interest);
        }
        self.drop_lingering(now, &mut update);
        for service in &dirty.services {
            clusters_of_interest.extend(keys_of(&self.table.clusters, service));
            clusters_of_interest.extend(keys_of(&self.lingering, service));
        }
        for key in clusters_of_interest {
            let endpoints = self.endpoints(&key);
            update.endpoints.insert(key.to_string(), endpoints);
        }
        for name in &dirty.secrets {
            let used =
                self.table.external_certificates.values().chain(self.table.internal_certificates.values()).any(|one| one == name);
            if used {
                self.encode_secret(name, &mut update);
            }
        }
        if dirty.zones {
            update.zones = Some(self.objects.zones.clone());
        }
        let mut news = News::default();
        if dirty.services.contains(&self.settings.gateway_service) {
            let slices = self.objects.slices.get(&self.settings.gateway_service);
            news.gateways = self.gateways.follow(slices.into_iter().flatten().map(|(_, slice)| slice), now);
        }
        let draining = self.gateways.draining(now);
        if draining != self.draining {
            self.draining.clone_from(&draining);
            update.draining = Some(draining);
        }
        let revision = self.store.publish(update);
        self.published = true;
        self.judge(verdicts, revision, &mut news);
        news
    }

    /// Translates one Ingress and decides whether it is served from now on. Whether that changes what is served.
    fn translate_one(&mut self, name: &ObjectName, now: Instant, verdicts: &mut BTreeMap<ObjectName, Verdict>) -> bool {
        let Some(ingress) = self.objects.ingresses.get(name) else {
            verdicts.insert(name.clone(), Verdict::Gone);
            return self.served.remove(name).is_some();
        };
        if self.refusals.holds(name, ingress.generation) {
            verdicts.insert(name.clone(), Verdict::Served);
            return false;
        }
        let before = self.served.get(name);
        let routes = match translate(name, ingress, &self.objects, &self.settings.translate) {
            Ok(routes) => routes,
            Err(problem) => {
                // The last generation that could be served still is: a mistake must not take a service down.
                verdicts.insert(name.clone(), Verdict::Refused(problem));
                return false;
            }
        };
        if before.is_some_and(|before| before.routes == routes) {
            verdicts.insert(name.clone(), Verdict::Served);
            return false;
        }
        // Backends of a new generation may be known a moment later than it. Until they are, requests go on as before.
        if before.is_some_and(|before| before.routes.generation != routes.generation) {
            let missing = self.missing(&routes);
            if !missing.is_empty() {
                verdicts.insert(name.clone(), Verdict::Waiting(missing));
                return false;
            }
        }
        verdicts.insert(name.clone(), Verdict::Served);
        if let Some(before) = self.served.insert(name.clone(), Served { routes, since: 0 }) {
            self.refusals.keep(name, before.routes, now);
        }
        true
    }

    fn missing(&self, routes: &IngressRoutes) -> Vec<String> {
        let without_endpoints = routes.clusters.iter().filter_map(|(key, cluster)| match &cluster.target {
            Target::Endpoints { port_name } if self.objects.endpoints(&key.service, port_name).is_empty() => {
                Some(format!("endpoints of Service {}", key.service))
            }
            _ => None,
        });
        routes.missing.iter().cloned().chain(without_endpoints).collect()
    }

    fn merge_all(&mut self, now: Instant, update: &mut Update, changed_clusters: &mut BTreeSet<ClusterKey>) {
        let (table, conflicts) = merge(self.served.iter().map(|(name, served)| (name, &served.routes)));
        for (key, cluster) in &table.clusters {
            self.lingering.remove(key);
            if self.table.clusters.get(key) != Some(cluster) {
                let encoded = Encoded::new(&envoy_cluster(key, cluster, self.settings.policy));
                update.shared.insert((Kind::Cluster, key.to_string()), Some(encoded));
                changed_clusters.insert(key.clone());
            }
        }
        for (key, cluster) in &self.table.clusters {
            if !table.clusters.contains_key(key) {
                self.lingering.insert(key.clone(), (cluster.clone(), now + CLUSTER_LINGER));
            }
        }
        for ((name, new), (_, old)) in sides(&table).into_iter().zip(sides(&self.table)) {
            if new != old || !self.published {
                update.shared.insert((Kind::Routes, name.to_owned()), Some(encoded_route_configuration(name, new)));
            }
        }
        let certificates = |table: &RouteTable| -> BTreeSet<ObjectName> {
            table.external_certificates.values().chain(table.internal_certificates.values()).cloned().collect()
        };
        let (wanted, had) = (certificates(&table), certificates(&self.table));
        wanted.iter().for_each(|name| self.encode_secret(name, update));
        for name in had.difference(&wanted) {
            update.shared.insert((Kind::Secret, name.to_string()), None);
        }
        self.conflicts = conflicts;
        self.table = Arc::new(table);
        update.table = Some(self.table.clone());
    }

    fn encode_secret(&self, name: &ObjectName, update: &mut Update) {
        // A Secret that is gone stays as it was with the gateways: half an encrypted site is worse than an old certificate.
        if let Some(secret) = self.objects.secrets.get(name) {
            update.shared.insert((Kind::Secret, name.to_string()), Some(Encoded::new(&certificate(name, secret))));
        }
    }

    fn drop_lingering(&mut self, now: Instant, update: &mut Update) {
        self.lingering.retain(|key, (_, until)| {
            let stays = *until > now;
            if !stays {
                update.shared.insert((Kind::Cluster, key.to_string()), None);
                update.endpoints.insert(key.to_string(), None);
            }
            stays
        });
    }

    fn endpoints(&self, key: &ClusterKey) -> Option<ClusterEndpoints> {
        let cluster = self.table.clusters.get(key).or_else(|| self.lingering.get(key).map(|(cluster, _)| cluster))?;
        match &cluster.target {
            Target::Endpoints { port_name } => {
                let endpoints = self.objects.endpoints(&key.service, port_name);
                let rows = self.crowding.relieve(&key.service, &endpoints, self.plan.rows(&key.service));
                Some(ClusterEndpoints::Pods { endpoints, rows })
            }
            Target::OwnInternalListener => Some(ClusterEndpoints::OwnInternalListener),
            Target::Name { .. } => None,
        }
    }

    /// Notes what became of the Ingresses, and finds whose standing that changes.
    fn judge(&mut self, mut verdicts: BTreeMap<ObjectName, Verdict>, revision: Revision, news: &mut News) {
        // Whoever had or got a conflict is judged anew, too: the holder of the host may be gone.
        for (name, standing) in &self.standings {
            let was_conflict = matches!(standing.progress, Progress::Refused { reason: DOMAIN_CONFLICT, .. });
            if was_conflict != self.conflicts.contains_key(name) && self.served.contains_key(name) {
                verdicts.entry(name.clone()).or_insert(Verdict::Served);
            }
        }
        for (name, verdict) in verdicts {
            let Some(ingress) = self.objects.ingresses.get(&name) else {
                self.refusals.forget(&name);
                if self.standings.remove(&name).is_some() {
                    news.standings.push((name, None));
                }
                continue;
            };
            let said = self.refusals.against(&name, ingress.generation).map(ToOwned::to_owned);
            let progress = match (verdict, self.conflicts.get(&name)) {
                (Verdict::Gone, _) => continue,
                (Verdict::Refused(problem), _) => Progress::Refused { reason: "InvalidIngress", message: problem.to_string() },
                (Verdict::Waiting(missing), _) => Progress::Waiting { missing },
                (Verdict::Served, Some(taken)) => {
                    let taken: Vec<_> = taken.iter().map(|(host, holder)| format!("{host} (Ingress {holder})")).collect();
                    Progress::Refused { reason: DOMAIN_CONFLICT, message: format!("hosts already taken: {}", taken.join(", ")) }
                }
                (Verdict::Served, None) => {
                    // What was ready once stays so: pods may come and go.
                    let unproved = self.served.get(&name).filter(|_| !ingress.status.says_ready(ingress.generation));
                    let missing = unproved.map(|served| self.missing(&served.routes)).unwrap_or_default();
                    let waited = self.waits(&name);
                    match (said, self.served.get_mut(&name)) {
                        (Some(message), _) => Progress::Refused { reason: "RefusedByGateway", message },
                        (None, _) if !missing.is_empty() => Progress::Waiting { missing },
                        (None, Some(served)) => {
                            if served.since == 0 || waited {
                                served.since = revision;
                            }
                            let (hash, probes) = (served.routes.hash.to_string(), probe_targets(&served.routes));
                            Progress::Served { since: served.since, hash, probes }
                        }
                        (None, None) => continue,
                    }
                }
            };
            let standing =
                Standing { uid: ingress.uid.clone(), generation: ingress.generation, status: ingress.status.clone(), progress };
            if self.standings.get(&name) != Some(&standing) {
                self.standings.insert(name.clone(), standing.clone());
                news.standings.push((name, Some(standing)));
            }
        }
    }
}

/// The reason of an Ingress that wants a host which another has.
const DOMAIN_CONFLICT: &str = "DomainConflict";

#[derive(Debug)]
enum Verdict {
    Gone,
    Served,
    Waiting(Vec<String>),
    Refused(Problem),
}

/// The hosts of each route configuration, by its name.
fn sides(table: &RouteTable) -> [(&'static str, &BTreeMap<Host, VirtualHost>); 4] {
    [
        (EXTERNAL, &table.external),
        (INTERNAL, &table.internal),
        (EXTERNAL_TLS, &table.external_tls),
        (INTERNAL_TLS, &table.internal_tls),
    ]
}

fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

/// The keys of all ports of one Service.
fn keys_of<'a, V>(clusters: &'a BTreeMap<ClusterKey, V>, service: &'a ObjectName) -> impl Iterator<Item = ClusterKey> + 'a {
    let first = ClusterKey { service: service.clone(), port: String::new() };
    clusters.range(first..).map(|(key, _)| key).take_while(|key| key.service == *service).cloned()
}

/// Services and Secrets that an Ingress names. The two share one name space here: who is asked once too often loses nothing.
fn uses(ingress: &IngressObject) -> BTreeSet<ObjectName> {
    let paths = ingress.spec.rules.iter().filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
    let services =
        paths.flat_map(|path| &path.splits).map(|split| ObjectName::new(&split.service_namespace, &split.service_name));
    let secrets = ingress.spec.tls.iter().map(|tls| ObjectName::new(&tls.secret_namespace, &tls.secret_name));
    services.chain(secrets).collect()
}
