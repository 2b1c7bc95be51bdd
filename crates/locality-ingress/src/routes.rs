//! First step: Ingresses and the objects that they refer to as one table of routes, the same for
//! all gateways. Pure.

pub(crate) mod network_hash;
mod own_hosts;
pub(crate) mod route_table;
pub(crate) mod translate;
pub(crate) mod validate;

pub use route_table::{Action, Cluster, ClusterKey, ClusterTarget, RouteTable};
pub use translate::{Conflicts, IngressRoutes, TranslateSettings, merge, translate};
