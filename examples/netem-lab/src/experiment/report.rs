//! What an experiment leaves behind: `report.json` and `requests.jsonl` for programs, `report.html`
//! for people.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use maud::html;
use serde::Serialize;

use super::column::Column;
use super::goal::Figure;
use super::measure::{Row, Sample, Stretch};
use super::{ExperimentError, page};
use crate::report::RttTable;

/// The machine that figures are of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// What the processors call themselves.
    pub processor: String,
    /// How many there are.
    pub processors: usize,
    /// How much memory there is.
    pub memory_gib: f64,
}

impl Machine {
    /// The machine this runs on. What it does not tell is empty.
    #[must_use]
    pub fn this_one() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let kib: f64 = field(&memory, "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
        Self {
            kernel: nix::sys::utsname::uname()
                .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned()),
            processor: field(&cpu, "model name"),
            processors: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory_gib: (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
        }
    }
}

/// All that an experiment found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)] // The names are the experiment's own.
pub struct Report {
    pub name: String,
    pub title: String,
    pub reproduces: String,
    pub differs: String,
    pub began_at_unix_seconds: f64,
    /// Without the cluster's coming up.
    pub seconds: f64,
    pub machine: Machine,
    /// Component to version.
    pub components: BTreeMap<String, String>,
    pub seed: u64,
    pub repeat: u32,
    /// Columns in the order in which they were run.
    pub order: Vec<Column>,
    pub columns: Vec<Column>,
    pub nodes: Vec<String>,
    pub phases: Vec<String>,
    pub injected_rtt_ms: RttTable,
    /// What the probers measured before the first column: medians.
    pub measured_rtt_ms: RttTable,
    pub figures: Vec<Figure>,
    pub rows: Vec<Row>,
    pub stretches: Vec<Stretch>,
    /// In a file of their own.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

impl Report {
    /// Writes the files into a folder, which is made if it is not there. Answers with the page.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, ExperimentError> {
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let json = serde_json::to_vec_pretty(self).map_err(|error| failed(folder)(error.into()))?;
        write(&folder.join("report.json"), &json)?;
        let mut lines = Vec::new();
        for sample in &self.samples {
            serde_json::to_writer(&mut lines, sample).map_err(|error| failed(folder)(error.into()))?;
            lines.write_all(b"\n").map_err(failed(folder))?;
        }
        write(&folder.join("requests.jsonl"), &lines)?;
        let path = folder.join("report.html");
        write(&path, page::page(self).as_bytes())?;
        Ok(path)
    }

    /// Whether every goal was reached.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.figures.iter().all(|figure| figure.ok)
    }

    /// In one line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let reached = self.figures.iter().filter(|figure| figure.ok).count();
        format!("{reached} of {} goals reached", self.figures.len())
    }
}

/// Writes a page that leads to the pages of experiments in folders beside it.
///
/// # Errors
/// When it cannot be written.
pub fn index_page(out: &Path, reports: &[Report]) -> Result<PathBuf, ExperimentError> {
    let body = html! {
        h1 { "Experiments" }
        section {
            table {
                thead { tr { th { "name" } th { "what" } th { "goals" } } }
                tbody {
                    @for report in reports {
                        tr {
                            td { a href=(format!("experiment-{}/report.html", report.name)) { (report.name) } }
                            td { (report.title) }
                            td class=(if report.is_ok() { "ok" } else { "short" }) { (report.verdict()) }
                        }
                    }
                }
            }
        }
    };
    std::fs::create_dir_all(out).map_err(failed(out))?;
    let path = out.join("experiments.html");
    write(&path, pictures::page("Experiments", &body).as_bytes())?;
    Ok(path)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ExperimentError> {
    std::fs::write(path, bytes).map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> ExperimentError {
    move |source| ExperimentError::File { action: "write", path: path.to_owned(), source }
}
