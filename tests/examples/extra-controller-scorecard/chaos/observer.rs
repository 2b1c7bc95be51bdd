//! Sees every pod that goes, and judges whether it might.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use k8s_api::seika::Seika;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kantai_tests::knative::gateways::Gateways;
use kantai_tests::knative::removals::{Removals, Verdict, least_pods};
use kantai_tests::knative::stage::{Stage, is_ready, revision_of};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use scorecards::note;
use serde::de::DeserializeOwned;

/// The KPA's shortest stable window, which all revisions have.
const WINDOW: Duration = Duration::from_secs(6);
/// Watches of different kinds are so far apart at most.
const WATCHES_AGREE_WITHIN: Duration = Duration::from_secs(1);
const JUDGE_EVERY: Duration = Duration::from_millis(250);
/// So much of what happened to a revision is told where a pod must not have gone.
const TRAIL: usize = 60;

/// Watches pods and what is asked for.
pub(super) struct Observer(Arc<Mutex<Seen>>);

struct Seen {
    gateways: Gateways,
    revisions: BTreeMap<String, Revision>,
    excused_pods: BTreeSet<String>,
    excused_revisions: BTreeSet<String>,
    suspects: Vec<Suspect>,
    wrongs: Vec<String>,
    /// Removals that only the clients of the moment speak against.
    sudden: usize,
}

#[derive(Default)]
struct Revision {
    /// UIDs of pods that are ready.
    ready: BTreeSet<String>,
    removals: Removals,
    trail: VecDeque<(Instant, String)>,
}

/// A ready pod that was taken.
struct Suspect {
    at: Instant,
    uid: String,
    name: String,
    revision: String,
    /// Ready pods that were left at that instant.
    left: usize,
}

impl Observer {
    pub(super) async fn start(stage: &Stage, gateways: Gateways) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen {
            gateways,
            revisions: BTreeMap::new(),
            excused_pods: BTreeSet::new(),
            excused_revisions: BTreeSet::new(),
            suspects: Vec::new(),
            wrongs: Vec::new(),
            sudden: 0,
        }));
        follow(stage.api::<Seika>(), seen.clone(), |seen, seika, is_there| {
            let counts = seika.spec.repurika.iter().map(|(node, count)| (node.to_string(), i64::from(*count))).collect();
            seen.asks(&seika.name_any(), "Seika", if is_there { counts } else { BTreeMap::new() });
        })
        .await?;
        follow(stage.api::<Deployment>(), seen.clone(), |seen, deployment, is_there| {
            let revision = deployment.name_any();
            let count = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let counts = if is_there { [(String::new(), i64::from(count))].into() } else { BTreeMap::new() };
            seen.asks(revision.strip_suffix("-deployment").unwrap_or(&revision), "Deployment", counts);
        })
        .await?;
        follow(stage.api::<Pod>(), seen.clone(), Seen::pod).await?;
        let judged = seen.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(JUDGE_EVERY).await;
                lock(&judged).judge(WATCHES_AGREE_WITHIN);
            }
        });
        Ok(Self(seen))
    }

    /// A new run begins.
    pub(super) fn begin(&self) {
        lock(&self.0).wrongs.clear();
    }

    /// Somebody else takes this pod.
    pub(super) fn excuse_pod(&self, pod: &Pod) {
        let mut seen = lock(&self.0);
        if let Some(revision) = revision_of(pod) {
            seen.note(revision, format!("{} is hurt", pod.name_any()));
        }
        seen.excused_pods.insert(pod.uid().unwrap_or_default());
    }

    /// All pods of this revision are to go.
    pub(super) fn excuse_revision(&self, name: &str) {
        lock(&self.0).excused_revisions.insert(name.to_owned());
    }

    /// What broke the rule since the run began.
    pub(super) fn wrongs(&self) -> Vec<String> {
        let mut seen = lock(&self.0);
        seen.judge(Duration::ZERO);
        seen.wrongs.clone()
    }

    /// How many ready pods were taken that the clients of the moment alone would have asked for.
    pub(super) fn sudden(&self) -> usize {
        lock(&self.0).sudden
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of every object of a kind that came, changed or went, from now on.
async fn follow<K>(objects: Api<K>, seen: Arc<Mutex<Seen>>, take_in: fn(&mut Seen, &K, bool)) -> anyhow::Result<()>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut version = objects.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    tokio::spawn(async move {
        let why = loop {
            let events = match objects.watch(&WatchParams::default(), &version).await {
                Ok(events) => events,
                Err(error) => break error.to_string(),
            };
            let mut events = Box::pin(events);
            // A watch ends after some minutes; the next goes on where it stood.
            let ended = loop {
                let (object, is_there) = match events.try_next().await {
                    Ok(Some(WatchEvent::Added(object) | WatchEvent::Modified(object))) => (object, true),
                    Ok(Some(WatchEvent::Deleted(object))) => (object, false),
                    Ok(Some(WatchEvent::Bookmark(bookmark))) => {
                        version = bookmark.metadata.resource_version;
                        continue;
                    }
                    Ok(Some(WatchEvent::Error(status))) => break Some(status.message),
                    Ok(None) => break None,
                    Err(error) => break Some(error.to_string()),
                };
                match object.resource_version() {
                    Some(next) => version = next,
                    None => break Some("an object without a version".to_owned()),
                }
                take_in(&mut lock(&seen), &object, is_there);
            };
            if let Some(error) = ended {
                break error;
            }
        };
        lock(&seen).wrongs.push(format!("a watch of the observer broke: {why}"));
    });
    Ok(())
}

impl Seen {
    fn revision(&mut self, name: &str) -> &mut Revision {
        self.revisions.entry(name.to_owned()).or_default()
    }

    fn note(&mut self, revision: &str, what: String) {
        let trail = &mut self.revision(revision).trail;
        trail.push_back((Instant::now(), what));
        if trail.len() > TRAIL {
            trail.pop_front();
        }
    }

    fn asks(&mut self, revision: &str, maker: &str, counts: BTreeMap<String, i64>) {
        let asks = format!("its {maker} asks for {counts:?}");
        if self.revision(revision).removals.asks(Instant::now(), maker, counts) {
            self.note(revision, asks);
        }
    }

    fn pod(&mut self, pod: &Pod, is_there: bool) {
        let Some(name) = revision_of(pod) else { return };
        let (uid, now) = (pod.uid().unwrap_or_default(), Instant::now());
        let is_taken = !is_there || pod.metadata.deletion_timestamp.is_some();
        let is_excused = self.excused_pods.contains(&uid) || self.excused_revisions.contains(name);
        let revision = self.revision(name);
        let is_change = if is_there && is_ready(pod) { revision.ready.insert(uid.clone()) } else { revision.ready.remove(&uid) };
        if !is_change {
            return;
        }
        let is_ready = revision.ready.contains(&uid);
        revision.removals.ready(now, revision.ready.clone());
        let left = revision.ready.len();
        let what = match (is_ready, is_taken) {
            (true, _) => "is ready",
            (false, true) => "was taken",
            (false, false) => "is not ready any more",
        };
        self.note(name, format!("{} {what}, {left} are", pod.name_any()));
        if is_taken && !is_ready && !is_excused {
            self.revision(name).removals.taken(now, &uid);
            self.suspects.push(Suspect { at: now, uid, name: pod.name_any(), revision: name.to_owned(), left });
        }
    }

    /// Judges what was taken longer ago than `age`.
    fn judge(&mut self, age: Duration) {
        let (due, waiting) = std::mem::take(&mut self.suspects).into_iter().partition(|suspect| suspect.at.elapsed() >= age);
        self.suspects = waiting;
        for suspect in due {
            self.judge_one(&suspect);
        }
    }

    fn judge_one(&mut self, suspect: &Suspect) {
        let Suspect { at, uid, name, revision, left } = suspect;
        let told = self.gateways.told(revision);
        let clients = told.iter().rev().find(|(then, _)| then <= at).map_or(0, |(_, count)| *count);
        let verdict = self.revision(revision).removals.judge(*at, uid, &told, WINDOW);
        let Verdict { others, asked, demand } = verdict;
        let words = format!(
            "{name} of {revision} was taken while ready, {left} were left, at most {others} others since the decision; \
             {clients} clients then, and {demand:.2} on average at the decision, which ask for {asked}"
        );
        if !verdict.is_right() {
            self.wrongs.push(words);
        } else if *left < least_pods(f64::from(clients)) {
            self.sudden += 1;
            note(&format!("right, though sudden: {words}"));
        } else {
            return;
        }
        self.tell_trail(revision, *at, &told);
    }

    /// What happened to a revision, for whoever looks into it.
    fn tell_trail(&self, revision: &str, until: Instant, told: &[(Instant, u32)]) {
        let mut changes: Vec<(Instant, String)> = Vec::new();
        let mut last = None;
        for (at, count) in told {
            if last != Some(*count) {
                changes.push((*at, format!("{count} clients are told")));
                last = Some(*count);
            }
        }
        let trail = self.revisions.get(revision).into_iter().flat_map(|revision| revision.trail.iter().cloned());
        changes.extend(trail);
        changes.sort_by_key(|(at, _)| *at);
        for (at, what) in changes.iter().filter(|(at, _)| *at <= until + WATCHES_AGREE_WITHIN) {
            let seconds = until.saturating_duration_since(*at).as_secs_f64() - at.saturating_duration_since(until).as_secs_f64();
            note(&format!("  {:+.2} s {revision}: {what}", -seconds));
        }
    }
}
