//! Where every Ingress stands, and who is to be told of a change.

use std::collections::BTreeMap;

use super::accepted::{Acceptance, AcceptedIngresses};
use super::cache::ObjectCache;
use crate::kubernetes::objects::ObjectName;
use crate::routes::translate::Conflicts;
use crate::status::progress::{IngressProgress, Outcome, Progress, REFUSED_BY_GATEWAY, probe_targets};
use crate::xds::store::StoreRevision;

/// The reason of an Ingress that wants a host which another has.
const DOMAIN_CONFLICT: &str = "DomainConflict";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ProgressTracker {
    progress_changes: BTreeMap<ObjectName, IngressProgress>,
}

impl ProgressTracker {
    /// Whether an Ingress waits for something.
    pub(super) fn waits(&self, name: &ObjectName) -> bool {
        self.progress_changes.get(name).is_some_and(|standing| matches!(standing.progress, Progress::Waiting { .. }))
    }

    /// How many Ingresses cannot be served.
    pub(super) fn refused(&self) -> usize {
        self.progress_changes.values().filter(|standing| matches!(standing.progress, Progress::Refused { .. })).count()
    }

    /// Notes what became of the Ingresses, all of it published with `revision`, and finds whose
    /// standing that changes.
    pub(super) fn pass(
        &mut self,
        mut verdicts: BTreeMap<ObjectName, Acceptance>,
        (cache, accepted, conflicts): (&ObjectCache, &mut AcceptedIngresses, &Conflicts),
        revision: StoreRevision,
        news: &mut Outcome,
    ) {
        // Whoever had or got a conflict is judged anew, too: the holder of the host may be gone.
        for (name, standing) in &self.progress_changes {
            let was_conflict = matches!(standing.progress, Progress::Refused { reason: DOMAIN_CONFLICT, .. });
            if was_conflict != conflicts.contains_key(name) && accepted.served(name).is_some() {
                verdicts.entry(name.clone()).or_insert(Acceptance::Served);
            }
        }
        for (name, verdict) in verdicts {
            let Some(ingress) = cache.ingress(&name) else {
                accepted.forget_refusals(&name);
                if self.progress_changes.remove(&name).is_some() {
                    news.progress_changes.push((name, None));
                }
                continue;
            };
            let Some(progress) = self.progress(&name, verdict, (cache, &mut *accepted, conflicts), revision) else { continue };
            let standing = IngressProgress {
                uid: ingress.uid.clone(),
                generation: ingress.generation,
                status: ingress.status.clone(),
                progress,
            };
            if self.progress_changes.get(&name) != Some(&standing) {
                self.progress_changes.insert(name.clone(), standing.clone());
                news.progress_changes.push((name, Some(standing)));
            }
        }
    }

    fn progress(
        &self,
        name: &ObjectName,
        verdict: Acceptance,
        (cache, accepted, conflicts): (&ObjectCache, &mut AcceptedIngresses, &Conflicts),
        revision: StoreRevision,
    ) -> Option<Progress> {
        match verdict {
            Acceptance::Gone => return None,
            Acceptance::Refused(problem) => {
                return Some(Progress::Refused { reason: "InvalidIngress", message: problem.to_string() });
            }
            Acceptance::Waiting(missing) => return Some(Progress::Waiting { missing }),
            Acceptance::Served => {}
        }
        if let Some(taken) = conflicts.get(name) {
            let taken: Vec<_> = taken.iter().map(|(host, holder)| format!("{host} (Ingress {holder})")).collect();
            let message = format!("hosts already taken: {}", taken.join(", "));
            return Some(Progress::Refused { reason: DOMAIN_CONFLICT, message });
        }
        let ingress = cache.ingress(name)?;
        if let Some(message) = accepted.said_against(name, ingress.generation) {
            return Some(Progress::Refused { reason: REFUSED_BY_GATEWAY, message: message.to_owned() });
        }
        let served = accepted.served_mut(name)?;
        // What was ready once stays so: pods may come and go.
        if !ingress.status.says_ready(ingress.generation) {
            let missing = cache.missing(&served.routes);
            if !missing.is_empty() {
                return Some(Progress::Waiting { missing });
            }
        }
        if served.since == 0 || self.waits(name) {
            served.since = revision;
        }
        let (hash, probes) = (served.routes.hash.to_string(), probe_targets(&served.routes));
        Some(Progress::Served { since: served.since, hash, probes })
    }
}
