//! Images for the cluster's nodes, written as archives that `ctr images import` reads. There is no
//! registry anywhere.
//!
//! Each image has one layer with one program, at `/ko-app/<name>` as in images that ko builds; a
//! program that is linked dynamically brings its libraries along, at the paths where it looks for
//! them. An archive is written again only when what it is made from has changed.

mod archive;
mod catalog;
mod content;
mod error;
mod linked;
mod programs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use catalog::{Program, component_image_name};
pub use content::{Content, Entry};
pub use error::ImagesError;

use local_control_plane::components::{Component, Components};
use local_control_plane::progress::Progress;

/// An image that is ready to be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its full name: registry, repository, tag.
    pub name: String,
    /// The archive that holds it.
    pub archive: PathBuf,
}

/// Writes the images of those `components` that run in pods, into the components' cache.
pub fn of_components(components: &Components, progress: &Progress) -> Result<BTreeMap<Component, Image>, ImagesError> {
    let versions = components.versions();
    let folder = components.cache().join("images");
    let step = progress.step("writing the components' images");
    let mut images = BTreeMap::new();
    for (component, program) in components.iter() {
        let version = versions.get(component.file_name()).map_or("unknown", String::as_str);
        if let Some(name) = component_image_name(component, version) {
            let content = catalog::of_component(component, program)?;
            images.insert(component, write(&folder, name, &content)?);
        }
    }
    step.done();
    Ok(images)
}

/// Builds our own programs and writes their images, beside the programs.
pub fn of_programs(wanted: &[Program], progress: &Progress) -> Result<BTreeMap<Program, Image>, ImagesError> {
    let executables = programs::build(wanted, progress)?;
    let step = progress.step("writing our own images");
    let mut images = BTreeMap::new();
    for (program, executable) in executables {
        let folder = executable.parent().unwrap_or(Path::new("/")).join("images");
        images.insert(program, write(&folder, program.image_name(), &catalog::of_program(program, &executable)?)?);
    }
    step.done();
    Ok(images)
}

/// Writes the images of our own programs from a folder in which they are already built, into its
/// subfolder `images`.
pub fn of_built_programs(
    folder: &Path,
    wanted: &[Program],
    progress: &Progress,
) -> Result<BTreeMap<Program, Image>, ImagesError> {
    let step = progress.step("writing our own images");
    let mut images = BTreeMap::new();
    for program in wanted {
        let content = catalog::of_program(*program, &folder.join(program.name()))?;
        images.insert(*program, write(&folder.join("images"), program.image_name(), &content)?);
    }
    step.done();
    Ok(images)
}

/// Writes the image of one program that is neither a component nor our own, called `name` in it.
pub fn of_executable(folder: &Path, image: String, name: &str, executable: &Path) -> Result<Image, ImagesError> {
    write(folder, image, &catalog::content(name, None, executable)?)
}

/// Writes one image of any content into `folder`, unless it is there already.
pub fn write(folder: &Path, name: String, content: &Content) -> Result<Image, ImagesError> {
    let archive = archive::write(folder, &name, content)?;
    Ok(Image { name, archive })
}
