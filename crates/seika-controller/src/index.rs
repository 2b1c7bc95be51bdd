//! The pods of every Seika, as the watch shows them, *plus* our own writes that the watch does not
//! show yet.
//!
//! A watch lags: decisions on the watch alone would create the same pod twice. Here a write is
//! recorded before it is sent, and cleared when the watch shows its effect or the API server
//! refuses it, so that the picture is never behind our own writes. A write whose outcome is unknown
//! (a cut connection, a time-out, a server error) stays recorded as such: a create is retried
//! *under the same name*, a delete *of the same pod*, before any other.
//!
//! Plain data, no I/O. Its inputs are the events of the watch and the ends of our writes.

mod input;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

pub(crate) use self::input::{CreateEnd, DeleteEnd, Owner, PodChange, Stray};
use crate::observed::PodView;

#[derive(Debug)]
enum Flight {
    /// In flight; the UIDs that the watch has shown under its name meanwhile.
    Sent(HashSet<String>),
    /// Answered while this list was the last to have begun; the watch does not show it yet.
    Confirmed { uid: String, list: u64 },
    /// The outcome is not known.
    Unknown,
}

#[derive(Debug)]
struct CreateFlight {
    view: PodView,
    flight: Flight,
    /// An earlier request of this name may have been done, or may yet be.
    in_doubt: bool,
    /// The pod was there before; what was asked for is that it be ours.
    adoption: bool,
}

#[derive(Debug, Default)]
struct OfSeika {
    pods: BTreeMap<String, Arc<PodView>>,
    /// By pod name.
    creates: HashMap<String, CreateFlight>,
    /// By UID.
    deletes: HashMap<String, Flight>,
}

/// All that is known of one Seika's pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeikaView {
    /// Its pods in name order, those just asked for included.
    pub(crate) pods: Vec<Arc<PodView>>,
    /// Creates whose outcome is unknown: node and name.
    pub(crate) unresolved: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Incoming {
    pods: HashMap<Owner, BTreeMap<String, Arc<PodView>>>,
    strays: HashMap<String, BTreeMap<String, Stray>>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct PodIndex {
    seikas: HashMap<Owner, OfSeika>,
    /// By namespace and name.
    strays: HashMap<String, BTreeMap<String, Stray>>,
    /// The list that is being received.
    incoming: Option<Incoming>,
    /// How many lists have begun.
    lists: u64,
}

impl PodIndex {
    /// Takes in what the watch said; returns the Seikas whose picture changed.
    pub(crate) fn apply(&mut self, change: PodChange) -> Vec<Owner> {
        match change {
            PodChange::ListBegins => {
                self.lists += 1;
                self.incoming = Some(Incoming::default());
                Vec::new()
            }
            PodChange::Listed(owner, pod) => {
                let incoming = self.incoming.get_or_insert_default();
                incoming.pods.entry(owner).or_default().insert(pod.name.clone(), Arc::new(pod));
                Vec::new()
            }
            PodChange::ListedStray(namespace, stray) => {
                let incoming = self.incoming.get_or_insert_default();
                incoming.strays.entry(namespace).or_default().insert(stray.pod.name.clone(), stray);
                Vec::new()
            }
            PodChange::ListEnds => self.replace(),
            PodChange::Put(owner, pod) => {
                self.no_longer_stray(&owner.namespace, &pod);
                let of_seika = self.seikas.entry(owner.clone()).or_default();
                of_seika.seen(&pod, pod.terminating);
                let unchanged = of_seika.pods.get(&pod.name).is_some_and(|before| **before == pod);
                of_seika.pods.insert(pod.name.clone(), Arc::new(pod));
                if unchanged { Vec::new() } else { vec![owner] }
            }
            PodChange::Gone(owner, pod) => {
                let Some(of_seika) = self.seikas.get_mut(&owner) else { return Vec::new() };
                of_seika.seen(&pod, true);
                if of_seika.pods.get(&pod.name).is_some_and(|present| present.uid == pod.uid) {
                    of_seika.pods.remove(&pod.name);
                }
                self.drop_if_empty(&owner);
                vec![owner]
            }
            PodChange::Strayed(namespace, stray) => {
                let touched = self.disown(&namespace, &stray.pod);
                self.strays.entry(namespace).or_default().insert(stray.pod.name.clone(), stray);
                touched
            }
            PodChange::StrayGone(namespace, pod) => {
                self.no_longer_stray(&namespace, &pod);
                self.disown(&namespace, &pod)
            }
        }
    }

    fn no_longer_stray(&mut self, namespace: &str, pod: &PodView) {
        let Some(strays) = self.strays.get_mut(namespace) else { return };
        if strays.get(&pod.name).is_some_and(|stray| stray.pod.uid == pod.uid) {
            strays.remove(&pod.name);
        }
        if strays.is_empty() {
            self.strays.remove(namespace);
        }
    }

    /// From now on this pod has no owner, or one of another kind.
    fn disown(&mut self, namespace: &str, pod: &PodView) -> Vec<Owner> {
        let held = |of: &OfSeika| of.pods.get(&pod.name).is_some_and(|held| held.uid == pod.uid);
        let holders = self.seikas.iter().filter(|(owner, of)| owner.namespace == namespace && held(of));
        let holders: Vec<Owner> = holders.map(|(owner, _)| owner.clone()).collect();
        for holder in &holders {
            self.apply(PodChange::Gone(holder.clone(), pod.clone()));
        }
        holders
    }

    fn replace(&mut self) -> Vec<Owner> {
        let Incoming { pods: mut incoming, strays } = self.incoming.take().unwrap_or_default();
        self.strays = strays;
        let owners: Vec<Owner> = self.seikas.keys().chain(incoming.keys()).cloned().collect::<HashSet<_>>().into_iter().collect();
        let begun = self.lists;
        for owner in &owners {
            let of_seika = self.seikas.entry(owner.clone()).or_default();
            let listed = incoming.remove(owner).unwrap_or_default();
            for pod in listed.values() {
                of_seika.seen(pod, pod.terminating);
            }
            for absent in std::mem::replace(&mut of_seika.pods, listed).into_values() {
                if of_seika.pods.get(&absent.name).is_none_or(|present| present.uid != absent.uid) {
                    of_seika.seen(&absent, true);
                }
            }
            // What was answered before the list began is either in it or has come and gone.
            let covered = |flight: &Flight| matches!(flight, Flight::Confirmed { list, .. } if *list < begun);
            of_seika.creates.retain(|_, create| !covered(&create.flight));
            let (pods, creates) = (&of_seika.pods, &of_seika.creates);
            let is_left =
                |uid: &str| pods.values().any(|pod| pod.uid == uid) || creates.values().any(|create| create.view.uid == uid);
            of_seika.deletes.retain(|uid, flight| matches!(flight, Flight::Sent(_)) || (!covered(flight) && is_left(uid)));
            self.drop_if_empty(owner);
        }
        owners
    }

    fn drop_if_empty(&mut self, owner: &Owner) {
        if self.seikas.get(owner).is_some_and(|of| of.pods.is_empty() && of.creates.is_empty() && of.deletes.is_empty()) {
            self.seikas.remove(owner);
        }
    }

    /// A create is about to be sent.
    pub(crate) fn create_begins(&mut self, owner: &Owner, name: &str, node: &str, revision: &str) {
        let view = PodView::asked_for(name, node, revision);
        let creates = &mut self.seikas.entry(owner.clone()).or_default().creates;
        let in_doubt = creates.get(name).is_some_and(|earlier| matches!(earlier.flight, Flight::Unknown));
        creates.insert(name.to_owned(), CreateFlight { view, flight: Flight::Sent(HashSet::new()), in_doubt, adoption: false });
    }

    /// The adoption of an orphan is about to be sent. Until the watch shows it, the orphan counts
    /// as adopted: otherwise another pod would be created in its place. [`PodIndex::create_ends`]
    /// takes the outcome.
    pub(crate) fn adoption_begins(&mut self, owner: &Owner, orphan: &PodView) {
        let flight = Flight::Sent(HashSet::new());
        let adoption = CreateFlight { view: orphan.clone(), flight, in_doubt: false, adoption: true };
        self.seikas.entry(owner.clone()).or_default().creates.insert(orphan.name.clone(), adoption);
    }

    /// The API server has no pod of this name. A pod that was to be adopted will never be ours
    /// then; one that was to be created still may be.
    pub(crate) fn no_such_pod(&mut self, owner: &Owner, name: &str) {
        let Some(of_seika) = self.seikas.get_mut(owner) else { return };
        if of_seika.creates.get(name).is_some_and(|create| create.adoption) {
            of_seika.creates.remove(name);
            self.drop_if_empty(owner);
        }
    }

    /// That create has ended.
    pub(crate) fn create_ends(&mut self, owner: &Owner, name: &str, end: &CreateEnd) {
        let lists = self.lists;
        let Some(of_seika) = self.seikas.get_mut(owner) else { return };
        let Some(create) = of_seika.creates.get_mut(name) else { return };
        let is_shown = |flight: &Flight, uid: &str| matches!(flight, Flight::Sent(shown) if shown.contains(uid));
        match end {
            CreateEnd::Exists(uid) if !is_shown(&create.flight, uid) => {
                create.view.uid.clone_from(uid);
                create.flight = Flight::Confirmed { uid: uid.clone(), list: lists };
            }
            CreateEnd::Unknown | CreateEnd::Refused
                if matches!(&create.flight, Flight::Sent(shown) if shown.is_empty())
                    && (create.in_doubt || *end == CreateEnd::Unknown) =>
            {
                create.flight = Flight::Unknown;
            }
            CreateEnd::Exists(_) | CreateEnd::NameHeld | CreateEnd::Refused | CreateEnd::Unknown => {
                of_seika.creates.remove(name);
            }
        }
        self.drop_if_empty(owner);
    }

    /// A delete is about to be sent.
    pub(crate) fn delete_begins(&mut self, owner: &Owner, uid: &str) {
        self.seikas.entry(owner.clone()).or_default().deletes.insert(uid.to_owned(), Flight::Sent(HashSet::new()));
    }

    /// That delete has ended.
    pub(crate) fn delete_ends(&mut self, owner: &Owner, uid: &str, end: DeleteEnd) {
        let lists = self.lists;
        let Some(of_seika) = self.seikas.get_mut(owner) else { return };
        let is_awaited = of_seika.awaits_end_of(uid);
        let Some(flight) = of_seika.deletes.get_mut(uid) else { return };
        let is_shown = !is_awaited || matches!(flight, Flight::Sent(shown) if shown.contains(uid));
        match end {
            DeleteEnd::Going if !is_shown => *flight = Flight::Confirmed { uid: uid.to_owned(), list: lists },
            DeleteEnd::Unknown if !is_shown => *flight = Flight::Unknown,
            DeleteEnd::Going | DeleteEnd::Refused | DeleteEnd::Unknown => {
                of_seika.deletes.remove(uid);
            }
        }
        self.drop_if_empty(owner);
    }

    /// The Seika is no more: what was asked for it no longer matters.
    pub(crate) fn forget(&mut self, owner: &Owner) {
        if let Some(of_seika) = self.seikas.get_mut(owner) {
            of_seika.creates.clear();
            of_seika.deletes.clear();
            self.drop_if_empty(owner);
        }
    }

    /// What is known of the pods of `owner`.
    #[must_use]
    pub(crate) fn picture(&self, owner: &Owner) -> SeikaView {
        let Some(of_seika) = self.seikas.get(owner) else { return SeikaView::default() };
        let mut picture = SeikaView::default();
        for pod in of_seika.pods.values() {
            picture.pods.push(match of_seika.deletes.get(&pod.uid) {
                None => Arc::clone(pod),
                Some(Flight::Unknown) => Arc::new(PodView { doomed: true, ..PodView::clone(pod) }),
                Some(Flight::Sent(_) | Flight::Confirmed { .. }) => {
                    Arc::new(PodView { terminating: true, ..PodView::clone(pod) })
                }
            });
        }
        for (name, create) in &of_seika.creates {
            match create.flight {
                Flight::Unknown => picture.unresolved.push((create.view.node.clone(), name.clone())),
                // PodChange of by the watch and not answered yet: the watch knows more.
                _ if of_seika.pods.contains_key(name) => {}
                Flight::Sent(_) | Flight::Confirmed { .. } => {
                    picture.pods.push(Arc::new(of_seika.with_delete(&create.view).unwrap_or_else(|| create.view.clone())));
                }
            }
        }
        picture.unresolved.sort();
        picture
    }

    /// The pods of `namespace` that carry our node label and that no Seika controls.
    pub(crate) fn strays(&self, namespace: &str) -> impl Iterator<Item = &Stray> {
        self.strays.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// Whether there are writes for `owner` that the watch does not show yet.
    #[must_use]
    pub(crate) fn is_ahead_of_watch(&self, owner: &Owner) -> bool {
        self.seikas.get(owner).is_some_and(|of| !of.creates.is_empty() || !of.deletes.is_empty())
    }

    /// The Seikas that have pods for `node`.
    pub(crate) fn with_pods_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Owner> {
        self.seikas.iter().filter(move |(_, of)| of.pods.values().any(|pod| pod.node == node)).map(|(owner, _)| owner)
    }
}

impl OfSeika {
    /// The pod as it is given that it was asked to go, if it was.
    fn with_delete(&self, pod: &PodView) -> Option<PodView> {
        match self.deletes.get(&pod.uid)? {
            Flight::Unknown => Some(PodView { doomed: true, ..pod.clone() }),
            Flight::Sent(_) | Flight::Confirmed { .. } => Some(PodView { terminating: true, ..pod.clone() }),
        }
    }

    /// Whether the watch does not show yet that this pod is terminating or deleted.
    fn awaits_end_of(&self, uid: &str) -> bool {
        self.pods.values().any(|pod| pod.uid == uid && !pod.terminating)
            || self.creates.values().any(|create| create.view.uid == uid)
    }

    /// The watch shows `pod`, perhaps as terminating.
    fn seen(&mut self, pod: &PodView, terminating: bool) {
        if let Some(create) = self.creates.get_mut(&pod.name) {
            match &mut create.flight {
                Flight::Sent(shown) => {
                    shown.insert(pod.uid.clone());
                }
                // An event about an earlier pod of this name says nothing about this one.
                Flight::Confirmed { uid, .. } if *uid != pod.uid => {}
                Flight::Confirmed { .. } | Flight::Unknown => {
                    self.creates.remove(&pod.name);
                }
            }
        }
        if !terminating {
            return;
        }
        if let Some(flight) = self.deletes.get_mut(&pod.uid) {
            match flight {
                Flight::Sent(shown) => {
                    shown.insert(pod.uid.clone());
                }
                Flight::Confirmed { .. } | Flight::Unknown => {
                    self.deletes.remove(&pod.uid);
                }
            }
        }
    }
}
