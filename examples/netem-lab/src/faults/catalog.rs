//! The faults that there are, and for how long each lasts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// No node reaches the API server, nor is reached by it.
    CutAll,
    /// The kubelets of all nodes are stopped, and everything else runs on and hears of it.
    FreezeAll,
    /// One node does not reach the API server.
    CutOne,
    /// Prometheus has no pods.
    PrometheusGone,
    /// The decision-maker has none.
    ExtraControllerGone,
    /// Who makes pods has none.
    SeikaControllerGone,
    /// All replicas of locality-ingress are gone.
    LocalityIngressGone,
    /// A node that serves is drained.
    Drain,
    /// Pods of the revision ask for so much that no node takes one more.
    GrownTemplate,
    /// A node that serves loses the label that the service selects nodes by.
    LabelOff,
    /// Probers do not reach each other.
    ProbeFirewall,
}

impl Fault {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 11] = [
        Self::CutAll,
        Self::FreezeAll,
        Self::CutOne,
        Self::PrometheusGone,
        Self::ExtraControllerGone,
        Self::SeikaControllerGone,
        Self::LocalityIngressGone,
        Self::Drain,
        Self::GrownTemplate,
        Self::LabelOff,
        Self::ProbeFirewall,
    ];

    /// What it is called on the command line and in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CutAll => "cut-all",
            Self::FreezeAll => "freeze-all",
            Self::CutOne => "cut-one",
            Self::PrometheusGone => "prometheus-gone",
            Self::ExtraControllerGone => "extra-controller-gone",
            Self::SeikaControllerGone => "seika-controller-gone",
            Self::LocalityIngressGone => "locality-ingress-gone",
            Self::Drain => "drain",
            Self::GrownTemplate => "grown-template",
            Self::LabelOff => "label-off",
            Self::ProbeFirewall => "probe-firewall",
        }
    }

    /// What happens, in a line.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::CutAll => "no node reaches the API server, nor is reached by it",
            Self::FreezeAll => "all kubelets are stopped; the others hear that no node is",
            Self::CutOne => "one node that serves does not reach the API server, nor is reached by it",
            Self::PrometheusGone => "Prometheus has no pods",
            Self::ExtraControllerGone => "extra-controller has no pods",
            Self::SeikaControllerGone => "seika-controller has no pods",
            Self::LocalityIngressGone => "locality-ingress has no pods",
            Self::Drain => "a node that serves is drained",
            Self::GrownTemplate => "the revision's pods ask for so much that no node takes one more",
            Self::LabelOff => "a node that serves loses the label that the service selects nodes by",
            Self::ProbeFirewall => "probers do not reach each other",
        }
    }

    /// How long it lasts.
    #[must_use]
    pub fn lasts(self, brief: bool) -> Duration {
        Duration::from_secs(match self {
            // Kubernetes calls a node silent after 50 s.
            Self::CutAll | Self::FreezeAll | Self::CutOne if brief => 70,
            Self::CutAll | Self::FreezeAll | Self::CutOne => 90,
            _ if brief => 20,
            _ => 60,
        })
    }

    /// The Deployment that it takes the pods of: namespace and name.
    pub(super) fn deployment(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::PrometheusGone => ("monitoring", "prometheus"),
            Self::ExtraControllerGone => ("kantai-system", "extra-controller"),
            Self::SeikaControllerGone => ("kantai-system", "seika-controller"),
            Self::LocalityIngressGone => ("kantai-system", "locality-ingress"),
            _ => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| format!("no such fault; there are {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_own_name() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        assert!("cut".parse::<Fault>().is_err_and(|complaint| complaint.contains("cut-all, freeze-all, cut-one")));
    }

    #[test]
    fn nodes_are_cut_off_for_longer_than_kubernetes_waits_for_them() {
        for brief in [true, false] {
            assert!(Fault::CutAll.lasts(brief) > Duration::from_secs(60));
        }
    }
}
