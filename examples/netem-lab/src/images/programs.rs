//! Builds our own programs, in the lab's profile, with the cargo that built us.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{ImagesError, Program};
use local_control_plane::components::run_tool;
use local_control_plane::nested_cargo;
use local_control_plane::progress::Progress;

const INSTALL_CARGO: &str = "install Rust with cargo and a C compiler to link with (in Debian: apt-get install gcc libc6-dev)";

/// What `cargo lab` says, too; see `.cargo/config.toml`.
const ONE_BUILD: [&str; 6] = ["--profile", "lab", "--package", "netem-lab", "--features", "netem-lab/programs"];

/// Builds `wanted` and gives back where each of them is.
pub(super) fn build(wanted: &[Program], progress: &Progress) -> Result<BTreeMap<Program, PathBuf>, ImagesError> {
    let mut built = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(built);
    }
    let names = wanted.iter().map(|program| program.name()).collect::<Vec<_>>().join(", ");
    let step = progress.step(format!("building {names}"));
    let printed = run_tool(&mut build_command(wanted), &format!("build {names}"), INSTALL_CARGO)?;
    for program in wanted {
        let executable = executable(&printed, program.name()).ok_or(ImagesError::NotBuilt { program: program.name() })?;
        built.insert(*program, executable);
    }
    step.done();
    Ok(built)
}

/// One build, with the profile and the features with which `cargo lab` built the lab itself: cargo
/// chooses features for all packages of a build together, and other features would build every
/// crate again.
fn build_command(programs: &[Program]) -> Command {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = nested_cargo::cargo();
    command.current_dir(workspace).arg("build").args(ONE_BUILD).arg("--message-format=json-render-diagnostics");
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

    /// The crates of a build with their features, by `cargo tree`.
    fn crates(packages: &[&str]) -> std::collections::BTreeSet<String> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut command = nested_cargo::cargo();
        command.current_dir(workspace).args(["tree", "--locked", "--edges=normal,build", "--prefix=none"]);
        command.args(["--format={p} {f}", "--features=netem-lab/programs", "--package=netem-lab"]);
        command.args(packages.iter().map(|package| format!("--package={package}")));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        printed.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
    }

    #[test]
    fn the_lab_and_the_programs_in_it_are_built_with_one_set_of_features() {
        let lab = crates(&[]);
        let packages: Vec<&str> = Program::ALL.iter().map(|program| program.package()).collect();
        let both = crates(&packages);
        assert!(lab.len() > 200 && both.len() >= lab.len(), "{} and {}", lab.len(), both.len());
        // What only the programs have, such as the packages themselves, may come on top.
        let again: Vec<_> = lab.difference(&both).collect();
        assert_eq!(again, Vec::<&String>::new(), "these would be built again with other features");
    }

    #[test]
    fn the_lab_builds_programs_as_cargo_lab_builds_the_lab() {
        let config = include_str!("../../../../.cargo/config.toml");
        assert!(config.contains("lab = \"run --profile lab --features programs --package netem-lab\""), "{config}");
        assert_eq!(ONE_BUILD, ["--profile", "lab", "--package", "netem-lab", "--features", "netem-lab/programs"]);
    }

    #[test]
    fn a_program_is_found_among_what_cargo_prints() {
        let printed = r#"{"reason":"compiler-artifact","target":{"name":"hello","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"hello","kind":["bin"]},"executable":"/t/release/hello"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(printed, "hello"), Some(PathBuf::from("/t/release/hello")));
        assert_eq!(executable(printed, "pause"), None);
    }
}
