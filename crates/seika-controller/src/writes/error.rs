//! Why writes fail, and what is certain then.

use crate::index::Owner;

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// A pod could not be created.
    #[error("failed to create pod {namespace}/{name}")]
    Create {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// A pod could not be deleted.
    #[error("failed to delete pod {namespace}/{name}")]
    Delete {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// An orphan could not be adopted.
    #[error("failed to adopt pod {namespace}/{name}")]
    Adopt {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// A pod could not be released.
    #[error("failed to release pod {namespace}/{name}")]
    Release {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// Nothing was answered in time.
    #[error("failed to hear from the API server about pod {namespace}/{name}")]
    NoAnswer {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
    },
    /// The template could not be kept.
    #[error("failed to keep the template of seika {namespace}/{name}")]
    History {
        /// The Seika's namespace.
        namespace: String,
        /// The Seika's name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The sum of the counts could not be written.
    #[error("failed to write the total of seika {namespace}/{name}")]
    Total {
        /// The Seika's namespace.
        namespace: String,
        /// The Seika's name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The status could not be written.
    #[error("failed to write the status of seika {namespace}/{name}")]
    Status {
        /// The Seika's namespace.
        namespace: String,
        /// The Seika's name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
}

impl WriteError {
    /// One word for metrics and conditions.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Create { .. } => "FailedCreate",
            Self::Delete { .. } => "FailedDelete",
            Self::Adopt { .. } => "FailedAdopt",
            Self::Release { .. } => "FailedRelease",
            Self::NoAnswer { .. } => "NoAnswer",
            Self::History { .. } => "FailedHistory",
            Self::Total { .. } => "FailedTotal",
            Self::Status { .. } => "FailedStatus",
        }
    }

    /// The error and what it comes from, in a line.
    #[must_use]
    pub(crate) fn whole_message(&self) -> String {
        match self.source() {
            Some(kube::Error::Api(status)) => format!("{self}: {}", status.message),
            Some(other) => format!("{self}: {other}"),
            None => self.to_string(),
        }
    }

    /// Whether the API server said no to this very request. One that has too many requests has said
    /// nothing about this one.
    #[must_use]
    pub(crate) fn is_refusal(&self) -> bool {
        self.source().is_some_and(|error| is_refusal(error) && !matches!(error, kube::Error::Api(status) if status.code == 429))
    }

    fn source(&self) -> Option<&kube::Error> {
        match self {
            Self::Create { source, .. }
            | Self::Delete { source, .. }
            | Self::Adopt { source, .. }
            | Self::Release { source, .. }
            | Self::History { source, .. }
            | Self::Total { source, .. }
            | Self::Status { source, .. } => Some(source),
            Self::NoAnswer { .. } => None,
        }
    }
}

/// Whether the API server said no, so that it is certain that nothing was done. Its own failures
/// (5xx) leave that open.
pub(super) fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code))
}

/// Whether the pod is gone, or is another one by now. One that is invalid is not among these: that
/// is also what admission policies answer.
pub(super) fn is_no_longer_so(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found() || status.is_conflict())
}

pub(super) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

pub(super) fn no_answer(owner: &Owner, name: &str) -> WriteError {
    WriteError::NoAnswer { namespace: owner.namespace.clone(), name: name.to_owned() }
}
