//! Options of a daemon that elects a leader, to be flattened into its own.

use crate::LeaseSettings;

/// Which pod this is.
#[derive(Clone, Debug, clap::Args)]
pub struct PodOptions {
    /// Namespace of this pod, which has the Lease by which one process leads at a time
    #[arg(long, env = "POD_NAMESPACE", default_value = "kantai-system")]
    pub pod_namespace: String,
    /// Name of this pod, its identity in the Lease. Each process needs its own
    #[arg(long, env = "POD_NAME", default_value_t = format!("process-{}", std::process::id()))]
    pub pod_name: String,
}

impl PodOptions {
    /// The Lease `name`, as this pod.
    #[must_use]
    pub fn lease(&self, name: &str) -> LeaseSettings {
        LeaseSettings { name: name.to_owned(), namespace: self.pod_namespace.clone(), identity: self.pod_name.clone() }
    }
}
