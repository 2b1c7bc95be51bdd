//! A lab that was left running, and load inside its nodes. One lab at a time fits a machine.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use local_control_plane::nested_cargo;
use netem_lab::load::Outcome;
use serde_json::Value;

/// Longer than anything in the cluster may take: the longest wait here is for the stock grace
/// period of the last pod, and its draining.
const PATIENCE: Duration = Duration::from_secs(120);

/// The folder of the workspace.
///
/// # Panics
/// Never: this package is a folder of the workspace.
#[must_use]
pub fn source_tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is a folder of the workspace")
}

/// `cargo lab -- ARGUMENTS`.
///
/// # Errors
/// Where cargo cannot be started.
pub fn cargo_lab(arguments: &[&str]) -> anyhow::Result<Output> {
    let output = command(arguments).output().context("failed to start cargo")?;
    // Seen when a test fails, and only then.
    eprintln!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = nested_cargo::cargo();
    command.args(["--quiet", "lab", "--"]).args(arguments).current_dir(source_tree());
    command
}

/// What `cargo lab -- up` left running. Removed when dropped.
pub struct Standing {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
}

impl Drop for Standing {
    fn drop(&mut self) {
        // A failure here shows in what is left behind.
        let _ = cargo_lab(&["down"]);
    }
}

impl Standing {
    /// Brings it up.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn up() -> anyhow::Result<Self> {
        let output = cargo_lab(&["up"])?;
        ensure!(output.status.success(), "up: {}", output.status);
        let printed = String::from_utf8(output.stdout)?;
        let exported = |name: &str| {
            let line = printed.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.with_context(|| format!("`up` does not tell {name}: {printed}"))
        };
        let kubeconfig = exported("KUBECONFIG")?.into();
        let folder = exported("PATH")?.rsplit(':').next().context("a folder on PATH")?;
        Ok(Self { kubeconfig, kubectl: Path::new(folder).join("kubectl") })
    }

    /// What kubectl prints, or what it complains of.
    ///
    /// # Errors
    /// Where kubectl cannot be started.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<Result<String, String>> {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments).current_dir(source_tree());
        let output = command.output().context("failed to start kubectl")?;
        let said =
            String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr }).trim().to_owned();
        Ok(if output.status.success() { Ok(said) } else { Err(said) })
    }

    /// What kubectl prints; it must succeed.
    ///
    /// # Errors
    /// Where it does not.
    pub fn done(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectl(arguments)?.map_err(|complaint| anyhow::anyhow!("kubectl {}: {complaint}", arguments.join(" ")))
    }

    /// What kubectl prints as JSON; it must succeed.
    ///
    /// # Errors
    /// Where it does not.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.done(&[arguments, &["-o", "json"]].concat())?)?)
    }

    /// Pods with these labels that are not going: name -> node.
    ///
    /// # Errors
    /// Where kubectl does not succeed.
    pub fn pods(&self, labels: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let list = self.json(&["get", "pods", "-l", labels])?;
        let staying = list["items"].as_array().into_iter().flatten().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(staying.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]))).collect())
    }

    /// Waits until kubectl prints `expected`.
    ///
    /// # Errors
    /// Where it does not in time.
    pub fn shows(&self, arguments: &[&str], expected: &str) -> anyhow::Result<()> {
        eventually(&format!("kubectl {} prints {expected}", arguments.join(" ")), || {
            let seen = self.kubectl(arguments)?;
            Ok(if seen.as_deref() == Ok(expected) { Ok(()) } else { Err(format!("{seen:?}")) })
        })
    }

    /// The condition `kind` of an object: its status and reason.
    ///
    /// # Errors
    /// Where kubectl does not succeed.
    pub fn condition(&self, object: &[&str], kind: &str) -> anyhow::Result<(String, String)> {
        let object = self.json(&[&["get"], object].concat())?;
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let found = conditions.into_iter().find(|condition| condition["type"] == kind);
        let text = |field: &str| found.and_then(|condition| condition[field].as_str()).unwrap_or_default().to_owned();
        Ok((text("status"), text("reason")))
    }

    /// Sends requests from inside a node, five a second, and says by which nodes they were
    /// answered; none may fail.
    ///
    /// # Errors
    /// Where one fails.
    pub fn answered_by(&self, node: &str, url: &str, seconds: u32) -> anyhow::Result<BTreeMap<String, usize>> {
        let seconds = seconds.to_string();
        let load =
            ["exec", node, "--", "netem-lab", "load", "--from-node", node, "--url", url, "--rate", "5", "--seconds", &seconds];
        let output = command(&load).output().context("failed to start cargo")?;
        ensure!(output.status.success(), "load: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        let mut answers = BTreeMap::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let outcome: Outcome = serde_json::from_str(line)?;
            ensure!(outcome.succeeded(), "a request from {node} failed: {line}");
            *answers.entry(outcome.served_by_node.unwrap_or_default()).or_default() += 1;
        }
        ensure!(!answers.is_empty(), "no request was sent from {node}");
        eprintln!("        requests from {node} were answered by {answers:?}");
        Ok(answers)
    }
}

/// Load that flows from inside a node until it is finished. Dropped before, it ends too.
pub struct Load {
    process: Child,
    outcomes: Option<JoinHandle<anyhow::Result<Vec<Outcome>>>>,
}

impl Standing {
    /// Starts to send requests from inside `node`: by `workers` workers, each of which sends the
    /// next when it has its answer. `flags` are further ones of `netem-lab load`.
    ///
    /// # Errors
    /// Where the load cannot be started.
    pub fn load(&self, node: &str, url: &str, workers: u32, flags: &[&str]) -> anyhow::Result<Load> {
        let workers = workers.to_string();
        let fixed = ["exec", node, "--", "netem-lab", "load", "--from-node", node, "--url", url, "--workers", &workers];
        let arguments = [&fixed[..], &["--seconds", "3600", "--stop-on-stdin-end"], flags].concat();
        let mut process =
            command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("failed to start cargo")?;
        let lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        // As they come, lest the load stop because its output is not read.
        let outcomes = std::thread::spawn(move || lines.map(|line| Ok(serde_json::from_str::<Outcome>(&line?)?)).collect());
        Ok(Load { process, outcomes: Some(outcomes) })
    }
}

impl Load {
    /// Ends it; returns what became of each request.
    ///
    /// # Errors
    /// Where it ended before, or said something that is no outcome.
    pub fn finish(mut self) -> anyhow::Result<Vec<Outcome>> {
        // It ends when its input does.
        drop(self.process.stdin.take());
        let outcomes = self.outcomes.take().context("the load is finished already")?.join();
        let outcomes = outcomes.map_err(|_| anyhow::anyhow!("failed to read what the load says"))??;
        let status = self.process.wait()?;
        ensure!(status.success(), "load: {status}");
        Ok(outcomes)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // Until it has answered what is under way; its status no longer matters.
        let _ = self.process.wait();
    }
}

/// Asks again and again until the answer is yes; after two minutes it fails with what the last
/// answer was instead.
///
/// # Errors
/// Where it stays no, or cannot be asked.
pub fn eventually<T>(what: &str, ask: impl Fn() -> anyhow::Result<Result<T, String>>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match ask()? {
            Ok(value) => {
                eprintln!("{:>6.1?}  {what}", begun.elapsed());
                return Ok(value);
            }
            Err(instead) if begun.elapsed() > PATIENCE => anyhow::bail!("waited in vain until {what}: {instead}"),
            Err(_) => std::thread::sleep(Duration::from_millis(250)),
        }
    }
}
