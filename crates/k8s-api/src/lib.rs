//! Every Kubernetes type of ours and of Knative that Kantai touches, once.
//!
//! - [`seika`]: our own `Seika`, N pods on each named node;
//! - [`PodAutoscaler`], [`ServerlessService`]: the two Knative objects that an autoscaler class
//!   lives by;
//! - [`kingress`]: Knative's `Ingress`, by which an ingress class lives;
//! - [`Condition`]: Knative's conditions;
//! - [`taints`]: which taints of a node keep a pod away;
//! - classes, labels and annotations;
//! - [`client`]: a client that notices when the API server falls silent.
//!
//! The types are written by hand: fields that are not named are ignored when read and, since every
//! write is a patch of named fields, left alone when written. The shapes are the same in Knative
//! 1.15 and on its main branch.
//!
//! Without the feature `objects` only the plain data remains that decisions are made from: the
//! crate then knows nothing of a client.

#[cfg(feature = "objects")]
pub mod client;
mod condition;
#[cfg(feature = "objects")]
pub mod kingress;
mod names;
mod pod_autoscaler;
#[cfg(feature = "objects")]
pub mod seika;
mod serverless_service;
pub mod taints;

pub use condition::{Condition, ConditionStatus, happy, set_condition};
pub use names::{CLASS, CLASS_ANNOTATION, METRIC_ANNOTATION, REVISION_LABEL, REVISION_UID_LABEL, SERVICE_LABEL, STOCK_CLASS};
#[cfg(feature = "objects")]
pub use pod_autoscaler::{PodAutoscaler, PodAutoscalerSpec};
pub use pod_autoscaler::{PodAutoscalerStatus, Reachability};
#[cfg(feature = "objects")]
pub use serverless_service::{ServerlessService, ServerlessServiceSpec};
pub use serverless_service::{ServerlessServiceStatus, ServingMode};
