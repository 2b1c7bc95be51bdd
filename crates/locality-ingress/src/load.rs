//! What a revision has on its way from one node to another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Requests of one revision from one source node to one serving node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Requests that are on their way or being answered at this moment.
    pub in_flight: u64,
    /// Requests sent since the gateway's reports began.
    pub arrived: u64,
    /// Of those, answered with anything but a server error.
    pub finished: u64,
    /// Of those, answered with a server error, or not at all.
    pub failed: u64,
    /// Requests in flight, added up over time, in request-seconds. Divided by how many ended meanwhile it is the mean response time (Little's law).
    pub busy_seconds: f64,
}

/// Serving node -> load; the empty name where an endpoint's node is not known.
pub type ByServing = BTreeMap<String, Load>;
