//! What users and operators set, read into types: ConfigMaps `config-autoscaler`,
//! `config-deployment` and `config-ikukantai`, and the annotations of a revision. All of it is
//! watched and read again when it changes.
//!
//! Knative's webhook refuses most of what is malformed. What reaches us all the same (an object
//! older than a limit, a cluster without the webhook) is ignored and listed as a problem for the
//! user.
//!
//! Source: knative/serving 1.15 `pkg/apis/autoscaling`, `pkg/autoscaler/config`,
//! `pkg/reconciler/autoscaling/resources`.

mod cluster;
mod go_value;
mod limits;
mod reader;
mod revision;
mod toggle;

pub use cluster::ClusterSettings;
pub use go_value::{parse_bool as parse_go_bool, parse_duration as parse_go_duration};
pub use revision::{Aggregation, Metric, RevisionSettings};
pub use toggle::Toggle;
