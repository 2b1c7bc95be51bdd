//! Installs components with the system's package manager.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::{Component, ComponentsError, tool};
use crate::progress::Progress;

const INSTALL_APT: &str = "this system has no apt-get; install the programs by its own means";

/// Installs the packages that hold the missing components, without what they merely recommend and
/// without starting their services.
pub(super) fn install(missing: &[(Component, &'static str)], progress: &Progress) -> Result<(), ComponentsError> {
    if missing.is_empty() {
        return Ok(());
    }
    let packages: BTreeSet<_> = missing.iter().map(|(_, package)| *package).collect();
    let packages: Vec<_> = packages.into_iter().collect();
    if let Some(reason) = reason_not_to_install() {
        let components: Vec<_> = missing.iter().map(|(component, _)| component.to_string()).collect();
        return Err(ComponentsError::NotInstalled { components: components.join(", "), packages: packages.join(" "), reason });
    }
    let step = progress.step(format!("installing {}", packages.join(", ")));
    let _no_services = NoServices::declare()?;
    tool::run(apt_get().arg("update"), "read the package lists", INSTALL_APT)?;
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends"]).args(&packages);
    tool::run(&mut install, &format!("install {}", packages.join(", ")), INSTALL_APT)?;
    step.done();
    Ok(())
}

fn reason_not_to_install() -> Option<&'static str> {
    let has_apt =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join("apt-get").is_file());
    if !has_apt {
        Some("this system has no apt-get")
    } else if !nix::unistd::geteuid().is_root() {
        Some("only root can install packages")
    } else {
        None
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("--quiet").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// While it lives, packages that are installed do not start their services: the lab runs a
/// containerd and a Prometheus of its own. Debian asks this script before it starts one (its policy
/// for containers and images that are being built).
struct NoServices {
    script: Option<PathBuf>,
}

const POLICY_SCRIPT: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn declare() -> Result<Self, ComponentsError> {
        // A script that is there already is the administrator's word; it stands.
        match OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY_SCRIPT) {
            Ok(mut file) => {
                let declared = Self { script: Some(PathBuf::from(POLICY_SCRIPT)) };
                file.write_all(
                    b"#!/bin/sh\n# Written by kantai's lab while it installs packages; it may be removed.\nexit 101\n",
                )
                .map_err(ComponentsError::file("write", POLICY_SCRIPT))?;
                Ok(declared)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Self { script: None }),
            Err(source) => Err(ComponentsError::file("create", POLICY_SCRIPT)(source)),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(script) = &self.script {
            // Nothing better can be done about a script that will not go; it says itself that it
            // may be removed.
            let _ = std::fs::remove_file(script);
        }
    }
}
