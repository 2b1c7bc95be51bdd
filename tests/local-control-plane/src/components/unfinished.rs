//! What is being written has another name until it is whole.

use std::path::{Path, PathBuf};

use super::ComponentsError;

/// A path beside `target` that no other process uses. Makes the folder, and removes what runs that
/// were killed have left there.
pub(super) fn beside(target: &Path) -> Result<PathBuf, ComponentsError> {
    let folder = target.parent().unwrap_or(Path::new("/"));
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    std::fs::create_dir_all(folder).map_err(ComponentsError::file("create", folder))?;
    for entry in std::fs::read_dir(folder).map_err(ComponentsError::file("read", folder))? {
        let path = entry.map_err(ComponentsError::file("read", folder))?.path();
        let writer = path.file_name().and_then(|found| writer_of(&found.to_string_lossy(), &name));
        if writer.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // Whoever removes it first is right.
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
    }
    Ok(folder.join(format!(".{name}.{}", std::process::id())))
}

/// The process that writes the unfinished file `found`, if that is one of `name`.
fn writer_of(found: &str, name: &str) -> Option<u32> {
    found.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_another_run_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        let folder_left = folder.path().join(".etcd.4194306");
        std::fs::create_dir_all(folder_left.join("some")).unwrap();
        // Process ids end at 4194304.
        let (left, others, finished) = (file(".etcd.4194305"), file(".etcd.1"), file("etcd"));
        let unfinished = beside(&finished).unwrap();
        assert_eq!(unfinished, folder.path().join(format!(".etcd.{}", std::process::id())));
        assert!(!left.exists() && !folder_left.exists());
        assert!(others.exists() && finished.exists());
    }
}
