//! Knative's own ingress conformance suite, run against our ingress on a running cluster.
//!
//! The suite and the programs that its pods run are built from the networking module at the version
//! that the pinned Serving uses. Stable, beta and alpha tests all run. Which tests there are is
//! read from the suite's own source ([`suite`]), so that one that never reports anything, because
//! the suite broke down before it, is in the [`report`] as failed and not missing from it.
//!
//! The suite runs in the network of one node and asks for the gateways at that node's port for each
//! port of their Service. A gateway on another node may get such a request, too, which is right: an
//! Ingress is Ready when all of them serve it.

mod logs;
mod process;
pub mod programs;
pub mod report;
pub mod results;
pub mod serving;
pub mod suite;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cluster::{Cluster, launch};
use crate::images::ImagesError;
use crate::report::ReportError;
use crate::state::StateError;
use local_control_plane::components::ComponentsError;
use local_control_plane::progress::Progress;

use process::SuiteProcess;
use programs::IngressPrograms;
use report::IngressReport;
use results::{Line, Results, read_line};
use suite::{GO_TEST, IngressSuite, SuiteError};

/// The namespace in which the suite makes its objects; it expects it to be there.
const NAMESPACE: &str = "serving-tests";

/// The default nodes: near each other, so that what is measured is the ingress
/// and not the wire.
pub const SCENARIO: &str = include_str!("../scenarios/conformance.toml");

/// The suite gives up a test after at most ten minutes; several run at the same time.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(40 * 60);

/// Why the suite could not be run. A test that fails is no such error: it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// The suite's programs are not available.
    #[error(transparent)]
    Components(#[from] ComponentsError),
    /// The images of its programs could not be written.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// Its source is not what we take it for.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// The cluster is down.
    #[error("failed to run the conformance suite: the cluster is down")]
    NoCluster,
    /// Its namespace could not be made.
    #[error("failed to make namespace {NAMESPACE}")]
    Namespace {
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The suite could not be started, or its output not be read.
    #[error("failed to run {}", program.display())]
    Run {
        /// Its program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state folder does not take what has to be removed later.
    #[error(transparent)]
    State(#[from] StateError),
    /// The report could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// How to run the suite.
#[derive(Clone, Debug)]
pub struct IngressSettings {
    /// This program, which starts others inside the lab.
    pub lab_binary: PathBuf,
    /// The class of ingress to test.
    pub ingress_class: String,
    /// Only the tests whose names begin so; all of them otherwise. The others are left out of the
    /// report, which then says so.
    pub only: Option<String>,
    /// Tests that run at the same time; as many as there are processors otherwise.
    pub parallel: Option<usize>,
    /// Where the report and the suite's own words go.
    pub folder: PathBuf,
}

/// Runs the suite on `cluster` and writes `report.json` and `suite.log`.
///
/// # Errors
/// When it cannot be run at all.
pub async fn run(
    cluster: &mut Cluster,
    programs: &IngressPrograms,
    settings: &IngressSettings,
    progress: &Progress,
) -> Result<IngressReport, ConformanceError> {
    let client = cluster.client().ok_or(ConformanceError::NoCluster)?;
    let kubeconfig = cluster.kubeconfig().ok_or(ConformanceError::NoCluster)?.to_owned();
    let node = cluster.nodes().first().cloned().ok_or(ConformanceError::NoCluster)?;
    let suite = IngressSuite::read(&programs.suite_source)?.only(settings.only.as_deref());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace =
        Namespace { metadata: ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() }, ..Namespace::default() };
    match namespaces.create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(source) => return Err(ConformanceError::Namespace { source: Box::new(source) }),
        Ok(_) => {}
    }

    std::fs::create_dir_all(&settings.folder).map_err(|source| ReportError { path: settings.folder.clone(), source })?;
    let failed_to_run = |source| ConformanceError::Run { program: programs.suite.clone(), source };
    let mut command = launch::inside(&settings.lab_binary, &cluster.helpers_cgroup(), Some(&node.netns), &programs.suite);
    command
        // Marks what is said about tests, and says it at once.
        .arg("-test.v=test2json")
        .arg(format!("-test.timeout={}s", GIVEN_UP_AFTER.as_secs()))
        .args(["-enable-beta", "-enable-alpha"])
        .arg(format!("-kubeconfig={}", kubeconfig.display()))
        .arg(format!("-ingressClass={}", settings.ingress_class))
        .arg(format!("-ingressendpoint={}", node.ip))
        .arg(format!("-imagetemplate={}", programs.image_template));
    if let Some(parallel) = settings.parallel {
        command.arg(format!("-test.parallel={parallel}"));
    }
    if settings.only.is_some() {
        command.arg(format!("-test.run={}", suite.pattern()));
    }
    let began = Instant::now();
    let mut process = SuiteProcess::start(command).map_err(failed_to_run)?;
    if let Some(pid) = process.id() {
        cluster.state().record_process("conformance suite", pid)?;
    }
    let results = follow(&mut process.lines, &suite, &settings.folder.join("suite.log"), progress).await?;
    let ended = process.wait().await.map_err(failed_to_run)?;
    progress.line(format_args!("the suite ended with {ended} after {:.0} s", began.elapsed().as_secs_f64()));
    let report = IngressReport::new(&suite, &results, began.elapsed().as_secs_f64());
    report.write(&settings.folder.join("report.json"))?;
    if !report.all_passed() {
        logs::save(&client, logs::INGRESS, &diagnostics_folder(&settings.folder)).await?;
    }
    Ok(report)
}

/// Where a run in which a test failed leaves the logs of our ingress and its gateways.
#[must_use]
pub fn diagnostics_folder(folder: &Path) -> PathBuf {
    folder.join("diagnostics")
}

/// Reads the output of the suite to its end, logs it, and reports tests that begin and end.
async fn follow(
    lines: &mut mpsc::Receiver<String>,
    suite: &IngressSuite,
    log_file: &Path,
    progress: &Progress,
) -> Result<Results, ConformanceError> {
    let failed = |source| ReportError { path: log_file.to_owned(), source };
    let mut log = File::create(log_file).map_err(failed)?;
    let mut results = Results::default();
    while let Some(line) = lines.recv().await {
        writeln!(log, "{}", line.trim_start_matches('\u{16}')).map_err(failed)?;
        let Some(heard) = read_line(&line).and_then(|heard| heard.within(GO_TEST)) else { continue };
        if suite.level_of(heard.name()).is_none() {
            continue;
        }
        match &heard {
            Line::Began { .. } | Line::Paused { .. } => {}
            Line::Continued { name } => progress.line(format_args!("{name}: begins")),
            Line::Ended { name, outcome, seconds } => {
                let done = results.count() + 1;
                progress.line(format_args!("{name}: {outcome} after {seconds:.1} s ({done} of {})", suite.len()));
            }
        }
        results.take(heard);
    }
    Ok(results)
}
