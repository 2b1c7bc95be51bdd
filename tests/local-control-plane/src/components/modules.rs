//! The pinned wrapper modules that the Go toolchain builds from. Pure: what they hold, which
//! version they pin, how they are stamped.
//!
//! Their files are compiled into the lab and written to the cache before a build, so the lab's
//! program works wherever it is started and never builds from pins other than its own.

use sha2::{Digest, Sha256};

/// One wrapper module per upstream: their library versions differ, so they cannot share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // The names are the projects' own.
pub enum GoModule {
    Kubernetes,
    Etcd,
    KnativeServing,
    /// Knative's networking module at the version that the pinned Serving uses: its conformance
    /// suite and the images that that needs.
    KnativeNetworking,
    /// The pinned Serving's own tests, and the images that they need. Apart from the programs, so
    /// that these need not be built again when a test needs another library.
    KnativeServingTests,
    Coredns,
    /// What renders and checks the chart under `deploy/`. Only its test needs it, so that it is no
    /// component.
    Helm,
}

macro_rules! embedded {
    ($folder:literal, $($file:literal),+) => {
        &[$(($file, include_str!(concat!("../../components/", $folder, "/", $file)))),+]
    };
}

impl GoModule {
    /// The wrapper's name, also of its folder.
    pub fn name(self) -> &'static str {
        match self {
            GoModule::Kubernetes => "kubernetes",
            GoModule::Etcd => "etcd",
            GoModule::KnativeServing => "knative-serving",
            GoModule::KnativeNetworking => "knative-networking",
            GoModule::KnativeServingTests => "knative-serving-tests",
            GoModule::Coredns => "coredns",
            GoModule::Helm => "helm",
        }
    }

    /// Its files: name and content.
    pub fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            GoModule::Kubernetes => embedded!("kubernetes", "go.mod", "go.sum"),
            GoModule::Etcd => embedded!("etcd", "go.mod", "go.sum"),
            GoModule::KnativeServing => embedded!("knative-serving", "go.mod", "go.sum"),
            GoModule::KnativeNetworking => embedded!("knative-networking", "go.mod", "go.sum"),
            GoModule::KnativeServingTests => embedded!("knative-serving-tests", "go.mod", "go.sum"),
            GoModule::Coredns => embedded!("coredns", "go.mod", "go.sum", "main.go"),
            GoModule::Helm => embedded!("helm", "go.mod", "go.sum"),
        }
    }

    /// The upstream release that is pinned, without a leading `v`: `1.36.3`. Knative's is the
    /// release's name (1.15.2), not its module's.
    pub fn version(self) -> String {
        let go_mod = self.files().iter().find(|(name, _)| *name == "go.mod").map_or("", |(_, content)| content);
        let pinned = |module| pinned_version(go_mod, module).unwrap_or("unknown");
        match self {
            GoModule::Kubernetes => pinned("k8s.io/kubernetes").to_owned(),
            GoModule::Etcd => pinned("go.etcd.io/etcd/server/v3").to_owned(),
            // The networking module has no releases of its own: it is Serving's that says which
            // commit is meant.
            GoModule::KnativeServing | GoModule::KnativeNetworking | GoModule::KnativeServingTests => {
                knative_release(pinned("knative.dev/serving"))
            }
            GoModule::Coredns => pinned("github.com/coredns/coredns").to_owned(),
            GoModule::Helm => pinned("helm.sh/helm/v4").to_owned(),
        }
    }

    /// What the linker gets. Kubernetes carries its version only if it is stamped, and Knative
    /// refuses an API server that does not.
    pub fn ldflags(self) -> String {
        let stripped = "-s -w".to_owned();
        if self != GoModule::Kubernetes {
            return stripped;
        }
        let version = self.version();
        let mut parts = version.split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let stamps = [
            ("gitVersion", format!("v{version}")),
            ("gitMajor", major.to_owned()),
            ("gitMinor", minor.to_owned()),
            ("gitTreeState", "clean".to_owned()),
        ];
        stamps.iter().fold(stripped, |flags, (name, value)| flags + &format!(" -X k8s.io/component-base/version.{name}={value}"))
    }

    /// What the module's programs depend on, in a few characters: another pin or other flags give
    /// another key, hence another build.
    pub fn key(self) -> String {
        let mut hash = Sha256::new();
        for (name, content) in self.files() {
            hash.update(name);
            hash.update([0]);
            hash.update(content);
            hash.update([0]);
        }
        hash.update(self.ldflags());
        hash.update(std::env::consts::ARCH);
        hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The version that `go_mod` requires of `module`, without the leading `v`.
fn pinned_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module)).then(|| words.next()?.strip_prefix('v'))?
    })
}

/// Knative's modules are numbered 0.27 where its releases are numbered 1.0, and on from there.
fn knative_release(module_version: &str) -> String {
    let mut parts = module_version.split('.');
    match (parts.next(), parts.next().and_then(|minor| minor.parse::<u32>().ok()), parts.next()) {
        (Some("0"), Some(minor @ 27..), Some(patch)) => format!("1.{}.{patch}", minor - 27),
        _ => module_version.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_pins() {
        let go_mod =
            "module x\nrequire (\n\tk8s.io/kubernetes v1.36.3 // indirect\n)\nrequire github.com/coredns/coredns v1.15.0\n";
        assert_eq!(pinned_version(go_mod, "k8s.io/kubernetes"), Some("1.36.3"));
        assert_eq!(pinned_version(go_mod, "github.com/coredns/coredns"), Some("1.15.0"));
        assert_eq!(pinned_version(go_mod, "k8s.io/kube"), None);
    }

    #[test]
    fn knative_modules_are_called_by_their_release() {
        assert_eq!(knative_release("0.42.2"), "1.15.2");
        assert_eq!(knative_release("0.27.0"), "1.0.0");
        assert_eq!(knative_release("0.26.1"), "0.26.1");
    }

    #[test]
    fn every_module_pins_a_version_and_has_its_own_key() {
        let modules = [
            GoModule::Kubernetes,
            GoModule::Etcd,
            GoModule::KnativeServing,
            GoModule::KnativeNetworking,
            GoModule::KnativeServingTests,
            GoModule::Coredns,
            GoModule::Helm,
        ];
        for module in modules {
            assert!(module.version().starts_with(|c: char| c.is_ascii_digit()), "{}", module.version());
        }
        let mut keys: Vec<_> = modules.iter().map(|module| module.key()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), modules.len());
    }

    #[test]
    fn the_conformance_suites_are_those_of_the_pinned_serving() {
        let pin = |module: GoModule, of| {
            let (_, go_mod) = module.files().iter().find(|(name, _)| *name == "go.mod").unwrap();
            pinned_version(go_mod, of).unwrap().to_owned()
        };
        for of in ["knative.dev/serving", "knative.dev/networking"] {
            for tests in [GoModule::KnativeNetworking, GoModule::KnativeServingTests] {
                assert_eq!(pin(tests, of), pin(GoModule::KnativeServing, of));
            }
        }
    }

    #[test]
    fn kubernetes_is_stamped_with_its_version() {
        let flags = GoModule::Kubernetes.ldflags();
        let version = GoModule::Kubernetes.version();
        assert!(flags.contains(&format!("version.gitVersion=v{version} ")), "{flags}");
        assert_eq!(GoModule::Etcd.ldflags(), "-s -w");
    }
}
