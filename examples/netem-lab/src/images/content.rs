//! The content of an image. Plain data, and a fingerprint that changes with it.

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::ImagesError;

/// One entry of an image's only layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An empty folder.
    Folder {
        /// Its permissions.
        mode: u32,
    },
    /// A file with the content of one on this machine.
    Copy {
        /// The file on this machine.
        from: PathBuf,
        /// Its permissions in the image.
        mode: u32,
    },
    /// A short file.
    Text {
        /// What it says.
        text: String,
    },
    /// A symbolic link.
    Link {
        /// What it points to.
        to: String,
    },
}

/// What is in an image, and how it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Absolute path in the image -> what is there. Folders that lead to an entry are made.
    pub entries: Vec<(String, Entry)>,
    /// The command line.
    pub entrypoint: Vec<String>,
    /// User id, or user:group.
    pub user: String,
    /// NAME=value.
    pub environment: Vec<String>,
}

/// Raised whenever archives are written in another way, so that old ones are not taken for new.
const FORMAT: u32 = 1;

impl Content {
    /// Tells one content from another without reading the files: by their names, sizes and times.
    pub(super) fn fingerprint(&self) -> Result<String, ImagesError> {
        let mut text = format!("{FORMAT}\n{}\n", self.run_config());
        for (path, entry) in &self.entries {
            let line = match entry {
                Entry::Folder { mode } => format!("folder {mode:o}"),
                Entry::Text { text } => format!("text {text:?}"),
                Entry::Link { to } => format!("link {to:?}"),
                Entry::Copy { from, mode } => {
                    let metadata = from.metadata().map_err(ImagesError::file("read", from))?;
                    let (size, seconds, nanoseconds) = (metadata.size(), metadata.mtime(), metadata.mtime_nsec());
                    format!("copy {from:?} {mode:o} {size} {seconds}.{nanoseconds}")
                }
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{path:?} {line}");
        }
        Ok(hex(&Sha256::digest(text)))
    }

    /// The part of an image's configuration that says how it is run.
    pub(super) fn run_config(&self) -> Value {
        json!({"Entrypoint": self.entrypoint, "User": self.user, "Env": self.environment, "WorkingDir": "/"})
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The folders above `paths`, each once, outer ones first.
pub(super) fn folders_above<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut folders: Vec<_> = paths
        .flat_map(|path| Path::new(path).ancestors().skip(1))
        .map(|folder| folder.to_string_lossy().into_owned())
        .filter(|folder| folder != "/" && !folder.is_empty())
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(from: &Path) -> Content {
        Content {
            entries: vec![("/ko-app/x".into(), Entry::Copy { from: from.to_owned(), mode: 0o755 })],
            entrypoint: vec!["/ko-app/x".into()],
            user: "65532".into(),
            environment: Vec::new(),
        }
    }

    #[test]
    fn a_fingerprint_changes_with_the_file_and_with_the_way_it_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("x");
        std::fs::write(&program, "one").unwrap();
        let before = content(&program).fingerprint().unwrap();
        assert_eq!(content(&program).fingerprint().unwrap(), before);
        let as_root = Content { user: "0".into(), ..content(&program) };
        assert_ne!(as_root.fingerprint().unwrap(), before);
        std::fs::write(&program, "longer").unwrap();
        assert_ne!(content(&program).fingerprint().unwrap(), before);
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let folders = folders_above(["/usr/lib/a.so", "/usr/bin/x", "/y"].into_iter());
        assert_eq!(folders, ["/usr", "/usr/bin", "/usr/lib"]);
    }
}
