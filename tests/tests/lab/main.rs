//! The whole, in the lab: the README's own command on scenarios, what their reports must show, and
//! that nothing is left behind.
//!
//! One lab at a time fits a small machine, so the tests take turns.

mod standing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kantai_tests::lab::{cargo_lab, source_tree};
use serde_json::Value;

/// Held by the test whose lab is up.
static LAB: Mutex<()> = Mutex::new(());

fn report(out: &Path, folder: &str) -> anyhow::Result<Value> {
    let path = out.join(folder).join("report.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    ensure!(out.join(folder).join("report.html").is_file(), "there is no page beside {}", path.display());
    Ok(serde_json::from_str(&text)?)
}

/// What every report must hold, whatever the class.
fn check_report(report: &Value, nodes: &[&str]) -> anyhow::Result<()> {
    let failed: Vec<&Value> = report["steps"].as_array().context("steps")?.iter().filter(|step| step["ok"] != true).collect();
    ensure!(failed.is_empty(), "steps that did not hold: {failed:#?}");
    ensure!(report["failed_requests"] == 0, "{} requests failed", report["failed_requests"]);
    ensure!(report["requests"].as_array().is_some_and(|requests| requests.len() > 100), "there was no load");
    for from in nodes {
        for to in nodes.iter().filter(|to| *to != from) {
            let injected = report["injected_rtt_ms"][from][to].as_f64().with_context(|| format!("injected {from} -> {to}"))?;
            let measured = report["measured_rtt_ms"][from][to].as_f64().with_context(|| format!("measured {from} -> {to}"))?;
            ensure!((measured - injected).abs() <= 0.5, "{from} -> {to}: injected {injected} ms, measured {measured} ms");
        }
    }
    for figure in ["p50", "p99"] {
        ensure!(report["emulator_lateness_ms"][figure].is_number(), "no lateness {figure}");
    }
    ensure!(report["components"]["kubelet"].is_string(), "no versions: {}", report["components"]);
    let footprint = report["footprint"].as_object().context("footprint")?;
    ensure!(footprint.values().all(|one| one["rss_mib"].is_number() && one["mcores"].is_number()), "{footprint:#?}");
    ensure!(report["cold_start"]["seconds_to_response"].as_f64().is_some_and(|seconds| seconds > 0.0), "no cold start");
    Ok(())
}

/// Requests of a step: how many were sent from each node, and how many of those it answered itself.
fn local_share(report: &Value, step: &str) -> BTreeMap<String, (usize, usize)> {
    let mut shares: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for request in report["requests"].as_array().into_iter().flatten().filter(|request| request["step"] == step) {
        let from = request["from_node"].as_str().unwrap_or_default();
        let share = shares.entry(from.to_owned()).or_default();
        share.0 += 1;
        share.1 += usize::from(request["served_by_node"] == from);
    }
    shares
}

/// Everything of a lab that this machine shows: its namespaces, mounts, control groups and
/// processes.
fn traces_of_a_lab() -> anyhow::Result<Vec<String>> {
    let mut traces = Vec::new();
    let namespaces = Command::new("ip").args(["netns", "list"]).output().context("failed to start ip")?;
    traces.extend(String::from_utf8_lossy(&namespaces.stdout).lines().map(str::to_owned));
    traces.extend(std::fs::read_to_string("/proc/self/mounts")?.lines().map(str::to_owned));
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                traces.push(entry.path().display().to_string());
                folders.push(entry.path());
            }
        }
    }
    for entry in std::fs::read_dir("/proc")?.flatten() {
        // Others on this machine may run programs of the same names; the lab's own are in its
        // control groups until they end.
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if groups.lines().any(|line| line.contains(":/netem")) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            traces.push(format!("netem process {} {}", entry.file_name().display(), name.trim_end()));
        }
    }
    // Namespaces and mounts of others come and go; the lab's own names begin with its prefix.
    traces.retain(|trace| trace.contains("netem"));
    traces.sort();
    Ok(traces)
}

/// A process that has ended shows for another moment, until whoever inherited it has noticed: of
/// this lab's now, and of an earlier lab's in what there was before.
fn nothing_more_than(before: &[String]) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let left: Vec<String> = traces_of_a_lab()?.into_iter().filter(|trace| !before.contains(trace)).collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(begun.elapsed() < kantai_tests::PATIENCE, "left behind: {left:#?}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_request_that_enters_the_far_node_is_answered_there() -> anyhow::Result<()> {
    let _turn = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    let before = traces_of_a_lab()?;
    let out = tempfile::tempdir()?;
    let output = cargo_lab(&["--out", &out.path().display().to_string()])?;
    let report = report(out.path(), "hello")?;
    check_report(&report, &["node1", "node2", "node3"])?;
    ensure!(output.status.success(), "{}", output.status);

    let cold = local_share(&report, "cold request from node3");
    ensure!(cold.get("node3").is_some_and(|&(sent, local)| sent > 0 && sent == local), "{cold:?}");
    ensure!(report["seika_ready"] == "0-0-1/0-0-1", "{}", report["seika_ready"]);
    let both = local_share(&report, "load from node1 and node3");
    ensure!(both.len() == 2, "{both:?}");
    for (node, (sent, local)) in both {
        ensure!(sent > 0 && local * 100 >= sent * 95, "{node}: {local} of {sent} requests were answered there");
    }
    nothing_more_than(&before)
}

#[test]
fn nothing_depends_on_the_names_of_the_default_scenario() -> anyhow::Result<()> {
    let _turn = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    let out = tempfile::tempdir()?;
    let scenario = source_tree().join("tests/scenarios/islands.toml");
    let output = cargo_lab(&["--scenario", &scenario.display().to_string(), "--out", &out.path().display().to_string()])?;
    let report = report(out.path(), "islands")?;
    check_report(&report, &["harbour", "isle-a", "isle-b", "isle-c", "reef"])?;
    ensure!(output.status.success(), "{}", output.status);
    let cold = local_share(&report, "cold request from reef");
    ensure!(cold.get("reef").is_some_and(|&(sent, local)| sent > 0 && sent == local), "{cold:?}");
    Ok(())
}

#[test]
fn a_scenario_that_names_an_unknown_node_is_refused_with_its_line() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("wrong.toml");
    let text = "name = \"wrong\"\n[nodes]\ncount = 2\n[[links]]\nbetween = [\"node1\", \"node9\"]\nrtt_ms = 1.0\n[service]\nname = \"a\"\nimage = \"dev.local/a:1\"\n";
    std::fs::write(&path, text)?;
    let output = cargo_lab(&["--scenario", &path.display().to_string()])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("node9") && said.contains("line 5"), "{said}");
    Ok(())
}
