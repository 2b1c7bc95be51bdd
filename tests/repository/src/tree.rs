//! The files of the repository.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the workspace.
#[must_use]
pub fn root() -> &'static Path {
    // Two folders up from this package.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/"))
}

/// Every file below `folder` with one of the extensions, as paths from `folder`, in name order.
/// Build output, hidden folders and symbolic links are left out.
///
/// # Panics
/// Where a folder cannot be read: a check that sees half the tree proves nothing.
#[must_use]
pub fn files_below(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("failed to read {}: {error}", folder.display()));
        for entry in entries {
            let entry = entry.unwrap_or_else(|error| panic!("failed to read {}: {error}", folder.display()));
            let (path, name) = (entry.path(), entry.file_name());
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && !is_left_out(&name) {
                open.push(path);
            } else if kind.is_file() && path.extension().and_then(OsStr::to_str).is_some_and(|it| extensions.contains(&it)) {
                found.push(path);
            }
        }
    }
    let mut found: Vec<_> = found.into_iter().filter_map(|path| path.strip_prefix(folder).ok().map(Path::to_owned)).collect();
    found.sort();
    found
}

fn is_left_out(folder: &OsStr) -> bool {
    let name = folder.to_string_lossy();
    name == "target" || (name.starts_with('.') && name != ".github")
}

/// The text of a file of the repository.
///
/// # Panics
/// Where it cannot be read.
#[must_use]
pub fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()))
}
