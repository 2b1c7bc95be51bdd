//! The same work as the tick's by commit 678750a, the last one with a decision-maker of the first
//! design: built from the repository's history and run beside ours.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

const COMMIT: &str = "678750a";
/// Revisions that are decided there; a thousand take the better part of a minute.
const REVISIONS: usize = 25;
/// The harness, written against that commit's interfaces.
const HARNESS: &str = include_str!("before_harness.rs");

/// Milliseconds that it takes for one revision of a thousand; `None` where the repository has no
/// such history.
pub(crate) fn milliseconds_per_revision(nodes: usize) -> anyhow::Result<Option<f64>> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut git = Command::new("git");
    git.arg("-C").arg(repository).args(["rev-parse", "--show-toplevel"]).stderr(Stdio::null());
    let Ok(output) = git.output() else { return Ok(None) };
    let top = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let mut git = Command::new("git");
    git.arg("-C").arg(&top).args(["cat-file", "-e", &format!("{COMMIT}^{{commit}}")]).stderr(Stdio::null());
    if !git.status().is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let folder = tempfile::Builder::new().prefix("kantai-before-").tempdir()?;
    let archive = folder.path().join("sources.tar");
    let git = Command::new("git")
        .arg("-C")
        .arg(&top)
        .args(["archive", "--format=tar", "--output"])
        .arg(&archive)
        .arg(COMMIT)
        .status()
        .context("failed to start git")?;
    anyhow::ensure!(git.success(), "failed to read commit {COMMIT}");
    let unpacked = Command::new("tar").arg("-C").arg(folder.path()).arg("-xf").arg(&archive).status();
    anyhow::ensure!(unpacked.context("failed to start tar")?.success(), "failed to unpack commit {COMMIT}");
    let examples = folder.path().join("crates/extra-controller/examples");
    std::fs::create_dir_all(&examples)?;
    std::fs::write(examples.join("tick.rs"), HARNESS)?;

    // What both depend on is built once.
    let executable = std::env::current_exe()?;
    let target = executable.ancestors().nth(3).context("the scorecard runs outside a target folder")?;
    let output = local_control_plane::nested_cargo::cargo()
        .current_dir(folder.path())
        .args(["run", "--release", "--quiet", "--package=extra-controller", "--example=tick", "--target-dir"])
        .arg(target.join("before"))
        .args(["--", &nodes.to_string(), &REVISIONS.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .context("failed to start cargo")?;
    anyhow::ensure!(output.status.success(), "failed to measure commit {COMMIT}");
    let text = String::from_utf8(output.stdout)?;
    let value: f64 = text.trim().parse().with_context(|| format!("failed to read {text:?}"))?;
    Ok(Some(value))
}
