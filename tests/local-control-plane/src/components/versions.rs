//! Which version of a component is at hand.

use std::path::Path;
use std::process::Command;

use super::{Component, Places, Source};

/// The pinned version of what was made here; else what the program says of itself.
pub(super) fn version_of(component: Component, path: &Path, places: &Places) -> String {
    let pinned = match component.source() {
        Source::Go { module, .. } => Some(module.version()),
        Source::Wheel { version, .. } => Some(version.to_owned()),
        Source::Debian { .. } => None,
    };
    match pinned {
        Some(version) if places.made_here(component, path) => version,
        _ => ask_dpkg(component, path).or_else(|| ask(component, path)).unwrap_or_else(|| "unknown".to_owned()),
    }
}

/// Debian knows the version of what it installed better than some of the programs do.
fn ask_dpkg(component: Component, path: &Path) -> Option<String> {
    let Source::Debian { package } = component.source() else { return None };
    if path.starts_with("/usr/local") || path.starts_with("/opt") {
        return None;
    }
    let output = Command::new("dpkg-query").args(["--show", "--showformat=${Version}", package]).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !version.is_empty()).then_some(version)
}

fn ask(component: Component, path: &Path) -> Option<String> {
    let (program, arguments): (_, &[&str]) = match component {
        // These take no question about their version; they would start.
        Component::KnativeController
        | Component::KnativeWebhook
        | Component::KnativeAutoscaler
        | Component::KnativeActivator
        | Component::KnativeQueue => return None,
        Component::Kubectl => (path.to_owned(), &["version", "--client"]),
        Component::Coredns => (path.to_owned(), &["-version"]),
        Component::ContainerdShim => (path.to_owned(), &["-v"]),
        Component::Ip => (path.to_owned(), &["-V"]),
        Component::Busybox => (path.to_owned(), &[]),
        // They speak of the protocol's versions before their own.
        Component::CniPlugins => return None,
        _ => (path.to_owned(), &["--version"]),
    };
    let output = Command::new(program).args(arguments).stdin(std::process::Stdio::null()).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    first_version(&String::from_utf8_lossy(&said))
}

/// The first word of `text` that looks like a version: digits and dots at its head, with or without
/// a `v`.
fn first_version(text: &str) -> Option<String> {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '/' | '-')).find_map(|word| {
        let version = word.trim_start_matches('v').trim_end_matches(':');
        let head: String = version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let is_version = head.contains('.') && head.starts_with(|c: char| c.is_ascii_digit());
        is_version.then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_print() {
        let cases = [
            ("Kubernetes v1.36.3\n", "1.36.3"),
            ("etcd Version: 3.6.16\nGit SHA: Not provided\nGo Version: go1.26.8\n", "3.6.16"),
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u2\n", "1.6.20~ds1"),
            ("prometheus, version 2.42.0+ds (branch: debian/sid, revision: 2.42.0+ds-5+b5)\n", "2.42.0+ds"),
            ("ip utility, iproute2-6.1.0, libbpf 1.1.2\n", "6.1.0"),
            ("nftables v1.0.6 (Lester Gooch #5)\n", "1.0.6"),
        ];
        for (printed, version) in cases {
            assert_eq!(first_version(printed).as_deref(), Some(version), "{printed}");
        }
        assert_eq!(first_version("no version here"), None);
    }
}
