//! Why there is no image.

use std::path::PathBuf;

use local_control_plane::components::ComponentsError;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// A tool failed, or a component is missing.
    #[error(transparent)]
    Components(#[from] ComponentsError),
    /// A file of an image cannot be used.
    #[error("failed to {what} {}", path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program needs a library that is not on this system.
    #[error("failed to find the library {library} that {} is linked with", program.display())]
    NoLibrary {
        /// The program.
        program: PathBuf,
        /// The library.
        library: String,
    },
    /// A build went well, and yet its program is missing.
    #[error("failed to find the program {program} after it was built")]
    NotBuilt {
        /// The program's name.
        program: &'static str,
    },
}

impl ImagesError {
    /// For `map_err` on a file operation.
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
