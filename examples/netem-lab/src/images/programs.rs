//! Builds our own programs, for release, with the cargo that built us.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{ImagesError, Program};
use crate::components::run_tool;
use crate::nested_cargo;
use crate::progress::Progress;

const INSTALL_CARGO: &str = "install Rust with cargo and a C compiler to link with (in Debian: apt-get install gcc libc6-dev)";

/// Builds `wanted` and gives back where each of them is.
pub(super) fn build(wanted: &[Program], progress: &Progress) -> Result<BTreeMap<Program, PathBuf>, ImagesError> {
    let mut built = BTreeMap::new();
    // What is in the lab's own package is built alone: with the others, cargo would choose other
    // features and build the lab again.
    let (own, others): (Vec<&Program>, Vec<&Program>) =
        wanted.iter().partition(|program| program.package() == env!("CARGO_PKG_NAME"));
    for programs in [others, own] {
        if programs.is_empty() {
            continue;
        }
        let names: Vec<_> = programs.iter().map(|program| program.name()).collect();
        let step = progress.step(format!("building {}", names.join(", ")));
        let printed = run_tool(&mut build_command(&programs), &format!("build {}", names.join(", ")), INSTALL_CARGO)?;
        for program in programs {
            let executable = executable(&printed, program.name()).ok_or(ImagesError::NotBuilt { program: program.name() })?;
            built.insert(*program, executable);
        }
        step.done();
    }
    Ok(built)
}

fn build_command(programs: &[&Program]) -> Command {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = nested_cargo::cargo();
    command.current_dir(workspace).args(["build", "--release", "--message-format=json-render-diagnostics"]);
    for program in programs {
        command.args(["--package", program.package(), "--bin", program.name()]);
    }
    command
}

/// What cargo says of a thing that it built, as far as it concerns us.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

fn executable(printed: &str, name: &str) -> Option<PathBuf> {
    let messages = printed.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    messages
        .filter(|message| message.target.as_ref().is_some_and(|target| target.name == name))
        .find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_among_what_cargo_prints() {
        let printed = r#"{"reason":"compiler-artifact","target":{"name":"hello","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"hello","kind":["bin"]},"executable":"/t/release/hello"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(printed, "hello"), Some(PathBuf::from("/t/release/hello")));
        assert_eq!(executable(printed, "pause"), None);
    }
}
