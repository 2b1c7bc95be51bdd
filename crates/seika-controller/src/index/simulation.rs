//! The index and the plan against a model of an API server whose watch lags, whose answers get
//! lost, and whose requests may be done long after nobody waits for them any more. One thing is
//! taken for granted: of two requests for the same name, the earlier is not done after the later
//! has been answered and its pod has come and gone (an API server drops the requests of a closed
//! connection within its time limit).

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::observed::fixtures::pod;
use crate::observed::{NodeView, Nodes};
use crate::plan::{Create, Delete, DesiredPods, ObservedPods, plan};
use crate::taints::Tolerations;
use k8s_api::seika::Rollout;

const NODE: &str = "node1";

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    /// The watch tells of it before the answer comes.
    DoneAndTold,
    Refused,
    /// Done, but the answer is lost.
    AnswerLost,
    /// Neither done nor answered.
    Lost,
    /// Done some steps later, answered never.
    Late,
}

#[derive(Clone, Debug)]
enum Step {
    /// A pass; each of its requests has the next of these fates.
    Pass(Vec<Fate>),
    /// The watch tells of so many changes.
    Deliver(usize),
    /// The watch breaks and lists anew.
    List,
    Count(i32),
    /// Somebody deletes a pod, at once or gently.
    Delete(usize, bool),
    /// A pod that is going is gone.
    Finish,
    /// Requests that nobody waits for are done.
    Land,
    /// Another process takes over.
    Restart,
}

#[derive(Clone, Debug)]
enum Request {
    Create(String),
    Delete(String),
}

#[derive(Debug, Default)]
struct World {
    /// What there is.
    pods: BTreeMap<String, PodView>,
    /// All that ever changed.
    log: Vec<PodChange>,
    /// How much of it the watch has told.
    told: usize,
    uids: u32,
    late: Vec<Request>,
    index: PodIndex,
    count: i32,
    /// The most that was asked for since there last was nothing under way.
    most: i32,
}

fn owner() -> Owner {
    Owner { uid: "seika".into(), namespace: "default".into(), name: "hello".into() }
}

impl World {
    fn active(&self) -> usize {
        self.pods.values().filter(|pod| pod.is_active()).count()
    }

    fn deliver(&mut self, changes: usize) {
        for _ in 0..changes {
            let Some(change) = self.log.get(self.told) else { return };
            self.told += 1;
            self.index.apply(change.clone());
        }
    }

    fn list(&mut self) {
        self.index.apply(PodChange::ListBegins);
        for pod in self.pods.values() {
            self.index.apply(PodChange::Listed(owner(), pod.clone()));
        }
        self.index.apply(PodChange::ListEnds);
        self.told = self.log.len();
    }

    /// The API server does what is asked. Returns the UID of the pod of that name if it can serve,
    /// made now or before.
    fn create(&mut self, name: &str) -> Option<String> {
        self.late.retain(|late| !matches!(late, Request::Create(late) if late == name));
        if let Some(there) = self.pods.get(name) {
            return there.is_active().then(|| there.uid.clone());
        }
        self.uids += 1;
        let made = PodView { uid: format!("uid-{}", self.uids), ..pod(name, NODE) };
        self.pods.insert(name.to_owned(), made.clone());
        self.log.push(PodChange::Put(owner(), made.clone()));
        assert!(
            self.active() <= usize::try_from(self.most).unwrap(),
            "{} pods, at most {} were asked for",
            self.active(),
            self.most
        );
        Some(made.uid)
    }

    fn delete(&mut self, uid: &str, gently: bool) {
        let Some(pod) = self.pods.values_mut().find(|pod| pod.uid == uid) else { return };
        if gently {
            pod.terminating = true;
            let going = pod.clone();
            self.log.push(PodChange::Put(owner(), going));
        } else {
            let gone = pod.clone();
            self.pods.remove(&gone.name);
            self.log.push(PodChange::Gone(owner(), gone));
        }
    }

    fn land(&mut self) {
        for request in std::mem::take(&mut self.late) {
            match request {
                Request::Create(name) => drop(self.create(&name)),
                Request::Delete(uid) => self.delete(&uid, true),
            }
        }
    }

    fn pass(&mut self, fates: &[Fate]) {
        let doubtful: Vec<_> = self.index.picture(&owner()).pods.iter().filter(|pod| pod.doomed).cloned().collect();
        for pod in doubtful {
            let stays = self.pods.get(&pod.name).is_some_and(|there| there.uid == pod.uid && !there.terminating);
            self.index.delete_ends(&owner(), &pod.uid, if stays { DeleteEnd::Refused } else { DeleteEnd::Going });
        }
        for (_, name) in self.index.picture(&owner()).unresolved {
            if let Some(there) = self.pods.get(&name) {
                let end = if there.is_active() { CreateEnd::Exists(there.uid.clone()) } else { CreateEnd::NameHeld };
                self.index.create_ends(&owner(), &name, &end);
            }
        }
        let mut nodes = Nodes::default();
        nodes.put(NODE, NodeView::USABLE);
        let counts = [(NODE.to_owned(), self.count)].into();
        let rollout = Rollout::default();
        let min_ready = SignedDuration::ZERO;
        let tolerations = Tolerations::default();
        let asked = DesiredPods {
            seika: "hello",
            uid: "seika",
            counts: &counts,
            revision: "new",
            rollout: &rollout,
            min_ready,
            tolerations: &tolerations,
        };
        let picture = self.index.picture(&owner());
        let (taken, held) = (HashSet::new(), BTreeMap::new());
        let seen = ObservedPods { nodes: &nodes, picture: &picture, taken: &taken, held: &held, now: Timestamp::UNIX_EPOCH };
        let plan = plan(&asked, &seen);
        let mut fates = fates.iter().copied().chain(std::iter::repeat(Fate::Done));
        for Create { name, .. } in &plan.creates {
            self.index.create_begins(&owner(), name, NODE, "new");
            let fate = fates.next().unwrap_or(Fate::Done);
            let uid = matches!(fate, Fate::Done | Fate::DoneAndTold | Fate::AnswerLost).then(|| self.create(name)).flatten();
            let end = match (fate, uid) {
                (Fate::Late, _) => {
                    self.late.push(Request::Create(name.clone()));
                    CreateEnd::Unknown
                }
                (Fate::AnswerLost | Fate::Lost, _) => CreateEnd::Unknown,
                (Fate::Refused, _) => CreateEnd::Refused,
                (_, Some(uid)) => CreateEnd::Exists(uid),
                (_, None) => CreateEnd::NameHeld,
            };
            if matches!(fate, Fate::DoneAndTold) {
                self.deliver(usize::MAX);
            }
            self.index.create_ends(&owner(), name, &end);
        }
        for Delete { uid, .. } in &plan.deletes {
            self.index.delete_begins(&owner(), uid);
            let fate = fates.next().unwrap_or(Fate::Done);
            let end = match fate {
                Fate::Done | Fate::DoneAndTold | Fate::AnswerLost => {
                    self.delete(uid, true);
                    if matches!(fate, Fate::AnswerLost) { DeleteEnd::Unknown } else { DeleteEnd::Going }
                }
                Fate::Refused => DeleteEnd::Refused,
                Fate::Lost => DeleteEnd::Unknown,
                Fate::Late => {
                    self.late.push(Request::Delete(uid.clone()));
                    DeleteEnd::Unknown
                }
            };
            if matches!(fate, Fate::DoneAndTold) {
                self.deliver(usize::MAX);
            }
            self.index.delete_ends(&owner(), uid, end);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Pass(fates) => self.pass(fates),
            Step::Deliver(changes) => self.deliver(*changes),
            Step::List => self.list(),
            Step::Count(count) => self.count = *count,
            Step::Delete(which, gently) => {
                let pod = self.pods.values().filter(|pod| pod.is_active()).nth(*which).map(|pod| pod.uid.clone());
                pod.iter().for_each(|uid| self.delete(uid, *gently));
            }
            Step::Finish => {
                let pod = self.pods.values().find(|pod| pod.terminating).map(|pod| pod.uid.clone());
                pod.iter().for_each(|uid| self.delete(uid, false));
            }
            Step::Land => self.land(),
            Step::Restart => {
                // What the old process had sent is done before the new one has started.
                self.land();
                self.index = PodIndex::default();
                self.list();
            }
        }
        let nothing_under_way = self.late.is_empty() && self.active() <= usize::try_from(self.count).unwrap();
        self.most = if nothing_under_way { self.count } else { self.most.max(self.count) };
    }
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Done),
        2 => Just(Fate::DoneAndTold),
        1 => Just(Fate::Refused),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Late),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(any_fate(), 0..6).prop_map(Step::Pass),
        4 => (0..8_usize).prop_map(Step::Deliver),
        1 => Just(Step::List),
        3 => (0..6_i32).prop_map(Step::Count),
        2 => (0..4_usize, any::<bool>()).prop_map(|(which, gently)| Step::Delete(which, gently)),
        2 => Just(Step::Finish),
        1 => Just(Step::Land),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_a_pod_too_many_and_in_the_end_exactly_those_asked_for(steps in vec(any_step(), 0..80)) {
        let mut world = World::default();
        world.list();
        for step in &steps {
            world.step(step);
        }
        // Calm: requests land, the watch catches up, passes go through.
        world.land();
        for _ in 0..4 {
            world.deliver(usize::MAX);
            world.step(&Step::Pass(Vec::new()));
        }
        world.deliver(usize::MAX);
        prop_assert_eq!(world.active(), usize::try_from(world.count).unwrap());
        let picture = world.index.picture(&owner());
        prop_assert_eq!(picture.pods.iter().filter(|pod| pod.is_active()).count(), world.active());
        let of_seika = world.index.seikas.get(&owner());
        prop_assert!(of_seika.is_none_or(|of| of.deletes.is_empty()), "deletes that nobody waits for: {:?}", of_seika);
    }
}
