//! The endpoints of a cluster, as they are stored for all gateways.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::overflow::limit_name;
use crate::endpoints::overflow::OverflowLimits;
use crate::kubernetes::objects::Endpoint;

/// The endpoints from which a cluster's assignments are built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEndpoints {
    /// Pods, and their routes: source node -> serving node -> weight.
    Pods {
        /// The endpoints.
        endpoints: Vec<Endpoint>,
        /// The routes, if there are any.
        rows: Option<Arc<BTreeMap<String, BTreeMap<String, u32>>>>,
        /// How many requests gateways may have in flight there before activators hold more.
        limits: Option<Arc<OverflowLimits>>,
    },
    /// Activators, which stand in for pods. Routes are about pods, so they do not apply.
    Activators {
        /// The endpoints.
        endpoints: Vec<Endpoint>,
        /// Serving node -> weight, equal for all source nodes; `None` if the nearest is to be used.
        shares: Option<BTreeMap<String, u32>>,
    },
    /// Activators that hold what is too much for the pods.
    Overflow(Vec<Endpoint>),
    /// The gateway's own internal listener.
    OwnInternalListener,
}

impl ClusterEndpoints {
    /// Whether they are activators.
    #[must_use]
    pub fn stand_in(&self) -> bool {
        match self {
            Self::Activators { .. } | Self::Overflow(_) => true,
            Self::Pods { endpoints, .. } => endpoints.iter().any(|endpoint| endpoint.stand_in),
            Self::OwnInternalListener => false,
        }
    }

    pub(super) fn limits(&self) -> Option<&OverflowLimits> {
        match self {
            Self::Pods { limits, .. } => limits.as_deref(),
            _ => None,
        }
    }

    /// The names of the clusters that tell gateways their limits.
    pub(super) fn limit_names(&self, cluster: &str) -> impl Iterator<Item = String> {
        self.limits().map(OverflowLimits::all).into_iter().flatten().map(move |limit| limit_name(cluster, limit))
    }
}
