//! Where every Ingress stands, and who is to be told of a change.

use std::collections::BTreeMap;

use super::generations::{Generations, Verdict};
use super::known::Known;
use crate::kubernetes::objects::ObjectName;
use crate::routes::translate::Conflicts;
use crate::status::standing::{News, Progress, REFUSED_BY_GATEWAY, Standing, probe_targets};
use crate::xds::store::Revision;

/// The reason of an Ingress that wants a host which another has.
const DOMAIN_CONFLICT: &str = "DomainConflict";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    standings: BTreeMap<ObjectName, Standing>,
}

impl Judgement {
    /// Whether an Ingress waits for something.
    pub(super) fn waits(&self, name: &ObjectName) -> bool {
        self.standings.get(name).is_some_and(|standing| matches!(standing.progress, Progress::Waiting { .. }))
    }

    /// How many Ingresses cannot be served.
    pub(super) fn refused(&self) -> usize {
        self.standings.values().filter(|standing| matches!(standing.progress, Progress::Refused { .. })).count()
    }

    /// Notes what became of the Ingresses, all of it published with `revision`, and finds whose
    /// standing that changes.
    pub(super) fn pass(
        &mut self,
        mut verdicts: BTreeMap<ObjectName, Verdict>,
        (known, generations, conflicts): (&Known, &mut Generations, &Conflicts),
        revision: Revision,
        news: &mut News,
    ) {
        // Whoever had or got a conflict is judged anew, too: the holder of the host may be gone.
        for (name, standing) in &self.standings {
            let was_conflict = matches!(standing.progress, Progress::Refused { reason: DOMAIN_CONFLICT, .. });
            if was_conflict != conflicts.contains_key(name) && generations.served(name).is_some() {
                verdicts.entry(name.clone()).or_insert(Verdict::Served);
            }
        }
        for (name, verdict) in verdicts {
            let Some(ingress) = known.ingress(&name) else {
                generations.forget_refusals(&name);
                if self.standings.remove(&name).is_some() {
                    news.standings.push((name, None));
                }
                continue;
            };
            let Some(progress) = self.progress(&name, verdict, (known, &mut *generations, conflicts), revision) else { continue };
            let standing =
                Standing { uid: ingress.uid.clone(), generation: ingress.generation, status: ingress.status.clone(), progress };
            if self.standings.get(&name) != Some(&standing) {
                self.standings.insert(name.clone(), standing.clone());
                news.standings.push((name, Some(standing)));
            }
        }
    }

    fn progress(
        &self,
        name: &ObjectName,
        verdict: Verdict,
        (known, generations, conflicts): (&Known, &mut Generations, &Conflicts),
        revision: Revision,
    ) -> Option<Progress> {
        match verdict {
            Verdict::Gone => return None,
            Verdict::Refused(problem) => {
                return Some(Progress::Refused { reason: "InvalidIngress", message: problem.to_string() });
            }
            Verdict::Waiting(missing) => return Some(Progress::Waiting { missing }),
            Verdict::Served => {}
        }
        if let Some(taken) = conflicts.get(name) {
            let taken: Vec<_> = taken.iter().map(|(host, holder)| format!("{host} (Ingress {holder})")).collect();
            let message = format!("hosts already taken: {}", taken.join(", "));
            return Some(Progress::Refused { reason: DOMAIN_CONFLICT, message });
        }
        let ingress = known.ingress(name)?;
        if let Some(message) = generations.said_against(name, ingress.generation) {
            return Some(Progress::Refused { reason: REFUSED_BY_GATEWAY, message: message.to_owned() });
        }
        let served = generations.served_mut(name)?;
        // What was ready once stays so: pods may come and go.
        if !ingress.status.says_ready(ingress.generation) {
            let missing = known.missing(&served.routes);
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
