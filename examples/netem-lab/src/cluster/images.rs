//! The images that the nodes hold from the beginning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::ClusterError;
use crate::images::{Image, Program};
use local_control_plane::components::Component;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeImage {
    /// The name by which pods ask for it.
    pub reference: String,
    /// The OCI archive to import.
    pub archive: PathBuf,
}

/// All images that the nodes hold from the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeImages {
    /// The image of the process that holds a pod's namespaces.
    pub pause: String,
    /// By name: `coredns`, `knative-queue`, `latency-probe` ...
    pub by_name: BTreeMap<String, NodeImage>,
}

impl NodeImages {
    /// All images of the lab, each where it is wanted.
    ///
    /// # Errors
    /// When the image is missing without which no pod starts.
    pub fn gather(
        of_components: &BTreeMap<Component, Image>,
        of_programs: &BTreeMap<Program, Image>,
    ) -> Result<Self, ClusterError> {
        let pause = of_programs.get(&Program::Pause).ok_or_else(|| ClusterError::UnknownImages("pause".to_owned()))?;
        let node_image = |image: &Image| NodeImage { reference: image.name.clone(), archive: image.archive.clone() };
        let components = of_components.iter().map(|(component, image)| (component.file_name().to_owned(), node_image(image)));
        let programs = of_programs.iter().map(|(program, image)| (program.name().to_owned(), node_image(image)));
        Ok(Self { pause: pause.name.clone(), by_name: components.chain(programs).collect() })
    }

    /// All archives.
    #[must_use]
    pub fn archives(&self) -> Vec<PathBuf> {
        self.by_name.values().map(|image| image.archive.clone()).collect()
    }

    /// The image that a placeholder in a manifest stands for: `component://coredns`, or a Go import
    /// path as Knative's YAML has it.
    #[must_use]
    pub fn resolve(&self, placeholder: &str) -> Option<String> {
        let name = match placeholder.strip_prefix("component://") {
            Some(name) => name.to_owned(),
            None => format!("knative-{}", placeholder.strip_prefix("ko://knative.dev/serving/cmd/")?),
        };
        self.by_name.get(&name).map(|image| image.reference.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> NodeImages {
        let image = |name: &str| {
            let image = NodeImage { reference: format!("dev.local/lab/{name}:1"), archive: format!("/a/{name}.tar").into() };
            (name.to_owned(), image)
        };
        NodeImages { pause: "dev.local/lab/pause:1".to_owned(), by_name: [image("coredns"), image("knative-controller")].into() }
    }

    #[test]
    fn placeholders_stand_for_images() {
        assert_eq!(images().resolve("component://coredns").as_deref(), Some("dev.local/lab/coredns:1"));
        assert_eq!(
            images().resolve("ko://knative.dev/serving/cmd/controller").as_deref(),
            Some("dev.local/lab/knative-controller:1")
        );
        assert_eq!(images().resolve("ko://knative.dev/serving/cmd/other"), None);
    }
}
