//! Knative Serving's own suites, run twice: with the stock class of autoscaler as the cluster's
//! default, and with ours. Whatever passes with the stock class has to pass with ours.
//!
//! The suites, and the programs that their pods run, are built from Serving's module at the pinned
//! version. The ingress is ours in every part, so that only the autoscaler differs. Settings are
//! those that upstream tests with, read from its module, where the lab's usual ones would change
//! what a test asks for. Tests that fit the stock class alone by construction are changed so that
//! they judge ours ([`enactment`]), and run as a part of their own.
//!
//! The suites run in the network of one node and send their requests to that node's gateway.

pub mod enactment;
mod programs;
pub mod report;
mod runner;
mod settings;
mod suites;
pub mod tracker;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use programs::ServingPrograms;
pub use suites::{Part, ServingSuite};

use super::logs;
use crate::cluster::{Cluster, ClusterError, Setting};
use crate::images::ImagesError;
use crate::report::ReportError;
use crate::state::StateError;
use local_control_plane::components::ComponentsError;
use local_control_plane::progress::Progress;

use report::SuiteResults;

/// The objects that the tests expect to be there: files of Serving's module.
const OBJECTS: [&str; 3] =
    ["test/config/cluster-resources.yaml", "test/config/test-resources.yaml", "test/config/resource-quota/resource-quota.yaml"];

/// Why the suites could not be run. A test that fails is no such error: it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum ServingSuiteError {
    /// The suites' programs are not to be had.
    #[error(transparent)]
    Components(#[from] ComponentsError),
    /// The images of their programs could not be written.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// A file of Serving's module is not there.
    #[error("failed to read {}", path.display())]
    Source {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of Serving's module is not what we take it for.
    #[error("failed to find settings in {}: {problem}", path.display())]
    Settings {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Serving's tests are written in another way than we know.
    #[error(transparent)]
    Enactment(#[from] enactment::EnactmentError),
    /// The cluster does not do what is needed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A suite could not be started, or its output not be read.
    #[error("failed to run {}", program.display())]
    Run {
        /// Its program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The names of a suite's tests are not to be had.
    #[error("failed to list the tests of {}: {problem}", program.display())]
    List {
        /// Its program.
        program: PathBuf,
        /// What it said.
        problem: String,
    },
    /// The state folder does not take what has to be removed later.
    #[error(transparent)]
    State(#[from] StateError),
    /// Results could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// How to run the suites.
#[derive(Clone, Debug)]
pub struct ServingSettings {
    /// This program, which starts others inside the lab.
    pub lab_binary: PathBuf,
    /// The class of ingress, in all parts.
    pub ingress_class: String,
    /// The suites.
    pub suites: Vec<ServingSuite>,
    /// Only tests whose names match this regular expression of Go's.
    pub only: Option<String>,
    /// Tests that run at the same time.
    pub parallel: usize,
    /// How long one test may be at work.
    pub test_limit: Duration,
    /// Where reports, and the suites' own words, go.
    pub folder: PathBuf,
}

/// The settings of Knative's with which the cluster of `part` comes up.
///
/// # Errors
/// When Serving's module has other files than we know.
pub fn knative_settings(programs: &ServingPrograms, part: Part) -> Result<Vec<Setting>, ServingSuiteError> {
    settings::of_part(&programs.source, part)
}

/// Runs the suites of one part on its cluster, and keeps the results of each when it is over.
///
/// # Errors
/// When a suite cannot be run at all.
pub async fn run_part(
    cluster: &mut Cluster,
    programs: &ServingPrograms,
    part: Part,
    settings: &ServingSettings,
    progress: &Progress,
) -> Result<(), ServingSuiteError> {
    let files: Vec<_> = OBJECTS.iter().map(|file| programs.source.join(file)).collect();
    cluster.apply_files(&files).await?;
    let mut failed = false;
    for suite in &settings.suites {
        let Some(program) = programs.tests(part, *suite) else { continue };
        let names = runner::list_tests(program, settings.only.as_deref()).await?;
        // The changed program has all tests of the suite, and a meaning for some.
        let fits = |name: &String| part != Part::Enacted || enactment::tests().any(|(test, _)| test == name);
        let names: Vec<_> = names.into_iter().filter(fits).collect();
        if names.is_empty() {
            continue;
        }
        let work = runner::Work { program, part, suite: *suite, names, image_template: &programs.image_template };
        let (tests, seconds) = runner::run(cluster, work, settings, progress).await?;
        failed |= tests.iter().any(|test| test.result == super::results::Outcome::Failed);
        let results = SuiteResults {
            part,
            suite: *suite,
            serving: ServingPrograms::version(),
            autoscaling_class: part.class().to_owned(),
            ingress_class: settings.ingress_class.clone(),
            parallel: settings.parallel,
            ended_at_unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            seconds,
            tests,
        };
        let earlier = settings.only.as_ref().and_then(|_| SuiteResults::read(&settings.folder, part, *suite));
        results.over(earlier).write(&settings.folder)?;
    }
    if failed && let Some(client) = cluster.client() {
        logs::save(&client, logs::ALL, &settings.folder.join(part.name()).join("diagnostics")).await?;
    }
    Ok(())
}
