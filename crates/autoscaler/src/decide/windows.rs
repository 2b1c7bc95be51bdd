//! Demand averaged over the windows of a revision.

use std::collections::BTreeMap;

use latency_matrix::NodeName;

use crate::earned;
use crate::kpa::{DemandHistory, SourceDemand};
use crate::settings::{Metric, RevisionSettings};

/// Averages over the two windows, per source node.
pub(super) struct Windows {
    pub(super) stable: Option<BTreeMap<NodeName, SourceDemand>>,
    pub(super) panic: Option<BTreeMap<NodeName, SourceDemand>>,
    totals: Option<(SourceDemand, SourceDemand)>,
    /// Shares of the seconds with demand, over the window by which sources earn pods and over the
    /// stable one.
    pub(super) recent_shares: BTreeMap<NodeName, f64>,
    pub(super) stable_shares: BTreeMap<NodeName, f64>,
}

impl Windows {
    pub(super) fn of(history: &DemandHistory, second: u64, settings: &RevisionSettings) -> Self {
        let total = |window| history.totals(second, window, settings.aggregation);
        Self {
            stable: history.average(second, settings.stable_window, settings.aggregation),
            panic: history.average(second, settings.panic_window, settings.aggregation),
            totals: total(settings.stable_window).zip(total(settings.panic_window)),
            recent_shares: history.active_share(second, earned::Policy::default().gain_window),
            stable_shares: history.active_share(second, settings.stable_window),
        }
    }

    /// Whether a source's demand is as steady as that of sources that earn or keep a replica. Stray
    /// requests (an occasional check) must not move pods back and forth.
    pub(super) fn is_steady(&self, node: &NodeName) -> bool {
        let policy = earned::Policy::default();
        let has = |shares: &BTreeMap<NodeName, f64>, least| shares.get(node).is_some_and(|share| *share >= least);
        has(&self.recent_shares, policy.steady_share) || has(&self.stable_shares, policy.keep_share)
    }

    /// Stable and panic demand, summed over the sources.
    pub(super) fn totals(&self, metric: Metric) -> Option<(f64, f64)> {
        self.totals.as_ref().map(|(stable, panic)| (amount(metric, stable), amount(metric, panic)))
    }
}

pub(super) fn amount(metric: Metric, source: &SourceDemand) -> f64 {
    match metric {
        Metric::Concurrency => source.concurrency,
        Metric::Rps => source.requests_per_second,
    }
}
