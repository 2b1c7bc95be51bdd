//! The two Knative objects that an autoscaler class lives by, as far as this program reads and writes them.
//!
//! Both are written by hand rather than generated: fields that are not named here are ignored when read and, since every write is a
//! patch of named fields, left alone when written. The shapes are the same in Knative 1.15 and on its main branch.

mod condition;
mod pod_autoscaler;
mod serverless_service;

pub use condition::{Condition, ConditionStatus, happy, set_condition};
pub use pod_autoscaler::{PodAutoscaler, PodAutoscalerSpec, PodAutoscalerStatus, Reachability};
pub use serverless_service::{ServerlessService, ServerlessServiceSpec, ServerlessServiceStatus, ServingMode};

/// The autoscaler class that this program reconciles.
pub const CLASS: &str = "miporin.autoscaling.bonavadeur.io";
/// The stock class that revisions are handed back to.
pub const STOCK_CLASS: &str = "kpa.autoscaling.knative.dev";
/// Annotation that names the class.
pub const CLASS_ANNOTATION: &str = "autoscaling.knative.dev/class";
/// Annotation that names the metric. Knative gives third-party classes an empty one, which the stock class then refuses.
pub const METRIC_ANNOTATION: &str = "autoscaling.knative.dev/metric";
/// Label of every pod of a revision; the private Service selects on it alone.
pub const REVISION_UID_LABEL: &str = "serving.knative.dev/revisionUID";
/// Label that names the revision.
pub const REVISION_LABEL: &str = "serving.knative.dev/revision";
/// Label that names the Knative Service.
pub const SERVICE_LABEL: &str = "serving.knative.dev/service";
