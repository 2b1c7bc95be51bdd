//! The subscription of one gateway to one kind of resources.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::refusal::{Bisection, Nack};
use super::store::{ConfigStore, StoreRevision};
use super::{Encoded, ResourceKind, ResourceName};

/// The maximum size of a response, beyond its last resource. The rest follows after the ACK, so
/// that fifty gateways that connect at once do not each have everything in flight.
const PAGE_BYTES: usize = 256 * 1024;

/// What one gateway requested, has, and is owed.
#[derive(Debug)]
pub(super) struct Subscription {
    kind: ResourceKind,
    all: bool,
    // The last sent version of each name; `None` for names that were requested and do not exist. A
    // refused resource has the refused version, since sending it again would be refused again.
    known: HashMap<ResourceName, Option<NonZeroU64>>,
    // Names to check; true if a response is owed even without a change.
    look_at: BTreeMap<ResourceName, bool>,
    bisection: Bisection,
    // Removals that wait, because routes that the gateway still has may use them.
    held_back: BTreeSet<ResourceName>,
    // Resources of which the gateway has an earlier version, because it refused the later one.
    refused: BTreeSet<ResourceName>,
    on_its_way: Option<AwaitedAck>,
    confirmed: StoreRevision,
    // A wildcard subscription to nothing is owed an empty response, or the gateway waits for ever.
    owes_first_answer: bool,
}

/// One response.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// New and changed resources.
    pub(super) resources: Vec<(ResourceName, Encoded)>,
    /// Removed resources.
    pub(super) removed: Vec<ResourceName>,
    bytes: usize,
}

#[derive(Debug)]
struct AwaitedAck {
    nonce: String,
    names: Vec<ResourceName>,
    // Its content is between these revisions.
    at_least: StoreRevision,
    at_most: StoreRevision,
    // Nothing as old as this was left to send.
    last: bool,
}

impl Subscription {
    pub(super) fn new(kind: ResourceKind) -> Self {
        Self {
            kind,
            all: false,
            known: HashMap::new(),
            look_at: BTreeMap::new(),
            bisection: Bisection::default(),
            held_back: BTreeSet::new(),
            refused: BTreeSet::new(),
            on_its_way: None,
            confirmed: 0,
            owes_first_answer: false,
        }
    }

    /// Applies the ACK or NACK of the response in flight. Returns the NACK.
    pub(super) fn take_verdict(&mut self, request: &mut DeltaDiscoveryRequest) -> Option<Nack> {
        let sent = self.on_its_way.take_if(|sent| sent.nonce == request.response_nonce)?;
        let Some(error) = request.error_detail.take() else {
            sent.names.iter().for_each(|name| _ = self.refused.remove(name));
            if sent.last {
                self.confirmed = sent.at_least;
            }
            return None;
        };
        self.refused.extend(sent.names.iter().cloned());
        let texts = |names: &[ResourceName]| names.iter().map(|name| name.as_str().to_owned()).collect();
        let names = texts(&sent.names);
        // The gateway keeps its earlier versions. Resources at fault are not sent again before they
        // change.
        let at_fault = texts(&self.bisection.refused(self.kind, sent.names, &error.message));
        let (revision, confirmed) = (sent.at_most, self.confirmed);
        Some(Nack { kind: self.kind, names, at_fault, message: error.message, revision, confirmed })
    }

    /// Applies subscriptions, unsubscriptions and initial versions. `first`: it is the first
    /// request of this kind.
    pub(super) fn take_wishes(&mut self, request: DeltaDiscoveryRequest, first: bool, store: &ConfigStore) {
        for (name, version) in request.initial_resource_versions {
            let name = store.name(self.kind, &name);
            if let Ok(version) = u64::from_str_radix(&version, 16) {
                self.known.insert(name.clone(), NonZeroU64::new(version));
            }
            self.look_at.entry(name).or_insert(false);
        }
        let everything = request.resource_names_subscribe.iter().any(|name| name == "*")
            || (first && request.resource_names_subscribe.is_empty());
        if everything && !self.all {
            self.all = true;
            self.owes_first_answer = true;
            for name in store.names(self.kind) {
                self.look_at.entry(name).or_insert(false);
            }
        }
        for name in request.resource_names_subscribe.into_iter().filter(|name| name != "*") {
            // A repeated subscription means that the gateway needs the resource again, unless the
            // same request lists it as present.
            let name = store.name(self.kind, &name);
            let owed = !(first && self.known.contains_key(&name));
            *self.look_at.entry(name.clone()).or_insert(false) |= owed;
            self.known.entry(name).or_insert(None);
        }
        for name in &request.resource_names_unsubscribe {
            if name == "*" {
                self.all = false;
            }
            self.known.remove(name.as_str());
            self.look_at.remove(name.as_str());
            self.held_back.remove(name.as_str());
            self.refused.remove(name.as_str());
            self.bisection.forget(name);
        }
    }

    /// Marks a resource as possibly changed.
    pub(super) fn note_change(&mut self, name: &ResourceName) {
        if self.wants(name) {
            self.look_at.entry(name.clone()).or_insert(false);
        }
    }

    /// Marks all resources of the gateway as possibly changed.
    pub(super) fn note_changes_of_all(&mut self) {
        for name in self.known.keys() {
            self.look_at.entry(name.clone()).or_insert(false);
        }
    }

    /// Marks a resource as owed again, if the gateway subscribes to it.
    pub(super) fn owe(&mut self, name: &ResourceName) {
        if self.wants(name) {
            self.look_at.insert(name.clone(), true);
        }
    }

    fn wants(&self, name: &ResourceName) -> bool {
        self.all || self.known.contains_key(name)
    }

    /// Whether anything is left to send.
    pub(super) fn is_pending(&self) -> bool {
        !self.look_at.is_empty() || !self.bisection.is_empty()
    }

    /// Whether a refused resource has not been accepted since.
    pub(super) fn was_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether removals wait.
    pub(super) fn holds_back(&self) -> bool {
        !self.held_back.is_empty()
    }

    /// Sends the waiting removals from now on.
    pub(super) fn release(&mut self) {
        for name in std::mem::take(&mut self.held_back) {
            self.look_at.entry(name).or_insert(false);
        }
    }

    /// Whether a response is in flight.
    pub(super) fn is_in_flight(&self) -> bool {
        self.on_its_way.is_some()
    }

    /// Whether there may be something to send now.
    pub(super) fn is_due(&self) -> bool {
        self.on_its_way.is_none() && (self.is_pending() || self.owes_first_answer)
    }

    /// The number of names kept.
    pub(super) fn len(&self) -> usize {
        self.known.len() + self.look_at.len() + self.held_back.len() + self.refused.len() + self.bisection.len()
    }

    /// The next response, if there is one: resources of a bisection, else what is due. `resource`
    /// looks one up. With `hold`, removals wait, unless the gateway requested the name.
    pub(super) fn next_page(&mut self, hold: bool, resource: impl Fn(&ResourceName) -> Option<Encoded>) -> Option<Page> {
        let mut page = Page::default();
        while page.is_empty()
            && let Some(names) = self.bisection.next()
        {
            for name in names {
                self.look_at.remove(&name);
                self.put(&mut page, name, (true, hold), &resource);
            }
        }
        if page.is_empty() {
            while page.bytes < PAGE_BYTES
                && let Some((name, owed)) = self.look_at.pop_first()
            {
                self.put(&mut page, name, (owed, hold), &resource);
            }
        }
        let owed = std::mem::take(&mut self.owes_first_answer);
        (!page.is_empty() || owed).then_some(page)
    }

    fn put(
        &mut self,
        page: &mut Page,
        name: ResourceName,
        (owed, hold): (bool, bool),
        resource: impl Fn(&ResourceName) -> Option<Encoded>,
    ) {
        match resource(&name) {
            Some(resource) if owed || self.known.get(&name) != Some(&Some(resource.version)) => {
                page.bytes += name.as_str().len() + resource.content.len();
                self.known.insert(name.clone(), Some(resource.version));
                page.resources.push((name, resource));
            }
            Some(_) => {}
            None if hold && !owed => {
                if self.known.get(&name).is_some_and(Option::is_some) {
                    self.held_back.insert(name);
                }
            }
            None => {
                if self.lose(&name) || owed {
                    page.bytes += name.as_str().len();
                    page.removed.push(name);
                }
            }
        }
    }

    /// Records that the gateway does not have the resource any more. Returns whether it had it.
    fn lose(&mut self, name: &ResourceName) -> bool {
        self.refused.remove(name);
        if self.all { self.known.remove(name).flatten() } else { self.known.get_mut(name).and_then(Option::take) }.is_some()
    }

    /// Records that `page` is in flight, with content between `at_least` and `at_most`.
    pub(super) fn sent(&mut self, page: &Page, nonce: &str, at_least: StoreRevision, at_most: StoreRevision) {
        self.on_its_way = Some(AwaitedAck {
            nonce: nonce.to_owned(),
            names: page.resources.iter().map(|(name, _)| name.clone()).collect(),
            at_least,
            at_most,
            last: !self.is_pending(),
        });
    }
}

impl Page {
    fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}
