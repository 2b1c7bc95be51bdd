//! Why a question could not be answered.

use std::error::Error;
use std::process::ExitCode;

use crate::output::clean;

/// The exit code where a question could not be answered at all; 1 is for answers that are bad.
const NO_ANSWER: u8 = 2;

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// There is no usable kubeconfig.
    #[error("failed to find the API server")]
    Config(#[source] Box<dyn Error + Send + Sync>),
    /// The API server gave no answer, or an error.
    #[error("failed to {doing}")]
    Api {
        /// What was tried.
        doing: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// The API server gave no answer in time.
    #[error("failed to {doing}: no answer within {seconds:.0} s (--request-timeout)")]
    Late {
        /// What was tried.
        doing: String,
        /// How long that was waited for.
        seconds: f64,
    },
    /// A daemon, or the API server's proxy to it, gave an error.
    #[error("failed to {doing}: {status}, {says}")]
    Daemon {
        /// What was tried.
        doing: String,
        /// The HTTP status.
        status: u16,
        /// What was said.
        says: String,
    },
    /// A daemon said what this version does not understand.
    #[error("failed to {doing}: the answer is not understood: {says}")]
    Odd {
        /// What was tried.
        doing: String,
        /// Where it is odd.
        says: String,
    },
    /// No instance of a daemon answers.
    #[error("failed to {doing}: {says}")]
    Nobody {
        /// What was tried.
        doing: String,
        /// Of each instance why it does not.
        says: String,
    },
    /// A name cannot be one of a Kubernetes object.
    #[error("{text:?} is no name of {what}")]
    Name {
        /// The kind of object.
        what: &'static str,
        /// What was given.
        text: String,
    },
    /// Revisions are not known to be handed back.
    #[error(transparent)]
    HandBack(#[from] extra_controller::HandBackError),
    /// The answer could not be written.
    #[error("failed to write the answer")]
    Write(#[from] std::io::Error),
}

impl PluginError {
    /// Prints the error with its causes, and returns the exit code for it. A reader of standard
    /// output who has seen enough is no error.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        if matches!(self, Self::Write(source) if source.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        eprintln!("error: {}", clean(&self.in_full()));
        ExitCode::from(NO_ANSWER)
    }

    /// The error with its causes, on one line.
    pub(crate) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let more = error.to_string();
            // Some errors repeat their cause.
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text
    }
}
