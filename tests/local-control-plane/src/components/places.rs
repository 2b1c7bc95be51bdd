//! Where components are looked for, and where what is made goes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Component, ComponentsError, GoModule, Source};

/// Folders that Debian's packages install into, in the order of trust. `PATH` comes before them.
const SYSTEM_FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const CNI_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
const CNI_PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];

/// Where components are looked for, and where what is made goes.
#[derive(Debug, Clone)]
pub struct Places {
    envtest_assets: Option<PathBuf>,
    components: Option<PathBuf>,
    cache: PathBuf,
    system: Vec<PathBuf>,
}

impl Places {
    /// What `KUBEBUILDER_ASSETS`, `KANTAI_COMPONENTS`, `KANTAI_CACHE` and `PATH` say.
    pub fn from_env() -> Result<Self, ComponentsError> {
        // Absolute: some programs are started in a working directory of their own.
        let folder = |name| {
            let named = std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            named.map(|path| std::path::absolute(&path).map_err(ComponentsError::file("resolve", path))).transpose()
        };
        let cache = match (folder("KANTAI_CACHE")?, folder("XDG_CACHE_HOME")?, folder("HOME")?) {
            (Some(cache), _, _) => cache,
            (None, Some(caches), _) => caches.join("kantai"),
            (None, None, Some(home)) => home.join(".cache/kantai"),
            (None, None, None) => return Err(ComponentsError::NoCacheFolder),
        };
        let mut places = Self::new(cache);
        places.envtest_assets = folder("KUBEBUILDER_ASSETS")?;
        places.components = folder("KANTAI_COMPONENTS")?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        places.system = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).chain(places.system).collect();
        Ok(places)
    }

    /// Only the given cache and the system's own folders.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        let system = SYSTEM_FOLDERS.iter().map(PathBuf::from).collect();
        Self { envtest_assets: None, components: None, cache: cache.into(), system }
    }

    /// Looks first in `folder`, for what envtest would look for there.
    #[must_use]
    pub fn with_envtest_assets(mut self, folder: impl Into<PathBuf>) -> Self {
        self.envtest_assets = Some(folder.into());
        self
    }

    /// Looks in `folder` for any component, by name.
    #[must_use]
    pub fn with_components(mut self, folder: impl Into<PathBuf>) -> Self {
        self.components = Some(folder.into());
        self
    }

    /// The folder that caches what is made.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The path of `component`, wherever it is.
    pub fn find(&self, component: Component) -> Option<PathBuf> {
        let envtest = self.envtest_assets.as_ref().filter(|_| component.is_envtest_asset());
        let supplied = envtest.into_iter().chain(&self.components).map(|folder| folder.join(component.file_name()));
        supplied.chain(self.cached(component)).chain(self.system_paths(component)).find(|path| usable(component, path))
    }

    /// Where the cache keeps `component`; nothing for what the system installs. The folder's name
    /// changes with everything that the program is made from.
    pub fn cached(&self, component: Component) -> Option<PathBuf> {
        let folder = match component.source() {
            Source::Go { module, .. } => self.programs_of(module),
            Source::Wheel { package, version } => self.cache.join(format!("{package}-{version}")),
            Source::Debian { .. } => return None,
        };
        Some(folder.join(component.file_name()))
    }

    /// Where the cache keeps what is built from `module`.
    pub(super) fn programs_of(&self, module: GoModule) -> PathBuf {
        self.cache.join(format!("{}-{}-{}", module.name(), module.version(), module.key()))
    }

    /// Whether `path` is a program made here, so that its version is the pinned one.
    pub(super) fn made_here(&self, component: Component, path: &Path) -> bool {
        self.cached(component).is_some_and(|cached| cached == path)
    }

    fn system_paths(&self, component: Component) -> Vec<PathBuf> {
        match component.source() {
            Source::Debian { .. } if component == Component::CniPlugins => CNI_FOLDERS.iter().map(PathBuf::from).collect(),
            Source::Debian { .. } => self.system.iter().map(|folder| folder.join(component.file_name())).collect(),
            Source::Go { .. } | Source::Wheel { .. } => Vec::new(),
        }
    }
}

fn usable(component: Component, path: &Path) -> bool {
    match component {
        Component::CniPlugins => CNI_PLUGINS.iter().all(|plugin| is_program(&path.join(plugin))),
        _ => is_program(path),
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
