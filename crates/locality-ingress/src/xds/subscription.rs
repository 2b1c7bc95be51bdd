//! What one gateway wants and has of one kind of resources, and what it is to be sent next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::refusal::{Bisection, Nack};
use super::store::{Store, StoreRevision};
use super::{Encoded, Kind, Name};

/// What one answer holds at most, beyond its last resource. The rest of what is due follows when
/// the gateway has taken it, so that fifty gateways which come at once do not each have all that
/// there is on its way.
const PAGE_BYTES: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Subscription {
    kind: Kind,
    all: bool,
    // What the gateway was last sent: name -> version, and what it asked for by name and does not
    // have. A refused one has the version that it was refused in, for the same again would be
    // refused again.
    known: HashMap<Name, Option<NonZeroU64>>,
    // Names to look at; true where an answer is owed even if nothing changed.
    look_at: BTreeMap<Name, bool>,
    bisection: Bisection,
    // Gone, and not told yet: routes that the gateway still has may lead there.
    held_back: BTreeSet<Name>,
    // Those of which the gateway has what it had before, for it refused what came after.
    refused: BTreeSet<Name>,
    on_its_way: Option<InFlight>,
    confirmed: StoreRevision,
    // A subscription to everything that is empty so far is owed an (empty) answer, or the gateway
    // waits for ever.
    owes_first_answer: bool,
}

/// What one answer says.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// What is new or different.
    pub(super) resources: Vec<(Name, Encoded)>,
    /// What is not there any more.
    pub(super) removed: Vec<Name>,
    bytes: usize,
}

#[derive(Debug)]
struct InFlight {
    nonce: String,
    names: Vec<Name>,
    // What it holds is at least this new, and at most that.
    at_least: StoreRevision,
    at_most: StoreRevision,
    // Nothing as old as this was left to be sent.
    last: bool,
}

impl Subscription {
    pub(super) fn new(kind: Kind) -> Self {
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

    /// Takes what the gateway says of the answer that is on its way to it. A refusal is returned.
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
        let texts = |names: &[Name]| names.iter().map(|name| name.as_str().to_owned()).collect();
        let names = texts(&sent.names);
        // It keeps what it had. What is at fault is not sent again before it changes.
        let at_fault = texts(&self.bisection.refused(self.kind, sent.names, &error.message));
        let (revision, confirmed) = (sent.at_most, self.confirmed);
        Some(Nack { kind: self.kind, names, at_fault, message: error.message, revision, confirmed })
    }

    /// Takes what the gateway wants, wants no more and has. `first` is whether it says anything of
    /// this kind for the first time.
    pub(super) fn take_wishes(&mut self, request: DeltaDiscoveryRequest, first: bool, store: &Store) {
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
            // Asking again for what it has means that it needs it again; but not when it has just
            // told us that it has it.
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

    /// Notes that the resource may be different now.
    pub(super) fn note_change(&mut self, name: &Name) {
        if self.wants(name) {
            self.look_at.entry(name.clone()).or_insert(false);
        }
    }

    /// Notes that any of what the gateway has may be different now.
    pub(super) fn note_changes_of_all(&mut self) {
        for name in self.known.keys() {
            self.look_at.entry(name.clone()).or_insert(false);
        }
    }

    /// Notes that the gateway, if it wants the resource, is owed it again.
    pub(super) fn owe(&mut self, name: &Name) {
        if self.wants(name) {
            self.look_at.insert(name.clone(), true);
        }
    }

    fn wants(&self, name: &Name) -> bool {
        self.all || self.known.contains_key(name)
    }

    /// Whether anything is left to be sent.
    pub(super) fn is_pending(&self) -> bool {
        !self.look_at.is_empty() || !self.bisection.is_empty()
    }

    /// Whether anything was refused and not taken since, so that the gateway still has what it had
    /// before.
    pub(super) fn was_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether anything that is gone has not been told.
    pub(super) fn holds_back(&self) -> bool {
        !self.held_back.is_empty()
    }

    /// What is gone may be told now.
    pub(super) fn release(&mut self) {
        for name in std::mem::take(&mut self.held_back) {
            self.look_at.entry(name).or_insert(false);
        }
    }

    /// Whether an answer is on its way.
    pub(super) fn is_in_flight(&self) -> bool {
        self.on_its_way.is_some()
    }

    /// Whether there may be something to send now.
    pub(super) fn is_due(&self) -> bool {
        self.on_its_way.is_none() && (self.is_pending() || self.owes_first_answer)
    }

    /// How many names it keeps.
    pub(super) fn len(&self) -> usize {
        self.known.len() + self.look_at.len() + self.held_back.len() + self.refused.len() + self.bisection.len()
    }

    /// The next answer, where there is something to say: what was refused together with another,
    /// else what is due. `resource` looks one up. What is gone is not told yet where it is to be
    /// `hold`, unless the gateway asked for it.
    pub(super) fn next_page(&mut self, hold: bool, resource: impl Fn(&Name) -> Option<Encoded>) -> Option<Page> {
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

    fn put(&mut self, page: &mut Page, name: Name, (owed, hold): (bool, bool), resource: impl Fn(&Name) -> Option<Encoded>) {
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

    /// Notes that the gateway has the resource no more. Whether it had it.
    fn lose(&mut self, name: &Name) -> bool {
        self.refused.remove(name);
        if self.all { self.known.remove(name).flatten() } else { self.known.get_mut(name).and_then(Option::take) }.is_some()
    }

    /// Notes that `page` is on its way. What it holds is at least as new as `at_least`, and at most
    /// as `at_most`.
    pub(super) fn sent(&mut self, page: &Page, nonce: &str, at_least: StoreRevision, at_most: StoreRevision) {
        self.on_its_way = Some(InFlight {
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
