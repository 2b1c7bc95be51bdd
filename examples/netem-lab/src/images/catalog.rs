//! Which images there are, what they are called and what is in them.

use std::path::Path;

use super::content::{Content, Entry};
use super::{ImagesError, linked};
use local_control_plane::components::{Component, GoModule, Source};

/// A program of our own that runs in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // The names are the programs' own.
pub enum Program {
    LatencyProbe,
    SeikaController,
    ExtraController,
    LocalityIngress,
    Hello,
    /// The first process of every pod.
    Pause,
}

impl Program {
    /// All of them.
    pub const ALL: [Program; 6] = [
        Program::LatencyProbe,
        Program::SeikaController,
        Program::ExtraController,
        Program::LocalityIngress,
        Program::Hello,
        Program::Pause,
    ];

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Program::LatencyProbe => "latency-probe",
            Program::SeikaController => "seika-controller",
            Program::ExtraController => "extra-controller",
            Program::LocalityIngress => "locality-ingress",
            Program::Hello => "hello",
            Program::Pause => "pause",
        }
    }

    /// The workspace's package that holds it.
    pub(super) fn package(self) -> &'static str {
        match self {
            Program::Pause => "netem-lab",
            other => other.name(),
        }
    }

    /// Its image's full name. The lab's overlay of `deploy/` and `examples/manifests/` say the
    /// same.
    pub fn image_name(self) -> String {
        let repository = match self {
            Program::Pause => "lab",
            _ => "kantai",
        };
        format!("dev.local/{repository}/{}:{}", self.name(), env!("CARGO_PKG_VERSION"))
    }
}

/// The full name of a component's image; nothing for a component that does not run in a pod. What
/// we pin is named by the pin, whoever supplied the program, so that manifests can name it; the
/// rest by its `version`.
pub fn component_image_name(component: Component, version: &str) -> Option<String> {
    let runs_in_a_pod = match component.source() {
        Source::Go { module, .. } => matches!(module, GoModule::KnativeServing | GoModule::Coredns),
        Source::Wheel { .. } => true,
        Source::Debian { .. } => component == Component::Prometheus,
    };
    let version = match component.source() {
        Source::Go { module, .. } => module.version(),
        Source::Wheel { version, .. } => version.to_owned(),
        Source::Debian { .. } => version.to_owned(),
    };
    // Debian's versions have characters that a tag may not have.
    let tag: String =
        version.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' }).collect();
    runs_in_a_pod.then(|| format!("dev.local/lab/{}:{tag}", component.file_name()))
}

/// Our programs are static.
pub(super) fn of_program(program: Program, executable: &Path) -> Result<Content, ImagesError> {
    content(program.name(), None, executable)
}

pub(super) fn of_component(component: Component, executable: &Path) -> Result<Content, ImagesError> {
    // Manifests written for the upstream image find the program where that has it.
    let upstream = match component {
        Component::Envoy => Some("/usr/local/bin/envoy"),
        Component::Prometheus => Some("/bin/prometheus"),
        Component::Coredns => Some("/coredns"),
        _ => None,
    };
    content(component.file_name().trim_start_matches("knative-"), upstream, executable)
}

pub(super) fn content(name: &str, also_at: Option<&str>, executable: &Path) -> Result<Content, ImagesError> {
    let place = format!("/ko-app/{name}");
    let mut entries = vec![
        ("/tmp".to_owned(), Entry::Folder { mode: 0o1777 }),
        ("/var/run/ko".to_owned(), Entry::Folder { mode: 0o755 }),
        ("/etc/passwd".to_owned(), text("root:x:0:0:root:/:/none\nnonroot:x:65532:65532:nonroot:/tmp:/none\n")),
        ("/etc/group".to_owned(), text("root:x:0:\nnonroot:x:65532:\n")),
        // The pod's own hosts file comes before the name server.
        ("/etc/nsswitch.conf".to_owned(), text("hosts: files dns\n")),
        (place.clone(), Entry::Copy { from: executable.to_owned(), mode: 0o755 }),
    ];
    if let Some(also_at) = also_at {
        entries.push((also_at.to_owned(), Entry::Link { to: place.clone() }));
    }
    for library in linked::libraries(executable)? {
        let at = library.to_string_lossy().into_owned();
        // A library's path is usually a link to the file of its exact version; the image gets that
        // file at the path that is asked for.
        entries.push((at, Entry::Copy { from: library, mode: 0o755 }));
    }
    Ok(Content {
        entries,
        entrypoint: vec![place],
        user: "65532:65532".to_owned(),
        environment: vec!["PATH=/usr/local/bin:/usr/bin:/bin:/ko-app".to_owned(), "KO_DATA_PATH=/var/run/ko".to_owned()],
    })
}

fn text(text: &str) -> Entry {
    Entry::Text { text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_the_manifests_name_them() {
        assert_eq!(Program::LatencyProbe.image_name(), "dev.local/kantai/latency-probe:0.1.0");
        assert_eq!(Program::Pause.image_name(), "dev.local/lab/pause:0.1.0");
        let component = |component| component_image_name(component, "2.42.0+ds-5~x");
        assert_eq!(component(Component::Envoy).as_deref(), Some("dev.local/lab/envoy:1.40.0"));
        assert_eq!(component(Component::KnativeQueue).as_deref(), Some("dev.local/lab/knative-queue:1.15.2"));
        assert_eq!(component(Component::Prometheus).as_deref(), Some("dev.local/lab/prometheus:2.42.0-ds-5-x"));
        assert_eq!(component(Component::Kubelet), None);
        assert_eq!(component(Component::Runc), None);
    }
}
