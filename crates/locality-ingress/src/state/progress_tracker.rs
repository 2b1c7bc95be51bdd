//! The progress of every Ingress, and its changes.

use std::collections::BTreeMap;

use super::accepted::{Acceptance, AcceptedIngresses};
use super::cache::ObjectCache;
use crate::kubernetes::objects::ObjectName;
use crate::routes::translate::Conflicts;
use crate::status::progress::{IngressProgress, ProgressReport, REFUSED_BY_GATEWAY, RolloutProgress, probe_targets};
use crate::xds::store::StoreRevision;

/// The reason if another Ingress has one of the hosts.
const DOMAIN_CONFLICT: &str = "DomainConflict";

/// The last reported progress of each Ingress.
#[derive(Debug, Default)]
pub(super) struct ProgressTracker {
    progress_changes: BTreeMap<ObjectName, IngressProgress>,
}

impl ProgressTracker {
    /// Whether an Ingress waits for missing objects.
    pub(super) fn waits(&self, name: &ObjectName) -> bool {
        self.progress_changes.get(name).is_some_and(|standing| matches!(standing.progress, RolloutProgress::Waiting { .. }))
    }

    /// Number of refused Ingresses.
    pub(super) fn refused(&self) -> usize {
        self.progress_changes.values().filter(|standing| matches!(standing.progress, RolloutProgress::Refused { .. })).count()
    }

    /// Computes the progress of Ingresses after `revision` was published, and adds what changed to
    /// `news`.
    pub(super) fn pass(
        &mut self,
        mut verdicts: BTreeMap<ObjectName, Acceptance>,
        (cache, accepted, conflicts): (&ObjectCache, &mut AcceptedIngresses, &Conflicts),
        revision: StoreRevision,
        news: &mut ProgressReport,
    ) {
        // Ingresses that got or lost a conflict are computed again: the holder of the host may have
        // been deleted.
        for (name, standing) in &self.progress_changes {
            let was_conflict = matches!(standing.progress, RolloutProgress::Refused { reason: DOMAIN_CONFLICT, .. });
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
    ) -> Option<RolloutProgress> {
        match verdict {
            Acceptance::Gone => return None,
            Acceptance::Refused(problem) => {
                return Some(RolloutProgress::Refused { reason: "InvalidIngress", message: problem.to_string() });
            }
            Acceptance::Waiting(missing) => return Some(RolloutProgress::Waiting { missing }),
            Acceptance::Served => {}
        }
        if let Some(taken) = conflicts.get(name) {
            let taken: Vec<_> = taken.iter().map(|(host, holder)| format!("{host} (Ingress {holder})")).collect();
            let message = format!("hosts already taken: {}", taken.join(", "));
            return Some(RolloutProgress::Refused { reason: DOMAIN_CONFLICT, message });
        }
        let ingress = cache.ingress(name)?;
        if let Some(message) = accepted.said_against(name, ingress.generation) {
            return Some(RolloutProgress::Refused { reason: REFUSED_BY_GATEWAY, message: message.to_owned() });
        }
        let served = accepted.served_mut(name)?;
        // An Ingress that was Ready stays so without endpoints: pods may come and go.
        if !ingress.status.says_ready(ingress.generation) {
            let missing = cache.missing(&served.routes);
            if !missing.is_empty() {
                return Some(RolloutProgress::Waiting { missing });
            }
        }
        if served.since == 0 || self.waits(name) {
            served.since = revision;
        }
        let (hash, probes) = (served.routes.hash.to_string(), probe_targets(&served.routes));
        Some(RolloutProgress::Served { since: served.since, hash, probes })
    }
}
