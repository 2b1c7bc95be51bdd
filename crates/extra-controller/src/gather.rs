//! From the stores to the [`Picture`]. Work is proportional to what changed.

mod pods;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use autoscaler::handback::{Duty, MARKER, Where, duty};
use autoscaler::latency::Networks;
use autoscaler::ledger::Ledger;
use autoscaler::room::{NodeRoom, Template};
use autoscaler::settings::{ClusterSettings, RevisionSettings, Toggle};
use autoscaler::{ActivatorProbe, Facts, Inputs, Network, Now, ObservedDemand, Picture, ServerlessFacts};
use gateway_link::RevisionKey;
use jiff::Timestamp;
use k8s_api::{PodAutoscaler, REVISION_LABEL, Reachability, SERVICE_LABEL, ServerlessService};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use latency_matrix::{LatencyMatrix, NodeName};
use placement::CostPolicy;
use placement::problem::CostModel;

use self::pods::Pods;
pub(crate) use self::written::Written;
use crate::objects::{Changes, Objects};

/// Keeps the picture up to date.
pub(crate) struct Gatherer {
    objects: Objects,
    ledger: Ledger,
    pods: Pods,
    cluster: ClusterSettings,
    toggle: Toggle,
    /// Templates by revision, with the version of the Deployment that they were read from, unless
    /// they are to be read anew.
    templates: BTreeMap<RevisionKey, (Option<String>, Arc<Template>)>,
    /// What was written and the stores may not show yet.
    written: BTreeMap<RevisionKey, Written>,
    /// Revisions to take over from the stock class.
    take_overs: BTreeMap<RevisionKey, Where>,
    networks: Networks,
    /// A matrix over other nodes than there are now, and the same over those.
    fitted: Option<(Arc<LatencyMatrix>, Arc<LatencyMatrix>)>,
    picture: Picture,
}

impl Gatherer {
    /// Over `objects`, whose stores are filled.
    pub(crate) fn new(objects: Objects, model: CostModel) -> Self {
        let network = Network { version: 0, costs: placement::CostMatrix::from_row_major(Vec::new(), Vec::new()), model };
        let picture = Picture {
            now: Now { wall: Timestamp::UNIX_EPOCH, monotonic: Duration::ZERO },
            network: Arc::new(network),
            room: Arc::default(),
            revisions: BTreeMap::new(),
        };
        let mut gatherer = Self {
            objects,
            ledger: Ledger::default(),
            pods: Pods::default(),
            cluster: ClusterSettings::default(),
            toggle: Toggle::default(),
            templates: BTreeMap::new(),
            written: BTreeMap::new(),
            take_overs: BTreeMap::new(),
            networks: Networks::new(model, CostPolicy::default()),
            fitted: None,
            picture,
        };
        gatherer.absorb(Changes { settings: true, relisted: true, ..Changes::default() });
        gatherer
    }

    /// Takes changes over. The revisions whose inputs are different now, or that are gone.
    pub(crate) fn absorb(&mut self, mut changes: Changes) -> BTreeSet<RevisionKey> {
        let mut dirty = std::mem::take(&mut changes.revisions);
        for (key, version) in std::mem::take(&mut changes.seikas_gone) {
            if let Some(written) = self.written.get_mut(&key) {
                written.seika_was_deleted(&version);
            }
            dirty.insert(key);
        }
        if changes.settings {
            let (autoscaler, deployment) = self.objects.settings();
            let before = (self.cluster.clone(), self.toggle.clone());
            for problem in self.cluster.follow(&autoscaler, &deployment) {
                tracing::warn!(problem, "config-autoscaler or config-deployment is invalid, the previous settings stay in force");
            }
            self.toggle = self.objects.toggle();
            if before != (self.cluster.clone(), self.toggle.clone()) {
                dirty.extend(self.all_revisions());
            }
        }
        if changes.admission || changes.relisted {
            self.templates.values_mut().for_each(|(version, _)| *version = None);
            dirty.extend(self.all_revisions());
        }
        if changes.relisted {
            dirty.extend(self.pods.relist(&self.objects.pods.state(), &mut self.ledger));
            dirty.extend(self.picture.revisions.keys().cloned());
            let known: BTreeSet<String> = self.picture.room.iter().map(|room| room.node.to_string()).collect();
            changes.nodes.extend(known);
            changes.nodes.extend(self.objects.nodes.state().iter().map(|node| node.name_any()));
        }
        for (namespace, name) in changes.pods {
            let pod = self.objects.pods.get(&ObjectRef::new(&name).within(&namespace));
            dirty.extend(self.pods.update(&namespace, &name, pod.as_deref(), &mut self.ledger));
        }
        for name in changes.nodes {
            match self.objects.nodes.get(&ObjectRef::new(&name)) {
                Some(node) => self.ledger.node_upsert(NodeRoom::read(&node)),
                None => self.ledger.node_remove(&name.as_str().into()),
            }
        }
        self.picture.room = self.ledger.room();
        dirty.retain(|key| self.refresh(key));
        dirty
    }

    /// The latency between the nodes is this now.
    pub(crate) fn set_latency(&mut self, matrix: &Arc<LatencyMatrix>, now: Duration) {
        // A node that has just come is not in the matrix yet, one that has just gone still is.
        let nodes = self.nodes();
        let is_fitting = matrix.nodes() == nodes;
        let fitting = match &self.fitted {
            _ if is_fitting => matrix.clone(),
            Some((from, fitted)) if Arc::ptr_eq(from, matrix) && fitted.nodes() == nodes => fitted.clone(),
            _ => Arc::new(fit(matrix, &nodes)),
        };
        self.fitted = (!is_fitting).then(|| (matrix.clone(), fitting.clone()));
        let matrix = &fitting;
        self.picture.network = self.networks.network(matrix, &self.picture.room, now.as_secs_f64());
    }

    /// The nodes that there are, in name order.
    pub(crate) fn nodes(&self) -> Vec<NodeName> {
        self.picture.room.iter().map(|room| room.node.clone()).collect()
    }

    /// The picture at `now`. Rooms and network fit together only after [`Self::set_latency`].
    pub(crate) fn picture(&mut self, now: Now) -> &Picture {
        self.picture.now = now;
        &self.picture
    }

    /// The demand since the last tick: that of the busy revisions, and what all others share.
    pub(crate) fn set_demand(&mut self, quiet: &Arc<ObservedDemand>, mut busy: BTreeMap<RevisionKey, ObservedDemand>) {
        for (key, inputs) in &mut self.picture.revisions {
            inputs.demand = busy.remove(key).map_or_else(|| quiet.clone(), Arc::new);
        }
    }

    /// Whether the revision has a goal for its response time.
    pub(crate) fn has_goal(&self, key: &RevisionKey) -> bool {
        self.picture.revisions.get(key).is_some_and(|inputs| inputs.facts.settings.p95.is_some())
    }

    /// The requests in flight of one revision at this instant; its seconds were taken in before.
    pub(crate) fn set_in_flight(&mut self, key: &RevisionKey, in_flight: BTreeMap<NodeName, f64>) {
        if let Some(inputs) = self.picture.revisions.get_mut(key) {
            let is_unknown = inputs.demand.is_unknown;
            let service_seconds = inputs.demand.service_seconds.clone();
            inputs.demand = Arc::new(ObservedDemand { seconds: Vec::new(), in_flight, service_seconds, is_unknown });
        }
    }

    /// What a probe of the revision's public Service answered.
    pub(crate) fn set_activator(&mut self, key: &RevisionKey, probe: ActivatorProbe) {
        if let Some(inputs) = self.picture.revisions.get_mut(key) {
            inputs.activator = Some(probe);
        }
    }

    /// Everything that is known of one revision.
    pub(crate) fn inputs(&self, key: &RevisionKey) -> Option<&Inputs> {
        self.picture.revisions.get(key)
    }

    /// Requests in flight at revisions without a ready pod.
    pub(crate) fn waiting_requests(&self) -> f64 {
        let waits = |inputs: &&Inputs| !inputs.demand.in_flight.is_empty() && !inputs.facts.pods.iter().any(|pod| pod.is_ready);
        self.picture.revisions.values().filter(waits).flat_map(|inputs| inputs.demand.in_flight.values()).sum()
    }

    /// Whether any revision has no pod.
    pub(crate) fn is_any_at_zero(&self) -> bool {
        self.picture.revisions.values().any(|inputs| inputs.facts.pods.is_empty())
    }

    /// Source nodes that requests come from.
    pub(crate) fn senders(&self) -> BTreeSet<&NodeName> {
        let demands = self.picture.revisions.values().map(|inputs| &inputs.demand);
        let senders = demands.flat_map(|demand| {
            let of_seconds = demand.seconds.iter().filter_map(|(_, sources)| sources.as_ref());
            demand.in_flight.keys().chain(of_seconds.flat_map(BTreeMap::keys))
        });
        senders.collect()
    }

    /// Gathers one revision again.
    pub(crate) fn absorb_revision(&mut self, key: &RevisionKey) -> BTreeSet<RevisionKey> {
        self.absorb(Changes { revisions: [key.clone()].into(), ..Changes::default() })
    }

    /// Revisions to take over from the stock class.
    pub(crate) fn take_overs(&self) -> &BTreeMap<RevisionKey, Where> {
        &self.take_overs
    }

    /// The revisions of this class.
    pub(crate) fn revisions(&self) -> impl Iterator<Item = &RevisionKey> {
        self.picture.revisions.keys()
    }

    /// Whether the revision's ServiceMonitor was written.
    pub(crate) fn has_monitor(&self, key: &RevisionKey) -> bool {
        self.written.get(key).is_some_and(|written| written.has_monitor)
    }

    /// What was written of a revision.
    pub(crate) fn written(&mut self, key: &RevisionKey) -> &mut Written {
        self.written.entry(key.clone()).or_default()
    }

    fn all_revisions(&self) -> Vec<RevisionKey> {
        self.objects.autoscalers.state().iter().map(|autoscaler| key_of(autoscaler)).collect()
    }

    /// Gathers one revision again. Whether anything of it changed.
    fn refresh(&mut self, key: &RevisionKey) -> bool {
        let autoscaler = self.objects.autoscalers.get(&ObjectRef::new(&key.revision).within(&key.namespace));
        let autoscaler = autoscaler.filter(|autoscaler| autoscaler.metadata.deletion_timestamp.is_none());
        let duty = autoscaler.as_deref().map_or(Duty::Leave, |autoscaler| {
            let marker = autoscaler.annotations().get(MARKER).map(String::as_str);
            duty(autoscaler.class(), marker, self.toggle.is_on(&key.namespace, service_of(autoscaler)))
        });
        self.take_overs.remove(key);
        if let Duty::TakeOver(place) = duty {
            self.take_overs.insert(key.clone(), place);
        }
        let is_ours = matches!(duty, Duty::Decide | Duty::HandBack);
        let facts = autoscaler.filter(|_| is_ours).and_then(|autoscaler| self.facts(key, &autoscaler, duty == Duty::HandBack));
        match facts {
            Some(facts) => {
                let held = self.picture.revisions.get_mut(key);
                match held {
                    Some(inputs) if *inputs.facts == facts => false,
                    Some(inputs) if inputs.facts.uid == facts.uid => {
                        inputs.facts = Arc::new(facts);
                        true
                    }
                    _ => {
                        let inputs = Inputs { facts: Arc::new(facts), demand: Arc::default(), activator: None };
                        self.picture.revisions.insert(key.clone(), inputs);
                        true
                    }
                }
            }
            None => {
                if !is_ours {
                    self.templates.remove(key);
                    self.written.remove(key);
                }
                // One whose Deployment is gone for a moment keeps what is known of it.
                !is_ours && self.picture.revisions.remove(key).is_some()
            }
        }
    }

    fn facts(&mut self, key: &RevisionKey, autoscaler: &PodAutoscaler, is_handing_back: bool) -> Option<Facts> {
        let uid = autoscaler.uid().unwrap_or_default();
        let written = self.written.entry(key.clone()).or_default();
        if written.uid != uid {
            *written = Written::of(uid.clone());
        }
        let reference = ObjectRef::new(&key.revision).within(&key.namespace);
        let seika = self.objects.seikas.get(&reference);
        let status = written.status(autoscaler);
        let counts = written.seika(seika.as_deref());
        let is_seika_observed = seika.as_ref().is_some_and(|seika| {
            let observed = seika.status.as_ref().and_then(|status| status.observed_generation);
            observed.is_some() && observed == seika.metadata.generation
        });
        // Knative makes the Deployment before the PodAutoscaler; where it is gone, it comes back.
        let target = autoscaler.spec.scale_target_ref.name.as_deref().unwrap_or_default();
        let deployment = self.objects.deployments.get(&ObjectRef::new(target).within(&key.namespace))?;
        let template = self.template(key, &deployment);
        let (pods, most_asked) = self.pods.of(key);
        let container_concurrency = u32::try_from(autoscaler.spec.container_concurrency).unwrap_or(0);
        let is_reachable = autoscaler.spec.reachability != Reachability::Unreachable;
        let sks = self.objects.serverless_services.get(&ObjectRef::new(&key.revision).within(&key.namespace));
        let settings = RevisionSettings::read(autoscaler.annotations(), container_concurrency, is_reachable, &self.cluster);
        Some(Facts {
            service: service_of(autoscaler).to_owned(),
            generation: autoscaler.metadata.generation.unwrap_or_default(),
            created: autoscaler.metadata.creation_timestamp.as_ref().map(|time| time.0),
            status,
            reachability: autoscaler.spec.reachability,
            sks: sks.map(|sks| serverless_facts(&sks, &uid)),
            pods,
            seika: counts,
            // An API server that does not say means one.
            deployment: deployment.spec.as_ref().and_then(|spec| spec.replicas).map_or(1, |n| u32::try_from(n).unwrap_or(0)),
            deployment_generation: deployment.metadata.generation.unwrap_or_default(),
            each: template.each.max(&most_asked),
            template,
            earns_locality: settings.locality_replicas.unwrap_or(self.toggle.earns_locality),
            settings,
            is_seika_observed,
            is_handing_back,
            was_handed_back: autoscaler.annotations().contains_key(MARKER),
            uid,
        })
    }

    fn template(&mut self, key: &RevisionKey, deployment: &Deployment) -> Arc<Template> {
        let version = deployment.resource_version();
        if let Some((_, template)) = self.templates.get(key).filter(|(held, _)| *held == version && version.is_some()) {
            return template.clone();
        }
        let (labels, spec) = deployment.spec.as_ref().map_or_else(Default::default, |spec| {
            let labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
            (labels.unwrap_or_default(), spec.template.spec.clone().unwrap_or_default())
        });
        let read = Template::read(&key.namespace, &labels, &self.objects.admitted(&key.namespace, spec));
        let template = match self.templates.get(key) {
            Some((_, held)) if **held == read => held.clone(),
            _ => Arc::new(read),
        };
        self.templates.insert(key.clone(), (version, template.clone()));
        template
    }
}

/// What `matrix` knows of `nodes`.
fn fit(matrix: &LatencyMatrix, nodes: &[NodeName]) -> LatencyMatrix {
    // The nodes are those of a store and differ: a matrix can always be made of them.
    let mut fitted = LatencyMatrix::new(nodes.to_vec()).unwrap_or_default();
    for (row, from) in nodes.iter().enumerate() {
        for (column, to) in nodes.iter().enumerate() {
            fitted.set_at(row, column, matrix.state(from, to));
        }
    }
    fitted
}

/// The revision that a PodAutoscaler is for.
pub(crate) fn key_of(autoscaler: &PodAutoscaler) -> RevisionKey {
    RevisionKey::new(autoscaler.namespace().unwrap_or_default(), autoscaler.name_any())
}

fn service_of(autoscaler: &PodAutoscaler) -> &str {
    autoscaler.labels().get(SERVICE_LABEL).map_or("", String::as_str)
}

fn serverless_facts(sks: &ServerlessService, owner: &str) -> ServerlessFacts {
    let controller = sks.owner_references().iter().find(|owner| owner.controller == Some(true));
    ServerlessFacts {
        name: sks.name_any(),
        is_owned: controller.is_some_and(|controller| controller.uid == owner),
        generation: sks.metadata.generation.unwrap_or_default(),
        mode: sks.spec.mode,
        status: sks.status.clone(),
    }
}

/// The revision that a pod belongs to.
fn revision_of(labels: &BTreeMap<String, String>, namespace: &str) -> Option<RevisionKey> {
    labels.get(REVISION_LABEL).map(|revision| RevisionKey::new(namespace, revision))
}
