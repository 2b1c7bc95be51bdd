//! Builds components with the Go toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Component, ComponentsError, GoModule, Places, tool, unfinished};
use crate::progress::Progress;

const INSTALL_GO: &str =
    "install Go 1.26 or newer and put it on PATH (or supply the programs in the folder that KANTAI_COMPONENTS names)";

/// Fails at once if there is no Go toolchain.
pub(super) fn check() -> Result<(), ComponentsError> {
    tool::run(Command::new("go").arg("version"), "ask Go for its version", INSTALL_GO).map(drop)
}

/// How everything is compiled. Nothing here is run in a debugger, and making DWARF that the linker
/// then strips takes a tenth of a compiler's time. The flags are equal everywhere, since the build
/// cache depends on them.
const COMPILE: [&str; 2] = ["-trimpath", "-gcflags=all=-dwarf=false"];

/// Builds programs of one module into their places in the cache, by one command, so that what they
/// share is built once and one is linked while another is compiled. Each gets its name only when it
/// is whole.
pub(super) fn build(
    places: &Places,
    module: GoModule,
    programs: &[(Component, &str)],
    progress: &Progress,
) -> Result<(), ComponentsError> {
    let mut wanted = Vec::new();
    for (component, package) in programs {
        if let Some(target) = places.cached(*component) {
            wanted.push((package, unfinished::beside(&target)?, target));
        }
    }
    let Some((_, beside, _)) = wanted.first() else { return Ok(()) };
    let names = programs.iter().map(|(component, _)| component.to_string()).collect::<Vec<_>>().join(", ");
    let step = progress.step(format!("building {names} {}", module.version()));
    let mut command = go(&write_module(places, module)?);
    command.arg("build").args(COMPILE).args(["-ldflags", &module.ldflags(), "-o"]);
    let task = format!("build {names}");
    if let [(package, unfinished, target)] = &wanted[..] {
        tool::run(command.arg(unfinished).arg(package), &task, INSTALL_GO)?;
        std::fs::rename(unfinished, target).map_err(ComponentsError::file("rename", unfinished))?;
    } else {
        // A folder: into one, Go writes each program under its package's name.
        let folder = beside;
        std::fs::create_dir_all(folder).map_err(ComponentsError::file("create", folder))?;
        tool::run(command.arg(folder).args(wanted.iter().map(|(package, ..)| package)), &task, INSTALL_GO)?;
        for (package, _, target) in &wanted {
            let built = folder.join(program_name(package));
            std::fs::rename(&built, target).map_err(ComponentsError::file("rename", &built))?;
        }
        std::fs::remove_dir_all(folder).map_err(ComponentsError::file("remove", folder))?;
    }
    step.done();
    Ok(())
}

/// What Go calls the program of a package that is no module of its own.
fn program_name(package: &str) -> &str {
    package.rsplit('/').next().unwrap_or(package)
}

/// Downloads the sources of `packages`, while something else is built. What fails here fails again,
/// and is reported, when they are built.
pub(super) fn fetch(places: &Places, module: GoModule, packages: &[&str]) {
    if let Ok(folder) = write_module(places, module) {
        let _ = go(&folder).args(["list", "-deps", "-f", "{{\"\"}}"]).args(packages).output();
    }
}

/// What to build besides components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoPackage<'a> {
    /// A program.
    Program(&'a str),
    /// The tests of a package, as one program.
    Tests {
        /// The package.
        package: &'a str,
        /// The build tag without which they are not compiled.
        tag: &'a str,
    },
}

/// Builds `package` of `module` into the cache under `name`, unless it is there already, and gives
/// back where it is.
pub fn build_package(
    places: &Places,
    module: GoModule,
    package: GoPackage<'_>,
    name: &str,
    progress: &Progress,
) -> Result<PathBuf, ComponentsError> {
    let target = places.programs_of(module).join(name);
    if target.is_file() {
        return Ok(target);
    }
    check()?;
    let step = progress.step(format!("building {name} of {} {}", module.name(), module.version()));
    let folder = write_module(places, module)?;
    let unfinished = unfinished::beside(&target)?;
    let mut command = go(&folder);
    match package {
        GoPackage::Program(_) => command.arg("build"),
        // What Go finds fault with in tests of others is not ours to mend.
        GoPackage::Tests { tag, .. } => command.args(["test", "-vet=off", "-c", "-tags", tag]),
    };
    let (GoPackage::Program(path) | GoPackage::Tests { package: path, .. }) = package;
    command.args(COMPILE).args(["-ldflags", &module.ldflags(), "-o"]).arg(&unfinished).arg(path);
    tool::run(&mut command, &format!("build {name}"), INSTALL_GO)?;
    std::fs::rename(&unfinished, &target).map_err(ComponentsError::file("rename", &unfinished))?;
    step.done();
    Ok(target)
}

/// A file of a package that is written by us: its name, and its text.
pub type SourceFile = (String, String);

/// Builds the tests of a package that consists of `files` and stands in the wrapper module itself,
/// unless just these are in the cache already, and gives back where the program is.
pub fn build_written_tests(
    places: &Places,
    module: GoModule,
    files: &[SourceFile],
    tag: &str,
    name: &str,
    progress: &Progress,
) -> Result<PathBuf, ComponentsError> {
    let name = format!("{name}-{}", key_of(files));
    let package = write_module(places, module)?.join(&name);
    std::fs::create_dir_all(&package).map_err(ComponentsError::file("create", &package))?;
    for (file, text) in files {
        write_unless_there(&package.join(file), text)?;
    }
    build_package(places, module, GoPackage::Tests { package: &format!("./{name}"), tag }, &name, progress)
}

/// A short key of a set of files.
fn key_of(files: &[SourceFile]) -> String {
    let mut hash = Sha256::new();
    for part in files.iter().flat_map(|(name, text)| [name, text]) {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The source folders of `paths`, modules that `module` depends on, downloaded if need be: from
/// there come the manifests that a project ships. They are read-only and shared with everything
/// else on this machine that uses Go.
pub fn module_folders(places: &Places, module: GoModule, paths: &[&str]) -> Result<Vec<PathBuf>, ComponentsError> {
    let folder = write_module(places, module)?;
    let mut command = go(&folder);
    command.args(["mod", "download", "-json"]).args(paths);
    let printed = tool::run(&mut command, &format!("download the Go modules {}", paths.join(", ")), INSTALL_GO)?;
    paths.iter().map(|path| downloaded_folder(&printed, path)).collect()
}

/// What `go mod download -json` prints of one module, as far as it concerns us.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    path: String,
    #[serde(default)]
    dir: Option<PathBuf>,
}

fn downloaded_folder(printed: &str, module: &str) -> Result<PathBuf, ComponentsError> {
    serde_json::Deserializer::from_str(printed)
        .into_iter::<Downloaded>()
        .filter_map(Result::ok)
        .find(|downloaded| downloaded.path == module)
        .and_then(|downloaded| downloaded.dir)
        .ok_or_else(|| ComponentsError::NoModuleFolder { module: module.to_owned() })
}

/// The Go toolchain, at work in `folder`, whatever the user's own settings are: no C compiler, no
/// version control, no workspace.
fn go(folder: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(folder).env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false").env("GOWORK", "off");
    command.env_remove("GOOS").env_remove("GOARCH");
    command
}

/// Writes the wrapper module into the cache, if it is not there yet, and gives back its folder.
fn write_module(places: &Places, module: GoModule) -> Result<PathBuf, ComponentsError> {
    let folder = places.cache().join("modules").join(format!("{}-{}", module.name(), module.key()));
    std::fs::create_dir_all(&folder).map_err(ComponentsError::file("create", &folder))?;
    for (name, content) in module.files() {
        write_unless_there(&folder.join(name), content)?;
    }
    Ok(folder)
}

fn write_unless_there(path: &Path, content: &str) -> Result<(), ComponentsError> {
    if std::fs::read_to_string(path).is_ok_and(|written| written == *content) {
        return Ok(());
    }
    // Written beside its place first: another process may be reading it.
    let unfinished = unfinished::beside(path)?;
    std::fs::write(&unfinished, content).map_err(ComponentsError::file("write", &unfinished))?;
    std::fs::rename(&unfinished, path).map_err(ComponentsError::file("rename", &unfinished))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_as_its_package() {
        assert_eq!(program_name("k8s.io/kubernetes/cmd/kubelet"), "kubelet");
    }

    #[test]
    fn a_modules_folder_is_read_from_what_go_prints() {
        let printed = r#"{"Path": "a/b", "Version": "v1.0.0", "Dir": "/m/a/b@v1.0.0"}
{"Path": "c", "Error": "refused"}"#;
        assert_eq!(downloaded_folder(printed, "a/b").unwrap(), PathBuf::from("/m/a/b@v1.0.0"));
        assert!(matches!(downloaded_folder(printed, "c"), Err(ComponentsError::NoModuleFolder { module }) if module == "c"));
    }

    #[test]
    fn other_text_or_another_name_is_another_package() {
        let files = |name: &str, text: &str| vec![(name.to_owned(), text.to_owned())];
        assert_eq!(key_of(&files("a", "b")), key_of(&files("a", "b")));
        assert_ne!(key_of(&files("a", "b")), key_of(&files("a", "c")));
        assert_ne!(key_of(&files("ab", "c")), key_of(&files("a", "bc")));
    }

    #[test]
    fn a_module_is_written_whole_and_only_once() {
        let cache = tempfile::tempdir().unwrap();
        let places = Places::new(cache.path());
        let folder = write_module(&places, GoModule::Coredns).unwrap();
        let written = |name: &str| folder.join(name).metadata().unwrap().modified().unwrap();
        let before = written("main.go");
        assert_eq!(write_module(&places, GoModule::Coredns).unwrap(), folder);
        assert_eq!(written("main.go"), before);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
    }
}
