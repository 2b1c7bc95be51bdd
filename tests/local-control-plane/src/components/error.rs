//! Why a component is not available.

use std::path::PathBuf;
use std::process::ExitStatus;

use super::Component;

/// Why a component is not available.
#[derive(Debug, thiserror::Error)]
pub enum ComponentsError {
    /// There is neither `KANTAI_CACHE` nor `HOME`.
    #[error("failed to choose a cache folder: set KANTAI_CACHE or HOME")]
    NoCacheFolder,
    /// The program asked for a component that it had not ensured.
    #[error("failed to look up {component}: it was not among the components asked for")]
    NotAskedFor {
        /// The component.
        component: Component,
    },
    /// A tool that makes components is not installed.
    #[error("failed to find the tool {tool}: {install}")]
    NoTool {
        /// The tool's name.
        tool: String,
        /// How to come by it.
        install: &'static str,
    },
    /// A tool ran and failed.
    #[error("failed to {what}: {tool} ended with {status}\n{output}")]
    Tool {
        /// What it was to do.
        what: String,
        /// The tool's name.
        tool: String,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it wrote.
        output: String,
    },
    /// A tool could not be run, or its output not be read.
    #[error("failed to run {tool}")]
    Run {
        /// The tool's name.
        tool: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A Debian package is missing, and we may not or cannot install it.
    #[error("failed to find {components}: {reason}; install with: apt-get install --no-install-recommends {packages}")]
    NotInstalled {
        /// The programs that are missing.
        components: String,
        /// The packages that hold them.
        packages: String,
        /// Why the lab does not install them itself.
        reason: &'static str,
    },
    /// The making of a component went well, and yet it is not there.
    #[error("failed to find {component} after it was made or installed")]
    StillMissing {
        /// The component.
        component: Component,
    },
    /// A wheel was unpacked and does not hold the program.
    #[error("failed to find the program {component} in the wheel {package} {version}")]
    NotInWheel {
        /// The component.
        component: Component,
        /// The wheel's package.
        package: &'static str,
        /// Its version.
        version: &'static str,
    },
    /// A Go module's folder is not where Go says that modules are.
    #[error("failed to find the source folder of the Go module {module}")]
    NoModuleFolder {
        /// The module's path.
        module: String,
    },
    /// A file or folder of the cache cannot be used.
    #[error("failed to {what} {}", path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ComponentsError {
    /// For `map_err` on a file operation: `what` is a verb, as in "failed to create /a/b".
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
