//! How manifests and the chart name images.

use serde_json::Value;

/// What gives the programs in manifests their images: name, new name, tag.
#[must_use]
pub fn renamed(kustomization: &Value) -> Vec<(&str, &str, &str)> {
    let images = kustomization["images"].as_array().into_iter().flatten();
    images.filter_map(|it| Some((it["name"].as_str()?, it["newName"].as_str()?, it["newTag"].as_str()?))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use local_control_plane::components::{Component, Source};
    use repository_checks::tree;

    use super::*;

    const DAEMONS: [&str; 5] =
        ["latency-probe", "seika-controller", "extra-controller", "locality-ingress", "scheduler-extender"];

    fn yaml(path: &str) -> Value {
        serde_saphyr::from_str(&tree::read(Path::new(path))).unwrap()
    }

    #[test]
    fn manifests_name_programs_which_one_file_gives_their_images() {
        let names = yaml("deploy/images/kustomization.yaml");
        let renamed: BTreeSet<&str> = renamed(&names).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(renamed, DAEMONS.into_iter().chain(["envoy"]).collect());
        let deploy = tree::root().join("deploy");
        let mut seen = BTreeSet::new();
        for path in tree::files_below(&deploy, &["yaml"]).into_iter().filter(|path| !path.starts_with("chart")) {
            let text = tree::read(&Path::new("deploy").join(&path));
            let images: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
            assert!(images.iter().all(|image| renamed.contains(image)), "{}: {images:?}", path.display());
            seen.extend(images.iter().map(|image| (*image).to_owned()));
        }
        assert_eq!(seen.len(), renamed.len(), "{seen:?}");
    }

    #[test]
    fn tags_are_this_version_and_the_envoy_that_is_tested() {
        let Source::Wheel { version: envoy, .. } = Component::Envoy.source() else { panic!("Envoy is no wheel") };
        let envoy = format!("distroless-v{envoy}");
        let (names, chart, values) =
            (yaml("deploy/images/kustomization.yaml"), yaml("deploy/chart/Chart.yaml"), yaml("deploy/chart/values.yaml"));
        for (name, image, tag) in renamed(&names) {
            if name == "envoy" {
                assert_eq!((image, tag), ("docker.io/envoyproxy/envoy", envoy.as_str()));
            } else {
                assert_eq!((image, tag), (format!("registry.example/kantai/{name}").as_str(), env!("CARGO_PKG_VERSION")));
            }
        }
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
        assert_eq!(values["gateway"]["image"]["tag"], envoy.as_str());
        let script = tree::read(Path::new("deploy/images/build"));
        assert!(script.contains(&format!("programs=({})", DAEMONS.join(" "))));
    }
}
