//! Serving's suites, and the programs that run in the pods that they make: built from its module,
//! like the components.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::enactment;
use super::suites::ServingSuite;
use super::{Part, ServingSuiteError};
use crate::cluster::{NodeImage, NodeImages};
use crate::images;
use local_control_plane::components::{
    Components, GoModule, GoPackage, Places, SourceFile, build_package, build_written_tests, module_folders,
};
use local_control_plane::progress::Progress;

const MODULE: GoModule = GoModule::KnativeServingTests;
/// The module whose tests and images these are.
const SERVING: &str = "knative.dev/serving";
/// The build tag of its tests.
const TAG: &str = "e2e";
/// The folder of the images' programs in it.
const IMAGES: &str = "test/test_images";
/// The images that the suites' pods run. The last part is the image's name.
const PROGRAMS: [&str; 19] = [
    "autoscale",
    "failing",
    "grpc-ping",
    "hellohttp2",
    "hellovolume",
    "helloworld",
    "httpproxy",
    "multicontainer/servingcontainer",
    "multicontainer/sidecarcontainer",
    "pizzaplanetv1",
    "pizzaplanetv2",
    "readiness",
    "revisionfailure",
    "runtime",
    "singlethreaded",
    "slowstart",
    "timeout",
    "volumes",
    "wsserver",
];

/// Everything of the suites that has to be there before a cluster comes up.
#[derive(Clone, Debug)]
pub struct ServingPrograms {
    suites: BTreeMap<ServingSuite, PathBuf>,
    enacted: PathBuf,
    /// The folder of Serving's module, with the objects that its tests need.
    pub(super) source: PathBuf,
    /// How the suites find their images by their short names.
    pub(super) image_template: String,
    images: BTreeMap<String, NodeImage>,
}

impl ServingPrograms {
    /// Builds what is not in the cache yet. Blocks, for some minutes the first time.
    ///
    /// # Errors
    /// When Go cannot build something, an image cannot be written, or Serving's tests are not what
    /// we take them for.
    pub fn prepare(components: &Components, progress: &Progress) -> Result<Self, ServingSuiteError> {
        let places = Places::from_env()?;
        let folders = module_folders(&places, MODULE, &[SERVING])?;
        let source = folders.into_iter().next().unwrap_or_default();
        let mut suites = BTreeMap::new();
        for suite in ServingSuite::ALL {
            let package = format!("{SERVING}/{}", suite.package());
            let name = format!("serving-{}", suite.name());
            let program = build_package(&places, MODULE, GoPackage::Tests { package: &package, tag: TAG }, &name, progress)?;
            suites.insert(suite, program);
        }
        let changed = enactment::change(go_files(&source.join(ServingSuite::E2e.package()))?)?;
        let enacted = build_written_tests(&places, MODULE, &changed, TAG, "serving-enacted", progress)?;

        let image_name = |name: &str| format!("dev.local/serving/{name}:{}", MODULE.version());
        let folder = components.cache().join("images");
        let mut all = BTreeMap::new();
        for path in PROGRAMS {
            let name = path.rsplit('/').next().unwrap_or(path);
            let package = format!("{SERVING}/{IMAGES}/{path}");
            let program = build_package(&places, MODULE, GoPackage::Program(&package), name, progress)?;
            let image = images::of_executable(&folder, image_name(name), name, &program)?;
            all.insert(format!("serving-{name}"), NodeImage { reference: image.name, archive: image.archive });
        }
        Ok(Self { suites, enacted, source, image_template: image_name("{{.Name}}"), images: all })
    }

    /// Adds the images to those that the nodes hold from the beginning.
    pub fn add_images(&self, to: &mut NodeImages) {
        to.by_name.extend(self.images.iter().map(|(name, image)| (name.clone(), image.clone())));
    }

    /// The program that holds the tests of `suite` for `part`; nothing where it has none.
    pub(super) fn tests(&self, part: Part, suite: ServingSuite) -> Option<&Path> {
        match (part, suite) {
            (Part::Stock | Part::Ours, suite) => self.suites.get(&suite).map(PathBuf::as_path),
            (Part::Enacted, ServingSuite::E2e) => Some(&self.enacted),
            (Part::Enacted, ServingSuite::Api | ServingSuite::Runtime) => None,
        }
    }

    /// The release of Serving that is tested.
    #[must_use]
    pub fn version() -> String {
        MODULE.version()
    }
}

/// The Go files of a package.
fn go_files(package: &Path) -> Result<Vec<SourceFile>, ServingSuiteError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ServingSuiteError::Source { path, source }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(package).map_err(failed(package))? {
        let path = entry.map_err(failed(package))?.path();
        if path.extension().is_some_and(|extension| extension == "go") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, std::fs::read_to_string(&path).map_err(failed(&path))?));
        }
    }
    files.sort();
    Ok(files)
}
