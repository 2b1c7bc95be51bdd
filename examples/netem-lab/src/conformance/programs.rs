//! The suite itself, and the programs that run in the pods that it makes: built from the networking
//! module, like the components.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::ConformanceError;
use crate::cluster::{NodeImage, NodeImages};
use crate::images;
use local_control_plane::components::{Components, GoModule, GoPackage, Places, build_package, module_folders};
use local_control_plane::progress::Progress;

const MODULE: GoModule = GoModule::KnativeNetworking;
/// The module whose tests and images these are.
const NETWORKING: &str = "knative.dev/networking";
/// The folder of the suite's package in it.
const SUITE: &str = "test/conformance/ingress";
/// The folder of the images' programs in it.
const IMAGES: &str = "test/test_images";
/// The images that the suite's pods run.
const PROGRAMS: [&str; 6] = ["grpc-ping", "httpproxy", "retry", "runtime", "timeout", "wsserver"];

/// Everything of the suite that has to be there before a cluster comes up.
#[derive(Clone, Debug)]
pub struct IngressPrograms {
    /// The suite.
    pub suite: PathBuf,
    /// The folder of its source.
    pub suite_source: PathBuf,
    /// How the suite finds its images by their short names.
    pub image_template: String,
    images: BTreeMap<String, NodeImage>,
}

impl IngressPrograms {
    /// Builds what is not in the cache yet. Blocks, for a minute or two the first time.
    ///
    /// # Errors
    /// When Go cannot build something, or an image cannot be written.
    pub fn prepare(components: &Components, progress: &Progress) -> Result<Self, ConformanceError> {
        let places = Places::from_env()?;
        let folders = module_folders(&places, MODULE, &[NETWORKING])?;
        let suite_source = folders.first().map(|folder| folder.join(SUITE)).unwrap_or_default();
        let tests = format!("{NETWORKING}/{SUITE}");
        let suite =
            build_package(&places, MODULE, GoPackage::Tests { package: &tests, tag: "e2e" }, "ingress-conformance", progress)?;
        let image_name = |name: &str| format!("dev.local/networking/{name}:{}", MODULE.version());
        let folder = components.cache().join("images");
        let mut all = BTreeMap::new();
        for name in PROGRAMS {
            let package = format!("{NETWORKING}/{IMAGES}/{name}");
            let program = build_package(&places, MODULE, GoPackage::Program(&package), name, progress)?;
            let image = images::of_executable(&folder, image_name(name), name, &program)?;
            all.insert(format!("networking-{name}"), NodeImage { reference: image.name, archive: image.archive });
        }
        Ok(Self { suite, suite_source, image_template: image_name("{{.Name}}"), images: all })
    }

    /// Adds the images to those that the nodes hold from the beginning.
    pub fn add_images(&self, to: &mut NodeImages) {
        to.by_name.extend(self.images.iter().map(|(name, image)| (name.clone(), image.clone())));
    }
}
