//! Classes, labels and annotations of Knative that more than one program of ours reads or writes.

/// The autoscaler class that this program reconciles.
pub const CLASS: &str = "miporin.autoscaling.bonavadeur.io";
/// The stock class that revisions are handed back to.
pub const STOCK_CLASS: &str = "kpa.autoscaling.knative.dev";
/// Annotation that names the class.
pub const CLASS_ANNOTATION: &str = "autoscaling.knative.dev/class";
/// Annotation that names the metric. Knative gives third-party classes an empty one, which the
/// stock class then refuses.
pub const METRIC_ANNOTATION: &str = "autoscaling.knative.dev/metric";
/// Label of every pod of a revision; the private Service selects on it alone.
pub const REVISION_UID_LABEL: &str = "serving.knative.dev/revisionUID";
/// Label that names the revision.
pub const REVISION_LABEL: &str = "serving.knative.dev/revision";
/// Label that names the Knative Service.
pub const SERVICE_LABEL: &str = "serving.knative.dev/service";
