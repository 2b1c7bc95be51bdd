//! The checks: pure functions of the facts.

mod cluster;
mod daemons;
mod network;

use serde::Serialize;

use super::gather::Facts;
use crate::known::Unread;

/// Names that a sentence lists.
const NAMED: usize = 5;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Ok,
    /// Kantai works, but not as well as it could, or not as somebody seems to expect.
    Warn,
    /// Something does not work.
    Fail,
    /// It could not be checked.
    Unknown,
}

impl Outcome {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warning",
            Self::Fail => "FAILED",
            Self::Unknown => "unknown",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The check.
    pub(super) check: &'static str,
    pub(super) outcome: Outcome,
    /// What was found, in a sentence.
    pub(super) says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// A finding that lacks its check.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    outcome: Outcome,
    says: String,
    remedy: Option<String>,
}

impl Verdict {
    fn ok(says: impl Into<String>) -> Self {
        Self { outcome: Outcome::Ok, says: says.into(), remedy: None }
    }

    fn warn(says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warn, says: says.into(), remedy: Some(remedy.into()) }
    }

    fn fail(says: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, says: says.into(), remedy: Some(remedy.into()) }
    }

    fn unknown(says: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, says: says.into(), remedy: None }
    }
}

impl From<&Unread> for Verdict {
    fn from(why: &Unread) -> Self {
        Self::unknown(why.to_string())
    }
}

/// A check by its name.
type Check = (&'static str, fn(&Facts) -> Verdict);

/// All checks, in the order in which mistakes are best mended.
const CHECKS: [Check; 14] = [
    ("API server", cluster::api_server),
    ("Knative version", cluster::knative_version),
    ("definitions", cluster::definitions),
    ("autoscaler class", cluster::autoscaler_class),
    ("ingress class", cluster::ingress_class),
    ("clocks", cluster::clocks),
    ("daemons", daemons::ready),
    ("rights", daemons::rights),
    ("leaders", daemons::leaders),
    ("probers", network::probers),
    ("ICMP probes", network::icmp),
    ("Prometheus", network::prometheus),
    ("gateways", network::gateways),
    ("configuration of gateways", network::gateways_in_sync),
];

/// All checks of the facts, and what would be handed over.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let checks = CHECKS.into_iter().chain([("revisions", cluster::handed_over as fn(&Facts) -> Verdict)]);
    let finding = |(check, judge): Check| {
        let Verdict { outcome, says, remedy } = judge(facts);
        Finding { check, outcome, says, remedy }
    };
    checks.map(finding).collect()
}

/// Some of many names, and how many more there are.
fn named<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let mut names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// Whether a part is deployed; unknown where parts cannot be read.
fn is_deployed(facts: &Facts, part: &str) -> Result<bool, Unread> {
    facts.parts.as_ref().map(|parts| parts.iter().any(|one| one.name == part)).map_err(Clone::clone)
}

/// Before an install, what comes with it; `None` where the part is there, or ought to be.
fn not_yet(facts: &Facts, part: &str) -> Option<Verdict> {
    let is_missing = matches!(is_deployed(facts, part), Ok(false));
    (facts.is_pre && is_missing).then(|| Verdict::ok("not installed yet"))
}

#[cfg(test)]
mod tests;
